"""The asyncio face: the same subscription, waited for without blocking the loop.

The socket is read only while an event is asked for, and what was read is kept in the same step: a cancelled wait loses
nothing, and the connection stays for the next one.
"""

from __future__ import annotations

import asyncio
import time

from waitbus.client.bookmark import prepare
from waitbus.client.connect import OPEN_SEC, dial, is_same_store, send_by
from waitbus.client.core import RECV_BYTES, Truncated
from waitbus.settings import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import socket
    from collections.abc import Callable
    from typing import Self, TypeVar

    from waitbus.client.autostart import Start
    from waitbus.client.bookmark import Inbox
    from waitbus.client.core import SubscriptionState
    from waitbus.event import Event
    from waitbus.predicate import Predicate
    from waitbus.settings import Settings

    Result = TypeVar("Result")


def asubscribe(
    *predicates: str | Predicate,
    source: str | None = None,
    since: str | None = None,
    bookmark: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    settings: Settings | None = None,
    autostart: bool | None = None,
) -> AsyncSubscription:
    """Yield events as `subscribe` does, with the same arguments and promises, in an ``async for``.

    >>> async def first_failure():
    ...     async with asubscribe("conclusion=failure", since="1h") as events:
    ...         return await asyncio.wait_for(anext(events), 5)
    >>> _ = emit(EventInsert(source="ci", event_type="build", conclusion="failure"))
    >>> asyncio.run(first_failure()).source
    'ci'

    The subscription stands on entering ``async with``, or when the first event is asked for. `timeout` ends the
    iteration, as it does in `subscribe`. For a time-out that raises and does not end it, wait for each event as above:
    a cancelled wait keeps the connection and loses nothing, and the next `anext` gives the event that the last one did
    not. `aclose()` from another task ends the iteration.
    """
    settings = settings or load()
    state, inbox = prepare(predicates, source, since, bookmark, settings)
    return AsyncSubscription(state, inbox, settings, timeout, settings.autostart if autostart is None else autostart)


class AsyncSubscription:
    """An asynchronous iterator of events. Made by `asubscribe`; for one task at a time."""

    __slots__ = (
        "_asked",
        "_autostart",
        "_closed",
        "_inbox",
        "_late",
        "_settings",
        "_socket",
        "_start",
        "_timeout",
        "_wake",
        "state",
    )

    def __init__(
        self, state: SubscriptionState, inbox: Inbox, settings: Settings, timeout: float | None, autostart: bool
    ) -> None:
        self.state = state
        state.is_ours = lambda store: is_same_store(settings, store)
        self._inbox = inbox
        self._settings = settings
        self._timeout = timeout
        self._autostart = autostart
        self._socket: socket.socket | None = None
        # A hub that gets ready, until it listens.
        self._start: Start | None = None
        # Whether there was no time left when it was opened.
        self._late = False
        self._closed = False
        self._asked = False
        # Ends the rest of the task that waits for an event; None while none does.
        self._wake: Callable[[], None] | None = None

    async def aclose(self) -> None:
        """End the subscription. The bookmark stays at the last event after which another was asked for.

        A task that waits for an event gets the end of the iteration.
        """
        self.close()

    def close(self) -> None:
        """What `aclose` does; it needs no waiting."""
        self._closed = True
        self._awaken()
        self._drop()
        self._end_start()

    async def __aenter__(self) -> Self:
        deadline = None if self._timeout is None else time.monotonic() + max(self._timeout, OPEN_SEC)
        try:
            while not self.state.ready and not self._closed and not self._late:
                came = await self._step(deadline)
                self._late = not came and deadline is not None and time.monotonic() >= deadline
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
        if self._asked:
            raise RuntimeError("another task waits for an event of this subscription: give each task its own")
        self._asked = True
        try:
            event = await self._next()
        finally:
            self._asked = False
        if event is None:
            raise StopAsyncIteration
        return event

    async def _next(self) -> Event | None:
        """The next event; None when it was closed, or nothing came in time."""
        patience = 0.0 if self._late else self._timeout
        deadline = None if patience is None else time.monotonic() + patience
        self._late = False
        while not self._closed:
            item = self._inbox.take()
            if item is None:
                if not await self._step(deadline) and deadline is not None and time.monotonic() >= deadline:
                    break
            elif not isinstance(item, Truncated):
                return item
            elif (event := await self._fetch(item)) is not None:
                return event
        return None

    async def _fetch(self, item: Truncated) -> Event | None:
        from waitbus.client.fetch import from_store

        try:
            event = await self._in_thread(from_store, self._settings, item.event_id)
        except BaseException:  # a cancelled wait, or a store that fails just now: it is still to be given
            self._inbox.put_back(item)
            raise
        return event if event is not None and self.state.gives(event.as_frame()) else None

    async def _step(self, deadline: float | None) -> bool:
        """One connect or one read, no longer than `deadline`; what came is in the inbox. False when nothing came."""
        state, now = self.state, time.monotonic()
        if self._start is not None:
            return await self._get_ready(self._start, deadline)
        if self._socket is None and state.retry_at <= now:
            await self._connect(deadline)
            return True
        await self._rest(state.patience(now, deadline), self._socket)
        if self._socket is None:  # it was not there, or was closed meanwhile
            return False
        # From here to the inbox there is no `await`: what was taken off the socket cannot be lost to a cancellation.
        try:
            data = self._socket.recv(RECV_BYTES)
        except BlockingIOError:
            if time.monotonic() < state.read_until:
                return False
            data = b""
        except OSError:
            data = b""
        self._inbox.extend(state.feed(data, time.monotonic()))
        if not state.connected:
            self._drop()
        return True

    async def _connect(self, deadline: float | None) -> None:
        state, now = self.state, time.monotonic()
        self._socket, start = dial(state, self._settings, self._autostart)
        if start:
            from waitbus.client.autostart import Start

            self._start = Start(self._settings, may_launch=self._autostart)
        if self._socket is None:
            return
        try:
            await self._send(self._socket, state.first_frame(now, time.time_ns()), send_by(now, deadline))
        except OSError:
            self._drop()
            state.lost(time.monotonic())
        except BaseException:  # half a frame may be on its way
            self._drop()
            state.hang_up()
            raise

    async def _get_ready(self, start: Start, deadline: float | None) -> bool:
        """Let a hub get ready, a step at a time: False when it is not. A cancelled wait goes on with it next time."""
        try:
            ready = start.step()
        except BaseException:
            self._end_start()
            raise
        if ready:
            self._end_start()
            return True
        await self._rest(start.patience(time.monotonic(), deadline), start if start.fileno() >= 0 else None)
        return False

    async def _send(self, found: socket.socket, frame: bytes, deadline: float) -> None:
        rest = memoryview(frame)
        while rest and not self._closed:
            try:
                rest = rest[found.send(rest) :]
            except BlockingIOError:
                patience = deadline - time.monotonic()
                if patience <= 0:
                    raise TimeoutError from None
                await self._rest(patience, found, writing=True)

    async def _in_thread(self, call: Callable[..., Result], *args: object) -> Result | None:
        """The result of a call that blocks; None when `close` was called first. The thread is left to itself then."""
        found = asyncio.ensure_future(asyncio.to_thread(call, *args))
        found.add_done_callback(lambda _: self._awaken())
        try:
            while not found.done() and not self._closed:
                await self._rest(None)
            return found.result() if found.done() else None
        finally:
            found.cancel()

    async def _rest(
        self, patience: float | None, found: socket.socket | Start | None = None, *, writing: bool = False
    ) -> None:
        """Until the descriptor is ready, `patience` seconds have passed, or somebody wakes us."""
        loop = asyncio.get_running_loop()
        awake: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            # Not in the task, but now: the socket may be closed next, and its number given to somebody else.
            nonlocal found
            if found is not None:
                (loop.remove_writer if writing else loop.remove_reader)(found.fileno())
                found = None
            if not awake.done():
                awake.set_result(None)

        self._wake = wake
        if found is not None:
            (loop.add_writer if writing else loop.add_reader)(found.fileno(), wake)
        timer = None if patience is None else loop.call_later(patience, wake)
        try:
            await awake
        finally:
            wake()
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _awaken(self) -> None:
        if self._wake is not None:
            self._wake()

    def _drop(self) -> None:
        found, self._socket = self._socket, None
        if found is not None:
            found.close()

    def _end_start(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            start.close()

    def __del__(self) -> None:
        self._drop()
