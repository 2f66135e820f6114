"""The lock beside a store: whether a hub serves it, which process that is, and where it listens.

The hub holds the lock (flock) for its life and writes into the file; everybody else only reads. What a dead hub left
there is harmless: nobody listens where it says, or the first frame of whoever does names another store.
"""

from __future__ import annotations

import os
import stat

from waitbus.json_text import from_json, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Three addresses, and two paths as long as Linux takes them, every byte of which may need an escape.
_MAX_BYTES = 65_536
_MAX_PATH = 4096


class Holder:
    """What the hub that holds a lock says of itself; None where it says nothing, as while it starts."""

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
        """For a message."""
        pid = f"pid {self.pid}" if self.pid else "pid unknown"
        return f"{pid}, for {self.store}" if self.store else pid


def _path(value: object) -> str | None:
    return value if isinstance(value, str) and value[:1] == "/" and len(value) <= _MAX_PATH else None


def read(lock: str) -> Holder:
    """What the lock's file says. Nothing, when it is not there, not a file of ours alone, or not written to its end."""
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
    """Replace the content, in one write: who reads in the middle of it finds no JSON, and takes it for nothing."""
    raw = to_json(said).encode("utf-8", "surrogateescape")
    os.pwrite(fd, raw, 0)
    os.ftruncate(fd, len(raw))


def is_held(lock: str) -> bool:
    """Whether some process holds the lock. It is taken and given back for that: a hub that finds it so tries again."""
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
