"""Where clients find the hub: the lock of its store, its sockets, and a check once a second that both are in place.

A cleaner of /tmp, a log-out or a person may delete the socket files, the lock or whole directories. Within a second
the hub listens again and writes its addresses into the lock of its store. Open connections are not affected.
"""

from __future__ import annotations

import os
import time

from waitbus.event import WaitbusError
from waitbus.hub.listen import Listeners
from waitbus.hub.lock import HubLock, HubRunning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from waitbus.settings import Settings

    class Owner(Protocol):
        """The methods of the server that `Place` calls."""

        def on_moving(self) -> None: ...  # the listening sockets are about to change: accept what waits in them
        def on_moved(self) -> None: ...
        def is_needed(self) -> bool: ...  # whether a client is connected
        def may_leave(self) -> bool: ...  # whether the hub ends by itself when it is idle
        def stop(self) -> None: ...


# A directory's modification time is only as fine as the kernel's tick, so it can hide a second change within a tick.
# A time older than this hides nothing.
_SETTLED_NS = 100_000_000


class Place:
    """The lock of the store and the sockets. Raises `HubRunning` if another hub serves the store."""

    def __init__(self, settings: Settings, log: Callable[[str], None]) -> None:
        self._settings = settings
        self._log = log
        self._said: list[str] = []
        self._lock = HubLock(settings)
        self._directories: tuple[str, ...] = ()
        self._seen: list[tuple[int, int, int]] | None = None
        self.listeners: Listeners

    def listen(self) -> Listeners:
        """Bind the sockets and write their addresses into the lock."""
        self.listeners = Listeners(self._settings)
        self._lock.tell(self.listeners.addresses())
        self._note_directories()
        return self.listeners

    def close(self) -> None:
        """Close the sockets. The lock is held until `release`: the next hub starts only after the store is closed."""
        self.listeners.close()

    def release(self) -> None:
        self._lock.release()

    def is_well(self) -> bool:
        """Whether the lock and the sockets are in place. May be called from any thread.

        As long as no directory has changed, no file in it was added or removed, so one `stat` each is enough.
        """
        seen = self._look_at_directories()
        if seen is not None and seen == self._seen:
            return True
        self._seen = None
        if not (self._lock.holds() and self.listeners.are_well()):
            return False
        self._seen = seen
        return True

    def _note_directories(self) -> None:
        paths = (self._settings.hub_lock, self._settings.db_path, *self.listeners.addresses().values())
        self._directories = tuple({os.path.dirname(path) for path in paths})

    def _look_at_directories(self) -> list[tuple[int, int, int]] | None:
        """Return device, inode and modification time of each directory.

        None if one is missing, or changed so recently that its time may hide a later change.
        """
        settled = time.time_ns() - _SETTLED_NS
        seen = []
        try:
            for directory in self._directories:
                found = os.stat(directory)
                if found.st_mtime_ns > settled:
                    return None
                seen.append((found.st_dev, found.st_ino, found.st_mtime_ns))
        except OSError:
            return None
        return seen

    def mend(self, owner: Owner) -> None:
        """Take the lock again and bind the sockets again, wherever one is not in place."""
        if not self._mend_lock(owner) or self.listeners.are_well():
            return
        owner.on_moving()
        try:
            lines = self.listeners.renew()
        finally:
            owner.on_moved()
        self._lock.tell(self.listeners.addresses())
        self._note_directories()
        self._say(lines)

    def _mend_lock(self, owner: Owner) -> bool:
        """Take the lock that clients look for. Returns False if the store is gone or another hub serves it."""
        if self._lock.holds():
            return True
        directory = os.path.dirname(self._settings.hub_lock)
        if not owner.is_needed() and not os.path.isdir(directory):
            # Somebody removed the store's directory, so the hub does not make it again. The next client will.
            if owner.may_leave():
                self._say([f"{directory} is gone and nobody is connected: leaving"])
                owner.stop()
            return False
        try:
            self._lock.take_again()
            self._note_directories()
            self._say([f"{self._settings.hub_lock} was removed or replaced: locked it again"])
        except HubRunning as error:
            self._say([f"leaving: {error}"])
            owner.stop()
            return False
        except WaitbusError as error:  # the directory does not exist yet: reading the store will make it
            self._say([str(error)])
        return True

    def _say(self, lines: list[str]) -> None:
        """Log the lines that the last attempt, a second ago, did not log already."""
        lines = list(dict.fromkeys(lines))
        for line in lines:
            if line not in self._said:
                self._log(line)
        self._said = lines
