"""What `waitbus doctor` looks at. Each look is a function that gives findings; none changes anything or raises."""

from __future__ import annotations

import os
import sqlite3
import sys
import time

import waitbus
from waitbus.client.probe import hub_state
from waitbus.event import WaitbusError
from waitbus.private import RUNTIME, STATE, check_private_dir, check_private_socket, quote
from waitbus.settings import load
from waitbus.store import hublock, migrate
from waitbus.store.errors import damaged
from waitbus.store.importer import OLD_NAME
from waitbus.store.open import open_reader
from waitbus.store.read import last_seq, read_after
from waitbus.store.stats import journal_mode, troubles
from waitbus.ui.times import size, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from waitbus.settings import Settings

OK, NOTE, BAD = "ok", "note", "BAD"
OLDEST_PYTHON = (3, 11)
# Generated columns came with 3.31; upsert and window functions before it.
OLDEST_SQLITE = (3, 31, 0)
LEAST_FREE_BYTES = 64 << 20
# An event this far in the future was written by a clock that has since been set back, or will be.
CLOCK_SLACK_NS = 5 * 10**9
_CHECK_SEC = 10.0  # for which the store is looked through
_EARLIEST_NS = 1_735_689_600 * 10**9  # 2025: no machine that has waitbus is younger


class Finding:
    """One line: its state, what was looked at, what was found and what to do."""

    __slots__ = ("name", "state", "text")

    def __init__(self, state: str, name: str, text: str) -> None:
        self.state = state
        self.name = name
        self.text = text


def diagnose() -> list[Finding]:
    """All findings, in the order of what rests on what."""
    findings = [*_programs()]
    try:
        settings = load()
    except WaitbusError as error:
        return [*findings, Finding(BAD, "settings", f"{error}; the rest waits for that")]
    there = os.path.exists(settings.config_path)
    findings.append(
        Finding(OK, "settings", settings.config_path if there else f"the defaults: no {settings.config_path}")
    )
    for look in (_directories, _disk, _sockets, _hub, _store, _old_store):
        findings += look(settings)
    return findings


def _programs() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] >= OLDEST_PYTHON
    yield Finding(
        OK if good else BAD,
        "python",
        f"{version}, {sys.executable}" + ("" if good else ": waitbus needs 3.11 or newer"),
    )
    yield Finding(OK, "waitbus", f"{waitbus.__version__}, {os.path.dirname(os.path.abspath(waitbus.__file__))}")
    good = sqlite3.sqlite_version_info >= OLDEST_SQLITE
    yield Finding(
        OK if good else BAD,
        "sqlite",
        sqlite3.sqlite_version + ("" if good else ": waitbus needs 3.31 or newer; use a Python that comes with one"),
    )


def _directories(settings: Settings) -> Iterator[Finding]:
    for name, path, setting in (("state", settings.state_dir, STATE), ("runtime", settings.runtime_dir, RUNTIME)):
        yield _private(name, path, check_private_dir, setting, "yours alone (0700)")


def _sockets(settings: Settings) -> Iterator[Finding]:
    holder = hublock.read(settings.hub_lock)
    running = hublock.is_held(settings.hub_lock)
    for name, own, told in (
        ("broadcast", settings.broadcast_socket, holder.broadcast),
        ("doorbell", settings.doorbell_socket, holder.doorbell),
    ):
        path = told if running and told else own
        found = _private(name, path, check_private_socket, RUNTIME, "yours alone (0600)")
        if running and found.state == NOTE:
            found.text = f"{path} is not there, although a hub runs ({holder.who}): it listens again within a second"
        elif path != own:
            found.text += f"; not {own}: the hub was started with other settings, and clients find it by its lock"
        yield found


def _private(name: str, path: str, check: Callable[[str, str], None], setting: str, good: str) -> Finding:
    try:
        check(path, setting)
    except FileNotFoundError:
        return Finding(NOTE, name, f"{path} is not there: it is made when first needed")
    except WaitbusError as error:
        return Finding(BAD, name, str(error))
    return Finding(OK, name, f"{path}, {good}")


def _disk(settings: Settings) -> Iterator[Finding]:
    """Room where the store is, or will be."""
    place = os.path.dirname(settings.db_path)
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    try:
        found = os.statvfs(place)
    except OSError as error:
        yield Finding(BAD, "disk", f"cannot look at {place}: {error.strerror}")
        return
    free = found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        yield Finding(BAD, "disk", f"{place} is on a read-only disk: set WAITBUS_STATE_DIR to another place")
    elif free < LEAST_FREE_BYTES:
        yield Finding(BAD, "disk", f"{size(free)} free at {place}: make room, or waitbus prune --vacuum")
    else:
        yield Finding(OK, "disk", f"{size(free)} free")


def _hub(settings: Settings) -> Iterator[Finding]:
    state = hub_state(settings)
    if state["running"]:
        pid = f", pid {state['pid']}" if state["pid"] is not None else ""
        up = f", for {span(state['uptime_sec'])}" if state["uptime_sec"] is not None else ""
        version = state["version"]
        yield Finding(OK, "hub", f"up{pid}{up}")
        if version not in (None, waitbus.__version__):
            yield Finding(
                NOTE, "hub", f"it is waitbus {version}: end it (kill {state['pid']}), the next client starts ours"
            )
    elif not str(state["problem"]).startswith("no hub"):
        log = f"; its last words are in {settings.hub_log}" if hublock.is_held(settings.hub_lock) else ""
        yield Finding(BAD, "hub", f"{state['problem']}{log}")
    elif settings.autostart:
        yield Finding(NOTE, "hub", "none runs: the first client that needs one starts it")
    else:
        yield Finding(BAD, "hub", "none runs, and clients may not start one: run waitbus serve hub")


def _store(settings: Settings) -> Iterator[Finding]:
    if not os.path.lexists(settings.db_path):
        yield Finding(NOTE, "store", f"{settings.db_path} is not there yet: the first event makes it")
        yield from _clock(None)
        return
    try:
        conn = open_reader(settings)
    except WaitbusError as error:
        yield Finding(BAD, "store", str(error))
        yield from _clock(None)
        return
    try:
        newest = read_after(conn, last_seq(conn) - 1, 1)
        version = migrate.check(conn, settings.db_path)
        mode = journal_mode(conn)
        found = troubles(conn, timeout=_CHECK_SEC)
    except (WaitbusError, sqlite3.Error) as error:
        yield Finding(BAD, "store", str(error))
        return
    finally:
        conn.close()
    yield _soundness(settings.db_path, found)
    yield Finding(OK, "schema", f"{version}, the newest this waitbus knows")
    if mode != "wal":
        yield Finding(BAD, "journal", f"it is {mode}, not wal: stop what uses the store, then run waitbus init")
    yield from _clock(newest[0][1]["received_at"] if newest else None)


def _soundness(path: str, found: list[str] | None) -> Finding:
    if found is None:
        check = f"sqlite3 {quote(path)} 'PRAGMA integrity_check'"
        return Finding(NOTE, "store", f"{path} opens; it is too big to be looked through here: {check}")
    if not found:
        return Finding(OK, "store", f"{path} is sound")
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Finding(BAD, "store", str(damaged(path, f"{found[0]}{more}")))


def _clock(newest_ns: int | None) -> Iterator[Finding]:
    now = time.time_ns()
    if now < _EARLIEST_NS:
        yield Finding(BAD, "clock", "it stands before 2025: set it, event ids are made from it")
    elif newest_ns is not None and newest_ns > now + CLOCK_SLACK_NS:
        ahead = span((newest_ns - now) / 1e9)
        yield Finding(BAD, "clock", f"the newest event is {ahead} in the future: set the clock, or wait until then")
    else:
        yield Finding(OK, "clock", time.strftime("%Y-%m-%d %H:%M:%S %z"))


def _old_store(settings: Settings) -> Iterator[Finding]:
    old = os.path.join(settings.state_dir, OLD_NAME)
    if os.path.isfile(old) and not os.path.lexists(settings.db_path):
        yield Finding(NOTE, "0.2.0", f"{old} was not taken over yet: run waitbus init, which leaves it where it is")
