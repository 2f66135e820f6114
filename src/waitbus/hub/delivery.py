"""Handing an event to a subscriber so that neither can stop another.

Whatever an event does to matching or encoding is caught here, logged once, and passed. A subscriber that cannot be
handed its bytes is closed. Live delivery and replay both go this way.
"""

from __future__ import annotations

from waitbus.event import one_line
from waitbus.wire import encode_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from waitbus.hub.connection import Connection

# So many different faults are remembered as logged; after that the oldest may be logged again.
_FAULTS = 256


class Parcel:
    """An event on its way: its place, its frame, and its bytes, made at most once and only if somebody wants it."""

    __slots__ = ("_bytes", "_is_made", "frame", "seq")

    def __init__(self, seq: int, frame: Mapping[str, Any]) -> None:
        self.seq = seq
        self.frame = frame
        self._bytes = b""
        self._is_made = False

    def encoded(self) -> bytes:
        """The frame's bytes. Raises what encoding raises, the first time; after that they are empty."""
        if not self._is_made:
            self._is_made = True
            self._bytes = encode_event(self.frame)
        return self._bytes


class Delivery:
    """Offers events to subscribers, and logs each fault once."""

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._logged: dict[object, None] = {}

    def offer(self, connection: Connection, parcel: Parcel) -> bool:
        """Queue an event for a subscriber that it concerns. Whether there is something to send now, or to close.

        Raises nothing but ``MemoryError``.
        """
        try:
            predicate = connection.predicate
            data = parcel.encoded() if predicate is None or predicate(parcel.frame) else b""
        except MemoryError:
            raise
        except Exception as error:
            self.fault(f"event {parcel.frame.get('event_id')} is passed over", error, parcel.seq)
            return False
        if not data:
            return False
        try:
            connection.push(data)
        except MemoryError:
            raise
        except Exception as error:
            self.abandon(connection, error)
        return True

    def abandon(self, connection: Connection, error: Exception) -> None:
        """Close a subscriber for a fault of ours that concerns it alone."""
        self.fault("a subscriber is closed", error)
        connection.abort()

    def fault(self, what: str, error: BaseException, about: object = None) -> None:
        """Log a fault of ours in one line, once; `about` is which of several it is."""
        where = _place_of(error)
        key = (type(error), where, about)
        if key in self._logged:
            return
        if len(self._logged) >= _FAULTS:
            del self._logged[next(iter(self._logged))]
        self._logged[key] = None
        self._log(f"{what}: {type(error).__name__} at {where}: {one_line(str(error))}")


def _place_of(error: BaseException) -> str:
    """File and line where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
