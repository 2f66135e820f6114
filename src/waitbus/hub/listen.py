"""The hub's place on the machine: its lock, and the three sockets it listens on.

One hub a state directory, held by a lock that dies with its process: a socket file that lies there then is stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat

from waitbus.event import WaitbusError
from waitbus.host.systemd_notify import inherited_sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.settings import Settings

_BACKLOG = 1024


class HubRunning(WaitbusError):
    """Another hub holds this state directory."""


class HubLock:
    """An exclusive lock on the state directory for the life of this process; the file holds the pid, for people."""

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise WaitbusError(
                f"cannot lock {path}: {error.strerror}; set WAITBUS_STATE_DIR to a writable place"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.read(self._fd, 20).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise HubRunning(
                f"a hub already runs for {os.path.dirname(path)} (pid {pid or 'unknown'}); see `waitbus status`"
            ) from None
        self._write(f"{os.getpid()}\n".encode())

    def release(self) -> None:
        self._write(b"")
        os.close(self._fd)

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # on a disk that is full or read-only the lock holds all the same
            os.ftruncate(self._fd, 0)
            os.write(self._fd, text)


class Listeners:
    """The broadcast socket, the doorbell (stream, anyone's) and the bell (datagram, ours), bound or inherited."""

    def __init__(self, settings: Settings) -> None:
        inherited = inherited_sockets()
        self._bound: list[tuple[str, tuple[int, int]]] = []
        self.broadcast = inherited.get("broadcast") or self._bind(settings.broadcast_socket, socket.SOCK_STREAM)
        self.doorbell = inherited.get("doorbell") or self._bind(settings.doorbell_socket, socket.SOCK_STREAM)
        self.bell = inherited.get("bell") or self._bind(settings.bell_socket, socket.SOCK_DGRAM)
        for listener in (self.broadcast, self.doorbell, self.bell):
            listener.setblocking(False)

    def _bind(self, path: str, kind: int) -> socket.socket:
        """Bind with mode 0600 from the first instant. Only a socket of ours is taken for stale and removed."""
        with contextlib.suppress(FileNotFoundError):
            there = os.lstat(path)
            if not stat.S_ISSOCK(there.st_mode) or there.st_uid != os.getuid():
                raise WaitbusError(f"{path} is not a socket of ours: move it away and start again")
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, kind)
        umask = os.umask(0o177)
        try:
            listener.bind(path)
        except OSError as error:
            listener.close()
            raise WaitbusError(f"cannot listen on {path}: {error.strerror or error}") from None
        finally:
            os.umask(umask)
        if kind == socket.SOCK_STREAM:
            listener.listen(_BACKLOG)
        bound = os.lstat(path)
        self._bound.append((path, (bound.st_dev, bound.st_ino)))
        return listener

    def close(self) -> None:
        """Close all; remove the files that are still ours. Inherited sockets keep their files: systemd listens on."""
        for listener in (self.broadcast, self.doorbell, self.bell):
            listener.close()
        for path, identity in self._bound:
            with contextlib.suppress(OSError):
                there = os.lstat(path)
                if (there.st_dev, there.st_ino) == identity:
                    os.unlink(path)
