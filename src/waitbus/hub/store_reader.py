"""How the hub reads the store: one cursor for live delivery, pages for replay, and pruning in small steps.

The hub stays up whatever happens to the store. A failed read raises `StoreError`; it never looks like an empty page.
The caller tries again or tells its subscriber.
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
# How long the event loop may block on another process's lock on the store.
_BUSY_MS = 20
# The same problem is logged again after this long.
_SAY_AGAIN_SEC = 3600.0
# How many problems are remembered as logged, by their text.
_TROUBLES = 16
# How long to wait for a removed store to come back before making an empty one.
_MISSING_SEC = 0.5
# How many of the newest rows are compared to find where a store that lost its log now ends.
_TAIL = 10_000
# Reading forward needs little cache, and SQLite would never give back what a long replay filled.
_CACHE_KIB = 256


def _at_once(act: Callable[[], object]) -> bool:
    act()
    return True


class StoreReader:
    """The store as the hub sees it. Live subscribers have been given every row up to seq `cursor`.

    `replaced(common, news)` is called when another file has taken the store's path. The new file holds the same rows as
    the old one up to seq `common`, and its rows after seq `news` count as new. The callee must drop what it remembers
    of later rows of the old file. `alone` calls its argument while this process has no other connection to the store
    open and returns True; if it cannot, it does nothing and returns False.
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
        # Whether the last read for live delivery failed or was not delivered, so that there may be more to read.
        self._behind = False
        self._connection = self._open()
        self._stood_ns = time.time_ns()  # when the connection's files were last found at their paths
        self._missing_since: float | None = None
        import_v020(settings)
        self.cursor = read.last_seq(self._connection)
        # Whether live delivery reads the store. Rows that it has not read yet are not pruned.
        self.is_followed = False
        self._version = read.data_version(self._connection)
        self._pruner = prune.Pruner(prune.policy_of(settings))
        self._pruned: Writer | None = None
        self._prune_timer: asyncio.TimerHandle | None = None

    def live_page(self, limit: int) -> Page:
        """Return the rows after the cursor. The caller delivers them and then calls `advance`. Raises `StoreError`."""
        self._behind = True
        return self.page(self.cursor, limit)

    def advance(self, seq: int) -> None:
        """Note that every row up to `seq` has been delivered."""
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
        """Return at most `limit` rows with `after < seq <= upto`, in commit order. Raises `StoreError`."""
        with self._explained():
            return read.read_page(self._connection, after, limit, upto=upto, where=where)

    def cursor_of(self, since: str) -> int:
        """The seq after which a replay from `since` starts. Raises `StoreError`."""
        with self._explained():
            return read.cursor_of(self._connection, since)

    def newest_seq(self) -> int:
        """Return the seq of the newest row, or the cursor if that row has been pruned since. Raises `StoreError`."""
        with self._explained():
            return max(read.last_seq(self._connection), self.cursor)

    def id_at(self, seq: int) -> str | None:
        """Return the event_id of the newest row at or before `seq`, or None if there is none. Raises `StoreError`."""
        with self._explained():
            return read.event_id_at(self._connection, seq)

    def resume_id(self) -> str | None:
        """Return the `since` with which a live subscriber can resume: the event_id of the newest row delivered.

        Before any event this is `ULID_MIN`. None if the store cannot be read now.
        """
        try:
            return self.id_at(self.cursor) or ULID_MIN
        except StoreError as error:
            self.complain(error)
            return None

    def changed(self) -> bool:
        """Whether there may be rows to read: another commit, an earlier read that failed, or a new store file."""
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
        """Move the cursor to the newest row of the file that is at the store's path now. Raises `StoreError`."""
        self.follow()
        with self._explained():
            self.advance(read.last_seq(self._connection))

    def follow(self) -> bool:
        """Switch to the new file if the store was replaced, because producers now write there. Returns whether it was.

        Losing the log (the -wal file) counts as a replacement.
        """
        place = self._connection.place
        if place.stands():
            self._missing_since = None
            self._stood_ns = time.time_ns()
            return False
        if not os.path.exists(self._settings.db_path):
            # Somebody may be deleting the store's files one by one. A store made right now could lose its own log.
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
        """Open a new connection: the old one may have cached pages that differ from the file."""
        if not self._connection.place.stands():  # `follow` still needs the old connection, to compare the files
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
        """Start pruning in small steps with a pause after each, unless it is already running."""
        if not self._settings.retention or self._prune_timer is not None:
            return
        # Pruning must not make a missing store, nor open one that lost its log beside our old connection.
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

    def prune_for(self, seconds: float) -> None:
        """Prune without pauses for at most `seconds`, while nobody is served."""
        until = time.monotonic() + seconds
        if self._settings.retention and self._connection.place.stands():
            while self._prune_once() and time.monotonic() < until:
                pass
        self._end_prune()

    def _prune_step(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._prune_once():
            self._prune_timer = loop.call_later(PRUNE_STEP_PAUSE_SEC, self._prune_step, loop)
        else:
            self._end_prune()

    def _prune_once(self) -> bool:
        """Do one step. Returns whether there is more to do."""
        more = False
        try:
            if self._pruned is None:
                # Producers go first: with no timeout, pruning gives way to a writer and tries again later.
                self._pruned = open_writer(self._settings, timeout=0)
            if self._pruned.place.stands():
                upto = self.cursor if self.is_followed else None
                more = self._pruner.step(self._pruned, now_ns=time.time_ns(), upto=upto).more
        except (sqlite3.Error, WaitbusError) as error:
            self.complain(error)
        return more

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
        """Switch to another database file. If it is a copy of the old one, go on where the two begin to differ."""
        self._connection.place.clear()
        fresh = self._open()
        common = _common(self._connection, fresh)
        self._end_prune()
        self._connection.close()
        self._switch_to(fresh, common, f"{self._settings.db_path} was replaced")

    def _replace_log(self) -> None:
        """Go on after the log of the same database file was deleted, and with it the rows that only the log held."""
        self._end_prune()
        known = _tail(self._connection)
        self._connection.close()
        fresh = self._open()
        common = max((seq for seq, event_id in known if _id_at(fresh, seq) == event_id), default=0)
        self._switch_to(fresh, common, f"the log of {self._settings.db_path} was deleted")

    def _switch_to(self, fresh: Writer, common: int, what: str) -> None:
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
        """Log the same problem at most once every `_SAY_AGAIN_SEC`."""
        text, now = str(error), time.monotonic()
        if now - self._said.get(text, -math.inf) < _SAY_AGAIN_SEC:
            return
        if len(self._said) >= _TROUBLES:
            self._said.clear()
        self._said[text] = now
        self._log(text)


def _older(connection: sqlite3.Connection, since_ns: int) -> int:
    """Return the seq of the last row older than `since_ns`, or 0 if the file was created after that."""
    try:
        made_ns = connection.execute("SELECT min(applied_at_ns) FROM schema_migrations").fetchone()[0]
        return 0 if made_ns >= since_ns else read.cursor_of(connection, ulid_at(since_ns))
    except (sqlite3.Error, WaitbusError):  # the next read reports it
        return 0


def _common(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """Return the seq up to which two files hold the same rows, or 0 if neither is a copy of the other."""
    try:
        first = max(_first_seq(old), _first_seq(new))
        last = min(read.last_seq(old), read.last_seq(new))
        low, high = first - 1, last
        while low < high:  # bisect: the rows are the same up to some seq and differ after it
            middle = (low + high + 1) // 2
            ours = read.event_id_at(old, middle)
            if ours is not None and ours == read.event_id_at(new, middle):
                low = middle
            else:
                high = middle - 1
        return low if low >= first else 0
    except (sqlite3.Error, WaitbusError):  # the old file may be damaged
        return 0


def _tail(connection: sqlite3.Connection) -> list[tuple[int, object]]:
    """Return seq and event_id of the newest `_TAIL` rows. A log rarely holds more rows than that."""
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
