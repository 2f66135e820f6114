"""What can be found out about a store's hub from outside, for `status` and `doctor`: it looks, and changes nothing."""

from __future__ import annotations

import socket
import time

from waitbus import wire
from waitbus.client.connect import ABSENT, connect_to, is_same_store, places
from waitbus.event import WaitbusError, one_line
from waitbus.host.peer import peer_pid
from waitbus.predicate import Predicate
from waitbus.predicate_text import text_of
from waitbus.store import hublock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from waitbus.settings import Settings

ANSWER_SEC = 3.0


def hub_state(settings: Settings) -> dict[str, Any]:
    """Whether a hub serves this store, and which: in `ANSWER_SEC` seconds, whatever state it is in.

    Keys: `running`, `pid`, `uptime_sec`, `socket` (where it answered, else where it should), `store`, `version`; `note`
    and `problem` (a line each) where there is something to say; `subscribers` (how many) and `waiters` (those that the
    hub named, see `_waiter`) where it says so.
    """
    own = settings.broadcast_socket
    state: dict[str, Any] = {"running": False, "pid": None, "uptime_sec": None, "socket": own}
    state.update(store=None, version=None)
    deadline = time.monotonic() + ANSWER_SEC
    problems: list[str] = []
    for path in places(settings):
        try:
            answer = _ask(settings, path, deadline)
        except ABSENT:
            continue
        except WaitbusError as error:
            problems.append(str(error))
            continue
        state.update(answer, running=True, socket=path)
        if path != own:
            state["note"] = f"found by what {settings.hub_lock} says; without it: {own}"
        return state
    state["problem"] = problems[0] if problems else _absence(settings)
    return state


def _absence(settings: Settings) -> str:
    lock = settings.hub_lock
    if not hublock.is_held(lock):
        return "no hub runs: the next client starts one" if settings.autostart else "no hub runs"
    holder = hublock.read(lock)
    if is_stopped(holder.pid):
        return f"the hub (pid {holder.pid}) is stopped, and its socket is gone: kill -CONT {holder.pid}"
    if holder.broadcast is None:
        return f"a hub ({holder.who}) has {lock} and does not listen yet: it is starting, or about to leave"
    return f"a hub ({holder.who}) listens on {holder.broadcast}, which is not there: it listens again within a second"


def _ask(settings: Settings, path: str, deadline: float) -> dict[str, Any]:
    """What the hub at `path` says of itself. Raises what `connect_to` raises, `WaitbusError` for no good answer."""
    try:
        connection = connect_to(path)
    except BlockingIOError:
        pid = hublock.read(settings.hub_lock).pid
        end = f"it is stopped: kill -CONT {pid}" if is_stopped(pid) else "it has too much to do, or hangs"
        raise WaitbusError(f"{_who(path, pid)} accepts no connection: {end}") from None
    holder = hublock.read(settings.hub_lock)
    # The lock knows the process also where a service manager made the socket.
    pid = holder.pid if holder.broadcast == path and holder.pid else peer_pid(connection)
    answer: dict[str, Any] = {"pid": holder.pid}
    try:
        if is_stopped(pid):
            raise WaitbusError(f"the hub (pid {pid}) is stopped: kill -CONT {pid}")
        for frame in _frames(connection, deadline):
            if frame.get("kind") == "subscribe_ack":
                store = frame.get("store")
                if isinstance(store, str) and not is_same_store(settings, store):
                    raise WaitbusError(_foreign(settings, connection, path, store))
                answer.update(store=store, version=frame.get("version"))
                if "caught_up" not in (frame.get("features") or ()):
                    return answer
            elif frame.get("kind") == "hub_status":
                answer.update(_waiters(frame))
            elif frame.get("kind") == "daemon_heartbeat":
                answer["uptime_sec"] = frame.get("uptime_sec")
                return answer
        raise WaitbusError(f"the hub at {path} ended the connection without an answer")
    except (OSError, wire.WireError):
        raise WaitbusError(f"{_who(path, pid)} gave no answer within {ANSWER_SEC:g} s: is it stopped?") from None
    finally:
        connection.close()


def _frames(connection: socket.socket, deadline: float) -> Iterator[dict[str, Any]]:
    """The hub's frames, up to the end of the stream. Raises ``OSError`` at `deadline`."""
    # Nothing matches this: the hub says where it stands, and no event comes.
    nothing = Predicate.from_object({"key": "event_id", "op": "eq", "value": ""})
    decoder = wire.Decoder()
    connection.settimeout(max(0.01, deadline - time.monotonic()))
    connection.sendall(wire.encode(wire.subscribe_frame(match=nothing, caught_up=True, status=True)))
    while data := connection.recv(wire.MAX_FRAME_BYTES):
        yield from map(wire.decode, decoder.feed(data))
        connection.settimeout(max(0.01, deadline - time.monotonic()))


def _waiters(frame: dict[str, Any]) -> dict[str, Any]:
    """Who else is subscribed, as far as a hub's answer can be read."""
    waiters = frame.get("waiters")
    known = [one for one in waiters if isinstance(one, dict)] if isinstance(waiters, list) else []
    count = frame.get("subscribers")
    return {"subscribers": count if isinstance(count, int) else len(known), "waiters": list(map(_waiter, known))}


def _waiter(told: dict[str, Any]) -> dict[str, Any]:
    """One subscriber: its `pid`, its `predicate` as text (null: any event), since when (`age_sec`), what it has had.

    `seen` counts roughly the events that went by, `matched` those that it was sent.
    """
    predicate, begun = told.get("predicate"), told.get("connected_at")
    try:
        text = None if predicate is None else text_of(Predicate.from_object(predicate).as_object)
    except WaitbusError:
        text = "?"
    if told.get("is_cut") is True:
        text = "a predicate too long to be told"
    age = max(0.0, time.time() - begun) if isinstance(begun, int | float) else None
    numbers = {name: value if type(value := told.get(name)) is int else None for name in ("pid", "seen", "matched")}
    return {"predicate": text, "age_sec": age if age is None else round(age, 1), **numbers}


def _foreign(settings: Settings, connection: socket.socket, path: str, store: str) -> str:
    pid = peer_pid(connection)
    who = f"another hub (pid {pid})" if pid else "another hub"
    return (
        f"{who} listens on {path}, for {one_line(store)}: none serves {settings.store}; "
        "set WAITBUS_RUNTIME_DIR to another directory for it"
    )


def _who(path: str, pid: int | None) -> str:
    return f"the hub at {path} ({f'pid {pid}' if pid else 'pid unknown'})"


def is_stopped(pid: int | None) -> bool:
    """Whether a process was stopped by a signal, as far as the kernel says."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:  # it has ended, or this kernel has no /proc
        return False
