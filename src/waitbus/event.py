"""Events: their vocabulary, their bounds, and their shape in memory.

Pure: no I/O, no clock, no state of the module's own.
No ``dataclasses`` and no ``typing`` at run time: ``waitbus emit`` loads this file, and its start-up is a budget.
"""

from __future__ import annotations

from waitbus.ulid import ulid_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypedDict, Unpack

    class _NoMore(TypedDict):
        """No further keyword: a type checker refuses every other name, and suggests the right one."""


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
    and are moved there when they come in `fields`. Raises ``ValueError`` when a value has the wrong type, ``TypeError``
    for an argument of another name.
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
        run_id: int | None = None,
        workflow_name: str | None = None,
        head_branch: str | None = None,
        head_sha: str | None = None,
        status: str | None = None,
        conclusion: str | None = None,
        job_id: int | None = None,
        job_name: str | None = None,
        parent_run_id: int | None = None,
        alert_name: str | None = None,
        alert_severity: str | None = None,
        alert_fingerprint: str | None = None,
        msg_to: str | None = None,
        msg_from: str | None = None,
        msg_correlation_id: str | None = None,
        msg_reply_to: str | None = None,
        msg_thread: str | None = None,
        msg_body: str | None = None,
        **unknown: Unpack[_NoMore],
    ) -> None:
        if unknown:
            raise _unknown(next(iter(unknown)))
        self.source = source
        self.event_type = event_type
        self.delivery_id = delivery_id
        self.owner = owner
        self.repo = repo
        self.received_at = received_at
        self.payload_json = payload_json
        self.ingest_method = ingest_method
        self.summary = summary
        self.run_id = run_id
        self.workflow_name = workflow_name
        self.head_branch = head_branch
        self.head_sha = head_sha
        self.status = status
        self.conclusion = conclusion
        self.job_id = job_id
        self.job_name = job_name
        self.parent_run_id = parent_run_id
        self.alert_name = alert_name
        self.alert_severity = alert_severity
        self.alert_fingerprint = alert_fingerprint
        self.msg_to = msg_to
        self.msg_from = msg_from
        self.msg_correlation_id = msg_correlation_id
        self.msg_reply_to = msg_reply_to
        self.msg_thread = msg_thread
        self.msg_body = msg_body
        self.fields: dict[str, Any] = {}
        if fields:
            self._sort(fields)
        # Spelled out, as the columns above are, because a loop over them would be a third of this call's time.
        if not (
            (type(source) is str and source)
            and (type(event_type) is str and event_type)
            and (type(owner) is str and owner)
            and (type(repo) is str and repo)
            and (type(ingest_method) is str and ingest_method)
            and type(payload_json) is str
            and (delivery_id is None or (type(delivery_id) is str and delivery_id))
            and (received_at is None or (type(received_at) is int and 0 <= received_at < _TIME_END))
            and (summary is None or type(summary) is str)
            and (run_id is None or type(run_id) is int)
            and (workflow_name is None or type(workflow_name) is str)
            and (head_branch is None or type(head_branch) is str)
            and (head_sha is None or type(head_sha) is str)
            and (status is None or type(status) is str)
            and (conclusion is None or type(conclusion) is str)
            and (job_id is None or type(job_id) is int)
            and (job_name is None or type(job_name) is str)
            and (parent_run_id is None or type(parent_run_id) is int)
            and (alert_name is None or type(alert_name) is str)
            and (alert_severity is None or type(alert_severity) is str)
            and (alert_fingerprint is None or type(alert_fingerprint) is str)
            and (msg_to is None or type(msg_to) is str)
            and (msg_from is None or type(msg_from) is str)
            and (msg_correlation_id is None or type(msg_correlation_id) is str)
            and (msg_reply_to is None or type(msg_reply_to) is str)
            and (msg_thread is None or type(msg_thread) is str)
            and (msg_body is None or type(msg_body) is str)
        ):
            self._check()

    def _sort(self, fields: Mapping[str, Any]) -> None:
        """Put each of `fields` where it belongs: into its column, unless that has a value, or among the natural names.

        What may not be said in `fields` is left out.
        """
        if not hasattr(fields, "items"):
            raise ValueError(f"fields takes a mapping of names to JSON values, not {type(fields).__name__}")
        for name, value in fields.items():
            kind = FIELD_COLUMNS.get(name)
            if kind is not None:
                if getattr(self, name) is None:
                    setattr(self, name, _fitting(name, value, kind))
            elif name not in _RESERVED_FIELDS:
                self.fields[name] = value

    def _check(self) -> None:
        """Raise the ``ValueError`` that names what has the wrong type; a subclass of the right one is good."""
        for name in (*_RESERVED_NAMES, "delivery_id"):
            value = getattr(self, name)
            if (type(value) is not str or not value) and not (name == "delivery_id" and value is None):
                raise ValueError(f"{name} takes text that is not empty")
        if type(self.payload_json) is not str:
            raise ValueError(f"payload_json takes JSON text, not {type(self.payload_json).__name__}")
        if self.summary is not None and type(self.summary) is not str:
            raise ValueError(f"summary takes text, not {type(self.summary).__name__}")
        at = self.received_at
        if at is not None and (type(at) is not int or not 0 <= at < _TIME_END):
            raise ValueError("received_at takes nanoseconds since the epoch")
        for name, kind in FIELD_COLUMNS.items():
            _fitting(name, getattr(self, name), kind)

    def __repr__(self) -> str:
        shown = {name: getattr(self, name, None) for name in self.__slots__}
        return f"EventInsert({', '.join(f'{k}={v!r}' for k, v in shown.items() if v not in (None, {}))})"


_RESERVED_NAMES = ("source", "event_type", "owner", "repo", "ingest_method")
_RESERVED_FIELDS = frozenset(_RESERVED_NAMES)
# `received_at` is a column of 64 bits with a sign.
_TIME_END = 1 << 63


def _fitting(name: str, value: Any, kind: type) -> Any:
    """`value`, if the column `name` takes it; a boolean is not a number here. Raises ``ValueError``."""
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise ValueError(f"{name} takes {kind.__name__}, not {type(value).__name__}")


def _unknown(name: str) -> TypeError:
    from difflib import get_close_matches

    near = get_close_matches(name, EventInsert.__slots__, n=1)
    hint = f"did you mean {near[0]}? If not, " if near else ""
    return TypeError(f"EventInsert has no field {name!r}; {hint}put it in fields={{...}}")


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
        """From a decoded `event` frame. Raises ``KeyError`` if one of `FRAME_KEYS` is missing."""
        return cls(*[frame[key] for key in FRAME_KEYS])

    def as_frame(self) -> dict[str, Any]:
        """The `event` frame (docs/wire.md), keys in the order in which 0.2.0 sends them, without the payload."""
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


def one_line(text: str, limit: int = 200) -> str:
    """`text` without control characters or line breaks, cut to `limit` characters: fit for a person's terminal."""
    text = text[: limit * 4]
    if not text.isprintable():
        text = "".join([c if c.isprintable() else " " for c in text])
    if len(text) <= limit and text.isprintable() and "  " not in text and text == text.strip():
        return text
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
