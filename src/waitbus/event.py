"""Events: their field names, their limits, and the classes that hold them.

Pure: no I/O, no clock, no module state. The rules are in docs/contract.md, section 2. ``waitbus emit`` loads this file
and has to start quickly, so it imports neither ``dataclasses`` nor ``typing`` at run time.
"""

from __future__ import annotations

from waitbus.ulid import ulid_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypedDict, Unpack

    class _NoMore(TypedDict):
        """Has no keys, so that a type checker rejects every unknown keyword and suggests the right one."""


class WaitbusError(Exception):
    """The base class of every error that waitbus raises on purpose. Its text is one line that says what to do next.

    >>> try:
    ...     Predicate.parse("ok=True")
    ... except WaitbusError as error:
    ...     print(error)
    True is not JSON: write ok=true, or ok="True" for the text
    """


# Fields that have a column of their own in the store, with their type in SQLite and on the wire.
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
# Fields that every event has on the wire. They are null if unknown.
ALWAYS_FIELDS = ("source", "event_type", "owner", "repo", "ingest_method", "status", "conclusion")
# Natural names: fields of a single source. They are stored in `fields_json` and readable in SQL as generated columns.
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
    "run_attempt": int,
    "workflow_id": int,
    "event": str,
    "head_repo": str,
    "html_url": str,
    "labels": dict,
    "compose_project": str,
    "compose_service": str,
    "oom": bool,
}
# Limits for writers, in bytes of UTF-8. A reader returns a row beyond them as `truncated`. The depth counts levels of
# nesting, and the object `fields` itself is the first.
MAX_FIELDS_BYTES = 256 << 10
MAX_FIELDS_DEPTH = 64
MAX_NAME_BYTES = 1 << 10
MAX_PAYLOAD_BYTES = 16 << 20
MAX_SUMMARY_BYTES = 64 << 10
# The `ingest_method` of history: events from before this store was watching. History is stored and replayed, but never
# sent as news. Its time is `received_at`; the time of any other event is that of its `event_id`, when it was written.
HISTORY_METHODS = ("import", "backfill")
# Keys at the top level of an event frame. In a predicate, a key that starts with any other name means `fields.KEY`.
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
    """Whether an event frame is history; see `HISTORY_METHODS`."""
    return frame["fields"].get("ingest_method") in HISTORY_METHODS


def happened_ms(frame: Mapping[str, Any]) -> int:
    """Return an event's time in milliseconds since the epoch: `received_at` of history, else the time in its id.

    What history puts before the epoch is of the epoch, so that "from the start" leaves nothing out.
    """
    if not is_history(frame):
        return ulid_ms(frame["event_id"])
    received_at = frame.get("received_at")
    return max(0, received_at // 1_000_000) if type(received_at) is int else 0


class EventInsert:
    """An event to write. Only `source` and `event_type` are required.

    >>> EventInsert(source="ci", event_type="build", conclusion="failure", fields={"step": "lint"})
    EventInsert(event_type='build', fields={'step': 'lint'}, ... conclusion='failure')

    The common vocabulary, such as `conclusion`, `run_id` and `head_sha`, are keywords. A source's own names go into
    `fields`, each with a JSON value. Predicates and `Event.fields` see both alike: ``conclusion=failure`` and
    ``step=lint``. A name in `fields` that has a keyword of its own is moved there.

    `delivery_id` is the idempotency key: emitting the same one again writes nothing (default: a new ULID).
    `received_at` is in nanoseconds since the epoch (default: now). `payload_json` is JSON text; it stays in the store
    and is never sent. Raises ``ValueError`` if a value has the wrong type, and ``TypeError`` for an unknown keyword.
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
        # Spelled out like the assignments above: a loop would take a third of the time of this call.
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
        """Move each of `fields` that has a column into it, unless that is set already, and keep the others.

        Names of required arguments (`_RESERVED_NAMES`) are dropped.
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
        """Raise a ``ValueError`` that names the value of the wrong type. Subclasses of the right type pass."""
        for name in (*_RESERVED_NAMES, "delivery_id"):
            value = getattr(self, name)
            if (type(value) is not str or not value) and not (name == "delivery_id" and value is None):
                raise ValueError(f"{name} takes non-empty text")
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
# `received_at` is stored as a signed 64-bit integer.
_TIME_END = 1 << 63


def _fitting(name: str, value: Any, kind: type) -> Any:
    """Return `value` if the column `name` takes it, else raise ``ValueError``. A boolean does not count as a number."""
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    raise ValueError(f"{name} takes {kind.__name__}, not {type(value).__name__}")


def _unknown(name: str) -> TypeError:
    from difflib import get_close_matches

    near = get_close_matches(name, EventInsert.__slots__, n=1)
    hint = f"did you mean {near[0]}? If not, " if near else ""
    return TypeError(f"EventInsert has no field {name!r}; {hint}put it in fields={{...}}")


class Event:
    """One event, as it is sent.

    >>> event = emit(EventInsert(source="ci", event_type="build", run_id=7, fields={"step": "lint"})).event
    >>> event.source, event.event_type, event.fields["run_id"], event.fields["step"]
    ('ci', 'build', 7, 'lint')

    `fields` holds everything that predicates test: the common vocabulary and the source's own names. `event_id` is its
    identity and its cursor (`since`). `received_at` is in nanoseconds since the epoch. `payload_json` is None, unless
    the event was read from the store with its payload.
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
        """Make an event from a decoded `event` frame. Raises ``KeyError`` if one of `FRAME_KEYS` is missing."""
        return cls(*[frame[key] for key in FRAME_KEYS])

    def as_frame(self) -> dict[str, Any]:
        """Return the `event` frame (docs/wire.md) without the payload, with the keys in the order of 0.2.0."""
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
    """The result of `emit`. `inserted` says whether this call wrote the row.

    >>> once = EventInsert(source="cron", event_type="backup", delivery_id="backup-2026-05-17")
    >>> emit(once).inserted, emit(once).inserted
    (True, False)

    `event` is the event as stored: if `inserted` is false, the earlier one with the same `delivery_id`.
    """

    __slots__ = ("event", "inserted")

    def __init__(self, inserted: bool, event: Event) -> None:
        self.inserted = inserted
        self.event = event

    def __repr__(self) -> str:
        return f"EmitResult(inserted={self.inserted}, event={self.event!r})"


def one_line(text: str, limit: int = 200) -> str:
    """Make `text` safe for a terminal: no control characters, no line breaks, at most `limit` characters."""
    text = text[: limit * 4]
    if not text.isprintable():
        text = "".join([c if c.isprintable() else " " for c in text])
    if len(text) <= limit and text.isprintable() and "  " not in text and text == text.strip():
        return text
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
