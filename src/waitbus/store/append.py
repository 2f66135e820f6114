"""Writing events: one at a time or in batches, from any thread, through any fork.

The lock is SQLite's own and held for one statement or one chunk. Who waits for it tries again after a short pause of
ours: SQLite's busy handler sleeps longer and longer, so that among busy writers the unlucky one starves.
"""

from __future__ import annotations

import os
import sqlite3
from itertools import chain, groupby
from operator import itemgetter
from threading import RLock

from waitbus.event import EmitResult, Event
from waitbus.store.clock import elapsed, pause, real_ns
from waitbus.store.errors import StoreError, explain, is_busy
from waitbus.store.open import open_writer
from waitbus.store.read import event_of_delivery
from waitbus.store.rows import GROUP, fields_of_event, row_of
from waitbus.store.wal import Wal
from waitbus.ulid import UlidFactory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from waitbus.event import EventInsert
    from waitbus.settings import Settings
    from waitbus.store.open import Writer
    from waitbus.store.rows import Row, Statement

    Written = TypeVar("Written")

# A transaction of a batch ends after so many rows, or characters of payload: some 15 ms of everybody else's time.
CHUNK = 1000
CHUNK_CHARS = 1 << 20
# Between two tries for the lock. Measured with eight processes on two cores: longer costs the unlucky one his turn,
# shorter costs the holder his core. Who has waited long enough for it to be no crowd but a stopped process slows down.
_PAUSE_S = 0.0002
_LONG_PAUSE_S = 0.002
_LONG_TRIES = 2000
_REPLACED_TRIES = 5


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

    def _reset(self) -> None:
        self._lock = RLock()
        self._depth = 0
        self._conn: Writer | None = None
        # A child must not go on counting from its parent's last ULID.
        self._ulids = UlidFactory(self._clock_ns, os.urandom)
        self._now_ns = 0

    def _clock_ns(self) -> int:
        """The real time. It is kept: rows without a `received_at` take that of their id."""
        if self._conn is not None:  # as it is wherever a row is written
            self._now_ns = real_ns(self._conn)
        return self._now_ns

    def append(self, event: EventInsert, *, after_commit: Callable[[], object] | None = None) -> EmitResult:
        """Write one event and commit. A `delivery_id` already there writes nothing: the answer holds the earlier event.

        `after_commit` is called at once when a row was written, before the answer is made: somebody waits for it.
        Raises ``ValueError`` before anything is written when the event cannot be said in SQL or JSON.
        """
        row = row_of(event)
        waiting = _Waiting(self._timeout)
        inserted = False
        earlier = None

        def write(conn: Writer) -> bool:
            nonlocal inserted, earlier
            new = self._insert(conn, row, waiting).rowcount == 1
            inserted = inserted or new
            earlier = None if new else event_of_delivery(conn, row[1][1])
            return new or earlier is not None

        if not self._commit(write):  # the earlier one was pruned just now
            return self.append(event, after_commit=after_commit)
        if earlier is not None and not inserted:
            return EmitResult(False, earlier)
        if after_commit is not None:
            after_commit()
        self._settle()
        if earlier is not None:
            return EmitResult(True, earlier)
        fields = fields_of_event(event)
        event_id, delivery_id, received_at, summary, *_ = row[1]
        stored = Event(event_id, event.event_type, event.owner, event.repo, received_at, delivery_id, summary, fields)
        return EmitResult(True, stored)

    def _insert(self, conn: sqlite3.Connection, row: Row, waiting: _Waiting) -> sqlite3.Cursor:
        (statement, _, _), values = row
        given_id, given_time = values[1:3]
        while True:
            # Made anew for each try, so that ids of several processes rise with the order of their commits.
            values[0] = event_id = self._ulids()
            values[1] = given_id or event_id
            values[2] = self._now_ns if given_time is None else given_time
            try:
                # In autocommit mode: the lock is held inside one call, not across three.
                return conn.execute(statement, values)
            except sqlite3.OperationalError as error:
                waiting.after(error)

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
            self._settle()
        return BatchResult(inserted, seen - inserted, last)

    def _write(self, chunk: list[Row]) -> tuple[int, str | None]:
        """One transaction: how many rows were new, and the last one's id."""
        count = 0
        last = None
        waiting = _Waiting(self._timeout)

        def write(conn: Writer) -> None:
            nonlocal count, last
            new = self._write_chunk(conn, chunk, waiting)
            count = max(count, new)
            if new:
                last = conn.execute("SELECT event_id FROM events ORDER BY seq DESC LIMIT 1").fetchone()[0]
            conn.execute("COMMIT")

        self._commit(write)
        return count, last

    def _write_chunk(self, conn: Writer, chunk: list[Row], waiting: _Waiting) -> int:
        """Take the lock and insert: how many rows were new."""
        while True:
            try:
                conn.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                waiting.after(error)
        event_ids = self._ulids.batch(len(chunk))
        now_ns = self._now_ns
        for (_, values), event_id in zip(chunk, event_ids, strict=True):
            values[0] = event_id
            if values[1] is None:
                values[1] = event_id
            if values[2] is None:
                values[2] = now_ns
        count = 0
        for statement, rows in groupby(chunk, itemgetter(0)):
            count += _insert_run(conn, statement, [values for _, values in rows])
        return count

    def _commit(self, write: Callable[[Writer], Written]) -> Written:
        """What `write` gives, which commits to the file that stands at the path.

        When the file turns out to have been replaced, `write` is called again, with the one that is there now: until
        then what it wrote is nowhere, and how it failed says nothing.
        """
        with self._lock:
            for _ in range(_REPLACED_TRIES):
                conn = self._enter()
                try:
                    written = write(conn)
                    if conn.place.holds():
                        return written
                except (sqlite3.Error, ValueError, OverflowError) as error:
                    if not isinstance(error, sqlite3.Error) or conn.place.stands():
                        raise self._failure(error) from error
                finally:
                    self._leave(conn)
                self._drop()
        raise StoreError(f"{self._settings.db_path} is replaced again and again: look for what does that")

    def _enter(self) -> Writer:
        """The connection, in use from now on: every `_enter` is followed by a `_leave`."""
        conn = self._conn
        if conn is not None and not self._depth and not conn.place.may_write():
            self._drop()
            conn = None
        if conn is None:
            _appenders.add(self)
            conn = open_writer(self._settings, timeout=self._timeout)
            conn.execute("PRAGMA busy_timeout = 0")
            self._conn = conn
        elif self._depth and conn.in_transaction:
            raise StoreError("emit in a signal handler came in the middle of emit_many: emit after the handler instead")
        self._depth += 1
        return conn

    def _leave(self, conn: sqlite3.Connection) -> None:
        """Undo what was not committed, whatever stopped it: an error, or an interrupt."""
        self._depth -= 1
        if not self._depth and conn.in_transaction:
            conn.execute("ROLLBACK")

    def _drop(self) -> None:
        """Close the connection to a file that is not the store any more; the next `_enter` opens the one that is."""
        if self._depth:
            raise StoreError("the store was replaced in the middle of an emit: emit after the signal handler instead")
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
        # The old index goes with the last connection of this process that has it.
        for other in [one for one in _appenders if one is not self and one._settings.db_path == self._settings.db_path]:
            if other._lock.acquire(blocking=False):
                try:
                    if not other._depth and other._conn is not None:
                        other._conn.close()
                        other._conn = None
                finally:
                    other._lock.release()

    def _failure(self, error: sqlite3.Error | ValueError | OverflowError) -> Exception:
        if isinstance(error, sqlite3.Error):
            return explain(error, self._settings.db_path)
        if isinstance(error, UnicodeEncodeError):
            return ValueError(f"text is no UTF-8: it holds a lone surrogate at {error.start}")
        return ValueError("a number is outside SQLite's 64 bits")

    def _settle(self) -> None:
        """Shorten the store's log when it has grown long: after the bell, when nobody waits for it."""
        conn = self._conn
        if conn is not None and self._wal.needs_checkpoint(conn.place.log_bytes):
            with self._lock:
                if self._conn is not None and not self._depth:
                    self._wal.checkpoint(self._conn)

    def close(self) -> None:
        """Close the connection; a later append opens it again."""
        with self._lock:
            conn, self._conn = self._conn, None
            _appenders.discard(self)
            if conn is not None:
                conn.close()


class _Waiting:
    """The wait for SQLite's write lock, at most `timeout` seconds from the first time it was found taken."""

    __slots__ = ("_deadline", "_timeout", "_tries")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadline = 0.0
        self._tries = 0

    def after(self, error: sqlite3.OperationalError) -> None:
        """Wait a little; raise what is no matter of waiting, or has been waited for enough."""
        if not is_busy(error):
            raise error
        now = elapsed()
        if not self._tries:
            self._deadline = now + self._timeout
        elif now > self._deadline:
            raise error
        self._tries += 1
        pause(_PAUSE_S if self._tries < _LONG_TRIES else _LONG_PAUSE_S)


def _insert_run(conn: sqlite3.Connection, statement: Statement, rows: list[list[Any]]) -> int:
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
    chars = 0
    for event in events:
        chunk.append(row_of(event))
        chars += len(event.payload_json)
        if len(chunk) == CHUNK or chars > CHUNK_CHARS:
            yield chunk
            chunk = []
            chars = 0
    if chunk:
        yield chunk


# Forks. SQLite keeps the locks it holds in memory, which a child would inherit without the locks themselves: the child
# would write without a lock, or take one for held that nobody holds. So no connection of ours lives through a fork.

_appenders: set[Appender] = set()  # those with a connection
_forking: list[Appender] = []
_abandoned: list[sqlite3.Connection] = []


def _before_fork() -> None:
    for appender in list(_appenders):
        appender._lock.acquire()
        _forking.append(appender)
        if not appender._depth:
            conn, appender._conn = appender._conn, None
            if conn is not None:
                conn.close()


def _after_in_parent() -> None:
    while _forking:
        _forking.pop()._lock.release()


def _after_in_child() -> None:
    while _forking:
        appender = _forking.pop()
        if appender._conn is not None:
            # Forked in the middle of an append, by a signal handler: never to be closed or collected here.
            _abandoned.append(appender._conn)
        appender._reset()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
