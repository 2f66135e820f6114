"""Which live subscribers an event goes to. Sans-I/O.

An event is encoded at most once, and not at all when nobody wants it; a subscription that compares a key for
equality is not even asked when the value differs (`predicate.Index`).
"""

from __future__ import annotations

from waitbus.predicate import Index
from waitbus.wire import encode_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from waitbus.hub.connection import Connection
    from waitbus.predicate import Predicate


def wants(predicate: Predicate | None, frame: Mapping[str, Any]) -> bool:
    """Whether an event concerns a subscription. One too deep to compare concerns nobody: it must not stop the hub."""
    if predicate is None:
        return True
    try:
        return predicate(frame)
    except RecursionError:
        return False


class Fanout:
    """The live subscribers, filed by what they wait for."""

    __slots__ = ("_index",)

    def __init__(self) -> None:
        self._index = Index()

    def add(self, connection: Connection) -> None:
        predicate = connection.predicate
        self._index.add(connection, predicate.terms if predicate else None)

    def discard(self, connection: Connection) -> None:
        self._index.discard(connection)

    def deliver(self, frames: Iterable[Mapping[str, Any]]) -> set[Connection]:
        """Push every event to those it concerns, in order. Returns who got something and now wants sending."""
        touched: set[Connection] = set()
        for frame in frames:
            encoded = None
            for connection in self._index.candidates(frame):
                if wants(connection.predicate, frame):
                    if encoded is None:
                        encoded = encode_event(frame)
                    connection.push(encoded)
                    touched.add(connection)
        return touched
