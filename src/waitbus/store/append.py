"""Writing events: one at a time or in batches, from any thread, through any fork.

The lock is SQLite's own and held for one statement or one chunk. Who waits for it tries again after a short pause of
ours: SQLite's busy handler sleeps longer and longer, so that among busy writers the unlucky one starves.
"""

from __future__ import annotations

import os
import sqlite3
import time
from _thread import RLock
from itertools import chain, groupby
from operator import itemgetter

from waitbus.event import EmitResult, Event, UlidFactory
from waitbus.store.errors import explain, is_busy
from waitbus.store.open import open_writer
from waitbus.store.read import event_of_delivery
from waitbus.store.rows import GROUP, fields_of_event, row_of
from waitbus.store.wal import Wal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from waitbus.event import EventInsert
    from waitbus.settings import Settings
    from waitbus.store.rows import Row, Statement

CHUNK = 1000  # rows in one transaction of a batch: some 15 ms of everybody else's time
_PAUSE_S = 0.0002


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
        self._wal = Wal(settings.db_path)
        self._reset()
        _appenders.append(self)

    def _reset(self) -> None:
        self._lock = RLock()
        self._busy = False
        self._conn: sqlite3.Connection | None = None
        # A child must not go on counting from its parent's last ULID.
        self._ulids = UlidFactory(time.time_ns, os.urandom)

    def append(self, event: EventInsert, *, after_commit: Callable[[], object] | None = None) -> EmitResult:
        """Write one event and commit. A `delivery_id` already there writes nothing: the answer holds the earlier event.

        `after_commit` is called at once when a row was written, before the answer is made: somebody waits for it.

        Raises ``ValueError`` before anything is written when the event cannot be said in SQL or JSON.
        """
        statement, values = row_of(event)
        given_id = values[1]
        deadline = time.monotonic() + self._timeout
        with self._lock:
            conn = self._open()
            try:
                while True:
                    # Made anew for each try, so that ids of several processes rise with the order of their commits.
                    values[0] = event_id = self._ulids()
                    values[1] = delivery_id = given_id or event_id
                    try:
                        # In autocommit mode: the lock is held inside one call, not across three.
                        inserted = conn.execute(statement[0], values).rowcount == 1
                        break
                    except sqlite3.OperationalError as error:
                        _pause(error, deadline)
                if not inserted:
                    return EmitResult(False, event_of_delivery(conn, delivery_id))
            except (sqlite3.Error, ValueError, OverflowError) as error:
                raise self._failure(error) from error
            finally:
                self._end(conn)
        stored = Event(
            event_id,
            event.event_type,
            event.owner,
            event.repo,
            values[2],
            delivery_id,
            values[3],
            fields_of_event(event),
        )
        return EmitResult(True, stored)

    def append_many(
        self, events: Iterable[EventInsert], *, after_commit: Callable[[], object] | None = None
    ) -> BatchResult:
        """Write events in order, `CHUNK` to a transaction, calling `after_commit` after each; any iterable will do.

        Raises ``ValueError`` for an event that cannot be said in SQL or JSON: chunks before its own stay written.
        """
        inserted = seen = 0
        last = None
        # No lock is held while the iterable is asked: it may take its time, append itself, or fork.
        for chunk in _chunks(events):
            count, last_id = self._write(chunk)
            inserted += count
            seen += len(chunk)
            last = last_id or last
            if after_commit is not None:
                after_commit()
            self.settle()
        return BatchResult(inserted, seen - inserted, last)

    def _write(self, chunk: list[Row]) -> tuple[int, str | None]:
        """One transaction: how many rows were new, and the last one's id."""
        count = 0
        last = None
        with self._lock:
            conn = self._open()
            deadline = time.monotonic() + self._timeout
            try:
                while True:
                    try:
                        conn.execute("BEGIN IMMEDIATE")
                        break
                    except sqlite3.OperationalError as error:
                        _pause(error, deadline)
                for (_, values), event_id in zip(chunk, self._ulids.batch(len(chunk)), strict=True):
                    values[0] = event_id
                    if values[1] is None:
                        values[1] = event_id
                for statement, rows in groupby(chunk, itemgetter(0)):
                    count += _insert(conn, statement, [values for _, values in rows])
                if count:
                    last = conn.execute("SELECT event_id FROM events ORDER BY seq DESC LIMIT 1").fetchone()[0]
                conn.execute("COMMIT")
            except (sqlite3.Error, ValueError, OverflowError) as error:
                raise self._failure(error) from error
            finally:
                self._end(conn)
        return count, last

    def _open(self) -> sqlite3.Connection:
        """The connection, busy from now on: every `_open` is followed by an `_end`."""
        conn = self._conn
        if conn is None:
            conn = open_writer(self._settings, timeout=self._timeout)
            conn.execute("PRAGMA busy_timeout = 0")
            self._conn = conn
        if self._wal.is_long():
            self._wal.shorten(conn)
        self._busy = True
        return conn

    def _end(self, conn: sqlite3.Connection) -> None:
        """Undo what was not committed, whatever stopped it: an error, or an interrupt."""
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        self._busy = False

    def _failure(self, error: sqlite3.Error | ValueError | OverflowError) -> Exception:
        if isinstance(error, sqlite3.Error):
            return explain(error, self._settings.db_path)
        if isinstance(error, UnicodeEncodeError):
            return ValueError(f"text is no UTF-8: it holds a lone surrogate at {error.start}")
        return ValueError("a number is outside SQLite's 64 bits")

    def settle(self) -> None:
        """Shorten the store's log if it is long: a few milliseconds, best spent after the bell was rung.

        Who never calls this pays for it in a later `append`.
        """
        if self._wal.is_long():
            with self._lock:
                if self._conn is not None and not self._busy:
                    self._wal.shorten(self._conn)

    def close(self) -> None:
        """Close the connection; a later append opens it again."""
        with self._lock:
            conn, self._conn = self._conn, None
            if conn is not None:
                conn.close()


def _pause(error: sqlite3.OperationalError, deadline: float) -> None:
    """Wait a little for whoever holds the lock; raise what is no matter of waiting, or has been waited for enough."""
    if not is_busy(error) or time.monotonic() > deadline:
        raise error
    time.sleep(_PAUSE_S)


def _insert(conn: sqlite3.Connection, statement: Statement, rows: list[list[Any]]) -> int:
    """Insert rows of one statement, in their order: how many were new."""
    one, many, _ = statement
    grouped = len(rows) - len(rows) % GROUP
    count = 0
    for at in range(0, grouped, GROUP):
        count += conn.execute(many, [*chain.from_iterable(rows[at : at + GROUP])]).rowcount
    if grouped < len(rows):
        count += conn.executemany(one, rows[grouped:]).rowcount
    return count


def _chunks(events: Iterable[EventInsert]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for event in events:
        chunk.append(row_of(event))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


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
