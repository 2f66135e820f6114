"""When subscribers get a heartbeat: there is one timer for each interval that a subscriber asked for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from waitbus.hub.connection import Connection


class Heartbeats:
    """Calls `beat` every interval (in seconds) with the subscribers that asked for that interval."""

    __slots__ = ("_beat", "_groups", "_loop", "_timers")

    def __init__(self, loop: asyncio.AbstractEventLoop, beat: Callable[[list[Connection]], object]) -> None:
        self._loop = loop
        self._beat = beat
        self._groups: dict[float, set[Connection]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def add(self, connection: Connection, interval: float) -> None:
        """Send `connection` a heartbeat every `interval` seconds from now on. The first may come sooner."""
        group = self._groups.setdefault(interval, set())
        if not group:
            self._timers[interval] = self._loop.call_later(interval, self._pass, interval)
        group.add(connection)

    def discard(self, connection: Connection) -> None:
        """Stop the heartbeats of `connection`. A timer that no subscriber needs any more is cancelled."""
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
