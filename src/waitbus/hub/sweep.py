"""The look around, once a second, from a thread of its own: for commits that nobody rang for, and at the hub's place.

A thread that sleeps in a lock costs half of what a timer of the event loop does, and one that does both a half of two.
The thread only tells; reading the store and mending stay with the loop.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading

from waitbus.event import WaitbusError
from waitbus.store.open import open_reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waitbus.settings import Settings

SWEEP_SEC = 1.0
# Every so many looks it tells anyway, for what no version shows: a read that failed.
_TELL_ANYWAY = 5


class Sweep:
    """Calls `tell`, in the thread, when somebody may have committed, from `start` to `stop`; `also`, at every look."""

    def __init__(self, settings: Settings, tell: Callable[[], object], also: Callable[[], object]) -> None:
        self._settings = settings
        self._tell = tell
        self._also = also
        self._wanted = False
        self._store: _Version | None = None
        self._looking = threading.Lock()  # held while that is used
        self._closed = threading.Lock()
        self._closed.acquire()
        threading.Thread(target=self._run, name="sweep", daemon=True).start()

    def start(self) -> None:
        """Look at the store, too."""
        self._wanted = True

    def stop(self) -> None:
        """Leave the store alone: an idle hub costs nothing."""
        self._wanted = False

    def close(self) -> None:
        """End the thread at its next breath; it is not waited for, since the store may be keeping it."""
        self._wanted = False
        if self._closed.locked():
            self._closed.release()

    def without_store(self, act: Callable[[], object]) -> bool:
        """Call `act` while the thread has no connection to the store. False, and nothing done, while it uses one."""
        if not self._looking.acquire(blocking=False):
            return False
        try:
            self._let_go()
            act()
        finally:
            self._looking.release()
        return True

    def _run(self) -> None:
        while not self._closed.acquire(timeout=SWEEP_SEC):
            self._also()
            with self._looking:
                try:
                    told = self._look()
                except (sqlite3.Error, WaitbusError, OSError):
                    self._let_go()
                    told = True  # a store that cannot be looked at is the loop's to complain about
            if told:
                self._tell()
        self._let_go()

    def _look(self) -> bool:
        """Whether somebody may have committed; not while nobody wants to know."""
        if not self._wanted:
            self._let_go()
            return False
        if self._store is None:
            self._store = _Version(self._settings)
            return True
        if self._store.is_replaced():
            self._let_go()
            return True
        return self._store.changed()

    def _let_go(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


class _Version:
    """SQLite's count of the commits of others, by a connection of its own. Raises ``sqlite3.Error``, `StoreError`."""

    def __init__(self, settings: Settings) -> None:
        self._connection = open_reader(settings)
        self._looks = 0
        try:
            self._seen = self._version()
        except BaseException:
            self.close()
            raise

    def changed(self) -> bool:
        """Whether somebody may have committed since the last call."""
        self._looks += 1
        before, self._seen = self._seen, self._version()
        return self._seen != before or self._looks % _TELL_ANYWAY == 0

    def is_replaced(self) -> bool:
        """Whether another file, or another log of it, is found by its name by now."""
        return not self._connection.place.stands()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _version(self) -> object:
        return self._connection.execute("PRAGMA data_version").fetchone()
