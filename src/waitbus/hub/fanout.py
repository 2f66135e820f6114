"""Finds the live subscribers that an event goes to. Sans-I/O: the caller passes in a clock of CPU time.

An event is encoded at most once, and only if a subscriber matches. A subscription that compares a key for equality is
not evaluated at all for an event with another value (`matching.Index`).

Comparisons are quick, but glob patterns can be slow, so only the subscribers that use patterns pay for them. They come
after all others and share a time limit. A subscriber whose turn does not come within the limit falls behind and is
served from the store.
"""

from __future__ import annotations

from waitbus.matching import Index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from waitbus.hub.connection import Connection
    from waitbus.hub.delivery import Delivery, Parcel

# Only the time that a comparison takes beyond this, in seconds, counts against the limits. An ordinary pattern takes
# less, so any number of subscribers may have one.
ORDINARY_SEC = 0.000_020
# How much such time all comparisons of one page's events may take together.
COSTLY_SEC = 0.020
# A subscriber that takes longer than this for one event is slow.
SLOW_SEC = 0.005


class Fanout:
    """The live subscribers, indexed by what they wait for."""

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
        """Queue every event, in order, for the matching subscribers that use no patterns.

        Returns the connections that must now be flushed.
        """
        touched: set[Connection] = set()
        offer = self._delivery.offer
        for parcel in parcels:
            for connection in self._plain.candidates(parcel.frame):
                if offer(connection, parcel):
                    touched.add(connection)
        return touched

    def deliver_costly(self, parcels: Iterable[Parcel]) -> tuple[set[Connection], dict[Connection, int]]:
        """Do the same for subscribers that use patterns, within `COSTLY_SEC`.

        Returns the connections to flush, and those that fell behind with the seq up to which each has every row.
        """
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
                    connection.mark_slow()
                    behind[connection] = parcel.seq
        return touched, behind
