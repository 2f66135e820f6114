"""waitbus: an event bus for one workstation. Commit, ring, read.

A producer commits a row to an SQLite file and rings a bell. A small daemon, the hub, wakes up, reads the rows after
its cursor and sends each as a frame to the subscribers whose predicate matches.

    from waitbus import EventInsert, emit, wait_for

    emit(EventInsert(source="agent", event_type="agent_message", summary="build is green"))
    event = wait_for('conclusion="failure"', source="pytest", timeout=600)

Public names are loaded on first use, so that ``import waitbus`` takes less than 5 ms.
"""

__version__ = "0.3.0"
# Where waitbus is developed and released. Everything else that names it is derived from this line, or compared with it
# by a test: `make fork TO=OWNER/NAME` changes all of them.
__repository__ = "waitbus/waitbus"

TYPE_CHECKING = False
if TYPE_CHECKING:  # tells a type checker what `__getattr__` loads
    from waitbus.client.aio import asubscribe
    from waitbus.client.emit import emit, emit_many
    from waitbus.client.subscribe import subscribe
    from waitbus.client.wait import wait_for
    from waitbus.event import EmitResult, Event, EventInsert, WaitbusError
    from waitbus.predicate import Predicate

_HOMES = {
    "emit": "waitbus.client.emit",
    "emit_many": "waitbus.client.emit",
    "subscribe": "waitbus.client.subscribe",
    "asubscribe": "waitbus.client.aio",
    "wait_for": "waitbus.client.wait",
    "Event": "waitbus.event",
    "EventInsert": "waitbus.event",
    "EmitResult": "waitbus.event",
    "Predicate": "waitbus.predicate",
    "WaitbusError": "waitbus.event",
}

__all__ = [
    "EmitResult",
    "Event",
    "EventInsert",
    "Predicate",
    "WaitbusError",
    "__version__",
    "asubscribe",
    "emit",
    "emit_many",
    "subscribe",
    "wait_for",
]


if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> object:
        """Load a public name on first use (PEP 562)."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
