"""One subscriber's socket, bound to its session: reads to notice the end, writes as the peer takes it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Mapping
    from typing import Any, Protocol

    from waitbus.hub.session import Session
    from waitbus.predicate import Predicate

    class Owner(Protocol):
        """What a connection tells the server."""

        def on_subscribed(self, connection: Connection) -> None: ...
        def on_drained(self, connection: Connection) -> None: ...
        def on_fault(self, connection: Connection, error: Exception) -> None: ...
        def on_closed(self, connection: Connection) -> None: ...


# Who was slow to match has to be quick in so many turns before it is taken for quick.
_SLOW_TURNS = 32
_READ_BYTES = 65536
_BURST_BYTES = 65536


class Connection:
    """Non-blocking reads and gathering writes on the loop, without a transport: memory a subscriber is a budget."""

    __slots__ = ("_loop", "_owner", "_slow_turns", "_socket", "_writing", "predicate", "session")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, session: Session, owner: Owner) -> None:
        self._loop = loop
        self._socket = sock
        self._owner = owner
        self._writing = False
        self._slow_turns = 0
        self.session = session
        self.predicate: Predicate | None = None
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._on_readable)

    def push(self, frame: bytes) -> bool:
        """Queue a frame; in a burst, hand over what the peer takes now, so that only what it leaves counts as lag."""
        if self.session.queued_bytes > _BURST_BYTES and not self._writing:
            self._send()
        return self.session.push(frame)

    @property
    def is_slow(self) -> bool:
        """Whether its predicate took long lately: such a subscriber is served apart from the others."""
        return self._slow_turns > 0

    def slow(self) -> None:
        """Its predicate took long just now."""
        self._slow_turns = _SLOW_TURNS

    def rest(self) -> None:
        """Another turn of it begins."""
        self._slow_turns = max(0, self._slow_turns - 1)

    def reject(self, frame: Mapping[str, Any]) -> None:
        """Say a last word, and end when it is out."""
        self.session.reject(frame)
        self.flush()

    def abort(self) -> None:
        """End as soon as it is flushed; what is queued is dropped."""
        self.session.abort()

    def flush(self) -> None:
        """Send as much as the peer takes now; go on when it can take more."""
        session = self.session
        if session.is_closed:
            self.close()
            return
        if self._writing:
            return
        self._send()
        if self.session.is_closed:  # sending may have ended it
            self.close()
        elif session.queued_bytes:
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._on_writable)

    def close(self) -> None:
        """Close at once; what is still queued is dropped. Telling the owner happens once."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self.session.lose()
        self._owner.on_closed(self)

    def _send(self) -> None:
        session = self.session
        while session.queued_bytes:
            try:
                buffers = session.buffers()
                # One frame is the common case, and then a plain send is the shorter way.
                gather = len(buffers) > 1
                session.sent(self._socket.sendmsg(buffers) if gather else self._socket.send(buffers[0]))
            except BlockingIOError:
                return
            except OSError:
                session.lose()
                return

    def _on_writable(self) -> None:
        self._send()
        session = self.session
        if session.queued_bytes and not session.is_closed:
            return
        self._writing = False
        self._loop.remove_writer(self._socket.fileno())
        if session.is_closed:
            self.close()
        else:
            self._owner.on_drained(self)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            subscription = self.session.receive(data)
            if subscription is not None:
                self.predicate = subscription.predicate
                self._owner.on_subscribed(self)
        except MemoryError:
            raise
        except Exception as error:
            self._owner.on_fault(self, error)
        self.flush()
