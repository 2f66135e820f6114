"""The hub and its sockets."""

from __future__ import annotations

import waitbus
from waitbus.client.probe import hub_state
from waitbus.doctor.findings import BAD, NOTE, OK, Finding
from waitbus.doctor.places import private
from waitbus.private import RUNTIME, check_private_socket
from waitbus.store import hublock
from waitbus.ui.times import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from waitbus.settings import Settings


def look(settings: Settings) -> Iterator[Finding]:
    """Where the hub listens, and whether it answers."""
    yield from _sockets(settings)
    yield from _hub(settings)


def _sockets(settings: Settings) -> Iterator[Finding]:
    holder = hublock.read(settings.hub_lock)
    running = hublock.is_held(settings.hub_lock)
    for name, own, told in (
        ("broadcast", settings.broadcast_socket, holder.broadcast),
        ("doorbell", settings.doorbell_socket, holder.doorbell),
    ):
        path = told if running and told else own
        found = private(name, path, check_private_socket, RUNTIME, "yours alone (0600)")
        if running and found.state == NOTE:
            found.text = f"{path} is not there, although a hub runs ({holder.who}): it listens again within a second"
        elif path != own:
            found.text += f"; not {own}: the hub was started with other settings, and clients find it by its lock"
        yield found


def _hub(settings: Settings) -> Iterator[Finding]:
    state = hub_state(settings)
    if state["running"]:
        pid = f", pid {state['pid']}" if state["pid"] is not None else ""
        up = f", for {span(state['uptime_sec'])}" if state["uptime_sec"] is not None else ""
        yield Finding(OK, "hub", f"up{pid}{up}")
        if state["version"] not in (None, waitbus.__version__):
            text = f"it is waitbus {state['version']}: end it (kill {state['pid']}), the next client starts ours"
            yield Finding(NOTE, "hub", text)
    elif not str(state["problem"]).startswith("no hub"):
        yield Finding(BAD, "hub", f"{state['problem']}{_last_resort(settings, state['problem'])}")
    elif settings.autostart:
        yield Finding(NOTE, "hub", "none runs: the first client that needs one starts it")
    else:
        yield Finding(BAD, "hub", "none runs, and clients may not start one: run waitbus serve hub")


def _last_resort(settings: Settings, problem: str) -> str:
    """What to do about a hub that holds the lock and does not answer, where the problem does not say it."""
    if not hublock.is_held(settings.hub_lock):
        return ""
    pid = hublock.read(settings.hub_lock).pid
    end = "" if pid is None or "kill " in problem else f"; if it stays so, end it: kill -KILL {pid}"
    return f"{end}; its last words are in {settings.hub_log}"
