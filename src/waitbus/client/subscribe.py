"""The blocking face: one socket, one thread that waits in it, and no wake-up that brings nothing.

What to send, when to come back and what is new is `core.SubscriptionState`'s to say; here it is done.
"""

from __future__ import annotations

import os
import time
from socket import SHUT_RDWR

from waitbus.client.bookmark import Inbox, prepare
from waitbus.client.connect import OPEN_SEC, dial, is_same_store, send_by
from waitbus.client.core import RECV_BYTES, HubError, Truncated
from waitbus.event import Event
from waitbus.settings import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from typing import Self

    from waitbus.client.autostart import Start
    from waitbus.client.core import Item, SubscriptionState
    from waitbus.predicate import Predicate
    from waitbus.settings import Settings


_FOUND_MAX = 10_000
# So often it is looked whether the subscription was closed, while a hub gets ready.
_SLICE_SEC = 0.25


def subscribe(
    *predicates: str | Predicate,
    source: str | None = None,
    since: str | None = None,
    bookmark: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    settings: Settings | None = None,
    autostart: bool | None = None,
) -> Subscription:
    """Yield every event that matches, in commit order, without a gap or a repeat, across restarts of the hub.

    >>> _ = emit(EventInsert(source="ci", event_type="build", conclusion="failure", fields={"step": "lint"}))
    >>> with subscribe("conclusion=failure", source="ci", since="1h", timeout=0.5) as events:
    ...     for event in events:
    ...         print(event.conclusion, event.fields["step"])
    failure lint

    `predicates` are texts such as ``conclusion=failure``, or `Predicate` objects. Several AND across keys, and the same
    key again ORs. `source` is short for a predicate on that field. The subscription stands when this returns: every
    event committed from then on is yielded.

    `since` starts in the past: an event_id (strictly after it), a duration back from now (``"10m"``), ``"start"``, or a
    time (``"today"``, ``"yesterday"``, ``"14:30"``, ``"2026-05-17"``, RFC 3339; local if it names no zone).

    `bookmark` keeps the cursor in a file between runs, and wins over `since` once the file exists. A bare name is a
    file in the directory ``bookmarks`` of the state directory; a text with a slash is a path. The file is written when
    the next event is asked for, so a crash repeats an event rather than losing one.

    `timeout`, in seconds, ends the iteration when no event came for that long. It does not raise, and the subscription
    stays open: iterate again to go on. Reaching the hub counts, too: if it does not answer in time (or in 0.4 s, if
    that is longer), the iteration has no event. `autostart` overrides the setting of whether to start a hub if none is
    running.

    The iterator is a context manager with `close()`. Any thread may call `close`, which ends an iteration that waits in
    another thread; everything else is for one thread at a time. A forked child goes on with its own connection. Raises
    `HubError` if no hub can be reached, `PredicateError`, `SettingsError`, and `BookmarkError`.
    """
    settings = settings or load()
    state, inbox = prepare(predicates, source, since, bookmark, settings)
    deadline = None if timeout is None else time.monotonic() + max(timeout, OPEN_SEC)
    return Subscription(state, settings, inbox=inbox, timeout=timeout, autostart=autostart).open(deadline)


class Subscription:
    """A blocking subscription: an iterator of events, or item by item with `receive`. Made by `subscribe`."""

    __slots__ = (
        "_autostart",
        "_busy",
        "_closed",
        "_found",
        "_inbox",
        "_late",
        "_pid",
        "_settings",
        "_socket",
        "_start",
        "_timeout",
        "state",
    )

    def __init__(
        self,
        state: SubscriptionState,
        settings: Settings,
        *,
        inbox: Inbox | None = None,
        timeout: float | None = None,
        autostart: bool | None = None,
    ) -> None:
        self.state = state
        state.is_ours = lambda store: is_same_store(settings, store)
        self._inbox = inbox or Inbox(state, None)
        self._settings = settings
        self._timeout = timeout
        self._autostart = settings.autostart if autostart is None else autostart
        self._socket: socket.socket | None = None
        # A hub that gets ready, until it listens.
        self._start: Start | None = None
        # Whether there was no time left when it was opened.
        self._late = False
        self._pid = os.getpid()
        # What was found in the store before the hub told it.
        self._found: set[str] = set()
        # `close` sets the first and reads the second, `_step` the other way round: one of them lets the socket go.
        self._closed = False
        self._busy = False

    def open(self, deadline: float | None = None) -> Self:
        """Connect, and return when the hub has answered, or at `deadline`. What came along is kept for `receive`."""
        try:
            self._check_open()
            while not self.state.ready and not self._late:
                came = self._step(deadline)
                self._inbox.extend(came or ())
                self._check_open()
                self._late = came is None and deadline is not None and time.monotonic() >= deadline
            self._inbox.begin()
        except BaseException:
            self.close()
            raise
        return self

    def receive(self, deadline: float | None = None) -> list[Item]:
        """Block until something comes, at most until `deadline` (of ``time.monotonic()``): then the list is empty.

        What has come by then is still given, however late the caller looks. Raises `HubError` when it was closed.
        """
        items = self._receive(deadline)
        self._check_open()
        return items

    def renew(self) -> None:
        """Leave this connection for another one. Once that is live, all that was committed before now has come."""
        self._drop()
        self.state.lost(time.monotonic())

    def resolve(self, item: Item) -> Event | None:
        """The event an item stands for; one too large for a frame is read from the store. None for a marker."""
        if not isinstance(item, Truncated):
            return item if isinstance(item, Event) else None
        from waitbus.client.fetch import from_store

        event = from_store(self._settings, item.event_id)
        return event if event is not None and self.state.gives(event.as_frame()) else None

    def untold(self, *, alone: bool = False) -> Iterator[Event]:
        """What the store has that is wanted and did not come, each event once: nothing, unless the hub is behind.

        `alone`: no hub looks, and a store that cannot be read is an error.
        """
        from waitbus.client.fetch import committed_after

        state, cursor = self.state, self.state.resume_at
        found = () if cursor is None else committed_after(self._settings, cursor, state.predicate, alone=alone)
        for frame in found:
            if frame["event_id"] not in self._found and state.wants(frame):
                if len(self._found) >= _FOUND_MAX:
                    self._found.clear()
                self._found.add(frame["event_id"])
                yield Event.from_frame(frame)

    def fileno(self) -> int:
        """What to poll, until `state.due`, before `receive`: the socket, or a hub that gets ready; -1: nothing."""
        if self._socket is not None:
            return self._socket.fileno()
        return -1 if self._start is None else self._start.fileno()

    def close(self) -> None:
        """End the subscription. The bookmark stays at the last event after which another was asked for."""
        self._closed = True
        found = self._socket
        if not self._busy or self._pid != os.getpid():  # a forked child: the parent goes on with the socket
            self._drop()
        elif found is not None:
            # Another thread waits in it, and a number that is closed may be given to somebody else: it lets it go.
            try:
                found.shutdown(SHUT_RDWR)
            except OSError:
                return

    def _check_open(self) -> None:
        if self._closed:
            raise HubError("this subscription was closed: make another one")

    def _receive(self, deadline: float | None) -> list[Item]:
        items = self._inbox.drain()
        while not items and not self._closed:
            came = self._step(deadline)
            if came is None and deadline is not None and time.monotonic() >= deadline:
                break
            items = came or []
        return items

    def _step(self, deadline: float | None) -> list[Item] | None:
        """One connect or one read, no longer than `deadline`. What it completed; None when nothing came."""
        self._busy = True
        try:
            if self._closed:
                return None
            if self._pid != os.getpid():  # a forked child: the socket stays the parent's
                self._pid = os.getpid()
                self._drop()
                self._end_start()
                self.state.hang_up()
            return self._connect(deadline) if self._socket is None else self._take(self._socket, deadline)
        finally:
            self._busy = False
            if self._closed:
                self._drop()
                self._end_start()

    def _take(self, found: socket.socket, deadline: float | None) -> list[Item] | None:
        data = self._read(found, deadline)
        if data is None or self._closed:
            return None
        items = self.state.feed(data, time.monotonic())
        if not self.state.connected:
            self._drop()
        return items

    def _connect(self, deadline: float | None) -> list[Item] | None:
        state, now = self.state, time.monotonic()
        if self._start is not None:
            return self._get_ready(self._start, deadline)
        if state.retry_at > now:
            time.sleep(state.patience(now, deadline))
            return None
        found, start = dial(state, self._settings, self._autostart)
        if start:
            from waitbus.client.autostart import Start  # not while all is well: a waiter's memory is a budget

            self._start = Start(self._settings, may_launch=self._autostart)
        if found is None:
            return []
        self._socket = found
        if self._closed:
            return None
        now = time.monotonic()
        try:
            found.settimeout(send_by(now, deadline) - now)
            found.sendall(state.first_frame(now, time.time_ns()))
        except OSError:
            self._drop()
            state.lost(time.monotonic())
        return []

    def _get_ready(self, start: Start, deadline: float | None) -> list[Item] | None:
        """Let a hub get ready, no longer than `deadline`; the next call goes on with it."""
        until = time.monotonic() + _SLICE_SEC
        try:
            ready = start.run(until if deadline is None else min(until, deadline))
        except BaseException:
            self._end_start()
            raise
        now = time.monotonic()
        self.state.retry_at = now if ready else now + start.patience(now)
        if ready:
            self._end_start()
        return [] if ready else None

    def _end_start(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            start.close()

    def _read(self, found: socket.socket, deadline: float | None) -> bytes | None:
        """What came, `b""` at the end of stream, None when nothing came in time."""
        found.settimeout(self.state.patience(time.monotonic(), deadline))
        try:
            return found.recv(RECV_BYTES)
        except (TimeoutError, BlockingIOError):
            # Only after this last look: who comes back from something long finds heartbeats waiting.
            return b"" if time.monotonic() >= self.state.read_until else None
        except OSError:
            return b""

    def _drop(self) -> None:
        found, self._socket = self._socket, None
        if found is not None:
            found.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        patience = 0.0 if self._late else self._timeout
        deadline = None if patience is None else time.monotonic() + patience
        self._late = False
        done_with = self._inbox.taken
        try:
            while not self._closed:
                item = self._inbox.take()
                if item is None:
                    items = self._receive(deadline)
                    if not items:
                        break
                    self._inbox.extend(items)
                elif (event := self.resolve(item)) is not None:
                    return event
        except BaseException:  # an interrupt, a store that fails just now: what was on its way is to be given again
            self._drop()
            self._inbox.rewind(done_with)
            raise
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._drop()
