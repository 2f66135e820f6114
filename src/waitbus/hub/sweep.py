"""A thread that looks once a second for commits that nobody rang for, and checks that the hub is still in place.

A thread that sleeps on a lock costs half of what a timer in the event loop does, and one thread can do both jobs. It
only calls back; the event loop does the reading and the repairs.
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
# Every so many looks it calls `tell` in any case, because a failed read of the loop does not show in the version.
_TELL_ANYWAY = 5


class Sweep:
    """Looks once a second, in a thread of its own.

    Between `start` and `stop` it calls `tell` when another process may have committed. It calls `also` every time.
    Both are called in the thread.
    """

    def __init__(self, settings: Settings, tell: Callable[[], object], also: Callable[[], object]) -> None:
        self._settings = settings
        self._tell = tell
        self._also = also
        self._wanted = False
        self._store: _Version | None = None
        self._looking = threading.Lock()  # guards `_store`
        self._closed = threading.Lock()  # held until `close`; the thread sleeps by waiting for it
        self._closed.acquire()
        threading.Thread(target=self._run, name="sweep", daemon=True).start()

    def start(self) -> None:
        """Start looking for commits."""
        self._wanted = True

    def stop(self) -> None:
        """Stop looking for commits and close the store, so that an idle hub costs nothing."""
        self._wanted = False

    def close(self) -> None:
        """Tell the thread to end. This does not wait for it, because a locked store may block it."""
        self._wanted = False
        if self._closed.locked():
            self._closed.release()

    def without_store(self, act: Callable[[], object]) -> bool:
        """Close the thread's connection to the store and call `act` before it opens another. Returns True.

        If the thread is using its connection right now, do nothing and return False.
        """
        if not self._looking.acquire(blocking=False):
            return False
        try:
            self._close_store()
            act()
        finally:
            self._looking.release()
        return True

    def _run(self) -> None:
        while not self._closed.acquire(timeout=SWEEP_SEC):
            self._also()
            with self._looking:
                try:
                    found = self._look()
                except (sqlite3.Error, WaitbusError, OSError):
                    self._close_store()
                    found = True  # the loop will read the store, fail as well, and report it
            if found:
                self._tell()
        self._close_store()

    def _look(self) -> bool:
        """Whether another process may have committed. False while nobody wants to know."""
        if not self._wanted:
            self._close_store()
            return False
        if self._store is None:
            self._store = _Version(self._settings)
            return True
        if self._store.is_replaced():
            self._close_store()
            return True
        return self._store.changed()

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


class _Version:
    """SQLite's counter of other connections' commits, read through a connection of its own.

    Every method but `close` may raise ``sqlite3.Error`` or `WaitbusError`.
    """

    def __init__(self, settings: Settings) -> None:
        self._connection = open_reader(settings)
        self._looks = 0
        try:
            self._seen = self._version()
        except BaseException:
            self.close()
            raise

    def changed(self) -> bool:
        """Whether another connection may have committed since the last call."""
        self._looks += 1
        before, self._seen = self._seen, self._version()
        return self._seen != before or self._looks % _TELL_ANYWAY == 0

    def is_replaced(self) -> bool:
        """Whether another database file or another log is at the store's path by now."""
        return not self._connection.place.stands()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _version(self) -> object:
        return self._connection.execute("PRAGMA data_version").fetchone()
