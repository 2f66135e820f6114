"""The lock file beside a store: it tells whether a hub serves the store, which process that is, and where it listens.

The hub holds the lock (flock) as long as it runs and writes the file; all others only read it. What a dead hub left in
the file does no harm: either nobody listens at its addresses, or the first frame from there names another store.
"""

from __future__ import annotations

import os
import stat

from waitbus.json_text import from_json, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Enough for three addresses and two paths of the length that Linux allows, with every byte escaped.
_MAX_BYTES = 65_536
_MAX_PATH = 4096


class Holder:
    """What the hub that holds a lock has written about itself. A value is None if it is missing, as during start-up."""

    __slots__ = ("bell", "broadcast", "doorbell", "pid", "store")

    def __init__(self, said: Mapping[str, object]) -> None:
        pid = said.get("pid")
        self.pid = pid if isinstance(pid, int) and pid > 0 else None
        self.store = _path(said.get("store"))
        self.broadcast = _path(said.get("broadcast"))
        self.doorbell = _path(said.get("doorbell"))
        self.bell = _path(said.get("bell"))

    @property
    def who(self) -> str:
        """The process and its store, for a message."""
        pid = f"pid {self.pid}" if self.pid else "pid unknown"
        return f"{pid}, for {self.store}" if self.store else pid


def _path(value: object) -> str | None:
    return value if isinstance(value, str) and value[:1] == "/" and len(value) <= _MAX_PATH else None


def read(lock: str) -> Holder:
    """Read the lock file at `lock`.

    All values are None if the file is missing or incomplete, or if it could be another user's work.
    """
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return Holder({})
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return Holder({})
        text = os.read(fd, _MAX_BYTES).decode("utf-8", "surrogateescape")
        said = from_json(text) if text else {}
    except (OSError, ValueError, RecursionError):
        return Holder({})
    finally:
        os.close(fd)
    return Holder(said if isinstance(said, dict) else {})


def write(fd: int, said: Mapping[str, object]) -> None:
    """Replace the content of the lock file. A reader in the middle of this finds invalid JSON and ignores it."""
    raw = to_json(said).encode("utf-8", "surrogateescape")
    os.pwrite(fd, raw, 0)
    os.ftruncate(fd, len(raw))


def is_held(lock: str) -> bool:
    """Whether a process holds the lock.

    This takes the lock for a moment. A hub that finds it taken in that moment tries again.
    """
    import fcntl

    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(fd)
    return False
