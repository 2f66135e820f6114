"""Events: their vocabulary, their shape in memory, and the ULIDs that name them.

Pure: no I/O, no clock, no state of the module's own. Time and randomness are handed in.
No ``dataclasses`` and no ``typing`` at run time: ``waitbus emit`` loads this file, and its start-up is a budget.
"""

from __future__ import annotations

import json
import json.encoder
import math
from itertools import accumulate, repeat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class WaitbusError(Exception):
    """Base of every error this package raises on purpose. Its text is one line that says what to do next."""


# Fields that have a column of their own in the store, with the type SQLite and the wire give them.
FIELD_COLUMNS: dict[str, type] = {
    "run_id": int,
    "workflow_name": str,
    "head_branch": str,
    "head_sha": str,
    "status": str,
    "conclusion": str,
    "job_id": int,
    "job_name": str,
    "parent_run_id": int,
    "alert_name": str,
    "alert_severity": str,
    "alert_fingerprint": str,
    "msg_to": str,
    "msg_from": str,
    "msg_correlation_id": str,
    "msg_reply_to": str,
    "msg_thread": str,
    "msg_body": str,
}
# Fields that every event carries on the wire, null where unknown.
ALWAYS_FIELDS = ("source", "event_type", "owner", "repo", "ingest_method", "status", "conclusion")
# Natural names of single sources: kept in `fields_json`, readable in SQL as generated columns.
NATURAL_FIELDS: dict[str, type] = {
    "container_id": str,
    "container_name": str,
    "image": str,
    "exit_code": int,
    "action": str,
    "path": str,
    "name": str,
    "change": str,
    "passed": int,
    "failed": int,
    "errors": int,
    "skipped": int,
    "duration_s": float,
    "nodeids_failed": list,
    "exit_status": int,
    "rootdir": str,
    "pid": int,
    "argv": list,
    "signal": int,
    "tail": str,
}
# Bounds of what is written; a reader gives a row past them as `truncated`. All in bytes of UTF-8 but the depth, which
# counts the object `fields` itself as the first level.
MAX_FIELDS_BYTES = 256 << 10
MAX_FIELDS_DEPTH = 64
MAX_NAME_BYTES = 1 << 10
MAX_PAYLOAD_BYTES = 16 << 20
MAX_SUMMARY_BYTES = 64 << 10
# The `ingest_method` of history: what had happened before anybody here looked. It is stored and replayed, never told as
# news, and its time is `received_at`; the time of everything else is that of its `event_id`, when it was written.
HISTORY_METHODS = ("import", "backfill")
# Keys at the top of an event frame; every other undotted key means `fields.KEY`.
FRAME_KEYS = (
    "event_id",
    "event_type",
    "owner",
    "repo",
    "received_at",
    "delivery_id",
    "summary",
    "fields",
)

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ULID_LENGTH = 26
ULID_MIN = "0" * ULID_LENGTH
_ENTROPY_BITS = 80
_ENTROPY_MASK = (1 << _ENTROPY_BITS) - 1
_BATCH_MASK = (1 << 20) - 1
_PAIRS = [a + b for a in CROCKFORD for b in CROCKFORD]
_CROCKFORD_SET = frozenset(CROCKFORD)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _no_default(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is no JSON value")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
# CPython's encoder, made once: `JSONEncoder.encode` makes one for every call, which is a third of what it costs.
_make_encoder = getattr(json.encoder, "c_make_encoder", None)
_encode_chunks = _make_encoder and _make_encoder(
    None, _no_default, json.encoder.encode_basestring, None, ":", ",", False, False, False
)


def to_json(value: object) -> str:
    """`value` as compact JSON, not escaped beyond need.

    Raises ``ValueError`` (NaN, infinity), ``TypeError`` (no JSON value) or ``RecursionError`` (too deep, or circular).
    """
    if _encode_chunks is None:
        return _ENCODER.encode(value)
    return "".join(_encode_chunks(value, 0))


def from_json(text: str) -> Any:
    """The one JSON value in `text`, all numbers finite. Raises ``ValueError``, or ``RecursionError`` when too deep."""
    try:
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    except json.JSONDecodeError:
        pass  # maybe only for white space before it
    return _DECODER.decode(text)


def is_deeper(text: str, limit: int) -> bool:
    """Whether the JSON in `text` is nested deeper than `limit`, found without parsing it. A bare value has depth 0."""
    return text.count("[") + text.count("{") > limit and depth_of(text) > limit


def depth_of(text: str) -> int:
    """How deep the JSON in `text` is nested, found without parsing it."""
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    outside_strings = "".join(text.split('"')[::2])
    return max(accumulate(map(_STEPS.get, outside_strings, repeat(0))), default=0)


_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def is_ulid(text: object) -> bool:
    """Whether `text` has the form of a ULID: 26 characters of Crockford's upper-case base 32."""
    return isinstance(text, str) and len(text) == ULID_LENGTH and _CROCKFORD_SET.issuperset(text)


def encode_ulid(value: int) -> str:
    """A 128-bit number as 26 characters of Crockford's base 32 (two at a time: it is on the ingest path)."""
    pairs = _PAIRS
    return "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def ulid_at(unix_ns: int) -> str:
    """The smallest ULID of the millisecond that holds `unix_ns`: a cursor for "from this time on"."""
    return encode_ulid(max(0, unix_ns // 1_000_000) << _ENTROPY_BITS)


def decode_ulid(ulid: str) -> int:
    """The number that a well-formed ULID, or the first characters of one, stands for."""
    value = 0
    for char in ulid:
        value = value << 5 | CROCKFORD.index(char)
    return value


def ulid_ms(ulid: str) -> int:
    """Milliseconds since the epoch that a well-formed ULID carries."""
    return decode_ulid(ulid[:10])


def is_history(frame: Mapping[str, Any]) -> bool:
    """Whether an event frame tells of the past only: see `HISTORY_METHODS`."""
    return frame["fields"].get("ingest_method") in HISTORY_METHODS


def happened_ms(frame: Mapping[str, Any]) -> int:
    """When an event counts as new, in milliseconds since the epoch: `received_at` of history, else its id's time."""
    if not is_history(frame):
        return ulid_ms(frame["event_id"])
    received_at = frame.get("received_at")
    return received_at // 1_000_000 if type(received_at) is int else 0


class UlidFactory:
    """Makes ULIDs that are unique and rise within one process, even when the clock stands still or is set back.

    `clock_ns` gives nanoseconds since the epoch, `entropy` gives n random bytes. Not thread-safe: its owner locks.
    """

    __slots__ = ("_clock_ns", "_entropy", "_last")

    def __init__(self, clock_ns: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._clock_ns = clock_ns
        self._entropy = entropy
        self._last = 0

    def __call__(self) -> str:
        now_ms = self._clock_ns() // 1_000_000
        last = self._last
        if now_ms > last >> _ENTROPY_BITS:
            # The top bit of the random part starts clear, so that counting up has room within a millisecond.
            last = now_ms << _ENTROPY_BITS | int.from_bytes(self._entropy(10), "big") >> 1
        else:
            last += 1
        self._last = last
        return encode_ulid(last)

    def batch(self, count: int) -> list[str]:
        """`count` ULIDs, rising, for little more than the price of one: they share all but their last 20 bits."""
        if count < 1:
            return []
        first = self()
        low = self._last & _BATCH_MASK
        if low + count > _BATCH_MASK:
            return [first, *[self() for _ in range(count - 1)]]
        self._last += count - 1
        head, pairs = first[:-4], _PAIRS
        return [head + pairs[n >> 10] + pairs[n & 1023] for n in range(low, low + count)]


class EventInsert:
    """What a producer hands in. Only `source` and `event_type` are needed.

    `delivery_id` is the idempotency key: the same one again writes nothing (default: a fresh ULID).
    `received_at` is nanoseconds since the epoch (default: now). `payload_json` stays in the store, never on the wire.
    `fields` holds the natural names of the source, each a JSON value; names of columns belong in their own argument,
    and are moved there when they come in `fields`. Raises ``ValueError`` when a value has the wrong type.
    """

    __slots__ = (
        "delivery_id",
        "event_type",
        "fields",
        "ingest_method",
        "owner",
        "payload_json",
        "received_at",
        "repo",
        "source",
        "summary",
        *FIELD_COLUMNS,
    )

    if TYPE_CHECKING:
        delivery_id: str | None
        source: str
        event_type: str
        owner: str
        repo: str
        received_at: int | None
        payload_json: str
        ingest_method: str
        summary: str | None
        fields: dict[str, Any]
        run_id: int | None
        workflow_name: str | None
        head_branch: str | None
        head_sha: str | None
        status: str | None
        conclusion: str | None
        job_id: int | None
        job_name: str | None
        parent_run_id: int | None
        alert_name: str | None
        alert_severity: str | None
        alert_fingerprint: str | None
        msg_to: str | None
        msg_from: str | None
        msg_correlation_id: str | None
        msg_reply_to: str | None
        msg_thread: str | None
        msg_body: str | None

    def __init__(
        self,
        *,
        source: str,
        event_type: str,
        delivery_id: str | None = None,
        owner: str = "local",
        repo: str = "local",
        received_at: int | None = None,
        payload_json: str = "{}",
        ingest_method: str = "manual",
        summary: str | None = None,
        fields: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> None:
        _need_texts((source, event_type, owner, repo, ingest_method))
        if delivery_id is not None:
            _need_text("delivery_id", delivery_id)
        if type(payload_json) is not str:
            raise ValueError(f"payload_json takes JSON text, not {type(payload_json).__name__}")
        if summary is not None and type(summary) is not str:
            raise ValueError(f"summary takes text, not {type(summary).__name__}")
        if received_at is not None and (type(received_at) is not int or not 0 <= received_at < 1 << 63):
            raise ValueError("received_at takes nanoseconds since the epoch")
        self.source = source
        self.event_type = event_type
        self.delivery_id = delivery_id
        self.owner = owner
        self.repo = repo
        self.received_at = received_at
        self.payload_json = payload_json
        self.ingest_method = ingest_method
        self.summary = summary
        self.fields = natural = {}
        self.run_id = self.job_id = self.parent_run_id = None
        self.workflow_name = self.head_branch = self.head_sha = self.status = self.conclusion = self.job_name = None
        self.alert_name = self.alert_severity = self.alert_fingerprint = None
        self.msg_to = self.msg_from = self.msg_correlation_id = self.msg_reply_to = None
        self.msg_thread = self.msg_body = None
        if fields:
            for name, value in fields.items():
                if name in FIELD_COLUMNS:
                    columns.setdefault(name, value)
                elif name not in _RESERVED_FIELDS:
                    natural[name] = value
        for name, value in columns.items():
            kind = FIELD_COLUMNS.get(name)
            if kind is None:
                raise TypeError(f"EventInsert has no field {name!r}; put it in fields={{...}}")
            if type(value) is not kind and not _fits(value, kind):
                raise ValueError(f"{name} takes {kind.__name__}, not {type(value).__name__}")
            setattr(self, name, value)

    def __repr__(self) -> str:
        shown = {name: getattr(self, name, None) for name in self.__slots__}
        return f"EventInsert({', '.join(f'{k}={v!r}' for k, v in shown.items() if v not in (None, {}))})"


_RESERVED_NAMES = ("source", "event_type", "owner", "repo", "ingest_method")
_RESERVED_FIELDS = frozenset(_RESERVED_NAMES)
_ALL_TEXT = (str,) * len(_RESERVED_NAMES)


def _need_texts(values: tuple[object, ...]) -> None:
    # One look for the common case: this is on the ingest path.
    if tuple(map(type, values)) != _ALL_TEXT or not all(values):
        for name, value in zip(_RESERVED_NAMES, values, strict=True):
            _need_text(name, value)


def _fits(value: object, kind: type) -> bool:
    """Whether a column takes `value`; a boolean is no number here."""
    return value is None or (isinstance(value, kind) and not isinstance(value, bool))


def _need_text(name: str, value: object) -> None:
    if type(value) is not str or not value:
        raise ValueError(f"{name} takes text that is not empty")


class Event:
    """One event as it travels: what an `event` frame holds.

    `fields` is what predicates read. `received_at` is nanoseconds since the epoch. `payload_json` is None unless the
    event was read from the store with its payload.
    """

    __slots__ = (
        "delivery_id",
        "event_id",
        "event_type",
        "fields",
        "owner",
        "payload_json",
        "received_at",
        "repo",
        "summary",
    )

    def __init__(
        self,
        event_id: str,
        event_type: str,
        owner: str,
        repo: str,
        received_at: int,
        delivery_id: str,
        summary: str,
        fields: dict[str, Any],
        payload_json: str | None = None,
    ) -> None:
        self.event_id = event_id
        self.event_type = event_type
        self.owner = owner
        self.repo = repo
        self.received_at = received_at
        self.delivery_id = delivery_id
        self.summary = summary
        self.fields = fields
        self.payload_json = payload_json

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> Event:
        """From a decoded `event` frame. Raises ``KeyError`` when a key of the contract is missing."""
        return cls(*[frame[key] for key in FRAME_KEYS])

    def as_frame(self) -> dict[str, Any]:
        """The frame of section 4, keys in the order 0.2.0 sends them. The payload never goes along."""
        frame: dict[str, Any] = {key: getattr(self, key) for key in FRAME_KEYS}
        frame["kind"] = "event"
        return frame

    @property
    def source(self) -> str:
        return str(self.fields.get("source"))

    @property
    def conclusion(self) -> str | None:
        conclusion: str | None = self.fields.get("conclusion")
        return conclusion

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self.as_frame() == other.as_frame()

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __repr__(self) -> str:
        return f"<Event {self.event_id} {self.source}/{self.event_type}: {self.summary}>"


class EmitResult:
    """What `emit` answers: whether this call wrote the row, and the event as stored (the earlier one if not)."""

    __slots__ = ("event", "inserted")

    def __init__(self, inserted: bool, event: Event) -> None:
        self.inserted = inserted
        self.event = event

    def __repr__(self) -> str:
        return f"EmitResult(inserted={self.inserted}, event={self.event!r})"


def fields_of(columns: Mapping[str, Any], natural: Mapping[str, Any]) -> dict[str, Any]:
    """The `fields` object: what every event carries, then the columns that are set, then the natural names.

    A natural name never hides a column: SQL and the wire must say the same.
    """
    fields: dict[str, Any] = {name: columns.get(name) for name in ALWAYS_FIELDS}
    for name in FIELD_COLUMNS:
        value = columns.get(name)
        if value is not None:
            fields[name] = value
    for name, value in natural.items():
        fields.setdefault(name, value)
    return fields


def one_line(text: str, limit: int = 200) -> str:
    """`text` without control characters or line breaks, cut to `limit` characters: fit for a person's terminal."""
    text = text[: limit * 4]
    if not text.isprintable():
        text = "".join([c if c.isprintable() else " " for c in text])
    if len(text) <= limit and text.isprintable() and "  " not in text and text == text.strip():
        return text
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def default_summary(fields: Mapping[str, Any]) -> str:
    """One line for a person, made from the fields, for producers that gave none."""
    get = fields.get
    name = (
        get("workflow_name")
        or get("job_name")
        or get("alert_name")
        or get("container_name")
        or get("path")
        or get("msg_body")
        or get("name")
        or ""
    )
    where = "" if get("owner") == "local" else f"{get('owner')}/{get('repo')}"
    words = [get("source"), get("event_type"), where, name, get("conclusion") or get("status") or get("action")]
    return one_line(" ".join([str(word) for word in words if word and word.__class__ not in _CONTAINERS]))


_CONTAINERS: frozenset[type] = frozenset({list, tuple, dict})
