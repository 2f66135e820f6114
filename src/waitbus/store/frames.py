"""Turns a row of the store into an event frame, whatever a foreign program put into the row.

A foreign program may have written blobs, broken UTF-8, numbers for text or text for numbers, or values beyond the
limits for our own writers (`MAX_FIELDS_BYTES` and the like). Every frame can be written as JSON and has the keys and
types of docs/wire.md. A row beyond the limits becomes a frame of kind ``truncated``: it holds the values of the
columns, with long ones cut, and not the natural fields.
"""

from __future__ import annotations

import math
from operator import itemgetter

from waitbus.event import FIELD_COLUMNS, MAX_FIELDS_BYTES, MAX_FIELDS_DEPTH, MAX_NAME_BYTES
from waitbus.json_text import from_json, is_deeper
from waitbus.store.fields import default_summary
from waitbus.ulid import decode_ulid, encode_ulid, is_ulid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Row = tuple[Any, ...]
    # What all rows of one signature share: which columns of `_REST` are set, and a getter of their texts.
    Shape = tuple[tuple[tuple[int, str], ...], Callable[[Row], tuple[str, ...]]]

# A derived id is a ULID of the row's time, with the `seq` in place of the 80 random bits. A `seq` has 63 bits, so the
# first 17 bits are zero, and so are the first three characters after the time.
_ENTROPY_BITS = 80
MAX_SEQ = (1 << 63) - 1
_TIME_CHARS = 10
_DERIVED_START = "000"
# If all texts of a row together have at most this many characters, every name is within its limit.
_SURELY_NAMES = MAX_NAME_BYTES // 4
# The columns of a row as it is read, in this order. `frame_of` unpacks them.
_HEAD = ("seq", "event_id", "event_type", "owner", "repo", "received_at", "delivery_id", "summary", "fields_json")
_ALWAYS = ("source", "ingest_method", "status", "conclusion")
_REST = tuple(name for name in FIELD_COLUMNS if name not in _ALWAYS)
NAMES = (*_HEAD, *_ALWAYS, *_REST)
_REST_AT = len(_HEAD) + len(_ALWAYS)
# The end of a text that was cut. It is not ASCII, so `prefilter` never compares with it in SQL.
CUT = "…"

# The types that each column may have for a row to be used as it is.
_TEXT: frozenset[type] = frozenset({str})
_TEXT_OR_NULL: frozenset[type] = frozenset({str, type(None)})
KINDS: dict[str, frozenset[type]] = {
    **dict.fromkeys(("event_id", "event_type", "owner", "repo", "delivery_id", "source", "ingest_method"), _TEXT),
    **dict.fromkeys(("summary", "fields_json", "status", "conclusion"), _TEXT_OR_NULL),
    **{name: frozenset({kind, type(None)}) for name, kind in FIELD_COLUMNS.items()},
    "seq": frozenset({int}),
    "received_at": frozenset({int}),
}
# A cache: the types of a row's values -> the shape of such rows, or None if they must be mended.
_signatures: dict[tuple[type, ...], Shape | None] = {}
_SIGNATURES = 1024


def frame_of(row: Row, *, cut: bool = False) -> tuple[dict[str, Any], int]:
    """Return a row as an event frame, and how many characters of text the row holds.

    `cut` says that a value of the row was cut on reading, because it exceeds its limit.
    """
    signature = tuple(map(type, row))
    try:
        shape = _signatures[signature]
    except KeyError:
        shape = _learn(signature)
    if shape is None or not is_ulid(row[1]):
        row = _mend(row)
        shape = _shape_of(tuple(map(type, row)))
    (_, event_id, event_type, owner, repo, received_at, delivery_id, summary, natural, source, method, status, end) = (
        row[:_REST_AT]
    )
    present, texts_of = shape
    chars = sum(map(len, texts_of(row)))
    if chars > _SURELY_NAMES:
        names = (event_type, owner, repo, delivery_id, source, method)
        if not all(map(_is_name, names)):
            cut = True
            event_type, owner, repo, delivery_id, source, method = map(_as_name, names)
    fields: dict[str, Any] = {
        "source": source,
        "event_type": event_type,
        "owner": owner,
        "repo": repo,
        "ingest_method": method,
        "status": status,
        "conclusion": end,
    }
    for index, name in present:
        fields[name] = row[index]
    if natural is not None and not cut:
        added = _natural(natural)
        cut = added is None
        for name, value in (added or {}).items():
            if name not in fields and name not in FIELD_COLUMNS:  # a column goes before a natural field of its name
                fields[name] = value
    frame = {
        "event_id": event_id,
        "event_type": event_type,
        "owner": owner,
        "repo": repo,
        "received_at": received_at,
        "delivery_id": delivery_id,
        "summary": summary or default_summary(fields),
        "fields": fields,
        "kind": "truncated" if cut else "event",
    }
    return frame, chars


def _learn(signature: tuple[type, ...]) -> Shape | None:
    sound = all(kind in KINDS[name] for name, kind in zip(NAMES, signature, strict=True))
    shape = _shape_of(signature) if sound else None
    if len(_signatures) >= _SIGNATURES:
        _signatures.clear()
    _signatures[signature] = shape
    return shape


def _shape_of(signature: tuple[type, ...]) -> Shape:
    present = [(index, NAMES[index]) for index in range(_REST_AT, len(NAMES)) if signature[index] is not type(None)]
    return tuple(present), itemgetter(*[index for index, kind in enumerate(signature) if kind is str])


def _is_name(text: str) -> bool:
    return len(text) <= MAX_NAME_BYTES and (text.isascii() or len(text.encode("utf-8", "replace")) <= MAX_NAME_BYTES)


def _as_name(text: str) -> str:
    return text if _is_name(text) else text[: MAX_NAME_BYTES // 4] + CUT


def _mend(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the row with every value converted to the type of its column, as well as the value allows."""
    mended = []
    for name, value in zip(NAMES, row, strict=True):
        kinds = KINDS[name]
        if type(value) in kinds:
            mended.append(value)
        elif str in kinds:
            mended.append(as_text(value) if value is not None or kinds is _TEXT else None)
        else:
            number = _as_int(value)
            mended.append(number if number is not None or name != "received_at" else 0)
    if type(row[1]) is not str or not is_ulid(mended[1]):
        mended[1] = derived_id(mended[5], row[0])
    return tuple(mended)


def derived_id(received_at: int, seq: int) -> str:
    """Return the ULID of a row whose writer gave none. It is made of time and `seq`, so all readers get the same."""
    return encode_ulid((max(0, received_at) // 1_000_000 << _ENTROPY_BITS | seq) & (1 << 128) - 1)


def derived_seq(event_id: str) -> int | None:
    """Return the `seq` in an id that `derived_id` may have made, or None if it cannot have made it."""
    if not is_ulid(event_id) or not event_id.startswith(_DERIVED_START, _TIME_CHARS):
        return None
    return decode_ulid(event_id) & MAX_SEQ


def decode(value: bytes) -> str:
    """Decode UTF-8. Invalid bytes become U+FFFD."""
    return value.decode("utf-8", "replace")


def as_text(value: object) -> str:
    """Return any value that a text column may hold as text. Invalid UTF-8 becomes U+FFFD, and NULL is empty."""
    if value is None:
        return ""
    return decode(value) if isinstance(value, bytes) else str(value)


def _as_int(value: object) -> int | None:
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    return None


def _natural(text: str) -> dict[str, Any] | None:
    """Parse the natural fields. Returns {} if the text is not a JSON object, and None if it exceeds a limit."""
    if len(text) > MAX_FIELDS_BYTES or is_deeper(text, MAX_FIELDS_DEPTH):
        return None
    try:
        value = from_json(text)
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    if len(text) > _SURELY_NAMES and not all(map(_is_name, value)):
        return None
    return value
