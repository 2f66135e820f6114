"""Locks that die with their process: one for the store, so that it has one hub, and one for each address.

A lock is a file. Taking it again after its file was removed, and not taking one whose file is gone, is what makes it
hold although anybody may clean up the directory it lies in.
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

# Who only asks whether a lock is held has it for some microseconds.
_TRIES = 50
_TRY_AGAIN_SEC = 0.01


class HubRunning(WaitbusError):
    """Another hub serves this store."""


class HubLock:
    """The lock of one store, held for the life of this process. Its content says who holds it and where it listens.

    Raises `HubRunning` when another hub holds it, `WaitbusError` when it cannot be taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._addresses: Mapping[str, str] = {}
        check_directory(settings)
        self._fd = self._take()

    def tell(self, addresses: Mapping[str, str]) -> None:
        """Say where this hub listens: `broadcast`, `doorbell`, `bell`."""
        self._addresses = addresses
        said = {"pid": os.getpid(), "store": self._settings.store, **addresses}
        with contextlib.suppress(OSError):  # on a disk that is full the lock holds all the same
            hublock.write(self._fd, said)

    def holds(self) -> bool:
        """Whether the lock of the store, as it is found now, is the one held here."""
        return is_at(self._fd, self._settings.hub_lock)

    def take_again(self) -> None:
        """Its file was removed or moved, or the store's name leads elsewhere now: take the lock that clients find."""
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
    """Lock the file `path`, which is made where it is missing: its descriptor, or None when another process holds it.

    Raises `WaitbusError` when the file is another user's or cannot be opened; `setting` names another place for it.
    """
    for _ in range(_TRIES):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise WaitbusError(f"cannot lock {path}: {error.strerror}; set {setting} to a writable place") from None
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
            raise WaitbusError(f"cannot lock {path}: {error.strerror}; set {setting} to another place") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    return None


def is_alive(pid: int | None) -> bool:
    """Whether there is such a process, as far as can be seen from here."""
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
    """Whether the open file `fd` is the one found at `path`."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False
