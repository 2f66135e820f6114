"""One connection to the hub of a store: where it may listen, and whether who answers serves that store.

The lock beside the store says where its hub listens, whatever variables the hub was started with; our own place counts
where the lock says nothing, as with a daemon of 0.2.0.
"""

from __future__ import annotations

import errno
import os
import socket
import time

from waitbus.client.core import HubError
from waitbus.event import WaitbusError
from waitbus.private import check_private_socket
from waitbus.store import hublock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.client.core import SubscriptionState
    from waitbus.settings import Settings

ABSENT = (FileNotFoundError, ConnectionRefusedError)
# How long a hub may take to accept the first frame.
_FIRST_SEND_SEC = 10.0
# What a subscription may take at least to reach a hub that runs, however short its time-out.
OPEN_SEC = 0.4
_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT)


def places(settings: Settings) -> list[str]:
    """The paths at which the hub of this store may listen, the likelier first."""
    told = hublock.read(settings.hub_lock).broadcast
    own = settings.broadcast_socket
    return [own] if told is None or told == own else [told, own]


def connect_to(path: str) -> socket.socket:
    """A connection to who listens at `path`, not blocking.

    Raises one of `ABSENT` when nobody does, ``BlockingIOError`` when the hub has too many connections to accept yet,
    `SettingsError` when the socket is another user's or open to one, `HubError` when it may not be connected to.
    """
    check_private_socket(path)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
    except (*ABSENT, BlockingIOError):
        raise
    except OSError as error:
        hint = "; a sandbox may forbid UNIX sockets: allow this one, or run waitbus outside of it"
        raise HubError(
            f"cannot connect to {path}: {error.strerror or error}{hint if error.errno in _FORBIDDEN else ''}"
        ) from None
    return connection


def _first(paths: list[str]) -> tuple[int, socket.socket]:
    """The first of `paths` at which somebody listens: its index, and a connection. Raises what the last one raises."""
    *others, last = paths
    for index, path in enumerate(others):
        try:
            return index, connect_to(path)
        except (*ABSENT, WaitbusError):  # what a dead hub left in the lock may be anybody's by now
            continue
    return len(others), connect_to(last)


def dial(state: SubscriptionState, settings: Settings, may_start: bool) -> tuple[socket.socket | None, bool]:
    """One try of a subscription to connect: the connection, or None and whether a hub must get ready first.

    Raises `HubError` when there is none to be had. A subscription that was answered once outlives every absence.
    """
    now = time.monotonic()
    answered = state.began_at is not None
    paths = places(settings)
    try:
        if state.strays >= len(paths):
            raise _stray(state, settings)
        index, connection = _first(paths[state.strays :])
    except BlockingIOError:
        state.later(now)
        return None, False
    except ABSENT:
        state.strays = 0
        # A hub that holds the lock is on its way in, or listens again in a moment.
        if not may_start and not answered and hublock.is_held(settings.hub_lock):
            return None, True
        return None, state.absent(now, may_start)
    except HubError:
        state.strays = 0
        if not answered:
            raise
        state.later(now)
        return None, False
    state.strays += index
    return connection, False


def _stray(state: SubscriptionState, settings: Settings) -> HubError:
    return HubError(
        f"the hub at {settings.broadcast_socket} serves {state.foreign}, not {settings.store}: "
        "set WAITBUS_RUNTIME_DIR to another directory for this store, or WAITBUS_STATE_DIR to that store's"
    )


def is_same_store(settings: Settings, theirs: str) -> bool:
    """Whether the file a hub names is this store: by its name, by its inode, or by what the lock beside ours says.

    The last is for a process that sees the same files by other names, as in a container.
    """
    ours = settings.store
    if theirs == ours:
        return True
    try:
        if os.path.samefile(theirs, ours):
            return True
    except OSError:
        pass
    lock = settings.hub_lock
    return hublock.read(lock).store == theirs and hublock.is_held(lock)


def send_by(now: float, deadline: float | None) -> float:
    """Until when the hub may take to accept the first frame, when the caller's `deadline` counts, too."""
    latest = now + _FIRST_SEND_SEC
    return latest if deadline is None else min(latest, max(deadline, now + OPEN_SEC))
