"""When subscribers hear a heartbeat: one timer for each interval somebody asked for, and none that nobody did."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from waitbus.hub.connection import Connection


class Heartbeats:
    """Calls `beat` with the subscribers of one interval (in seconds) whenever it has passed."""

    __slots__ = ("_beat", "_groups", "_loop", "_timers")

    def __init__(self, loop: asyncio.AbstractEventLoop, beat: Callable[[list[Connection]], object]) -> None:
        self._loop = loop
        self._beat = beat
        self._groups: dict[float, set[Connection]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def add(self, connection: Connection, interval: float) -> None:
        """From now on this one hears a heartbeat every `interval` seconds; the first may come sooner."""
        group = self._groups.setdefault(interval, set())
        if not group:
            self._timers[interval] = self._loop.call_later(interval, self._pass, interval)
        group.add(connection)

    def discard(self, connection: Connection) -> None:
        """The timer goes with the last one who asked for it."""
        for interval, group in list(self._groups.items()):
            group.discard(connection)
            if not group:
                del self._groups[interval]
                self._timers.pop(interval).cancel()

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def _pass(self, interval: float) -> None:
        self._timers[interval] = self._loop.call_later(interval, self._pass, interval)
        self._beat(list(self._groups[interval]))
