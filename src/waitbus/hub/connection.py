"""One subscriber's socket and its session: reads the first frame and the end, writes as fast as the peer reads."""

from __future__ import annotations

from waitbus.host.peer import peer_pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Mapping
    from typing import Any, Protocol

    from waitbus.hub.session import Session
    from waitbus.predicate import Predicate

    class Owner(Protocol):
        """The methods of the server that a connection calls."""

        def on_subscribed(self, connection: Connection) -> None: ...
        def on_drained(self, connection: Connection) -> None: ...
        def on_fault(self, connection: Connection, error: Exception) -> None: ...
        def on_closed(self, connection: Connection) -> None: ...


# A subscriber whose predicate was slow counts as slow until it has been quick for this many turns.
_SLOW_TURNS = 32
_READ_BYTES = 65536
_BURST_BYTES = 65536


class Connection:
    """Non-blocking reads and gathering writes on the event loop.

    It uses no asyncio transport, because each would cost memory for every subscriber.
    """

    __slots__ = ("_loop", "_owner", "_slow_turns", "_socket", "_writing", "begun", "matched", "predicate", "session")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, session: Session, owner: Owner) -> None:
        self._loop = loop
        self._socket = sock
        self._owner = owner
        self._writing = False
        self._slow_turns = 0
        self.session = session
        self.predicate: Predicate | None = None
        # When it subscribed, in seconds since the epoch, and how many events were queued for it since.
        self.begun = 0
        self.matched = 0
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._on_readable)

    def push(self, frame: bytes) -> bool:
        """Queue a frame. In a burst, first send what the peer takes now, so that only the rest counts as its lag."""
        if self.session.queued_bytes > _BURST_BYTES and not self._writing:
            self._send()
        return self.session.push(frame)

    @property
    def pid(self) -> int | None:
        """The subscriber's process, as far as the kernel knows it."""
        return peer_pid(self._socket)

    @property
    def is_slow(self) -> bool:
        """Whether this subscriber's predicate was slow lately. Slow subscribers are served apart from the others."""
        return self._slow_turns > 0

    def mark_slow(self) -> None:
        """Note that the predicate took long just now."""
        self._slow_turns = _SLOW_TURNS

    def begin_turn(self) -> None:
        """Note that another turn begins. After `_SLOW_TURNS` of them a slow subscriber counts as quick again."""
        self._slow_turns = max(0, self._slow_turns - 1)

    def reject(self, frame: Mapping[str, Any]) -> None:
        """Queue `frame` as the last one and end once it is sent."""
        self.session.reject(frame)
        self.flush()

    def abort(self) -> None:
        """Drop the queue. The next `flush` closes the socket."""
        self.session.abort()

    def flush(self) -> None:
        """Send as much as the peer takes now, and the rest whenever it can take more. Close if the session is over."""
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
        """Close at once and drop the queue. Only the first call tells the owner."""
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
                # Most often there is one frame, and a plain send is cheaper.
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
