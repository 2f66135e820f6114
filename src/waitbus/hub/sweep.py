"""The look for commits that nobody rang for: `PRAGMA data_version`, once a second, from a thread of its own.

A thread that sleeps in a lock costs half of what a timer of the event loop does, and it is all that a hub with waiting
subscribers does while nothing happens. The thread only tells; reading stays with the loop.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading

from waitbus.event import WaitbusError
from waitbus.store.open import open_reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waitbus.settings import Settings

SWEEP_SEC = 1.0
# Every so many looks it tells anyway, for what no version shows: a file that was replaced, a read that failed.
_TELL_ANYWAY = 5


class Sweep:
    """Calls `tell`, in the thread, when somebody may have committed. Runs from `start` to `stop`, again and again."""

    def __init__(self, settings: Settings, tell: Callable[[], object]) -> None:
        self._settings = settings
        self._tell = tell
        self._stopped: threading.Lock | None = None

    def start(self) -> None:
        if self._stopped is None:
            self._stopped = threading.Lock()
            self._stopped.acquire()
            threading.Thread(target=self._run, args=(self._stopped,), name="sweep", daemon=True).start()

    def stop(self) -> None:
        """End the thread at its next breath; it is not waited for, since the store may be keeping it."""
        if self._stopped is not None:
            self._stopped.release()
            self._stopped = None

    def _run(self, stopped: threading.Lock) -> None:
        going = True
        while going:
            with (
                contextlib.suppress(sqlite3.Error, WaitbusError, OSError),
                contextlib.closing(open_reader(self._settings)) as connection,
            ):
                going = self._watch(connection.cursor(), os.stat(self._settings.db_path).st_ino, stopped)
                continue
            self._tell()  # a store that cannot be looked at is the loop's to complain about
            going = _rest(stopped)

    def _watch(self, cursor: sqlite3.Cursor, inode: int, stopped: threading.Lock) -> bool:
        """Look until stopped (False), or until the file is another one (True)."""
        seen = cursor.execute("PRAGMA data_version").fetchone()
        looks = 0
        while _rest(stopped):
            looks += 1
            version = cursor.execute("PRAGMA data_version").fetchone()
            if version != seen or looks % _TELL_ANYWAY == 0:
                seen = version
                self._tell()
                if os.stat(self._settings.db_path).st_ino != inode:
                    return True
        return False


def _rest(stopped: threading.Lock) -> bool:
    """Sleep for the interval. False at once when it is over."""
    if stopped.acquire(timeout=SWEEP_SEC):
        stopped.release()
        return False
    return True
