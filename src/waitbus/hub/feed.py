"""How the hub reads the store: one cursor for live, pages for replay, and small steps of upkeep.

Whatever the store answers, the hub stays up: a read that fails is logged once, and tried again by the next sweep.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

from waitbus.event import ULID_MIN, WaitbusError
from waitbus.store import prune, read
from waitbus.store.importer import import_v020
from waitbus.store.open import open_writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from waitbus.settings import Settings
    from waitbus.store.prefilter import Condition

    Page = list[tuple[int, dict[str, Any]]]

PRUNE_EVERY_SEC = 60.0
PRUNE_STEP_PAUSE_SEC = 0.05
_CACHE_KIB = 256  # a reader that goes forward needs little, and what a long replay filled is never given back


class Feed:
    """The store as the hub sees it. `cursor` is the seq up to which live has been read."""

    def __init__(self, settings: Settings, log: Callable[[str], None]) -> None:
        self._settings = settings
        self._log = log
        self._said = ""
        self._behind = False  # whether the last look for live failed: there may be more than we know
        self._connection = open_writer(settings, cache_kib=_CACHE_KIB)
        import_v020(settings)
        self._identity = self._file_identity()
        self.cursor = read.last_seq(self._connection)
        self._version = read.data_version(self._connection)
        self._pruner = prune.Pruner(prune.policy_of(settings))
        self._pruned: sqlite3.Connection | None = None
        self._prune_timer: asyncio.TimerHandle | None = None

    def next_page(self, limit: int) -> Page | None:
        """What was committed after the cursor, which moves past it; None when the store cannot be read."""
        page = self.page(self.cursor, limit)
        self._behind = page is None
        if page:
            self.cursor = page[-1][0]
        return page

    def page(self, after: int, limit: int, upto: int | None = None, where: Condition | None = None) -> Page | None:
        """At most `limit` rows with `after < seq <= upto`, in commit order; None when the store cannot be read."""
        try:
            return read.read_after(self._connection, after, limit, upto=upto, where=where)
        except (sqlite3.Error, WaitbusError) as error:
            self._complain(error)
            return None

    def cursor_of(self, since: str) -> int:
        """The seq after which a replay from `since` starts; the live cursor when the store cannot be read."""
        try:
            return read.cursor_of(self._connection, since)
        except (sqlite3.Error, WaitbusError) as error:
            self._complain(error)
            return self.cursor

    def newest_seq(self) -> int:
        """The seq of the newest row committed; the live cursor when the store cannot be read."""
        try:
            return max(read.last_seq(self._connection), self.cursor)
        except (sqlite3.Error, WaitbusError) as error:
            self._complain(error)
            return self.cursor

    def id_at(self, seq: int) -> str | None:
        """The event_id of the newest row at or before `seq`; None when there is none, or the store cannot be read."""
        try:
            return read.event_id_at(self._connection, seq)
        except (sqlite3.Error, WaitbusError):
            return None

    def place(self) -> str | None:
        """The cursor of who was given all that live has read, `ULID_MIN` before any event; None: no store to read."""
        try:
            return read.event_id_at(self._connection, self.cursor) or ULID_MIN
        except (sqlite3.Error, WaitbusError):
            return None

    def changed(self) -> bool:
        """Whether there may be something to read: a commit since the last call, a read that failed, or another file."""
        try:
            if self._reopen_if_replaced():
                return True
            version = read.data_version(self._connection)
        except (sqlite3.Error, WaitbusError) as error:
            self._complain(error)
            return False
        moved, self._version = version != self._version, version
        return moved or self._behind

    def skip(self) -> None:
        """Put the cursor at the newest row, of whatever file is there now."""
        try:
            self._reopen_if_replaced()
        except (sqlite3.Error, WaitbusError) as error:
            self._complain(error)
        self.cursor = self.newest_seq()

    def maintain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start pruning in small steps, one at a time with a pause between; never twice at once."""
        if self._settings.retention and self._prune_timer is None:
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
            more = self._pruner.step(self._pruned, now_ns=time.time_ns()).more
        except (sqlite3.Error, WaitbusError) as error:
            self._complain(error)
        if more:
            self._prune_timer = loop.call_later(PRUNE_STEP_PAUSE_SEC, self._prune_step, loop)
            return
        if self._pruned is not None:
            self._pruned.close()
            self._pruned = None
        self._prune_timer = None

    def _file_identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._settings.db_path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _reopen_if_replaced(self) -> bool:
        """Where somebody moved or deleted the file, producers write to a new one, and that is the truth now."""
        if self._file_identity() == self._identity:
            return False
        self._log(f"{self._settings.db_path} was replaced: reading the new file from its start")
        fresh = open_writer(self._settings, cache_kib=_CACHE_KIB)
        self._connection.close()
        self._connection = fresh
        self._identity = self._file_identity()
        self._version = read.data_version(fresh)
        self._pruner = prune.Pruner(prune.policy_of(self._settings))
        self.cursor = 0
        return True

    def _complain(self, error: Exception) -> None:
        """Log a trouble once, not once a second."""
        text = str(error)
        if text != self._said:
            self._said = text
            self._log(text)
