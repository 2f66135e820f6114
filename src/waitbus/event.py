"""Events: their vocabulary, their bounds, and their shape in memory.

Pure: no I/O, no clock, no state of the module's own.
No ``dataclasses`` and no ``typing`` at run time: ``waitbus emit`` loads this file, and its start-up is a budget.
"""

from __future__ import annotations

from waitbus.ulid import ulid_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
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


def is_history(frame: Mapping[str, Any]) -> bool:
    """Whether an event frame tells of the past only: see `HISTORY_METHODS`."""
    return frame["fields"].get("ingest_method") in HISTORY_METHODS


def happened_ms(frame: Mapping[str, Any]) -> int:
    """When an event counts as new, in milliseconds since the epoch: `received_at` of history, else its id's time."""
    if not is_history(frame):
        return ulid_ms(frame["event_id"])
    received_at = frame.get("received_at")
    return received_at // 1_000_000 if type(received_at) is int else 0


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
