"""Which live subscribers an event goes to. Sans-I/O; the clock, of time spent at work, is handed in.

An event is encoded at most once, and not at all when nobody wants it; a subscription that compares a key for
equality is not even asked when the value differs (`predicate.Index`).

Comparing takes no time, but a pattern may, and it is paid by who brought it: subscribers with patterns come after all
others, in a bounded time. Who does not get its turn in that time falls behind, and is served from the store.
"""

from __future__ import annotations

from waitbus.matching import Index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from waitbus.hub.connection import Connection
    from waitbus.hub.delivery import Delivery, Parcel

# What an ordinary pattern takes to be compared with an ordinary text, in seconds: it does not count, however many
# subscribers there are. All that takes longer may take so long together for a page of events, and one comparison so
# long.
ORDINARY_SEC = 0.000_020
COSTLY_SEC = 0.020
SLOW_SEC = 0.005


class Fanout:
    """The live subscribers, filed by what they wait for."""

    __slots__ = ("_clock", "_costly", "_delivery", "_plain")

    def __init__(self, delivery: Delivery, clock: Callable[[], float]) -> None:
        self._delivery = delivery
        self._clock = clock
        self._plain = Index()
        self._costly = Index()

    def add(self, connection: Connection) -> None:
        predicate = connection.predicate
        index = self._costly if predicate is not None and predicate.has_patterns else self._plain
        index.add(connection, predicate.terms if predicate else None)

    def discard(self, connection: Connection) -> None:
        self._plain.discard(connection)
        self._costly.discard(connection)

    def deliver(self, parcels: Iterable[Parcel]) -> set[Connection]:
        """Queue every event for those it concerns, in order, but for subscribers with patterns.

        Returns who got something and now wants sending.
        """
        touched: set[Connection] = set()
        offer = self._delivery.offer
        for parcel in parcels:
            for connection in self._plain.candidates(parcel.frame):
                if offer(connection, parcel):
                    touched.add(connection)
        return touched

    def deliver_costly(self, parcels: Iterable[Parcel]) -> tuple[set[Connection], dict[Connection, int]]:
        """The same for subscribers with patterns. Also returns who fell behind, and the seq up to which it has all."""
        touched: set[Connection] = set()
        behind: dict[Connection, int] = {}
        clock = self._clock
        now = clock()
        spent = 0.0
        for parcel in parcels:
            for connection in self._costly.candidates(parcel.frame):
                if connection in behind:
                    continue
                if spent > COSTLY_SEC:
                    behind[connection] = parcel.seq - 1
                    continue
                if self._delivery.offer(connection, parcel):
                    touched.add(connection)
                began, now = now, clock()
                spent += max(0.0, now - began - ORDINARY_SEC)
                if now - began > SLOW_SEC:
                    connection.slow()
                    behind[connection] = parcel.seq
        return touched, behind
