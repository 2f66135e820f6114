"""A client that finds no hub starts one: one at a time, detached, with no more than it needs."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.conftest import PATIENCE, HubProcess, hub_pid, stop_hub
from waitbus.client import autostart
from waitbus.client.autostart import Start, hub_environ
from waitbus.client.connect import connect_to, dial
from waitbus.client.core import HubError, SubscriptionState
from waitbus.client.emit import emit
from waitbus.client.subscribe import subscribe
from waitbus.event import EventInsert
from waitbus.settings import Settings, SettingsError, load
from waitbus.store import hublock


def log_of(settings: Settings) -> str:
    return Path(settings.hub_log).read_text()


def ensure_hub(settings: Settings, deadline: float | None = None) -> bool:
    """Wait until a hub is there, as a client does; False at `deadline`."""
    with closing(Start(settings)) as start:
        return start.run(deadline)


def make(number: int) -> EventInsert:
    return EventInsert(source="test", event_type="test", fields={"n": number})


def test_the_first_client_starts_a_hub_and_is_served(bus: Settings) -> None:
    with subscribe(autostart=True, timeout=PATIENCE) as events:
        told = emit(make(1)).event
        assert next(events) == told
    assert log_of(bus) == ""


def test_a_hub_that_runs_is_left_alone(hub: HubProcess, settings: Settings) -> None:
    ensure_hub(settings)
    assert hub_pid(settings) == hub.pid


def test_twenty_clients_at_once_start_one_hub(bus: Settings) -> None:
    script = (
        "import sys; from waitbus import subscribe\n"
        "events = subscribe(since='start', timeout=20, autostart=True)\n"
        "print('in', flush=True); sys.stdin.readline()\n"
        "print(next(events).fields['n'], flush=True)\n"
    )
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "in\n"
    # All are connected to one hub: it has one socket. A second one would have said that it found the first.
    assert log_of(bus) == ""
    emit(make(7))
    for client in clients:
        assert client.communicate("go\n", timeout=PATIENCE) == ("7\n", "")


def test_a_stale_socket_is_no_hub(bus: Settings) -> None:
    os.makedirs(bus.runtime_dir, mode=0o700)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(bus.broadcast_socket)
    os.chmod(bus.broadcast_socket, 0o600)
    stale.close()
    ensure_hub(bus)
    assert hub_pid(bus)


def test_a_hub_too_busy_to_accept_is_one_that_runs(bus: Settings) -> None:
    os.makedirs(bus.runtime_dir, mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(bus.broadcast_socket)
    os.chmod(bus.broadcast_socket, 0o600)
    listener.listen(0)
    waiting: list[socket.socket] = []
    with suppress(BlockingIOError):
        while len(waiting) < 1000:
            waiting.append(connect_to(bus.broadcast_socket))
    stream = SubscriptionState()
    stream.later(0)
    if len(waiting) < 1000:  # Linux says so; elsewhere it looks as if nobody listened
        assert dial(stream, bus, True) == (None, False)
        assert stream.retry_at > 0
        ensure_hub(bus)
    assert not os.path.exists(bus.hub_log)
    for connection in (*waiting, listener):
        connection.close()


def test_the_hub_is_nobodys_child_and_keeps_nothing_of_ours_open(bus: Settings) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    ensure_hub(bus)
    os.close(writer)
    assert select.select([reader], [], [], PATIENCE)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)
    pid = hublock.read(bus.hub_lock).pid
    assert pid is not None
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_it_works_from_a_directory_that_holds_traps(
    bus: Settings, bus_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "asyncio", "sqlite3", "waitbus"):
        (bus_dir / f"{name}.py").write_text(f"open({str(bus_dir / 'sprung')!r}, 'w')")
    monkeypatch.chdir(bus_dir)
    ensure_hub(bus)
    assert not (bus_dir / "sprung").exists()


def test_settings_made_by_hand_reach_the_hub(bus_dir: Path, settings: Settings) -> None:
    """Nothing in this process's environment points to that bus."""
    names = {"WAITBUS_STATE_DIR": "s2", "WAITBUS_RUNTIME_DIR": "r2", "WAITBUS_DB": "d2/x.db", "WAITBUS_CONFIG": "c2"}
    (bus_dir / "d2").mkdir(mode=0o700)
    other = load({name: str(bus_dir / place) for name, place in names.items()})
    try:
        with subscribe(settings=other, autostart=True, timeout=PATIENCE) as events:
            told = emit(make(1), settings=other).event
            assert next(events) == told
        assert hub_pid(other)
        assert not hub_pid(settings)
    finally:
        stop_hub(other)


class TestFailure:
    def test_the_reason_is_told_in_a_line(self, bus: Settings) -> None:
        os.makedirs(bus.state_dir, mode=0o700)
        Path(bus.db_path).write_bytes(b"this is no database" * 100)
        os.chmod(bus.db_path, 0o600)
        with pytest.raises(HubError, match=r"^the hub could not start: .*waitbus\.db .*\(log: .*hub\.log\)$") as caught:
            subscribe(autostart=True)
        assert "\n" not in str(caught.value)

    def test_the_reason_is_the_last_attempts(self, bus: Settings) -> None:
        os.makedirs(bus.state_dir, mode=0o700)
        Path(bus.hub_log).write_text("waitbus: an old complaint\n")
        Path(bus.config_path).write_text("[hub]\nnonsense = 1\n")
        with pytest.raises(HubError, match="unknown key 'nonsense'"):
            ensure_hub(bus)

    def test_a_long_log_is_begun_anew(self, bus: Settings) -> None:
        os.makedirs(bus.state_dir, mode=0o700)
        Path(bus.hub_log).write_bytes(b"x" * 300_000)
        ensure_hub(bus)
        assert log_of(bus) == ""

    def test_a_place_open_to_others_is_refused(self, bus: Settings) -> None:
        os.makedirs(bus.runtime_dir, mode=0o755)
        os.chmod(bus.runtime_dir, 0o755)
        with pytest.raises(SettingsError, match="chmod 700"):
            ensure_hub(bus)

    def test_a_log_that_cannot_be_written_is_told(self, bus: Settings) -> None:
        os.makedirs(bus.state_dir, mode=0o700)
        os.mkdir(bus.hub_log)
        with pytest.raises(HubError, match=r"cannot open .*hub\.log"):
            ensure_hub(bus)

    def test_an_interpreter_that_is_not_there_is_told(self, bus: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(HubError, match=r"could not start: .*not found"):
            ensure_hub(bus)

    def test_a_hub_that_does_not_get_ready_in_time_is_told(
        self, bus: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(autostart, "START_SEC", 0.0)
            with pytest.raises(HubError, match="did not listen within"):
                ensure_hub(bus)
        ensure_hub(bus)  # the one that was slow, or another


@contextmanager
def held(path: str) -> Iterator[IO[str]]:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "a") as lock:
        os.chmod(path, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def test_another_hub_on_its_way_in_or_out_is_waited_for(bus: Settings) -> None:
    """It has the lock of the store, but does not listen: nothing is launched that would only be refused."""
    with closing(Start(bus)) as start:
        with held(bus.hub_lock):
            assert not start.step()
            assert not start.run(0.0)
            assert not os.path.exists(bus.hub_log)
        assert start.run(time.monotonic() + PATIENCE)
    assert hub_pid(bus)


def test_who_may_not_start_a_hub_waits_for_one_that_has_the_lock(bus: Settings) -> None:
    with closing(Start(bus, may_launch=False)) as start:
        with held(bus.hub_lock):
            assert not start.step()
        with pytest.raises(HubError, match="autostart is off"):
            start.step()
    assert not os.path.exists(bus.hub_log)


@pytest.mark.parametrize("says", [{"pid": 7}, {"pid": 7, "broadcast": "/nowhere/broadcast.sock"}])
def test_another_hub_that_never_listens_is_told(
    bus: Settings, monkeypatch: pytest.MonkeyPatch, says: dict[str, object]
) -> None:
    monkeypatch.setattr(autostart, "START_SEC", 0.0)
    monkeypatch.setattr(autostart, "_OTHER_HUB_SEC", 0.0)
    with held(bus.hub_lock) as lock:
        hublock.write(lock.fileno(), says)
        with pytest.raises(HubError, match=r"no hub came up in time, the one that has .*hub\.lock \(pid 7\)"):
            ensure_hub(bus)


def test_a_client_that_starts_one_and_never_gets_done_is_not_waited_for_forever(
    bus: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autostart, "START_SEC", 0.0)
    with held(bus.autostart_lock), pytest.raises(HubError, match="no hub came up in time"):
        ensure_hub(bus)


def test_a_restart_nobody_cares_for_is_cared_for_by_the_client(bus: Settings) -> None:
    with subscribe(autostart=True, timeout=PATIENCE) as events:
        first = hub_pid(bus)
        os.kill(first, 9)
        emit(make(1))
        assert next(events).fields["n"] == 1
    assert hub_pid(bus) != first


def test_the_environment_of_a_hub_holds_no_secrets(settings: Settings) -> None:
    environ = hub_environ(
        settings,
        {
            "HOME": "/home/u",
            "LC_ALL": "C.UTF-8",
            "GITHUB_TOKEN": "secret",
            "WAITBUS_WEBHOOK_SECRET": "secret",
            # No prefix makes a variable known.
            "PYTHONSECRET": "secret",
            "XDG_SECRET": "secret",
            "LC_SECRET": "secret",
            "DYLD_SECRET": "secret",
            "COVERAGE_SECRET": "secret",
            "WAITBUS_DB": "/elsewhere",
            "PYTHONPATH": "lib::/abs",
        },
    )
    assert "secret" not in environ.values()
    assert {name for name in environ if not name.startswith("WAITBUS_")} == {"HOME", "LC_ALL", "PYTHONPATH"}
    assert environ["HOME"] == "/home/u"
    assert environ["LC_ALL"] == "C.UTF-8"
    assert environ["WAITBUS_DB"] == settings.db_path
    assert environ["PYTHONPATH"].split(":")[:2] == [os.path.abspath("lib"), "/abs"]
