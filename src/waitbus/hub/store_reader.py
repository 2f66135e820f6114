"""How the hub reads the store: one cursor for live, pages for replay, and small steps of upkeep.

Whatever the store answers, the hub stays up. A read that fails raises `StoreError`, and is never an answer: the caller
tries again, or tells its subscriber.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time

from waitbus.event import WaitbusError
from waitbus.store import prune, read
from waitbus.store.errors import StoreError, explain
from waitbus.store.importer import import_v020
from waitbus.store.open import open_writer
from waitbus.ulid import ULID_MIN, ulid_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from waitbus.settings import Settings
    from waitbus.store.open import Writer
    from waitbus.store.prefilter import Condition
    from waitbus.store.read import Page

PRUNE_EVERY_SEC = 60.0
PRUNE_STEP_PAUSE_SEC = 0.05
# How long the loop may stand still for a lock that somebody has on the store.
_BUSY_MS = 20
# The same trouble is logged again after so long, in seconds, and so many are known by their text.
_SAY_AGAIN_SEC = 3600.0
_TROUBLES = 16
# For so long a store that was removed is waited for before an empty one is made.
_MISSING_SEC = 0.5
# So many rows of a file whose log was taken away are compared with what is left of it.
_TAIL = 10_000
_CACHE_KIB = 256  # a reader that goes forward needs little, and what a long replay filled is never given back


def _at_once(act: Callable[[], object]) -> bool:
    act()
    return True


class StoreReader:
    """The store as the hub sees it. `cursor` is the seq up to which live subscribers have been handed everything.

    `replaced` is called when another file was put in the store's place, with the seq up to which it holds the same rows
    as the old one, and the seq after which its rows are news. What is kept of the old file must not outlive that call.
    `alone` calls its argument while no other connection of this process is open, or gives False.
    """

    def __init__(
        self,
        settings: Settings,
        log: Callable[[str], None],
        replaced: Callable[[int, int], object] = lambda common, news: None,
        alone: Callable[[Callable[[], object]], bool] = _at_once,
    ) -> None:
        self._settings = settings
        self._log = log
        self._replaced = replaced
        self._alone = alone
        self._said: dict[str, float] = {}
        # Whether what was read for live last was not handed on, or could not be read: there is more than we know.
        self._behind = False
        self._connection = self._open()
        self._stood_ns = time.time_ns()  # when the files of the connection were last found in place
        self._missing_since: float | None = None
        import_v020(settings)
        self.cursor = read.last_seq(self._connection)
        self._version = read.data_version(self._connection)
        self._pruner = prune.Pruner(prune.policy_of(settings))
        self._pruned: Writer | None = None
        self._prune_timer: asyncio.TimerHandle | None = None

    def live_page(self, limit: int) -> Page:
        """What was committed after the cursor, to be handed on and then passed by `advance`. Raises `StoreError`."""
        self._behind = True
        return self.page(self.cursor, limit)

    def advance(self, seq: int) -> None:
        """Everything up to `seq` was handed on."""
        self.cursor = seq
        self._behind = False

    def page(
        self,
        after: int,
        limit: int,
        *,
        upto: int | None = None,
        where: Condition | None = None,
    ) -> Page:
        """At most `limit` rows with `after < seq <= upto`, in commit order. Raises `StoreError`."""
        with self._explained():
            return read.read_page(self._connection, after, limit, upto=upto, where=where)

    def cursor_of(self, since: str) -> int:
        """The seq after which a replay from `since` starts. Raises `StoreError`."""
        with self._explained():
            return read.cursor_of(self._connection, since)

    def newest_seq(self) -> int:
        """The seq of the newest row committed, pruned or not as far as live has read. Raises `StoreError`."""
        with self._explained():
            return max(read.last_seq(self._connection), self.cursor)

    def id_at(self, seq: int) -> str | None:
        """The event_id of the newest row at or before `seq`; None when there is none. Raises `StoreError`."""
        with self._explained():
            return read.event_id_at(self._connection, seq)

    def resume_id(self) -> str | None:
        """The cursor of who was given all that live has read, `ULID_MIN` before any event; None: it cannot be said."""
        try:
            return self.id_at(self.cursor) or ULID_MIN
        except StoreError as error:
            self.complain(error)
            return None

    def changed(self) -> bool:
        """Whether there may be something to read: a commit since the last call, a read that failed, or another file."""
        if self.follow():
            return True
        try:
            with self._explained():
                version = read.data_version(self._connection)
        except StoreError as error:
            self.complain(error)
            return False
        moved, self._version = version != self._version, version
        return moved or self._behind

    def skip(self) -> None:
        """Put the cursor at the newest row, of whatever file is there now. Raises `StoreError`."""
        self.follow()
        with self._explained():
            self.advance(read.last_seq(self._connection))

    def follow(self) -> bool:
        """Go on with the new file where the store was replaced: producers write there. Whether it was."""
        place = self._connection.place
        if place.stands():
            self._missing_since = None
            self._stood_ns = time.time_ns()
            return False
        if not os.path.exists(self._settings.db_path):
            # Who removes it may be removing the files beside it right now: a new one must not lose them.
            now = time.monotonic()
            self._missing_since = now if self._missing_since is None else self._missing_since
            if now - self._missing_since < _MISSING_SEC:
                return False
        try:
            if place.has_database():
                # SQLite keeps one log and one set of locks for all connections of a process to one file.
                if not self._alone(self._replace_log):
                    return False
            else:
                self._replace()
        except (sqlite3.Error, OSError, WaitbusError) as error:
            self.complain(error)
            return False
        self._missing_since = None
        return True

    def reopen(self) -> None:
        """Read through a new connection: the old one may have kept what is no longer in the file."""
        if not self._connection.place.stands():  # `follow` compares the old file with the new one
            return
        try:
            fresh = self._open()
        except (sqlite3.Error, OSError, WaitbusError) as error:
            self.complain(error)
            return
        self._connection.close()
        self._connection = fresh

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explain(error, self._settings.db_path) from error

    def maintain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start pruning in small steps, one at a time with a pause between; never twice at once."""
        if not self._settings.retention or self._prune_timer is not None:
            return
        # A store that is gone is not made again for this, and one that lost its log not opened beside our connection.
        if self._connection.place.stands() or (os.path.exists(self._settings.db_path) and self.follow()):
            self._prune_timer = loop.call_later(0, self._prune_step, loop)

    def stop(self) -> None:
        if self._prune_timer is not None:
            self._prune_timer.cancel()

    def close(self) -> None:
        for connection in (self._connection, self._pruned):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    def _prune_step(self, loop: asyncio.AbstractEventLoop) -> None:
        more = False
        try:
            if self._pruned is None:
                # Producers go first: while one writes, this one tries again later.
                self._pruned = open_writer(self._settings, timeout=0)
            if self._pruned.place.stands():
                more = self._pruner.step(self._pruned, now_ns=time.time_ns()).more
        except (sqlite3.Error, WaitbusError) as error:
            self.complain(error)
        if more:
            self._prune_timer = loop.call_later(PRUNE_STEP_PAUSE_SEC, self._prune_step, loop)
            return
        self._end_prune()

    def _end_prune(self) -> None:
        if self._prune_timer is not None:
            self._prune_timer.cancel()
            self._prune_timer = None
        if self._pruned is not None:
            self._pruned.close()
            self._pruned = None

    def _open(self) -> Writer:
        connection = open_writer(self._settings, cache_kib=_CACHE_KIB)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS:d}")
        return connection

    def _replace(self) -> None:
        """Read the new file from where it tells news: a copy of the old one from where the two part."""
        self._connection.place.clear()
        fresh = self._open()
        common = _common(self._connection, fresh)
        self._end_prune()
        self._connection.close()
        self._take(fresh, common, f"{self._settings.db_path} was replaced")

    def _replace_log(self) -> None:
        """The file is the same, but its log was taken away, and with it what stood there alone."""
        self._end_prune()
        known = _tail(self._connection)
        self._connection.close()
        fresh = self._open()
        common = max((seq for seq, event_id in known if _id_at(fresh, seq) == event_id), default=0)
        self._take(fresh, common, f"the log of {self._settings.db_path} was taken away")

    def _take(self, fresh: Writer, common: int, what: str) -> None:
        news = max(common, _older(fresh, min(self._stood_ns, time.time_ns())))
        if self.cursor > common or not common:
            self.cursor = news
        self._log(f"{what}: going on after row {self.cursor}")
        self._connection = fresh
        self._stood_ns = time.time_ns()
        self._version = -1
        self._pruner = prune.Pruner(prune.policy_of(self._settings))
        self._replaced(common, news)

    def complain(self, error: Exception) -> None:
        """Log a trouble once an hour, not once a second."""
        text, now = str(error), time.monotonic()
        if now - self._said.get(text, -math.inf) < _SAY_AGAIN_SEC:
            return
        if len(self._said) >= _TROUBLES:
            self._said.clear()
        self._said[text] = now
        self._log(text)


def _older(connection: sqlite3.Connection, since_ns: int) -> int:
    """The seq of the last row of before `since_ns`: 0 in a file that was made after that."""
    try:
        made_ns = connection.execute("SELECT min(applied_at_ns) FROM schema_migrations").fetchone()[0]
        return 0 if made_ns >= since_ns else read.cursor_of(connection, ulid_at(since_ns))
    except (sqlite3.Error, WaitbusError):  # whoever reads it next says so
        return 0


def _common(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """The seq up to which two files hold the same rows: 0 unless one is a copy of the other."""
    try:
        first = max(_first_seq(old), _first_seq(new))
        last = min(read.last_seq(old), read.last_seq(new))
        low, high = first - 1, last
        while low < high:  # rows are the same up to some place, and differ from there on
            middle = (low + high + 1) // 2
            ours = read.event_id_at(old, middle)
            if ours is not None and ours == read.event_id_at(new, middle):
                low = middle
            else:
                high = middle - 1
        return low if low >= first else 0
    except (sqlite3.Error, WaitbusError):  # the old file may be in any state
        return 0


def _tail(connection: sqlite3.Connection) -> list[tuple[int, object]]:
    """The newest rows and their ids: all that a log may hold, and more."""
    try:
        return connection.execute("SELECT seq, event_id FROM events ORDER BY seq DESC LIMIT ?", (_TAIL,)).fetchall()
    except sqlite3.Error:
        return []


def _id_at(connection: sqlite3.Connection, seq: int) -> object:
    row = connection.execute("SELECT event_id FROM events WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else row[0]


def _first_seq(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM events ORDER BY seq LIMIT 1").fetchone()
    return 0 if row is None else row[0]
