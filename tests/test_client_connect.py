"""The right hub, whatever found it, and nobody answered from another store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess, Hubs, hub_pid, stop_hub
from tests.test_client_autostart import held
from waitbus import wire
from waitbus.client.aio import asubscribe
from waitbus.client.connect import dial, is_same_store, places
from waitbus.client.core import HubError, SubscriptionState
from waitbus.client.emit import Bell, emit
from waitbus.client.subscribe import subscribe
from waitbus.client.wait import wait_for
from waitbus.event import EventInsert
from waitbus.settings import MACOS, Settings, load
from waitbus.store import hublock

TELL = ("emit", "--source", "test", "--event-type", "test")


def make(number: int) -> EventInsert:
    return EventInsert(source="test", event_type="test", fields={"n": number})


# --- found by the lock of the store -----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(settings: Settings, bus_dir: Path) -> Settings:
    """The same store, seen by a process with another runtime directory, where nobody listens."""
    return load({**os.environ, "WAITBUS_RUNTIME_DIR": str(bus_dir / "elsewhere")})


def test_a_client_with_another_runtime_directory_meets_the_hub_of_its_store(
    hub: HubProcess, settings: Settings, elsewhere: Settings
) -> None:
    with subscribe(settings=elsewhere, autostart=False, timeout=PATIENCE) as events:
        told = emit(make(1), settings=elsewhere).event
        assert next(events) == told
    assert hub_pid(settings) == hub.pid
    assert not os.path.exists(elsewhere.runtime_dir)


@pytest.mark.skipif(MACOS, reason="macOS has no XDG_RUNTIME_DIR")
def test_a_cron_job_meets_the_hub_of_the_desktop(
    settings: Settings, bus_dir: Path, unstarted_hub: HubProcess, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    for name in ("WAITBUS_STATE_DIR", "WAITBUS_RUNTIME_DIR"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(bus_dir))
    with monkeypatch.context() as desktop:
        desktop.setenv("XDG_RUNTIME_DIR", str(bus_dir / "run"))
        unstarted_hub.start()
    assert cli(*TELL).returncode == 0
    assert cli("wait", "--since", "start", "--timeout", str(PATIENCE)).returncode == 0
    looked = json.loads(cli("status", "--json").stdout)
    assert looked["healthy"]
    assert looked["hub"]["pid"] == unstarted_hub.pid
    assert looked["hub"]["socket"] == str(bus_dir / "run/waitbus/broadcast.sock")
    assert f"found by what {bus_dir}/.local/state/waitbus/hub.lock says" in looked["hub"]["note"]
    doctor = cli("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "clients find it by its lock" in doctor.stdout


def test_the_bell_is_rung_where_the_lock_says(elsewhere: Settings, bus_dir: Path) -> None:
    """And, as soon as nobody hears it there, at the place of this process."""
    os.makedirs(elsewhere.state_dir, mode=0o700)
    os.makedirs(elsewhere.runtime_dir, mode=0o700)
    bell = Bell(elsewhere)
    with open(elsewhere.hub_lock, "w", encoding="utf-8") as lock:
        os.chmod(elsewhere.hub_lock, 0o600)
        bell.ring()  # nobody is there yet, and nothing is remembered of it
        for path in (str(bus_dir / "a.sock"), str(bus_dir / "b.sock")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
                listener.bind(path)
                listener.settimeout(PATIENCE)
                hublock.write(lock.fileno(), {"pid": 1, "bell": path})
                for _ in range(2):
                    bell.ring()
                    assert listener.recv(9) == b"."
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.bind(elsewhere.bell_socket)
        own.settimeout(PATIENCE)
        bell.ring()
        assert own.recv(9) == b"."
    bell.close()


def test_what_a_dead_hub_left_in_the_lock_stops_nobody(bus: Settings, bus_dir: Path, hubs: Hubs) -> None:
    """Nobody listens there, or another bus's hub does by now: a hub for this store is started."""
    os.makedirs(bus.state_dir, mode=0o700)
    other = hubs(WAITBUS_STATE_DIR=str(bus_dir / "s2"), WAITBUS_RUNTIME_DIR=str(bus_dir / "r2"))
    squatted = str(bus_dir / "squatted.sock")
    with socket.socket(socket.AF_UNIX) as anybody:
        anybody.bind(squatted)
    os.chmod(squatted, 0o666)
    for left in (str(bus_dir / "nowhere.sock"), squatted, other.settings.broadcast_socket):
        with open(bus.hub_lock, "w", encoding="utf-8") as lock:
            os.chmod(bus.hub_lock, 0o600)
            hublock.write(lock.fileno(), {"pid": 1, "store": bus.store, "broadcast": left})
        assert places(bus) == [left, bus.broadcast_socket]
        with subscribe(autostart=True, timeout=PATIENCE) as events:
            told = emit(make(1)).event
            assert next(events) == told
        stop_hub(bus)


# --- a hub that serves another store ----------------------------------------------------------------------------------


@pytest.fixture
def foreign(hub: HubProcess, settings: Settings, bus_dir: Path) -> Settings:
    """Another store, and the runtime directory of `hub`, which does not serve it."""
    return load({**os.environ, "WAITBUS_STATE_DIR": str(bus_dir / "state2")})


def test_nobody_is_answered_from_another_store(
    hub: HubProcess, settings: Settings, foreign: Settings, cli: Cli, bus_dir: Path
) -> None:
    emit(make(1))
    for autostart in ("0", "1"):
        variables = {"WAITBUS_STATE_DIR": foreign.state_dir, "WAITBUS_AUTOSTART": autostart}
        for words in (
            ("wait", "--since", "start", "--timeout", "5"),
            ("tail", "--since", "start", "--timeout", "5"),
            ("on", "--since", "start", "--timeout", "5", "--", "true"),
        ):
            done = cli(*words, **variables)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr.count("\n") == 1
            assert f"serves {settings.store}, not {foreign.store}" in done.stderr
            assert "set WAITBUS_RUNTIME_DIR" in done.stderr
        assert cli(*TELL, **variables).returncode == 0
        looked = cli("status", **variables)
        assert looked.returncode == 1
        assert f"another hub (pid {hub.pid})" in looked.stdout
        assert settings.store in looked.stdout
        assert cli("doctor", **variables).returncode == 1


def test_the_faces_of_the_library_refuse_it_too(foreign: Settings) -> None:
    async def later() -> None:
        async with asubscribe(settings=foreign, since="start"):
            raise AssertionError

    for ask in (
        lambda: subscribe(settings=foreign, since="start"),
        lambda: wait_for(settings=foreign, since="start", timeout=PATIENCE),
        lambda: asyncio.run(later()),
    ):
        with pytest.raises(HubError, match="serves"):
            ask()


def test_a_hub_of_this_store_at_another_place_is_preferred_to_it(
    hub: HubProcess,
    foreign: Settings,
    bus_dir: Path,
    hubs: Hubs,
) -> None:
    hubs(WAITBUS_STATE_DIR=foreign.state_dir, WAITBUS_RUNTIME_DIR=str(bus_dir / "run2"))
    with subscribe(settings=foreign, timeout=PATIENCE) as events:
        emit(make(1))
        told = emit(make(2), settings=foreign).event
        assert next(events) == told


def test_a_subscription_that_was_answered_outlives_such_a_hub(
    hub: HubProcess,
    foreign: Settings,
    bus_dir: Path,
    hubs: Hubs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own hub is away for a while, and who listens at its place meanwhile is not taken for it."""
    place = {"WAITBUS_STATE_DIR": foreign.state_dir, "WAITBUS_RUNTIME_DIR": str(bus_dir / "run2")}
    own = hubs(**place)
    with subscribe(settings=foreign, timeout=PATIENCE, autostart=False) as events:
        own.stop(signal.SIGKILL)
        while not events.state.strays:
            events.receive(time.monotonic())
        told = emit(make(2), settings=foreign).event
        hubs(**place)
        assert next(events) == told


def test_a_daemon_that_does_not_name_its_store_is_taken_as_it_is(settings: Settings) -> None:
    stream = SubscriptionState()
    stream.is_ours = lambda _: False
    stream.first_frame(0, 10**18)
    stream.feed(wire.encode(wire.ack_frame(None)), 0)
    assert stream.acked


def test_strays_are_counted_and_forgotten() -> None:
    stream = SubscriptionState()
    stream.is_ours = lambda store: store == "/ours"
    frame = wire.encode({**wire.ack_frame(None, served=("/theirs", "1")), "store": "/theirs"})
    for count in (1, 2):
        stream.first_frame(0, 10**18)
        assert stream.feed(frame + frame, 7) == []
        assert (stream.strays, stream.foreign, stream.connected, stream.retry_at) == (count, "/theirs", False, 7)
    stream.first_frame(8, 10**18)
    stream.feed(wire.encode(wire.ack_frame(None, served=("/ours", "1"))), 8)
    assert (stream.strays, stream.acked) == (0, True)


def test_one_store_by_several_names(settings: Settings, bus_dir: Path) -> None:
    os.makedirs(settings.state_dir, mode=0o700)
    Path(settings.db_path).touch(0o600)
    Path(settings.state_dir, "other.db").touch(0o600)
    (bus_dir / "link.db").symlink_to(settings.db_path)
    assert is_same_store(settings, settings.db_path)
    assert is_same_store(settings, str(bus_dir / "link.db"))
    assert not is_same_store(settings, f"{settings.state_dir}/other.db")
    assert not is_same_store(settings, "/seen/in/a/container/waitbus.db")
    with held(settings.hub_lock) as lock:
        hublock.write(lock.fileno(), {"pid": 1, "store": "/seen/in/a/container/waitbus.db"})
        assert is_same_store(settings, "/seen/in/a/container/waitbus.db")
    assert not is_same_store(settings, "/seen/in/a/container/waitbus.db")


# --- where connecting is forbidden, or fails in another way -----------------------------------------------------------

SANDBOX = """
import errno, os, socket, sys
class Forbidden(socket.socket):
    def {method}(self, *args, **more):
        raise OSError(int(sys.argv[1]), os.strerror(int(sys.argv[1])))
socket.socket = Forbidden
from waitbus.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("method", ["connect", "__init__"])
@pytest.mark.parametrize("number", ["EPERM", "EACCES", "EMFILE", "EPROTOTYPE"])
def test_a_forbidden_connection_is_one_line_and_no_verdict(
    hub: HubProcess, method: str, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    code = getattr(errno, number)
    for words in (("wait", "--timeout", "5"), ("tail", "--timeout", "5"), ("on", "--", "true")):
        done = subprocess.run(
            [sys.executable, "-c", SANDBOX.replace("{method}", method), str(code), *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert os.strerror(code) in done.stderr
        assert ("sandbox" in done.stderr) == (number in ("EPERM", "EACCES"))


def test_a_subscription_that_was_answered_outlives_such_an_error(settings: Settings) -> None:
    """Out of descriptors, for one: it looks again, later."""
    os.makedirs(settings.runtime_dir, mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:  # connecting says EPROTOTYPE
        other.bind(settings.broadcast_socket)
        os.chmod(settings.broadcast_socket, 0o600)
        stream = SubscriptionState()
        with pytest.raises(HubError, match="cannot connect"):
            dial(stream, settings, False)
        stream.first_frame(0, 10**18)
        stream.feed(wire.encode(wire.ack_frame(None)), 0)
        stream.lost(0)
        assert dial(stream, settings, False) == (None, False)
        assert stream.retry_at > 0


def test_a_hub_that_stays_away_is_looked_for_to_the_end(settings: Settings) -> None:
    """Twelve minutes of looking once a second made a number too large to be one."""
    stream = SubscriptionState()
    stream.first_frame(0, 10**18)
    stream.feed(wire.encode(wire.ack_frame(None)), 0)
    stream.lost(0)
    for now in range(5000):
        assert dial(stream, settings, False) == (None, False)
        assert stream.retry_at <= time.monotonic() + 1.0, now


def test_a_wait_goes_on_over_the_death_of_a_hub_that_it_may_not_restart(
    hub: HubProcess, settings: Settings, cli: Cli
) -> None:
    reader, writer = os.pipe()
    waiting = cli.spawn("wait", "--match", "n=1", "--ready-fd", str(writer), pass_fds=(writer,))
    os.close(writer)
    assert os.read(reader, 9) == b"ready\n"
    os.close(reader)
    hub.stop(signal.SIGKILL)
    emit(make(1))
    hub.start()
    assert waiting.wait(PATIENCE) == 0


def test_many_clients_survive_a_hub_that_leaves_as_they_come(bus: Settings) -> None:
    """A hub that is gone as soon as nobody is connected, and clients that come and go: each is served."""
    Path(bus.config_path).write_text('[hub]\nidle_exit = "10ms"\n')
    script = (
        "import sys; from waitbus import emit, wait_for, EventInsert\n"
        "for n in range(4):\n"
        "    made = emit(EventInsert(source=sys.argv[1], event_type='t', fields={'n': n})).event\n"
        "    assert wait_for(f'n={n}', source=sys.argv[1], since='start', timeout=30, autostart=True) == made\n"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", script, str(n)], stderr=subprocess.PIPE, text=True) for n in range(4)
    ]
    for client in clients:
        _, error = client.communicate(timeout=2 * PATIENCE)
        assert (client.returncode, error) == (0, "")
