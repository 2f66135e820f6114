"""Subscribers that are served from the store: those that asked for the past, and those that fell behind live.

Each reads a page a turn, bounded in rows, bytes and time, so that live events and all others go on between. It joins
live when it has all that live has read. This file is handed what it calls: it knows no server.
"""

from __future__ import annotations

import time

from waitbus import wire
from waitbus.event import is_history
from waitbus.hub.delivery import Parcel
from waitbus.hub.fanout import SLOW_SEC
from waitbus.store.errors import StoreDamaged, StoreError
from waitbus.store.prefilter import condition_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from waitbus.hub.connection import Connection
    from waitbus.hub.delivery import Delivery
    from waitbus.hub.store_reader import StoreReader

    class Loop(Protocol):
        """What is used of an event loop."""

        def call_soon(self, callback: Callable[[], object]) -> object: ...
        def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> object: ...


PAGE_ROWS = 100
# A turn ends after so long, in seconds, whatever its page still holds.
TURN_SEC = 0.010
# Those whose predicates take long begin so many seconds after an event came; of the time, all of them together take one
# part and leave so many to others.
SLOW_START_SEC = 0.020
SLOW_REST = 3
# How many rows SQLite may pass over by itself in one turn: as many as it does in that time, within these bounds.
SPAN_MIN, SPAN_MAX = 100, 10_000
# A read that fails is tried again after so long, in seconds, and so often in all before the subscriber is told.
RETRY_SEC = 0.25
TRIES = 32
TRIES_DAMAGED = 2


class Lane:
    """Turns, one at a time, for those who wait in it.

    It begins after `start` seconds, so that what comes at once goes first, and after each turn it rests `rest` times as
    long as that took.
    """

    __slots__ = ("_loop", "_rest", "_scheduled", "_serve", "_start", "_waiting")

    def __init__(self, loop: Loop, serve: Callable[[Connection], object], *, start: float = 0.0, rest: int = 0) -> None:
        self._loop = loop
        self._serve = serve
        self._start = start
        self._rest = rest
        self._waiting: dict[Connection, None] = {}
        self._scheduled = False

    def add(self, connection: Connection) -> None:
        self._waiting[connection] = None
        self._schedule(self._start)

    def _schedule(self, delay: float) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            if delay:
                self._loop.call_later(delay, self._turn)
            else:
                self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        connection = next(iter(self._waiting))
        del self._waiting[connection]
        began = time.monotonic()
        try:
            self._serve(connection)
        finally:
            self._schedule((time.monotonic() - began) * self._rest)


class Replay:
    """Serves from the store. `ahead_bytes`: a subscriber is read for only while less than that waits in its queue.

    `go_live` takes over a subscriber that has all; `pump` makes live read what was committed.
    """

    def __init__(
        self,
        loop: Loop,
        reader: StoreReader,
        delivery: Delivery,
        *,
        ahead_bytes: int,
        go_live: Callable[[Connection], object],
        pump: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._reader = reader
        self._delivery = delivery
        self._ahead_bytes = ahead_bytes
        self._go_live = go_live
        self._pump = pump
        self._lane = Lane(loop, self.serve)
        self._slow_lane = Lane(loop, self.serve, start=SLOW_START_SEC, rest=SLOW_REST)
        self._span = SPAN_MIN
        # Those that know of more than live has read yet, and slow ones that have all that it has.
        self._awaiting_live: list[Connection] = []
        self._parked: set[Connection] = set()

    def queue(self, connection: Connection) -> None:
        """Give a subscriber a turn, if it still has something to read."""
        if connection.session.is_replaying:
            (self._slow_lane if connection.is_slow else self._lane).add(connection)

    def fall_behind(self, connection: Connection, seq: int) -> None:
        """A live subscriber that has all up to `seq` is served from here, until it has caught up."""
        if connection.session.is_live:
            connection.session.fall_behind(seq)
            self.queue(connection)

    def discard(self, connection: Connection) -> None:
        self._parked.discard(connection)

    @property
    def live_after_seq(self) -> int:
        """The newest seq that somebody here knows of and waits for live to read; 0 when nobody does."""
        return max((connection.session.live_after_seq for connection in self._awaiting_live), default=0)

    def wake(self) -> None:
        """Live has read on."""
        waiting, self._awaiting_live = self._awaiting_live, []
        parked, self._parked = self._parked, set()
        for connection in parked:
            if connection.session.is_live:
                connection.session.fall_behind()
        for connection in (*waiting, *parked):
            self.queue(connection)

    def serve(self, connection: Connection) -> None:
        """One turn: read a page after the session's cursor; who then has all that live has read joins it at once."""
        session, goal = connection.session, self._reader.cursor
        if not session.is_replaying:
            return
        try:
            if session.cursor < goal:
                self._read(connection, goal)
                session.failures = 0
        except StoreError as error:
            self.failed(connection, error, self.queue)
            return
        except Exception as error:
            self._delivery.abandon(connection, error)
        ready = session.has_all_up_to(goal)
        if ready and goal >= session.live_after_seq:
            self._go_live(connection)
            if connection.is_slow:
                self._parked.add(connection)
        connection.flush()
        if ready and session.is_replaying:
            self._awaiting_live.append(connection)
            self._pump()
        elif session.queued_bytes < self._ahead_bytes:
            self.queue(connection)

    def _read(self, connection: Connection, goal: int) -> None:
        """Queue what one page holds for this subscriber, and stop early where its queue is full enough."""
        session, predicate = connection.session, connection.predicate
        where = condition_of(predicate.as_object) if predicate else None
        window = min(goal, session.cursor + self._span) if where else goal
        began = time.monotonic()
        page = self._reader.page(session.cursor, PAGE_ROWS, upto=window, where=where)
        if where:
            self._adapt(time.monotonic() - began)
        connection.rest()
        busy = time.thread_time()
        for seq, frame in page.rows:
            if session.takes_history or not is_history(frame):
                self._delivery.offer(connection, Parcel(seq, frame))
            session.advance(seq)
            then, busy = busy, time.thread_time()
            if busy - then > SLOW_SEC:
                connection.slow()
            if session.queued_bytes >= self._ahead_bytes or time.monotonic() - began > TURN_SEC:
                return
        session.advance(page.end)

    def _adapt(self, spent: float) -> None:
        if spent > TURN_SEC:
            self._span = max(SPAN_MIN, self._span // 2)
        elif spent < TURN_SEC / 4:
            self._span = min(SPAN_MAX, self._span * 2)

    def failed(self, connection: Connection, error: StoreError, again: Callable[[Connection], object]) -> None:
        """A read for this subscriber failed: try `again` in a while, or tell it the truth and end its subscription.

        A store that is busy, or that cannot be read for a moment, is waited for; damage is looked at twice.
        """
        self._reader.complain(error)
        session = connection.session
        session.failures += 1
        damaged = isinstance(error, StoreDamaged)
        if session.failures >= (TRIES_DAMAGED if damaged else TRIES):
            connection.reject(wire.store_frame(str(error), damaged=damaged))
            return
        if damaged:
            self._reader.reopen()
        self._loop.call_later(RETRY_SEC, again, connection)
