"""The asyncio face: the same subscription, waited for without blocking the loop.

The socket is read only while an event is asked for, and what was read is kept in the same step: a cancelled wait loses
nothing.
"""

from __future__ import annotations

import asyncio
import time

from waitbus.client.autostart import dial, ensure_hub
from waitbus.client.bookmark import prepare
from waitbus.client.core import FIRST_SEND_SEC, RECV_BYTES, Truncated
from waitbus.settings import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import socket
    from typing import Self

    from waitbus.client.bookmark import Inbox
    from waitbus.client.core import Stream
    from waitbus.event import Event
    from waitbus.predicate import Predicate
    from waitbus.settings import Settings


def asubscribe(
    *predicates: str | Predicate,
    source: str | None = None,
    since: str | None = None,
    bookmark: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    settings: Settings | None = None,
    autostart: bool | None = None,
) -> AsyncSubscription:
    """Yield as `subscribe` does, with the same arguments and promises, in an ``async for``.

    It is subscribed when the first event is asked for, or on entering ``async with asubscribe(...) as events``.
    A cancelled wait, as in ``asyncio.wait_for(anext(events), 5)``, closes the connection and loses nothing: the next
    event asked for is fetched from where it was.
    """
    settings = settings or load()
    stream, inbox = prepare(predicates, source, since, bookmark, settings)
    return AsyncSubscription(stream, inbox, settings, timeout, settings.autostart if autostart is None else autostart)


class AsyncSubscription:
    """An asynchronous iterator of events. Made by `asubscribe`; for one task at a time."""

    __slots__ = ("_autostart", "_closed", "_inbox", "_settings", "_socket", "_timeout", "stream")

    def __init__(
        self, stream: Stream, inbox: Inbox, settings: Settings, timeout: float | None, autostart: bool
    ) -> None:
        self.stream = stream
        self._inbox = inbox
        self._settings = settings
        self._timeout = timeout
        self._autostart = autostart
        self._socket: socket.socket | None = None
        self._closed = False

    async def aclose(self) -> None:
        """End the subscription. The bookmark stays at the last event after which another was asked for."""
        self.close()

    def close(self) -> None:
        """What `aclose` does; it needs no waiting."""
        self._closed = True
        self._drop()

    async def __aenter__(self) -> Self:
        try:
            while not self.stream.ready:
                await self._step(None)
            self._inbox.begin()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            while not self._closed:
                item = self._inbox.take()
                if item is None:
                    if deadline is not None and time.monotonic() >= deadline:
                        break
                    await self._step(deadline)
                elif not isinstance(item, Truncated):
                    return item
                elif (event := await self._fetch(item)) is not None:
                    return event
        except asyncio.CancelledError:
            self._drop()
            self.stream.hang_up()
            raise
        self.close()
        raise StopAsyncIteration

    async def _fetch(self, item: Truncated) -> Event | None:
        from waitbus.client.fetch import from_store

        try:
            return await asyncio.to_thread(from_store, self._settings, item.event_id)
        except BaseException:  # a cancelled wait, or a store that fails just now: it is still to be given
            self._inbox.put_back(item)
            raise

    async def _step(self, deadline: float | None) -> None:
        """One connect or one read, no longer than `deadline`; what came is in the inbox."""
        if self._socket is None:
            await self._connect(deadline)
            return
        stream = self.stream
        await _readable(self._socket, stream.patience(time.monotonic(), deadline))
        # From here to the inbox there is no `await`: what was taken off the socket cannot be lost to a cancellation.
        try:
            data = self._socket.recv(RECV_BYTES)
        except BlockingIOError:
            if time.monotonic() < stream.read_until:
                return
            data = b""
        except OSError:
            data = b""
        self._inbox.extend(stream.feed(data, time.monotonic()))
        if not stream.connected:
            self._drop()

    async def _connect(self, deadline: float | None) -> None:
        stream, now = self.stream, time.monotonic()
        if stream.retry_at > now:
            await asyncio.sleep(stream.patience(now, deadline))
            return
        self._socket, start = dial(stream, self._settings, self._autostart)
        if start:
            await asyncio.to_thread(ensure_hub, self._settings)
        if self._socket is None:
            return
        first = stream.first_frame(time.monotonic(), time.time_ns())
        try:
            async with asyncio.timeout(FIRST_SEND_SEC):
                await asyncio.get_running_loop().sock_sendall(self._socket, first)
        except OSError:  # TimeoutError is one
            self._drop()
            stream.lost(time.monotonic())

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        self._drop()


async def _readable(found: socket.socket, patience: float) -> None:
    """Wait until the socket has something to read, at most `patience` seconds."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def on_readable() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(found.fileno(), on_readable)
    try:
        await asyncio.wait([ready], timeout=patience)
    finally:
        loop.remove_reader(found.fileno())
