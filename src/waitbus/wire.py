"""The wire protocol, version 1: encodes and decodes the frames of both sides.

Sans-I/O: this uses no socket, no clock and no database. The size of input is checked before it is parsed. The rules are
in docs/contract.md, section 4, and docs/wire.md. `tests/vectors` holds answers recorded from 0.2.0's daemon.
"""

from __future__ import annotations

import json
import re

from waitbus.event import MAX_FIELDS_DEPTH, MAX_NAME_BYTES, WaitbusError, one_line
from waitbus.json_text import from_json, is_deeper, to_json
from waitbus.predicate import MAX_DEPTH, Predicate, PredicateError
from waitbus.ulid import is_ulid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

PROTO = 1
MAX_FRAME_BYTES = 65536
HEADER_BYTES = 4
# The default interval of heartbeats, and the shortest that a subscriber may ask for.
HEARTBEAT_SEC = 60
HEARTBEAT_MIN_SEC = 1
FIRST_FRAME_SEC = 10
MAX_FILTERS = 64
MAX_EVENT_TYPES = 256
# A frame holds `fields`. Deeper JSON is not parsed, because Python versions differ in how deep they can go.
MAX_FRAME_DEPTH = MAX_FIELDS_DEPTH + 1
FEATURES = ("match", "caught_up", "heartbeat_sec", "status")

_FILTER = re.compile(r"([A-Za-z0-9_.-]+/([A-Za-z0-9_.-]+|\*)|\*)")


class WireError(WaitbusError, ValueError):
    """The bytes are not a frame that docs/wire.md allows. The hub closes the connection without an answer."""


class TooDeep(WireError):
    """A frame is nested deeper than `MAX_FRAME_DEPTH`."""


class Rejected(WaitbusError):
    """The hub answers a first frame with `subscribe_rejected` and ends. `frame` is that answer."""

    def __init__(self, reason: str, remediation: str, supported: list[int] | None = None) -> None:
        super().__init__(f"{reason}: {remediation}")
        self.frame = {
            "reason": reason,
            "remediation": remediation,
            "supported": supported,
            "kind": "subscribe_rejected",
        }


def encode(frame: Mapping[str, Any]) -> bytes:
    """Encode one frame with its header. Raises `WireError` if it is too large or JSON cannot express it."""
    try:
        try:
            body = to_json(frame).encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
            body = _ENCODE_ASCII(frame).encode("ascii")
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"frame cannot be written as JSON: {error}") from None
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"frame of {len(body)} bytes exceeds the limit of {MAX_FRAME_BYTES}")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


_ENCODE_ASCII = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def decode(body: bytes) -> dict[str, Any]:
    """Decode the JSON object in one frame's body. Raises `WireError` for anything else."""
    try:
        text = body.decode("utf-8")
        if is_deeper(text, MAX_FRAME_DEPTH):
            raise TooDeep(f"frame is nested deeper than {MAX_FRAME_DEPTH}")
        value = from_json(text)
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError(f"frame is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise WireError("frame is not a JSON object")
    return value


def event_id_in(body: bytes) -> str | None:
    """Return the event_id in a frame's body that `decode` rejects, or None. Frames of a hub start with the event_id."""
    found = _EVENT_ID.match(body)
    return found[1].decode("ascii") if found else None


_EVENT_ID = re.compile(rb'\s*\{\s*"event_id"\s*:\s*"([0-9A-HJKMNP-TV-Z]{26})"')


class Decoder:
    """Splits a byte stream, which may arrive in pieces of any size, into the bodies of frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and return the bodies of the frames that they complete.

        Raises `WireError` for a frame length outside 1..65536. If there are complete frames before it, they are
        returned first, and the next call raises, even if it is given no bytes.
        """
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            length = int.from_bytes(buffer[start : start + HEADER_BYTES], "big")
            if not 0 < length <= MAX_FRAME_BYTES:
                if bodies:
                    break
                raise WireError(f"frame length {length} is outside 1..{MAX_FRAME_BYTES}")
            end = start + HEADER_BYTES + length
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + HEADER_BYTES : end]))
            start = end
        if start:
            del buffer[:start]
        return bodies

    @property
    def pending(self) -> int:
        """The number of bytes held of an incomplete frame."""
        return len(self._buffer)


class SubscribeRequest:
    """What a subscriber asks for in its first frame, checked.

    `filters`, `event_types` and `match` become one predicate. `heartbeat_sec` is within its limits. `status` asks who
    else is subscribed.
    """

    __slots__ = ("caught_up", "heartbeat_sec", "match", "predicate", "since", "status")

    def __init__(
        self,
        since: str | None,
        predicate: Predicate | None,
        caught_up: bool,
        heartbeat_sec: int,
        status: bool = False,
    ) -> None:
        self.predicate = predicate
        self.status = status
        self.since = since
        self.caught_up = caught_up
        self.heartbeat_sec = heartbeat_sec


def first_frame(body: bytes) -> SubscribeRequest:
    """Decode and check the body of a first frame. Raises as `parse_subscribe_request` does."""
    try:
        return parse_subscribe_request(decode(body))
    except TooDeep as error:
        if b'"match"' in body:  # the only key in which a client has a reason to nest
            raise Rejected("match", f"nest predicates at most {MAX_DEPTH} deep") from error
        raise


def parse_subscribe_request(frame: Mapping[str, Any]) -> SubscribeRequest:
    """Check a first frame. Raises `Rejected` for an unknown version or an invalid `match`, `WireError` for the rest."""
    proto = frame.get("proto", PROTO)
    if type(proto) is not int or proto != PROTO:
        raise Rejected("version", f"speak protocol {PROTO}, or update waitbus", [PROTO])
    if frame.get("envelope", "diffs") != "diffs":
        raise WireError("envelope is not 'diffs'")
    since = frame.get("since")
    if since is not None and not is_ulid(since):
        raise WireError("since is not a ULID")
    filters = _text_list(frame, "filters")
    if len(filters) > MAX_FILTERS or not all(_FILTER.fullmatch(item) for item in filters):
        raise WireError("filters are not owner/repo, owner/* or *")
    nodes = [
        _filter_node(filters),
        _types_node(_text_list(frame, "event_types")),
        _match_node(frame.get("match")),
    ]
    heartbeat = _heartbeat(frame.get("heartbeat_sec"))
    caught_up, status = frame.get("caught_up") is True, frame.get("status") is True
    return SubscribeRequest(since, _conjunction(nodes), caught_up, heartbeat, status)


def _heartbeat(asked: object) -> int:
    """Return a subscriber's interval: what it asked for, within limits, or the default if that is not a number."""
    if isinstance(asked, bool) or not isinstance(asked, int | float):
        return HEARTBEAT_SEC
    return int(max(HEARTBEAT_MIN_SEC, min(asked, HEARTBEAT_SEC)))


def _text_list(frame: Mapping[str, Any], key: str) -> list[str]:
    value = frame.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise WireError(f"{key} is not a list of texts")
    return value


def _filter_node(filters: Iterable[str]) -> dict[str, Any] | None:
    nodes = []
    for item in filters:
        if item == "*":
            return None
        owner, repo = item.split("/")
        leaf = {"key": "owner", "op": "eq", "value": owner}
        nodes.append(leaf if repo == "*" else {"all": [leaf, {"key": "repo", "op": "eq", "value": repo}]})
    return {"any": nodes} if nodes else None


def _types_node(types: Iterable[str]) -> dict[str, Any] | None:
    wanted = dict.fromkeys(types)
    if len(wanted) > MAX_EVENT_TYPES or any(len(item) > MAX_NAME_BYTES for item in wanted):
        raise WireError(f"more than {MAX_EVENT_TYPES} event types, or one longer than {MAX_NAME_BYTES} bytes")
    nodes = [{"key": "event_type", "op": "eq", "value": item} for item in wanted]
    return {"any": nodes} if nodes else None


def _match_node(match: object) -> dict[str, Any] | None:
    if match is None:
        return None
    try:
        return Predicate.from_object(match).as_object
    except PredicateError as error:
        raise Rejected("match", str(error)) from None


def _conjunction(nodes: Iterable[dict[str, Any] | None]) -> Predicate | None:
    """Combine checked nodes into one predicate. `from_object` would count `filters` against the limits of `match`."""
    present = [node for node in nodes if node is not None]
    if not present:
        return None
    return Predicate(present[0] if len(present) == 1 else {"all": present})


def subscribe_frame(
    *,
    since: str | None = None,
    match: Predicate | None = None,
    filters: Iterable[str] = (),
    event_types: Iterable[str] = (),
    caught_up: bool = False,
    heartbeat_sec: int | None = None,
    status: bool = False,
) -> dict[str, Any]:
    """Build the first frame that a client sends.

    `caught_up` asks for a marked heartbeat at the end of replay, `heartbeat_sec` for heartbeats at that interval,
    `status` for one frame that lists the other subscribers.
    """
    frame: dict[str, Any] = {"proto": PROTO}
    if filters:
        frame["filters"] = list(filters)
    if event_types:
        frame["event_types"] = list(event_types)
    if since is not None:
        frame["since"] = since
    if match is not None:
        frame["match"] = match.as_object
    if caught_up:
        frame["caught_up"] = True
    if heartbeat_sec is not None:
        frame["heartbeat_sec"] = heartbeat_sec
    if status:
        frame["status"] = True
    return frame


def ack_frame(
    caught_up_at: str | None, heartbeat_sec: int | None = None, *, served: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Build the hub's first answer to a valid first frame.

    `caught_up_at` is the id of the last event of the replay; None without `since`. `heartbeat_sec` is the interval of
    this subscriber's heartbeats; None means the default. `served` is the store's absolute path, without symbolic links,
    and the hub's version.
    """
    frame: dict[str, Any] = {
        "proto": PROTO,
        "caught_up_at": caught_up_at,
        "heartbeat_sec": HEARTBEAT_SEC if heartbeat_sec is None else heartbeat_sec,
        "max_frame_bytes": MAX_FRAME_BYTES,
        "features": list(FEATURES),
    }
    if served is not None:
        frame["store"], frame["version"] = served
    frame["kind"] = "subscribe_ack"
    return frame


def heartbeat_frame(ts: int, uptime_sec: int, *, cursor: str | None = None, caught_up: bool = False) -> dict[str, Any]:
    """Build a heartbeat. `ts` is in seconds since the epoch.

    `cursor` is the id of the last event that was compared with this subscription, so that the client can resume there
    even if nothing matched. `caught_up` marks the end of replay for a subscriber that asked for it.
    """
    frame: dict[str, Any] = {"ts": ts, "uptime_sec": uptime_sec}
    if cursor is not None:
        frame["cursor"] = cursor
    if caught_up:
        frame["caught_up"] = True
    frame["kind"] = "daemon_heartbeat"
    return frame


def status_frame(subscribers: int, waiters: list[dict[str, Any]]) -> dict[str, Any]:
    """Build the answer to `status`: how many others are subscribed, and as many of them as fit, oldest first."""
    return {"subscribers": subscribers, "waiters": waiters, "kind": "hub_status"}


def truncated_frame(event_id: str, correlation_id: str | None) -> dict[str, Any]:
    """Build the frame that is sent instead of an event that is too large. The client can read that from the store."""
    return {
        "event_id": event_id,
        "reason": "frame_too_large",
        "correlation_id": correlation_id,
        "max_frame_bytes": MAX_FRAME_BYTES,
        "kind": "truncated",
    }


def lag_frame() -> dict[str, Any]:
    """Build the last frame for a subscriber that is evicted for lag."""
    return Rejected("lag_limit_exceeded", "reconnect with since set to the last event_id you saw").frame


def store_frame(remediation: str, *, damaged: bool) -> dict[str, Any]:
    """Build the last frame for a subscriber for which the store cannot be read. `remediation` says what to do."""
    return Rejected("store_damaged" if damaged else "store_unreadable", one_line(remediation, 1000)).frame


def encode_event(frame: Mapping[str, Any]) -> bytes:
    """Encode an event frame, or its `truncated` frame if it is too large or holds a value that JSON cannot express.

    Raises `WireError` only if JSON cannot express the `event_id`.
    """
    if frame.get("kind") != "truncated":
        try:
            return encode(frame)
        except WireError:
            pass  # too large, or written by a foreign program
    event_id, correlation = frame["event_id"], frame["fields"].get("msg_correlation_id")
    try:
        return encode(truncated_frame(event_id, correlation if isinstance(correlation, str) else None))
    except WireError:
        return encode(truncated_frame(event_id, None))
