"""Peers that subscribe and never read: what the hub would send them is theirs to pay for, and nobody else's."""

from __future__ import annotations

import contextlib
import json
import socket

from tests.torture.bus import PATIENCE, Bus

MOST = 6
_FIRSTS: tuple[dict[str, object], ...] = (
    {},
    {"since": "0" * 26},
    {"since": "0" * 26, "match": {"key": "source", "op": "eq", "value": "torture"}},
)


class Mute:
    """Some of them at a time; the oldest goes when there are too many."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._held: list[socket.socket] = []
        self._came = 0

    def come_and_go(self) -> None:
        """One more; nothing where no hub listens just now."""
        first = json.dumps(_FIRSTS[self._came % len(_FIRSTS)]).encode()
        self._came += 1
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            peer.connect(self._bus.settings.broadcast_socket)
            peer.sendall(len(first).to_bytes(4, "big") + first)
        self._held.append(peer)
        if len(self._held) > MOST:
            self._held.pop(0).close()

    def close(self) -> None:
        while self._held:
            self._held.pop().close()
