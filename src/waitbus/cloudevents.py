"""Converts events to CloudEvents 1.0 and back. Our own come back without loss, and those of others are accepted.

Pure: no I/O, no clock. The mapping is id = `event_id`, source = ``urn:waitbus:source:NAME``, type = `event_type`,
time = `received_at`, data = the rest.
"""

from __future__ import annotations

import json

from waitbus.event import FIELD_COLUMNS
from waitbus.timestamps import parse_time, rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

URN = "urn:waitbus:source:"
# The attributes in the specification. Any other name at the top level is an extension.
_CONTEXT = frozenset(
    {"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "data", "data_base64"}
)
_URN_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/")
_HEX = frozenset(b"0123456789ABCDEFabcdef")
# A foreign program may store an event without a source or type; a CloudEvent has both.
_UNKNOWN = "unknown"
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def to_cloudevent(frame: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an event frame to a CloudEvent."""
    return {
        "specversion": "1.0",
        "id": frame["event_id"],
        "source": URN + _quoted(str(frame["fields"].get("source") or _UNKNOWN)),
        "type": frame["event_type"] or _UNKNOWN,
        "time": rfc3339(frame["received_at"]),
        "datacontenttype": "application/json",
        "data": {key: frame[key] for key in ("owner", "repo", "delivery_id", "summary", "fields")},
    }


def from_cloudevent(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `EventInsert` for a CloudEvent. Raises ``ValueError`` if it is not one of version 1.

    By the specification `source` and `id` together identify an event, so they make the `delivery_id`. The extensions
    become fields, and so does the data if it is an object. The whole CloudEvent becomes the payload.
    """
    if not str(event["specversion"]).startswith("1."):
        raise ValueError(f"specversion {event['specversion']!r}: only CloudEvents 1.0 is known")
    for name in ("id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise ValueError(f"{name} is missing: a CloudEvent takes non-empty text there")
    given: dict[str, Any] = {"event_type": event["type"]}
    if event.get("time") is not None:
        given["received_at"] = parse_time(str(event["time"]))
    data = event.get("data")
    if event["source"].startswith(URN):
        given["source"] = _unquoted(event["source"].removeprefix(URN))
        if isinstance(data, dict) and isinstance(data.get("fields"), dict):
            return {**given, **_ours(data)}
    else:
        given["source"] = event["source"]
    given["delivery_id"] = f"{event['source']}#{event['id']}"
    if isinstance(event.get("subject"), str):
        given["summary"] = event["subject"]
    given["payload_json"] = _encode(event)
    given["fields"] = fields = {name: value for name, value in event.items() if name not in _CONTEXT}
    if isinstance(data, dict):
        fields.update(data)
        # A value of another type than our column of that name (a numeric `status`, for example) is kept in `data`.
        misfits = {name: fields.pop(name) for name in FIELD_COLUMNS if not _fits(name, fields.get(name))}
        if misfits:
            fields["data"] = misfits
    elif data is not None:
        fields["data"] = data
    return given


def _quoted(name: str) -> str:
    """Quote `name` as the last part of a URN (RFC 8141): a CloudEvent's source is a URI."""
    # Not `urllib`, which would bring half the network along.
    return "".join([char if char in _URN_CHARS else _percent(char) for char in name])


def _percent(char: str) -> str:
    return "".join([f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass")])


def _unquoted(text: str) -> str:
    if "%" not in text:
        return text
    first, *parts = text.encode("utf-8", "surrogatepass").split(b"%")
    found = [first]
    for part in parts:
        quotes = len(part) > 1 and _HEX.issuperset(part[:2])
        found.append(bytes((int(part[:2], 16),)) + part[2:] if quotes else b"%" + part)
    return b"".join(found).decode("utf-8", "replace")


def _fits(name: str, value: object) -> bool:
    return value is None or type(value) is FIELD_COLUMNS[name]


def _ours(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the remaining arguments for an event that waitbus wrote."""
    given = {key: data[key] for key in ("owner", "repo", "delivery_id", "summary") if data.get(key) is not None}
    given["fields"] = data["fields"]
    if isinstance(data["fields"].get("ingest_method"), str):
        given["ingest_method"] = data["fields"]["ingest_method"]
    return given
