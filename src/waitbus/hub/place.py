"""The hub's place on the machine, and a look once a second at whether clients still find it there.

A cleaner of /tmp, a log-out or a person takes socket files away, or the lock, or whole directories. The hub then
listens again, within a second, and says in the lock of its store where; connections that stand live on.
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
        """What the place asks of the server, and tells it."""

        def on_moving(self) -> None: ...  # the listening sockets are about to change: take what waits in them
        def on_moved(self) -> None: ...
        def is_needed(self) -> bool: ...  # whether somebody is connected
        def may_leave(self) -> bool: ...
        def stop(self) -> None: ...


# A directory's time is as coarse as the kernel's tick: of two changes within one, it tells the first alone.
_SETTLED_NS = 100_000_000


class Place:
    """The lock of the store, the sockets, and the look at both. Raises `HubRunning` when another hub has the store."""

    def __init__(self, settings: Settings, log: Callable[[str], None]) -> None:
        self._settings = settings
        self._log = log
        self._said: list[str] = []
        self._lock = HubLock(settings)
        self._directories: tuple[str, ...] = ()
        self._seen: list[tuple[int, int, int]] | None = None
        self.listeners: Listeners

    def listen(self) -> Listeners:
        """Bind the sockets, and say where in the lock."""
        self.listeners = Listeners(self._settings)
        self._lock.tell(self.listeners.addresses())
        self._note_directories()
        return self.listeners

    def close(self) -> None:
        """Give up the sockets. The lock is held until `release`: whoever is next waits until the store is closed."""
        self.listeners.close()

    def release(self) -> None:
        self._lock.release()

    def is_well(self) -> bool:
        """Whether all is where it should be, from any thread. While a directory has not changed, nothing in it has."""
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
        """What tells one state of them from another; None when one is missing, or changed too lately to be told."""
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
        """Listen again, and hold the lock again, where something is not as it should be."""
        if not self._mend_lock(owner) or self.listeners.are_well():
            return
        owner.on_moving()
        try:
            said = self.listeners.renew()
        finally:
            owner.on_moved()
        self._lock.tell(self.listeners.addresses())
        self._note_directories()
        self._say(said)

    def _mend_lock(self, owner: Owner) -> bool:
        """Hold the lock where clients look for it. False when there is nothing to serve, or another hub serves it."""
        if self._lock.holds():
            return True
        directory = os.path.dirname(self._settings.hub_lock)
        if not owner.is_needed() and not os.path.isdir(directory):
            # Whoever removed the store's directory does not want it made again; the next client would.
            if owner.may_leave():
                self._say([f"{directory} is gone, and nobody is connected: leaving"])
                owner.stop()
            return False
        try:
            self._lock.take_again()
            self._note_directories()
            self._say([f"{self._settings.hub_lock} was gone or another's: holding it again"])
        except HubRunning as error:
            self._say([f"leaving: {error}"])
            owner.stop()
            return False
        except WaitbusError as error:  # the directory is not there yet: who reads the store makes it
            self._say([str(error)])
        return True

    def _say(self, said: list[str]) -> None:
        """Log what is new: what stays impossible is tried once a second."""
        said = list(dict.fromkeys(said))
        for line in said:
            if line not in self._said:
                self._log(line)
        self._said = said
