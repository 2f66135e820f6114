"""One store, one hub: what two hubs do to each other, and what a hub does when its files are taken away."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess, Hubs
from tests.test_hub_server import Peers, activated, numbered, numbers
from waitbus.client.emit import emit_many
from waitbus.settings import Settings
from waitbus.store import hublock


class Log:
    """What a hub says, line by line, as it says it: its standard error is a pipe with a name."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._keep = os.open(path, os.O_WRONLY)  # so that no end comes between two hubs
        self._text = ""

    def until(self, word: str) -> str:
        """The first line from here on that holds `word`."""
        while True:
            line, newline, rest = self._text.partition("\n")
            if newline:
                self._text = rest
                if word in line:
                    return line
                continue
            assert select.select([self._fd], [], [], PATIENCE)[0], f"nobody said {word!r}"
            self._text += os.read(self._fd, 65536).decode()

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._keep)


@pytest.fixture
def log(bus_dir: Path) -> Iterator[Log]:
    made = Log(bus_dir / "hub.stderr")
    yield made
    made.close()


def refused(cli: Cli, *words: str, **variables: str) -> None:
    done = cli("serve", "hub", **variables)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def ring(path: str, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as bell:
        bell.connect(path)
        bell.send(b".")


# --- two hubs ---------------------------------------------------------------------------------------------------------


def test_the_lock_says_who_holds_it_and_where_it_listens(hub: HubProcess, settings: Settings) -> None:
    assert os.path.dirname(settings.hub_lock) == os.path.dirname(os.path.realpath(settings.db_path))
    holder = hublock.read(settings.hub_lock)
    assert holder.pid == hub.pid
    assert holder.store == os.path.realpath(settings.db_path)
    assert (holder.broadcast, holder.doorbell) == (settings.broadcast_socket, settings.doorbell_socket)
    assert holder.bell == settings.bell_socket
    assert hublock.is_held(settings.hub_lock)
    assert hub.stop() == 0
    assert hublock.read(settings.hub_lock).pid is None
    assert not hublock.is_held(settings.hub_lock)
    assert os.listdir(settings.runtime_dir) == []


def test_a_second_hub_of_a_store_is_refused_by_whatever_name(
    hub: HubProcess, settings: Settings, bus_dir: Path, cli: Cli
) -> None:
    """Another runtime directory, a link to the file, a link to its directory, a way around: it is one store."""
    (bus_dir / "link.db").symlink_to(settings.db_path)
    (bus_dir / "dir").symlink_to(settings.state_dir)
    other = {"WAITBUS_RUNTIME_DIR": str(bus_dir / "run2"), "WAITBUS_STATE_DIR": str(bus_dir / "state2")}
    for name in ("link.db", "dir/waitbus.db", "run/../state/waitbus.db"):
        refused(cli, f"already runs for {settings.store} (pid {hub.pid}", WAITBUS_DB=str(bus_dir / name), **other)
    refused(cli, "already runs", WAITBUS_RUNTIME_DIR=str(bus_dir / "run2"))
    assert hublock.read(settings.hub_lock).pid == hub.pid


def test_two_stores_in_one_directory_have_a_hub_each(
    hub: HubProcess, settings: Settings, bus_dir: Path, hubs: Hubs
) -> None:
    place = {"WAITBUS_DB": f"{settings.state_dir}/second.db", "WAITBUS_RUNTIME_DIR": str(bus_dir / "run2")}
    second = hubs(**place)
    assert hublock.read(second.settings.hub_lock).pid == second.pid
    assert hublock.read(settings.hub_lock).pid == hub.pid


def test_a_hub_never_takes_the_sockets_of_another(
    hub: HubProcess, settings: Settings, bus_dir: Path, cli: Cli, peer: Peers
) -> None:
    before = peer({})
    other = {"WAITBUS_STATE_DIR": str(bus_dir / "state2")}
    refused(cli, f"(pid {hub.pid}, for {settings.store})", settings.broadcast_socket, "WAITBUS_RUNTIME_DIR", **other)
    shared = {**other, "WAITBUS_RUNTIME_DIR": str(bus_dir / "run2")}
    refused(cli, "set WAITBUS_DOORBELL_SOCKET", WAITBUS_DOORBELL_SOCKET=settings.doorbell_socket, **shared)
    after = peer({})
    emit_many(numbered(0, 1))
    assert numbers(before, 1) == numbers(after, 1) == [0]
    # What was refused has left nothing of its own behind.
    assert {name for name in os.listdir(settings.runtime_dir) if name.endswith(".sock")} == {
        "broadcast.sock",
        "doorbell.sock",
        "bell.sock",
    }


@pytest.mark.parametrize("backlog", ["free", "full"])
def test_a_daemon_that_keeps_no_lock_is_left_alone_too(settings: Settings, cli: Cli, backlog: str) -> None:
    os.makedirs(settings.runtime_dir, mode=0o700)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(settings.broadcast_socket)
        listener.listen(0 if backlog == "full" else 8)
        inode = os.stat(settings.broadcast_socket).st_ino
        with contextlib.suppress(BlockingIOError):
            for _ in range(100 if backlog == "full" else 0):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(settings.broadcast_socket)
        refused(cli, "listens on", settings.broadcast_socket, "WAITBUS_RUNTIME_DIR")
        assert os.stat(settings.broadcast_socket).st_ino == inode


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a socket away")
@pytest.mark.parametrize("which", ["broadcast_socket", "doorbell_socket", "bell_socket"])
def test_a_stale_socket_of_another_user_is_not_removed(settings: Settings, cli: Cli, which: str) -> None:
    os.makedirs(settings.runtime_dir, mode=0o700)
    path = getattr(settings, which)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    os.chown(path, 12345, 12345)
    refused(cli, path, "belongs to user 12345")
    assert os.stat(path).st_uid == 12345


def test_a_hub_that_ends_leaves_the_socket_of_who_came_after_it(hub: HubProcess, settings: Settings) -> None:
    os.kill(hub.pid, signal.SIGSTOP)
    os.unlink(settings.broadcast_socket)
    with socket.socket(socket.AF_UNIX) as newer:
        newer.bind(settings.broadcast_socket)
        newer.listen()
        os.kill(hub.pid, signal.SIGTERM)
        os.kill(hub.pid, signal.SIGCONT)
        assert hub.process is not None
        assert hub.process.wait(PATIENCE) == 0
        assert os.path.exists(settings.broadcast_socket)
    assert not os.path.exists(settings.doorbell_socket)


def test_two_buses_with_doorbells_in_one_directory_have_a_bell_each(
    settings: Settings, bus_dir: Path, hubs: Hubs
) -> None:
    (bus_dir / "bells").mkdir(mode=0o700)
    found = []
    for name in ("a", "b"):
        place = {"WAITBUS_STATE_DIR": str(bus_dir / f"s{name}"), "WAITBUS_RUNTIME_DIR": str(bus_dir / f"r{name}")}
        found.append(hubs(**place, WAITBUS_DOORBELL_SOCKET=str(bus_dir / "bells" / f"{name}.sock")))
    assert len({hublock.read(one.settings.hub_lock).bell for one in found}) == 2
    for one in found:
        ring(one.settings.bell_socket, socket.SOCK_DGRAM)


# --- files that are taken away ----------------------------------------------------------------------------------------


def sweep_sockets(settings: Settings) -> None:
    for path in Path(settings.runtime_dir).glob("*.sock"):
        path.unlink()


def sweep_one(settings: Settings) -> None:
    os.unlink(settings.broadcast_socket)


def sweep_all(settings: Settings) -> None:
    shutil.rmtree(settings.runtime_dir)


@pytest.mark.parametrize("sweep", [sweep_sockets, sweep_one, sweep_all])
@pytest.mark.parametrize("connected", [True, False])
def test_a_hub_whose_files_were_taken_away_listens_again(
    log: Log, hub: HubProcess, settings: Settings, peer: Peers, sweep: Callable[[Settings], None], connected: bool
) -> None:
    before = peer({}) if connected else None
    sweep(settings)
    log.until(f"listening on {settings.broadcast_socket} again")
    if sweep is not sweep_one:
        log.until(f"listening on {settings.bell_socket} again")
    assert os.stat(settings.runtime_dir).st_mode & 0o777 == 0o700
    assert os.stat(settings.broadcast_socket).st_mode & 0o777 == 0o600
    after = peer({})
    for number, (path, kind) in enumerate(
        [(settings.bell_socket, socket.SOCK_DGRAM), (settings.doorbell_socket, socket.SOCK_STREAM)]
    ):
        emit_many(numbered(number, number + 1))
        ring(path, kind)
        for one in (before, after):
            assert one is None or numbers(one, 1) == [number]
    assert hub.stop() == 0
    assert os.listdir(settings.runtime_dir) == []


def test_a_hub_whose_place_was_taken_listens_elsewhere_until_it_is_free(
    log: Log, hub: HubProcess, settings: Settings, bus_dir: Path, hubs: Hubs, peer: Peers
) -> None:
    """It was asleep while another bus's hub took the place: it steals nothing, and its lock says where it is."""
    before = peer({})
    os.kill(hub.pid, signal.SIGSTOP)
    shutil.rmtree(settings.runtime_dir)
    other = hubs(WAITBUS_STATE_DIR=str(bus_dir / "state2"))
    os.kill(hub.pid, signal.SIGCONT)
    assert f"another hub (pid {other.pid}, for {other.settings.store})" in log.until(settings.broadcast_socket)
    log.until("bell.sock until then")
    holder = hublock.read(settings.hub_lock)
    assert holder.broadcast not in (None, settings.broadcast_socket)
    assert ack_of(settings.broadcast_socket)["store"] == other.settings.store
    assert ack_of(str(holder.broadcast))["store"] == settings.store
    emit_many(numbered(0, 1))
    ring(str(holder.bell), socket.SOCK_DGRAM)
    assert numbers(before, 1) == [0]
    assert other.stop() == 0
    log.until(f"listening on {settings.broadcast_socket} again")
    assert ack_of(settings.broadcast_socket)["store"] == settings.store
    log.until(f"listening on {settings.bell_socket} again")
    assert hub.stop() == 0
    assert not os.path.exists(os.path.dirname(str(holder.broadcast)))


def ack_of(path: str) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(path)
        client.sendall(b"\0\0\0\2{}")
        with client.makefile("rb") as stream:
            frame: dict[str, object] = json.loads(stream.read(int.from_bytes(stream.read(4), "big")))
    return frame


def test_a_lock_that_was_removed_is_taken_again(log: Log, hub: HubProcess, settings: Settings, cli: Cli) -> None:
    os.unlink(settings.hub_lock)
    log.until("locked it again")
    assert hublock.read(settings.hub_lock).pid == hub.pid
    refused(cli, "already runs", WAITBUS_RUNTIME_DIR=f"{settings.runtime_dir}2")


def test_a_hub_whose_store_another_one_serves_leaves(
    log: Log, hub: HubProcess, settings: Settings, bus_dir: Path, hubs: Hubs
) -> None:
    os.kill(hub.pid, signal.SIGSTOP)
    os.unlink(settings.hub_lock)
    other = hubs(WAITBUS_RUNTIME_DIR=str(bus_dir / "run2"))
    os.kill(hub.pid, signal.SIGCONT)
    assert f"pid {other.pid}" in log.until("leaving: a hub already runs")
    assert hub.process is not None
    assert hub.process.wait(PATIENCE) == 0
    assert hublock.read(settings.hub_lock).pid == other.pid


def test_a_store_moved_behind_a_link_is_locked_where_it_is_now(
    log: Log, settings: Settings, bus_dir: Path, unstarted_hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (bus_dir / name).mkdir(mode=0o700)
        (bus_dir / name / "x.db").touch(mode=0o600)
    link = bus_dir / "link.db"
    link.symlink_to(bus_dir / "a" / "x.db")
    monkeypatch.setenv("WAITBUS_DB", str(link))
    unstarted_hub.start()
    assert hublock.read(str(bus_dir / "a" / "hub-x.db.lock")).pid == unstarted_hub.pid
    (bus_dir / "new").symlink_to(bus_dir / "b" / "x.db")
    os.rename(bus_dir / "new", link)
    log.until("locked it again")
    assert hublock.read(str(bus_dir / "b" / "hub-x.db.lock")).pid == unstarted_hub.pid


def test_nobody_makes_the_directory_of_a_store_again_that_nobody_needs(
    log: Log, settings: Settings, unstarted_hub: HubProcess
) -> None:
    unstarted_hub.start("--idle-exit", "1h")
    for path in (settings.state_dir, settings.runtime_dir):
        shutil.rmtree(path)
    log.until("nobody is connected: leaving")
    assert unstarted_hub.process is not None
    assert unstarted_hub.process.wait(PATIENCE) == 0
    assert not os.path.exists(settings.state_dir)
    assert not os.path.exists(settings.runtime_dir)


def test_a_hub_that_stays_takes_up_its_place_when_the_directory_is_back(
    log: Log, hub: HubProcess, settings: Settings, peer: Peers
) -> None:
    for path in (settings.state_dir, settings.runtime_dir):
        shutil.rmtree(path)
    emit_many(numbered(0, 1))
    log.until(f"listening on {settings.bell_socket} again")
    client = peer({"since": "0" * 26})
    assert numbers(client, 1) == [0]


def test_a_service_managers_sockets_are_not_bound_again_but_named(
    log: Log, settings: Settings, bus_dir: Path, peer: Peers
) -> None:
    os.makedirs(settings.runtime_dir, mode=0o700)
    with contextlib.ExitStack() as stack:
        notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(bus_dir / "notify"))
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(settings.broadcast_socket)
        listener.listen()
        with (bus_dir / "hub.stderr").open("ab") as stderr:
            process = activated(settings, bus_dir, "broadcast", [listener], stderr=stderr)
        try:
            peer({})
            os.unlink(settings.broadcast_socket)
            log.until(f"{settings.broadcast_socket} is gone: restart the socket unit")
            assert not os.path.exists(settings.broadcast_socket)
        finally:
            process.kill()
            process.wait(PATIENCE)


# --- what the lock's file says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [b"", b"12345\n", b'{"pid": 1', b'{"pid": 1}}', b"[1]", b'{"pid": -1}', b'{"pid": "x", "broadcast": 5}', b"\xff"],
)
def test_a_lock_that_says_nothing_sensible_says_nothing(bus_dir: Path, raw: bytes) -> None:
    path = bus_dir / "hub.lock"
    path.write_bytes(raw)
    path.chmod(0o600)
    found = hublock.read(str(path))
    assert (found.pid, found.store, found.broadcast, found.doorbell, found.bell) == (None,) * 5


def test_a_lock_is_read_only_if_it_is_a_file_of_ours_alone(bus_dir: Path) -> None:
    path = bus_dir / "hub.lock"

    def write() -> None:
        with path.open("wb") as file:
            hublock.write(file.fileno(), {"pid": 7, "broadcast": "/b", "bell": "relative"})

    write()
    path.chmod(0o600)
    assert (hublock.read(str(path)).pid, hublock.read(str(path)).bell) == (7, None)
    path.chmod(0o666)
    assert hublock.read(str(path)).pid is None
    path.chmod(0o600)
    (bus_dir / "link").symlink_to(path)
    assert hublock.read(str(bus_dir / "link")).pid is None
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        assert hublock.read(str(path)).pid is None
    os.mkfifo(bus_dir / "pipe", 0o600)
    assert hublock.read(str(bus_dir / "pipe")).pid is None


def test_a_path_that_is_no_utf8_comes_back_as_it_was(bus_dir: Path) -> None:
    path = os.fsdecode(b"/caf\xe9/broadcast.sock")
    with (bus_dir / "hub.lock").open("wb") as file:
        hublock.write(file.fileno(), {"pid": 1, "broadcast": path})
    os.chmod(bus_dir / "hub.lock", 0o600)
    assert hublock.read(str(bus_dir / "hub.lock")).broadcast == path
