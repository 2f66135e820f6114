"""Hands an event to a subscriber so that neither a bad event nor a bad subscriber can stop the others.

If an event makes matching or encoding raise, the error is logged once and the event is skipped. A subscriber whose
queue cannot take the bytes is closed. Live delivery and replay both use this.
"""

from __future__ import annotations

from waitbus.event import one_line
from waitbus.wire import encode_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from waitbus.hub.connection import Connection

# How many different faults are remembered as logged. Beyond that the oldest is forgotten and may be logged again.
_FAULTS = 256


class Parcel:
    """An event on its way to subscribers: its seq, its frame, and its bytes, which are encoded on first use."""

    __slots__ = ("_bytes", "_is_made", "frame", "seq")

    def __init__(self, seq: int, frame: Mapping[str, Any]) -> None:
        self.seq = seq
        self.frame = frame
        self._bytes = b""
        self._is_made = False

    def encoded(self) -> bytes:
        """Return the encoded frame. If encoding fails, the first call raises the error and later calls return b""."""
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
        """Queue an event for a subscriber if it matches. Returns whether the connection must be flushed now.

        Raises only ``MemoryError``.
        """
        try:
            predicate = connection.predicate
            data = parcel.encoded() if predicate is None or predicate(parcel.frame) else b""
        except MemoryError:
            raise
        except Exception as error:
            self.fault(f"skipped event {parcel.frame.get('event_id')}", error, parcel.seq)
            return False
        if not data:
            return False
        try:
            connection.push(data)
            connection.matched += 1
        except MemoryError:
            raise
        except Exception as error:
            self.abandon(connection, error)
        return True

    def abandon(self, connection: Connection, error: Exception) -> None:
        """Close a subscriber because of an internal error that concerns it alone."""
        self.fault("closed a subscriber", error)
        connection.abort()

    def fault(self, what: str, error: BaseException, about: object = None) -> None:
        """Log an internal error once, in one line. `about` tells apart errors that are raised at the same place."""
        where = _place_of(error)
        key = (type(error), where, about)
        if key in self._logged:
            return
        if len(self._logged) >= _FAULTS:
            del self._logged[next(iter(self._logged))]
        self._logged[key] = None
        self._log(f"{what}: {type(error).__name__} at {where}: {one_line(str(error))}")


def _place_of(error: BaseException) -> str:
    """Return the file name and line where `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
