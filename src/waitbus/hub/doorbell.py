"""The bell: any byte on the doorbell (stream), or any datagram on the bell beside it, means "look at the store"."""

from __future__ import annotations

import os
import socket

from waitbus.host.peer import peer_uid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from waitbus.hub.listen import Listeners

# A program may stay connected to the doorbell and ring again. Past this many, the oldest connection is closed.
_MAX_OPEN = 64
# How many datagrams are read at once. The limit keeps a program that rings endlessly from blocking the hub.
_AT_ONCE = 256
_RETRY_SEC = 1.0


class Doorbell:
    """Calls `ring` when somebody rings. Several rings at once may become one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listeners: Listeners, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._listeners = listeners
        self._ring = ring
        self._open: dict[int, socket.socket] = {}
        self._closed = False
        self.listen()

    def listen(self) -> None:
        """Start listening on the sockets that `listeners` holds now."""
        if not self._closed:
            self._loop.add_reader(self._listeners.bell.fileno(), self._on_datagram)
            self._loop.add_reader(self._listeners.doorbell.fileno(), self._on_accept)

    def pause(self) -> None:
        """Stop listening while the sockets are replaced."""
        self._loop.remove_reader(self._listeners.bell.fileno())
        self._loop.remove_reader(self._listeners.doorbell.fileno())

    def _on_datagram(self) -> None:
        if self._take(1):
            self._ring()  # deliver the first event before reading the other rings
            if self._take(_AT_ONCE):
                self._ring()

    def _take(self, most: int) -> bool:
        """Read at most `most` rings from the bell. Returns whether there was any."""
        rang = False
        try:
            for _ in range(most):
                self._listeners.bell.recv(64)
                rang = True
        except OSError:
            return rang
        return rang

    def _on_accept(self) -> None:
        try:
            sock, _address = self._listeners.doorbell.accept()
        except BlockingIOError:
            return
        except OSError:  # out of file descriptors: until a retry succeeds, the sweep finds the commits
            self._loop.remove_reader(self._listeners.doorbell.fileno())
            self._loop.call_later(_RETRY_SEC, self.listen)
            return
        try:
            ours = peer_uid(sock) == os.getuid()
        except OSError:
            ours = False
        if not ours:
            sock.close()
            return
        sock.setblocking(False)
        fd = sock.fileno()
        self._open[fd] = sock
        self._loop.add_reader(fd, self._on_readable, fd)
        if len(self._open) > _MAX_OPEN:
            self._drop(next(iter(self._open)))
        if fd in self._open:
            self._on_readable(fd)

    def _on_readable(self, fd: int) -> None:
        try:
            data = self._open[fd].recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return
        self._ring()

    def _drop(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        self._open.pop(fd).close()

    def close(self) -> None:
        self._closed = True
        for fd in list(self._open):
            self._drop(fd)
        self.pause()
