"""Live delivery: sends newly committed events to the subscribers that have everything before them.

It reads one page in each turn of the event loop, so that a flood of events blocks nothing else.
"""

from __future__ import annotations

from waitbus import wire
from waitbus.event import is_history
from waitbus.hub.delivery import Parcel
from waitbus.hub.replay import RETRY_SEC, TRIES_DAMAGED
from waitbus.store.errors import StoreDamaged, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

    from waitbus.hub.connection import Connection
    from waitbus.hub.fanout import Fanout
    from waitbus.hub.replay import Replay
    from waitbus.hub.store_reader import StoreReader

PAGE_ROWS = 500


class Live:
    """Reads the store forward and fans out each page. `connections` is the hub's set of all connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reader: StoreReader,
        fanout: Fanout,
        replay: Replay,
        connections: Collection[Connection],
    ) -> None:
        self._loop = loop
        self._reader = reader
        self._fanout = fanout
        self._replay = replay
        self._connections = connections
        # True while there is no subscriber. Nothing is read then, and `begin` skips what was committed meanwhile.
        self._is_idle = True
        self._scheduled = False
        self._failures = 0

    def begin(self) -> None:
        """Get ready for a new subscriber. Raises `StoreError`; the caller must then call it again."""
        self._reader.follow()
        if self._is_idle:
            self._reader.skip()
            self._is_idle = False
        self._reader.is_followed = True

    def end(self) -> None:
        """Stop reading: the last subscriber has left."""
        self._is_idle = True
        self._reader.is_followed = False

    def pump(self) -> None:
        """Send newly committed events: one page now, any others in later turns of the loop."""
        if self.deliver_page() and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._scheduled = False
        self.pump()

    def deliver_page(self) -> bool:
        """Read one page and fan it out. Returns whether there may be more."""
        if self._is_idle:
            return False
        try:
            page = self._reader.live_page(PAGE_ROWS)
        except StoreError as error:
            self._on_unreadable(error)
            return False
        self._failures = 0
        if not page.rows and self._reader.follow():  # the producer rang, but wrote into a new store file
            return True
        self._fan_out([Parcel(seq, frame) for seq, frame in page.rows if not is_history(frame)])
        # A subscriber may wait for a row that has been pruned since. Moving the cursor past it lets that one go live.
        self._reader.advance(max(page.end, 0 if page.rows else self._replay.live_after_seq))
        self._replay.wake()
        return page.more

    def _fan_out(self, parcels: list[Parcel]) -> None:
        self._send(self._fanout.deliver(parcels))
        touched, behind = self._fanout.deliver_costly(parcels)
        for connection, seq in behind.items():
            self._fanout.discard(connection)
            self._replay.fall_behind(connection, seq)
        self._send(touched)

    def _send(self, touched: set[Connection]) -> None:
        for connection in touched:
            if connection.session.is_ending:
                self._fanout.discard(connection)
            connection.flush()

    def _on_unreadable(self, error: StoreError) -> None:
        """Try again soon. If the store is still damaged then, end every subscription with that reason."""
        self._reader.complain(error)
        self._failures += 1
        damaged = isinstance(error, StoreDamaged)
        if damaged and self._failures >= TRIES_DAMAGED:
            last_word = wire.store_frame(str(error), damaged=True)
            for connection in list(self._connections):
                connection.reject(last_word)
            return
        if damaged:
            self._reader.reopen()
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(RETRY_SEC, self._pump_on)
