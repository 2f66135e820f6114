"""Writing events: one at a time or in batches, from any thread, through any fork.

The lock is SQLite's own and held for one statement or one chunk. Who waits for it tries again after a short pause of
ours: SQLite's busy handler sleeps longer and longer, so that among busy writers the unlucky one starves.
"""

from __future__ import annotations

import json
import operator
import os
import sqlite3
import time
from _thread import RLock

from waitbus.event import FIELD_COLUMNS, EmitResult, Event, UlidFactory, default_summary, fields_of
from waitbus.store.errors import explain, is_busy
from waitbus.store.open import open_writer
from waitbus.store.read import event_of_delivery

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from waitbus.event import EventInsert
    from waitbus.settings import Settings

CHUNK = 1000  # rows in one transaction of a batch: some 10 ms of everybody else's time
_PAUSE_S = 0.0005

_PLAIN = ("source", "event_type", "owner", "repo", "ingest_method", "payload_json", *FIELD_COLUMNS)
_COLUMNS = ("event_id", "delivery_id", "received_at", "summary", "fields_json", *_PLAIN)
_plain_of = operator.attrgetter(*_PLAIN)
_INSERT = "INSERT INTO events ({}) VALUES ({}) ON CONFLICT (delivery_id) DO NOTHING".format(
    ", ".join(_COLUMNS), ", ".join("?" * len(_COLUMNS))
)
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class BatchResult:
    """What `append_many` did: rows written, rows that were there already, the last `event_id` written (or None)."""

    __slots__ = ("duplicates", "inserted", "last_event_id")

    def __init__(self, inserted: int, duplicates: int, last_event_id: str | None) -> None:
        self.inserted = inserted
        self.duplicates = duplicates
        self.last_event_id = last_event_id

    def __repr__(self) -> str:
        return (
            f"BatchResult(inserted={self.inserted}, duplicates={self.duplicates}, last_event_id={self.last_event_id!r})"
        )


class Appender:
    """Appends events to one store. Opens it when first used, and makes it when there is none.

    `timeout` in seconds bounds the wait for other writers. Threads take turns. Before a fork the connection is closed,
    so that no child ever holds half of one; parent and child each open their own when they next append.
    Raises `StoreError` or `SettingsError`; then nothing of that call's last transaction was written.
    """

    def __init__(self, settings: Settings, timeout: float = 5.0) -> None:
        self._settings = settings
        self._timeout = timeout
        self._reset()
        _appenders.append(self)

    def _reset(self) -> None:
        self._lock = RLock()
        self._busy = False
        self._conn: sqlite3.Connection | None = None
        self._next_id = UlidFactory(time.time_ns, os.urandom)

    def append(self, event: EventInsert) -> EmitResult:
        """Write one event and commit. A `delivery_id` already there writes nothing: the answer holds the earlier event.

        Raises ``ValueError`` before anything is written when the event cannot be said in SQL or JSON.
        """
        plain, summary, fields_json, fields = _prepare(event, want_fields=True)
        deadline = time.monotonic() + self._timeout
        with self._lock:
            conn = self._open()
            self._busy = True
            try:
                inserted = None
                while inserted is None:
                    event_id = self._next_id()
                    delivery_id = event.delivery_id or event_id
                    received_at = time.time_ns() if event.received_at is None else event.received_at
                    row = (event_id, delivery_id, received_at, summary, fields_json, *plain)
                    try:
                        inserted = conn.execute(_INSERT, row).rowcount == 1
                    except sqlite3.OperationalError as error:
                        _pause(error, deadline)
                if not inserted:
                    return EmitResult(False, event_of_delivery(conn, delivery_id))
            except sqlite3.Error as error:
                raise explain(error, self._settings.db_path) from error
            except (UnicodeEncodeError, OverflowError) as error:
                raise _unfit(error) from None
            finally:
                self._busy = False
        owner, repo = plain[2], plain[3]
        return EmitResult(
            True, Event(event_id, event.event_type, owner, repo, received_at, delivery_id, summary, fields)
        )

    def append_many(
        self, events: Iterable[EventInsert], *, after_commit: Callable[[], object] | None = None
    ) -> BatchResult:
        """Write events in order, `CHUNK` to a transaction, calling `after_commit` after each; any iterable will do.

        Raises ``ValueError`` for an event that cannot be said in SQL or JSON: chunks before its own stay written.
        """
        inserted = seen = 0
        last = None
        chunk: list[tuple[Any, ...]] = []
        # No lock is held while the iterable is asked: it may take its time, append itself, or fork.
        for event in events:
            plain, summary, fields_json, _ = _prepare(event)
            chunk.append((event.delivery_id, event.received_at, summary, fields_json, *plain))
            if len(chunk) == CHUNK:
                count, last_id = self._write(chunk)
                inserted += count
                seen += len(chunk)
                last = last_id or last
                chunk = []
                if after_commit is not None:
                    after_commit()
        if chunk:
            count, last_id = self._write(chunk)
            inserted += count
            seen += len(chunk)
            last = last_id or last
            if after_commit is not None:
                after_commit()
        return BatchResult(inserted, seen - inserted, last)

    def _write(self, chunk: list[tuple[Any, ...]]) -> tuple[int, str | None]:
        """One transaction: how many rows were new, and the last one's id."""
        deadline = time.monotonic() + self._timeout
        with self._lock:
            conn = self._open()
            self._busy = True
            try:
                while True:
                    try:
                        conn.execute("BEGIN IMMEDIATE")
                        break
                    except sqlite3.OperationalError as error:
                        _pause(error, deadline)
                count = conn.executemany(_INSERT, self._with_ids(chunk)).rowcount
                last = None
                if count:
                    last = conn.execute("SELECT event_id FROM events ORDER BY seq DESC LIMIT 1").fetchone()[0]
                conn.execute("COMMIT")
                return count, last
            except sqlite3.Error as error:
                raise explain(error, self._settings.db_path) from error
            except (UnicodeEncodeError, OverflowError) as error:
                raise _unfit(error) from None
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
                self._busy = False

    def _with_ids(self, chunk: list[tuple[Any, ...]]) -> Iterable[tuple[Any, ...]]:
        now = time.time_ns()
        for delivery_id, received_at, *rest in chunk:
            event_id = self._next_id()
            yield (event_id, delivery_id or event_id, now if received_at is None else received_at, *rest)

    def _open(self) -> sqlite3.Connection:
        conn = self._conn
        if conn is None:
            conn = open_writer(self._settings, timeout=self._timeout)
            conn.execute("PRAGMA busy_timeout = 0")
            self._conn = conn
        return conn

    def close(self) -> None:
        """Close the connection; a later append opens it again."""
        with self._lock:
            conn, self._conn = self._conn, None
            if conn is not None:
                conn.close()


def _prepare(
    event: EventInsert, *, want_fields: bool = False
) -> tuple[tuple[Any, ...], str, str | None, dict[str, Any]]:
    plain = _plain_of(event)
    natural = event.fields
    fields_json = None
    if natural:
        try:
            fields_json = _encode(natural)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"fields hold what JSON cannot say: {error}") from None
    summary = event.summary
    fields: dict[str, Any] = {}
    if want_fields or summary is None:
        fields = fields_of(dict(zip(_PLAIN, plain, strict=True)), natural)
        if summary is None:
            summary = default_summary(fields)
    for name, value in zip(_PLAIN, plain, strict=True):
        if value.__class__ is str and "\0" in value:
            raise ValueError(f"{name} holds a zero byte")
    if "\0" in summary or "\0" in (event.delivery_id or ""):
        raise ValueError("summary or delivery_id holds a zero byte")
    return plain, summary, fields_json, fields


def _pause(error: sqlite3.OperationalError, deadline: float) -> None:
    if not is_busy(error) or time.monotonic() > deadline:
        raise error
    time.sleep(_PAUSE_S)


def _unfit(error: UnicodeEncodeError | OverflowError) -> ValueError:
    if isinstance(error, OverflowError):
        return ValueError("a number is outside SQLite's 64 bits")
    return ValueError(f"text is no UTF-8: it holds a lone surrogate at {error.start}")


# Forks. SQLite keeps the locks it holds in memory, which a child would inherit without the locks themselves.

_appenders: list[Appender] = []


def _before_fork() -> None:
    for appender in _appenders:
        appender._lock.acquire()
        if not appender._busy:
            appender.close()


def _after_in_parent() -> None:
    for appender in _appenders:
        appender._lock.release()


def _after_in_child() -> None:
    for appender in _appenders:
        if appender._conn is not None:
            _abandoned.append(appender._conn)
        appender._reset()


_abandoned: list[sqlite3.Connection] = []
os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
