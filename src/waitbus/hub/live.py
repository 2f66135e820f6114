"""Hands on what is committed now to those who have all from before: a page a turn, so that nobody waits on a flood."""

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
    """Reads the store forward and fans out. `connections` is the hub's own set of all of them."""

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
        # Whether nobody subscribes: then nothing is read, and what is committed is owed to nobody.
        self._is_idle = True
        self._scheduled = False
        self._failures = 0

    def begin(self) -> None:
        """Somebody subscribes now. Raises `StoreError`; then it must be called again."""
        self._reader.follow()
        if self._is_idle:
            self._reader.skip()
            self._is_idle = False

    def end(self) -> None:
        """Nobody is left."""
        self._is_idle = True

    def pump(self) -> None:
        """Send what was committed since the last look: one page now, others in later turns."""
        if self.deliver_page() and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._scheduled = False
        self.pump()

    def deliver_page(self) -> bool:
        """Read one page and fan it out. True when there may be more."""
        if self._is_idle:
            return False
        try:
            page = self._reader.live_page(PAGE_ROWS)
        except StoreError as error:
            self._on_unreadable(error)
            return False
        self._failures = 0
        if not page.rows and self._reader.follow():  # rung for nothing: was it for another file?
            return True
        self._hand_on([Parcel(seq, frame) for seq, frame in page.rows if not is_history(frame)])
        # Pruned rows leave nothing to read: what was the newest row is passed all the same.
        self._reader.advance(max(page.end, 0 if page.rows else self._replay.live_after_seq))
        self._replay.wake()
        return page.more

    def _hand_on(self, parcels: list[Parcel]) -> None:
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
        """Try again soon. Damage that is still there then is told to everybody: nothing more will come."""
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
