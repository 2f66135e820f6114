"""Writing events: commit, then ring. Works with no hub running; the row waits for the next one.

One appender and one bell a store serve the whole process, from any thread and through any fork.
"""

from __future__ import annotations

import atexit
import errno
import socket

from waitbus.settings import load
from waitbus.store import hublock
from waitbus.store.append import Appender, BatchResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from waitbus.event import EmitResult, EventInsert
    from waitbus.settings import Settings

__all__ = ["Bell", "emit", "emit_many"]


def emit(event: EventInsert, *, settings: Settings | None = None) -> EmitResult:
    """Write one event, and wake every process that waits for it.

    >>> result = emit(EventInsert(source="ci", event_type="build", conclusion="failure", fields={"step": "lint"}))
    >>> result.inserted, result.event.summary
    (True, 'ci build failure')

    The event is committed when this returns, whether or not a hub is running. If its `delivery_id` already exists,
    nothing changes: `inserted` is false, and `event` is the earlier one.

    Raises ``ValueError`` before anything is written if the event cannot be stored, `StoreError` if the store cannot be
    written, and `SettingsError` if a setting or a place cannot be used. Without `settings`, the first call of the
    process reads the environment and config.toml, and later calls use the same settings.
    """
    producer = _producer(settings)
    return producer.appender.append(event, after_commit=producer.bell.ring)


def emit_many(events: Iterable[EventInsert], *, settings: Settings | None = None) -> BatchResult:
    """Write many events in order, and wake every process that waits for one of them.

    >>> done = emit_many(EventInsert(source="ci", event_type="step", fields={"n": n}) for n in range(2500))
    >>> done.inserted, done.duplicates
    (2500, 0)

    `events` is any iterable. A transaction holds at most 1,000 events or 1 MiB of payloads, and the bell is rung after
    each. Raises as `emit` does; transactions before the one that failed stay written and are delivered.
    """
    producer = _producer(settings)
    return producer.appender.append_many(events, after_commit=producer.bell.ring)


class Bell:
    """Wakes a hub: one datagram on its bell, else (0.2.0's daemon) one byte on its doorbell.

    The lock of the store says where the hub's bell is; our own place counts where it says nothing. Best effort: it
    never blocks and never raises. A ring that is missed delays delivery by at most a second.
    """

    __slots__ = ("_bell", "_doorbell", "_lock", "_socket", "_told")

    def __init__(self, settings: Settings) -> None:
        self._bell = settings.bell_socket
        self._doorbell = settings.doorbell_socket
        self._lock = settings.hub_lock
        # The bell that the lock named, as long as somebody hears it.
        self._told: str | None = None
        # Made at once and not with the first ring, which two threads may do at the same time.
        self._socket = _datagram_socket()

    def ring(self) -> None:
        """Ring once. Several rings before the hub looks are one."""
        told = self._told
        if told is not None and self._send(told):
            return
        told = self._told = hublock.read(self._lock).bell
        if not (told is not None and self._send(told)) and not self._send(self._bell):
            self._ring_doorbell()

    def _send(self, bell: str) -> bool:
        """Whether somebody hears this bell."""
        if self._socket is None:
            return False
        try:
            # Addressed each time: a hub that was started in between is found without a failure first, and the socket
            # holds nothing that threads or a forked child could disturb.
            self._socket.sendto(b".", bell)
        except BlockingIOError:
            return True  # its queue is full of rings
        except OSError as error:
            return error.errno == errno.ENOBUFS
        return True

    def _ring_doorbell(self) -> None:
        try:
            ringer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                ringer.setblocking(False)
                ringer.connect(self._doorbell)
                ringer.send(b".")
            finally:
                ringer.close()
        except OSError:
            return  # nobody is there, or so many ring that one more tells nothing new

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:
        self.close()


def _datagram_socket() -> socket.socket | None:
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:  # out of descriptors: the event is written all the same
        return None
    made.setblocking(False)
    return made


class _Producer:
    __slots__ = ("appender", "bell")

    def __init__(self, settings: Settings) -> None:
        self.appender = Appender(settings)
        self.bell = Bell(settings)

    def close(self) -> None:
        self.appender.close()
        self.bell.close()


# The environment and the config file are read once, by the first call: a look at ten variables for every event is a
# third of what the event costs.
_default: _Producer | None = None
_by_place: dict[tuple[str, ...], _Producer] = {}


def _producer(settings: Settings | None) -> _Producer:
    """The process's producer for these settings. Two threads that come first at once may make two: one is kept."""
    global _default
    if settings is not None:
        return _at(settings)
    found = _default
    if found is None:
        found = _default = _at(load())
    return found


def _at(settings: Settings) -> _Producer:
    place = (settings.db_path, settings.bell_socket, settings.doorbell_socket, settings.durability)
    found = _by_place.get(place)
    return found if found is not None else _by_place.setdefault(place, _Producer(settings))


@atexit.register
def _close_all() -> None:
    for producer in _by_place.values():
        producer.close()
