"""The three sockets that the hub listens on. It binds them itself, or a service manager hands them over.

Each socket's path has a lock file beside it, which the hub holds as long as it listens there, so that no hub takes
another's socket for stale. If a socket's file is deleted, or another process listens there, the hub binds the socket
again. If its own path cannot be bound, the hub uses a spare path, which clients find through the store's lock.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from waitbus.event import WaitbusError
from waitbus.host.peer import peer_pid
from waitbus.host.sd_notify import inherited_sockets
from waitbus.hub.lock import is_at, take
from waitbus.private import RUNTIME, check_owner, ensure_private_dir, quote
from waitbus.settings import spare_runtime_dir
from waitbus.store import hublock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.settings import Settings

_BACKLOG = 1024
# How connecting fails when no process has the socket open any more.
_STALE = (ConnectionRefusedError, FileNotFoundError)


class Taken(WaitbusError):
    """Another process listens at this address."""


class Listener:
    """One socket. `path` is where it listens now, `home` is where the settings want it."""

    __slots__ = ("_identity", "_kind", "_lock", "_setting", "_store", "home", "inherited", "path", "socket")

    def __init__(self, home: str, kind: int, setting: str, store: str, inherited: socket.socket | None) -> None:
        self.home = self.path = home
        self.inherited = inherited is not None
        self._kind = kind
        self._setting = setting
        self._store = store
        self._lock: int | None = None
        self._identity: tuple[int, int] | None = None
        if inherited is None:
            self.socket = self._bound(home)
            return
        self.socket = inherited
        inherited.setblocking(False)
        address = inherited.getsockname()
        if isinstance(address, str) and os.path.isabs(address):
            self.path = self.home = address
        with contextlib.suppress(OSError):
            self._identity = _identity(self.path)

    def is_there(self) -> bool:
        """Whether the file at `path` is this socket. True if this process has never seen the file."""
        try:
            return self._identity is None or _identity(self.path) == self._identity
        except OSError:
            return False

    def stop_checking(self) -> None:
        """From now on let `is_there` take the file for ours, whatever is there."""
        self._identity = None

    def move(self, path: str) -> None:
        """Listen at `path` from now on. Raises `WaitbusError`, and changes nothing, if that is impossible."""
        before, identity, lock, old = self.path, self._identity, self._lock, self.socket
        self.socket = self._bound(path)
        if path != before:
            _unlink(before, identity)
        old.close()
        if lock is not None and lock != self._lock:
            _remove_lock(before, lock)

    def close(self) -> None:
        """Stop listening and remove the file, if it is still this socket's and no service manager opened it."""
        if not self.inherited:
            _unlink(self.path, self._identity)
        self.socket.close()  # after the unlink: while the socket is open, no other file can get its inode
        if self._lock is not None:
            _remove_lock(self.path, self._lock)
            self._lock = None

    def _bound(self, path: str) -> socket.socket:
        """Lock the address and return a socket bound there. Its file has mode 0600 from the first instant."""
        held = (
            self._lock if path == self.path and self._lock is not None and is_at(self._lock, _lock_of(path)) else None
        )
        lock = take(_lock_of(path), self._setting) if held is None else held
        if lock is None:
            raise self._taken(path, f"another hub ({hublock.read(_lock_of(path)).who})")
        try:
            with contextlib.suppress(OSError):
                hublock.write(lock, {"pid": os.getpid(), "store": self._store})
            self._clear(path)
            made = self._bind(path)
        except BaseException:
            if held is None:
                _remove_lock(path, lock)
            raise
        self.path, self._lock = path, lock
        return made

    def _clear(self, path: str) -> None:
        """Remove a socket file of ours that no process has open. Raises `WaitbusError` if anything else is there."""
        try:
            there = os.lstat(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise WaitbusError(f"cannot look at {path}: {error.strerror}") from None
        if not stat.S_ISSOCK(there.st_mode):
            raise WaitbusError(f"{path} is not a socket: move it away: mv {quote(path)} {quote(path + '.old')}")
        check_owner(path, there, self._setting)
        with socket.socket(socket.AF_UNIX, self._kind) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
                pid = peer_pid(probe) if self._kind == socket.SOCK_STREAM else None
            except _STALE:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                return
            except OSError:  # its backlog is full, or it is of another type: some process has it open
                pid = None
        raise self._taken(path, f"another process (pid {pid})" if pid else "another process")

    def _taken(self, path: str, who: str) -> Taken:
        return Taken(f"{who} listens on {path}: stop it, or set {self._setting} to a path that only this bus uses")

    def _bind(self, path: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, self._kind)
        umask = os.umask(0o177)
        try:
            made.bind(path)
            if self._kind == socket.SOCK_STREAM:
                made.listen(_BACKLOG)
            made.setblocking(False)
            self._identity = _identity(path)
        except OSError as error:
            made.close()
            raise WaitbusError(f"cannot listen on {path}: {error.strerror or error}") from None
        finally:
            os.umask(umask)
        return made


class Listeners:
    """The broadcast socket, the doorbell (a stream socket for any program) and the bell (datagram, for waitbus)."""

    def __init__(self, settings: Settings) -> None:
        self._runtime_dir = settings.runtime_dir
        self._spare = ""
        inherited = inherited_sockets()
        self._all: dict[str, Listener] = {}
        try:
            for name, path, kind, variable in (
                ("broadcast", settings.broadcast_socket, socket.SOCK_STREAM, "WAITBUS_BROADCAST_SOCKET"),
                ("doorbell", settings.doorbell_socket, socket.SOCK_STREAM, "WAITBUS_DOORBELL_SOCKET"),
                ("bell", settings.bell_socket, socket.SOCK_DGRAM, "WAITBUS_DOORBELL_SOCKET"),
            ):
                setting = RUNTIME if os.path.dirname(path) == settings.runtime_dir else variable
                self._all[name] = Listener(path, kind, setting, settings.store, inherited.get(name))
        except BaseException:
            self.close()
            raise

    @property
    def broadcast(self) -> socket.socket:
        return self._all["broadcast"].socket

    @property
    def doorbell(self) -> socket.socket:
        return self._all["doorbell"].socket

    @property
    def bell(self) -> socket.socket:
        return self._all["bell"].socket

    def addresses(self) -> dict[str, str]:
        """Return the path where each socket listens now, by its name."""
        return {name: one.path for name, one in self._all.items()}

    def are_well(self) -> bool:
        """Whether each socket is found at its own path."""
        return all(one.path == one.home and one.is_there() for one in self._all.values())

    def renew(self) -> list[str]:
        """Listen again for each socket that is not found at its own path.

        Returns a log line for each thing that was done or failed. Open connections are not affected. The replaced
        sockets are closed.
        """
        said = []
        for name, one in self._all.items():
            if one.path == one.home and one.is_there():
                continue
            if one.inherited:
                said.append(f"{one.path} is gone: restart the socket unit that opened it")
                one.stop_checking()
                continue
            try:
                if os.path.dirname(one.home) == self._runtime_dir:
                    ensure_private_dir(self._runtime_dir, RUNTIME)
                one.move(one.home)
                said.append(f"listening on {one.path} again")
            except WaitbusError as error:
                said.append(str(error))
                if not one.is_there():
                    said.append(self._move_away(name, one))
        self._leave_spare()
        return said

    def _leave_spare(self) -> None:
        if self._spare:
            with contextlib.suppress(OSError):  # not empty: one of our sockets is still in it
                os.rmdir(self._spare)
                self._spare = ""

    def _move_away(self, name: str, one: Listener) -> str:
        spare = os.path.join(spare_runtime_dir(), f"hub-{os.getpid()}")
        try:
            ensure_private_dir(spare, RUNTIME)
            self._spare = spare
            one.move(os.path.join(spare, f"{name}.sock"))
        except WaitbusError as error:
            return str(error)
        return f"listening on {one.path} until then"

    def close(self) -> None:
        """Close every socket and remove the files that are still ours."""
        for one in self._all.values():
            one.close()
        self._leave_spare()


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _unlink(path: str, identity: tuple[int, int] | None) -> None:
    """Remove a socket's file if it is still the one with this identity."""
    with contextlib.suppress(OSError):
        if _identity(path) == identity:
            os.unlink(path)


def _lock_of(path: str) -> str:
    return f"{path}.lock"


def _remove_lock(path: str, lock: int) -> None:
    """Release the lock of an address and remove its file.

    Removing it is safe: `take` checks, once it has a lock, that its file is still there.
    """
    if is_at(lock, _lock_of(path)):
        with contextlib.suppress(OSError):
            os.unlink(_lock_of(path))
    os.close(lock)
