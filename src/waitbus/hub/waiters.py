"""Who is subscribed, for `waitbus status`: one frame, bounded in bytes however many they are."""

from __future__ import annotations

import json

from waitbus.wire import MAX_FRAME_BYTES, encode, status_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from waitbus.hub.connection import Connection

# What of the frame the waiters may take, and what one of them may, before its predicate is left out.
WAITERS_BYTES = MAX_FRAME_BYTES - 1024
WAITER_BYTES = 2048
_as_ascii = json.JSONEncoder(separators=(",", ":")).encode


def status_of(connections: Iterable[Connection], live_seq: int) -> bytes:
    """The `hub_status` frame about those who are served, oldest first, as bytes. Live has read up to `live_seq`."""
    served = sorted([one for one in connections if one.session.is_served], key=_begun)
    waiters: list[dict[str, Any]] = []
    room = WAITERS_BYTES
    for connection in served:
        waiter = _waiter(connection, live_seq)
        size = len(_as_ascii(waiter))  # no encoding of a frame is longer
        if size > WAITER_BYTES:
            waiter["predicate"], waiter["is_cut"] = None, True
            size = len(_as_ascii(waiter))
        room -= size + 1
        if room < 0:
            break
        waiters.append(waiter)
    return encode(status_frame(len(served), waiters))


def _begun(connection: Connection) -> int:
    return connection.begun


def _waiter(connection: Connection, live_seq: int) -> dict[str, Any]:
    predicate = connection.predicate
    return {
        "pid": connection.pid,
        "connected_at": connection.begun,
        "predicate": None if predicate is None else predicate.as_object,
        "seen": connection.session.passed(live_seq),
        "matched": connection.matched,
    }
