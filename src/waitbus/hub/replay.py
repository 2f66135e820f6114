"""Replay: serves subscribers from the store that asked for past events or fell behind live delivery.

Subscribers take turns. In a turn, one subscriber gets one page of rows. A turn is bounded in rows, bytes and time, so
that live events and the other subscribers go on in between. A subscriber joins live delivery once it has every row
that live delivery has read. This file does not import the server: the server passes in what replay calls.
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
        """The methods of an event loop that replay uses."""

        def call_soon(self, callback: Callable[[], object]) -> object: ...
        def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> object: ...


PAGE_ROWS = 100
# A turn ends after this long, even if its page still holds rows.
TURN_SEC = 0.010
# Subscribers with slow predicates start this long after an event arrives. After each of their turns they rest this
# many times as long as the turn took, so all of them together use at most a quarter of the time.
SLOW_START_SEC = 0.020
SLOW_REST = 3
# How many rows one turn lets SQLite filter. The span grows and shrinks between these bounds to fit TURN_SEC.
SPAN_MIN, SPAN_MAX = 100, 10_000
# A failed read is repeated after this long. After this many attempts the subscriber is told, sooner for damage.
RETRY_SEC = 0.25
TRIES = 32
TRIES_DAMAGED = 2


class Lane:
    """A queue of connections that take turns, one at a time.

    The first turn comes `start` seconds after a connection was added, so that quicker work goes first. After a turn the
    lane rests for `rest` times as long as the turn took.
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
    """Serves subscribers from the store.

    The store is read for a subscriber only while its queue holds less than `ahead_bytes`. `go_live` hands a subscriber
    that has caught up to live delivery. `pump` makes live delivery read newly committed rows.
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
        # Subscribers that wait for live delivery to read up to their `live_after_seq`.
        self._awaiting_live: list[Connection] = []
        # Slow subscribers that have every row that live delivery has read. They wait here for the next row.
        self._parked: set[Connection] = set()

    def queue(self, connection: Connection) -> None:
        """Give a subscriber a turn if it still has rows to read."""
        if connection.session.is_replaying:
            (self._slow_lane if connection.is_slow else self._lane).add(connection)

    def fall_behind(self, connection: Connection, seq: int) -> None:
        """Serve a live subscriber, which has every row up to `seq`, from the store until it has caught up."""
        if connection.session.is_live:
            connection.session.fall_behind(seq)
            self.queue(connection)

    def discard(self, connection: Connection) -> None:
        self._parked.discard(connection)

    @property
    def live_after_seq(self) -> int:
        """The newest seq that a subscriber waits for live delivery to read, or 0 if none waits."""
        return max((connection.session.live_after_seq for connection in self._awaiting_live), default=0)

    def wake(self) -> None:
        """Give a turn to the subscribers that waited for live delivery to read more. It just has."""
        waiting, self._awaiting_live = self._awaiting_live, []
        parked, self._parked = self._parked, set()
        for connection in parked:
            if connection.session.is_live:
                connection.session.fall_behind()
        for connection in (*waiting, *parked):
            self.queue(connection)

    def serve(self, connection: Connection) -> None:
        """Run one turn: read a page after the session's cursor, and go live at once if it has now caught up."""
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
        """Queue one page's matching rows for this subscriber. Stop early if its queue is full or the turn is over."""
        session, predicate = connection.session, connection.predicate
        where = condition_of(predicate.as_object) if predicate else None
        window = min(goal, session.cursor + self._span) if where else goal
        began = time.monotonic()
        page = self._reader.page(session.cursor, PAGE_ROWS, upto=window, where=where)
        if where:
            self._adapt(time.monotonic() - began)
        connection.begin_turn()
        busy = time.thread_time()
        for seq, frame in page.rows:
            if session.takes_history or not is_history(frame):
                self._delivery.offer(connection, Parcel(seq, frame))
            session.advance(seq)
            then, busy = busy, time.thread_time()
            if busy - then > SLOW_SEC:
                connection.mark_slow()
            if session.queued_bytes >= self._ahead_bytes or time.monotonic() - began > TURN_SEC:
                return
        session.advance(page.end)

    def _adapt(self, spent: float) -> None:
        if spent > TURN_SEC:
            self._span = max(SPAN_MIN, self._span // 2)
        elif spent < TURN_SEC / 4:
            self._span = min(SPAN_MAX, self._span * 2)

    def failed(self, connection: Connection, error: StoreError, again: Callable[[Connection], object]) -> None:
        """Handle a failed read for this subscriber: call `again` in `RETRY_SEC`, or end it with the reason.

        A store that is busy or briefly unreadable gets `TRIES` attempts, a damaged one `TRIES_DAMAGED`.
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
