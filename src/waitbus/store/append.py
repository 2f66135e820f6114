"""Writes events, one at a time or in batches, from any thread and across forks.

The lock is SQLite's own. It is held for one statement or one chunk. A writer that finds it taken tries again after a
short, constant pause, because SQLite's own busy handler sleeps longer and longer, so that an unlucky writer starves.
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

# A transaction of a batch ends after this many rows, or characters of payload. It blocks other writers for some 15 ms.
CHUNK = 1000
CHUNK_CHARS = 1 << 20
# The pause between two tries for the lock. Measured with eight processes on two cores: a longer pause makes an unlucky
# writer miss its turn, a shorter one takes the CPU from the holder. After `_LONG_TRIES` tries the holder is probably a
# stopped process, and the pause becomes longer.
_PAUSE_S = 0.0002
_LONG_PAUSE_S = 0.002
_LONG_TRIES = 2000
_REPLACED_TRIES = 5


class BatchResult:
    """What `append_many` did: rows written, duplicates skipped, and the last `event_id` written (or None)."""

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
    """Appends events to one store. The first use opens the store, or creates it if there is none.

    `timeout` in seconds limits the wait for other writers. Threads take turns. The connection is closed before a fork,
    so that no child inherits it; parent and child each open their own when they next append. Methods raise `StoreError`
    or `SettingsError`; the last transaction of that call was then not written.
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
        """Return the real time and remember it: a row without a `received_at` gets the time of its id."""
        if self._conn is not None:  # always, while a row is written
            self._now_ns = real_ns(self._conn)
        return self._now_ns

    def append(self, event: EventInsert, *, after_commit: Callable[[], object] | None = None) -> EmitResult:
        """Write one event and commit. If its `delivery_id` is already stored, write nothing and return that event.

        If a row was written, `after_commit` is called before the result is built, because subscribers wait for it.
        Raises ``ValueError``, before anything is written, if SQL or JSON cannot hold the event.
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

        if not self._commit(write):  # there was an earlier event of this key, but it was pruned just now
            return self.append(event, after_commit=after_commit)
        if earlier is not None and not inserted:
            return EmitResult(False, earlier)
        if after_commit is not None:
            after_commit()
        self._checkpoint_if_needed()
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
            # A new id for each try, so that the ids of several processes are in the order of their commits.
            values[0] = event_id = self._ulids()
            values[1] = given_id or event_id
            values[2] = self._now_ns if given_time is None else given_time
            try:
                # In autocommit mode, so that the lock is held during one call instead of three.
                return conn.execute(statement, values)
            except sqlite3.OperationalError as error:
                waiting.after(error)

    def append_many(
        self, events: Iterable[EventInsert], *, after_commit: Callable[[], object] | None = None
    ) -> BatchResult:
        """Write events in order, `CHUNK` in each transaction, and call `after_commit` after each transaction.

        Raises ``ValueError`` for an event that SQL or JSON cannot hold. Chunks before that event's chunk stay written.
        """
        inserted = seen = 0
        last = None
        # No lock is held while the iterable runs: it may be slow, append events itself, or fork.
        for chunk in _chunks(events):
            count, last_id = self._write(chunk)
            inserted += count
            seen += len(chunk)
            last = last_id or last
            if after_commit is not None:
                after_commit()
            self._checkpoint_if_needed()
        return BatchResult(inserted, seen - inserted, last)

    def _write(self, chunk: list[Row]) -> tuple[int, str | None]:
        """Write one transaction. Returns how many rows were new and the id of the last one."""
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
        """Take the lock and insert. Returns how many rows were new."""
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
        """Call `write`, which commits, and return its result once the commit is in the file at the store's path.

        If the file turns out to have been replaced, what `write` wrote is lost and its errors mean nothing. So it is
        called again with a connection to the new file.
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
        raise StoreError(f"{self._settings.db_path} is replaced again and again: find the program that does that")

    def _enter(self) -> Writer:
        """Return the connection and mark it as in use. The caller must then call `_leave`."""
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
            raise StoreError("a signal handler called emit in the middle of emit_many: emit after the handler instead")
        self._depth += 1
        return conn

    def _leave(self, conn: sqlite3.Connection) -> None:
        """Roll back what was not committed because of an error or an interrupt."""
        self._depth -= 1
        if not self._depth and conn.in_transaction:
            conn.execute("ROLLBACK")

    def _drop(self) -> None:
        """Close the connection because its file is no longer the store. The next `_enter` opens the new file."""
        if self._depth:
            raise StoreError("the store was replaced in the middle of an emit: emit after the signal handler instead")
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
        # SQLite drops the old index only when every connection of this process to the old file is closed.
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
            return ValueError(f"text is not valid UTF-8: it holds a lone surrogate at {error.start}")
        return ValueError("a number is outside SQLite's 64 bits")

    def _checkpoint_if_needed(self) -> None:
        """Checkpoint the log if it has grown long. Called after the bell has rung, when nobody waits for this."""
        conn = self._conn
        if conn is not None and self._wal.needs_checkpoint(conn.place.log_bytes):
            with self._lock:
                if self._conn is not None and not self._depth:
                    self._wal.checkpoint(self._conn)

    def close(self) -> None:
        """Close the connection. A later append opens it again."""
        with self._lock:
            conn, self._conn = self._conn, None
            _appenders.discard(self)
            if conn is not None:
                conn.close()


class _Waiting:
    """Waits for SQLite's write lock, at most `timeout` seconds from when it was first found taken."""

    __slots__ = ("_deadline", "_timeout", "_tries")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadline = 0.0
        self._tries = 0

    def after(self, error: sqlite3.OperationalError) -> None:
        """Wait a little. Raises `error` if it does not mean that the store is busy, or if the time-out is over."""
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
    """Insert rows of one statement in their order. Returns how many were new."""
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


# Forks. SQLite notes in memory which locks it holds. A child would inherit the notes but not the locks: it would write
# without a lock, or wait for a lock that nobody holds. So every connection is closed before a fork.

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
            # A signal handler forked in the middle of an append. The child must never close or collect this connection.
            _abandoned.append(appender._conn)
        appender._reset()


os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
