"""Locks that end with their process: one for the store, so that it has only one hub, and one for each address.

A lock is a locked file, and anybody may clean up the directory that it lies in. The lock works all the same: after
locking, `take` checks that the file is still at its path, and the hub locks again when the file is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from waitbus.event import WaitbusError
from waitbus.private import STATE, check_owner
from waitbus.store import hublock
from waitbus.store.open import check_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from waitbus.settings import Settings

# A process that only asks whether a lock is held holds it for some microseconds, so a few tries tell the two apart.
_TRIES = 50
_TRY_AGAIN_SEC = 0.01


class HubRunning(WaitbusError):
    """Another hub serves this store."""


class HubLock:
    """The lock of one store, held for the life of this process. Its file says who holds it and where that hub listens.

    Raises `HubRunning` if another hub holds it, and `WaitbusError` if it cannot be taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._addresses: Mapping[str, str] = {}
        check_directory(settings)
        self._fd = self._take()

    def tell(self, addresses: Mapping[str, str]) -> None:
        """Write into the lock's file where this hub listens: the paths of `broadcast`, `doorbell` and `bell`."""
        self._addresses = addresses
        content = {"pid": os.getpid(), "store": self._settings.store, **addresses}
        with contextlib.suppress(OSError):  # on a full disk the lock still holds, without its content
            hublock.write(self._fd, content)

    def holds(self) -> bool:
        """Whether the file at the path of the store's lock is the one that this process holds."""
        return is_at(self._fd, self._settings.hub_lock)

    def take_again(self) -> None:
        """Take the lock that clients now find: ours was removed or moved, or the store's path leads elsewhere."""
        fd = self._take()
        os.close(self._fd)
        self._fd = fd
        self.tell(self._addresses)

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def _take(self) -> int:
        path = self._settings.hub_lock
        fd = take(path, STATE)
        if fd is None:
            raise HubRunning(
                f"a hub already runs for {self._settings.store} ({hublock.read(path).who}); see `waitbus status`"
            )
        with contextlib.suppress(OSError):
            hublock.write(fd, {"pid": os.getpid()})
        return fd


def take(path: str, setting: str) -> int | None:
    """Lock the file at `path`, creating it if needed. Returns its descriptor, or None if another process holds it.

    Raises `WaitbusError` if another user owns the file, or it cannot be opened or locked. `setting` is the setting that
    the message tells the user to change.
    """
    for _ in range(_TRIES):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise WaitbusError(f"cannot lock {path}: {error.strerror}; set {setting} to a writable path") from None
        try:
            check_owner(path, os.fstat(fd), setting)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(fd, path):
                return fd
        except BlockingIOError:
            if is_alive(hublock.read(path).pid):
                os.close(fd)
                return None
            time.sleep(_TRY_AGAIN_SEC)
        except OSError as error:  # a file system without locks
            os.close(fd)
            raise WaitbusError(f"cannot lock {path}: {error.strerror}; set {setting} to another path") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    return None


def is_alive(pid: int | None) -> bool:
    """Whether a process with this pid is visible from here."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def is_at(fd: int, path: str) -> bool:
    """Whether the open file `fd` is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False
