"""Bad places: not ours alone, full, read-only, stale, taken. Each verb says so in a line; what was written stays."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess, hub_pid, stop_hub
from tests.test_bad_input import Peers, numbers, refused, tick
from waitbus.client.emit import emit
from waitbus.event import WaitbusError
from waitbus.settings import Settings
from waitbus.ulid import ULID_MIN

ROOT = os.getuid() == 0
needs_mount = pytest.mark.skipif(
    not ROOT or sys.platform != "linux" or shutil.which("mount") is None, reason="needs root and Linux's mount"
)
TELL = ("emit", "--source", "test", "--event-type", "tick")
# What a person or a unit file starts first, and what each should find out by itself.
VERBS: dict[str, tuple[str, ...]] = {
    "hub": ("serve", "hub"),
    "emit": TELL,
    "wait": ("wait", "--timeout", str(PATIENCE)),
    "init": ("init",),
}


# --- places that are not ours alone -----------------------------------------------------------------------------------


def open_to_all(path: Path) -> None:
    path.mkdir(mode=0o700)
    path.chmod(0o777)


def a_link(path: Path) -> None:
    real = path.with_name("real")
    real.mkdir(mode=0o700)
    path.symlink_to(real)


def another_users(path: Path) -> None:
    if not ROOT:
        pytest.skip("needs root to give a directory away")
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)


def a_file(path: Path) -> None:
    path.write_text("mine")


@pytest.mark.parametrize("make", [open_to_all, a_link, another_users, a_file])
def test_a_state_directory_not_ours_alone_is_refused_by_its_name(
    settings: Settings, cli: Cli, make: Callable[[Path], None]
) -> None:
    state = Path(settings.state_dir)
    make(state)
    for words in VERBS.values():
        refused(cli(*words, WAITBUS_AUTOSTART="1"), state)
    looked = cli("status")
    assert looked.returncode == 1
    assert str(state) in looked.stdout
    assert looked.stderr == ""
    assert a_file is make or os.listdir(state) == []


@pytest.mark.parametrize("make", [open_to_all, a_link, another_users, a_file])
def test_a_runtime_directory_not_ours_alone_is_refused_and_emit_writes_all_the_same(
    settings: Settings, cli: Cli, make: Callable[[Path], None]
) -> None:
    runtime = Path(settings.runtime_dir)
    make(runtime)
    for verb in ("hub", "wait", "init"):
        refused(cli(*VERBS[verb], WAITBUS_AUTOSTART="1"), runtime)
    assert cli(*TELL).returncode == 0
    looked = cli("status")
    assert looked.returncode == 1
    assert str(runtime) in looked.stdout
    assert "1 events" in looked.stdout
    assert a_file is make or os.listdir(runtime) == []


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(settings: Settings) -> Iterator[Callable[[str], None]]:
    """The state directory as a file system of its own; called with mount options, it is mounted or changed."""
    state = Path(settings.state_dir)
    state.mkdir(mode=0o700)

    def mount(options: str) -> None:
        how = ["remount"] if os.path.ismount(state) else ["mode=0700"]
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([*how, options]), "waitbus-test", str(state)])
        if done.returncode:
            pytest.skip("cannot mount a file system here")

    yield mount
    if os.path.ismount(state):
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def fill(settings: Settings) -> None:
    """Take what room there is."""
    with open(Path(settings.state_dir, "ballast"), "ab", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(b"x" * 4096)


@needs_mount
@pytest.mark.root
@pytest.mark.parametrize("options", ["size=64k", "ro"])
def test_a_disk_that_cannot_be_written_from_the_start(
    settings: Settings, cli: Cli, disk: Callable[[str], None], options: str
) -> None:
    disk(options)
    if options != "ro":
        fill(settings)
    for words in VERBS.values():
        done = cli(*words, WAITBUS_AUTOSTART="1")
        refused(done, settings.state_dir)
        assert ("Read-only" if options == "ro" else "no space left") in done.stderr
    assert cli("status").stderr == ""
    disk("rw,size=8m")
    assert cli(*TELL).returncode == 0
    assert cli("wait", "--since", "start", "--timeout", str(PATIENCE), WAITBUS_AUTOSTART="1").returncode == 0
    assert cli("status").returncode == 0
    os.kill(hub_pid(settings), 15)


def emit_until_full() -> int:
    """How many events were acknowledged before there was no room."""
    for n in itertools.count():
        try:
            emit(tick(n, payload_json=json.dumps("x" * 5000)))
        except WaitbusError as error:
            if "no space left" not in str(error):
                raise
            return n
    raise AssertionError


@needs_mount
@pytest.mark.root
def test_a_disk_that_fills_under_a_hub_loses_nothing_and_goes_on_when_there_is_room(
    settings: Settings, disk: Callable[[str], None], unstarted_hub: HubProcess, peer: Peers, cli: Cli
) -> None:
    disk("size=2m")
    hub = unstarted_hub.start()
    live = peer({})
    acknowledged = emit_until_full()
    fill(settings)
    assert acknowledged > 10
    assert numbers(live, acknowledged) == list(range(acknowledged))
    refused(cli(*TELL), settings.db_path)
    lines = "\n".join('{"source":"test","event_type":"tick"}' for _ in range(3000))
    many = cli("emit", "-", stdin=lines)
    assert many.returncode == 2
    assert settings.db_path in many.stderr.splitlines()[-1]
    # Who only reads is not concerned.
    assert cli("init").returncode == 0
    assert cli("wait", "--since", "start", "--match", "n=3", "--timeout", str(PATIENCE)).returncode == 0
    assert numbers(peer({"since": ULID_MIN}), acknowledged) == list(range(acknowledged))
    disk("size=8m")
    emit(tick(acknowledged))
    assert numbers(live, 1) == [acknowledged]
    assert cli("status").returncode == 0
    assert hub.process is not None
    assert hub.process.poll() is None
    assert hub.stop() == 0
    assert "Traceback" not in hub.stderr


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 8, 9, 10, 11, 12])
def test_a_process_that_may_open_too_few_files_says_so_in_a_line(settings: Settings, limit: int) -> None:
    script = f'ulimit -n {limit} && exec "$0" -m waitbus "$@"'
    for verb in (("wait", "--timeout", "0"), TELL, ("run", "--", "true"), ("on", "--timeout", "0", "--", "true")):
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, *verb],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "WAITBUS_AUTOSTART": "1"},
        )
        assert done.returncode in (0, 2, 124), (verb, done.stderr)
        assert done.stderr.count("\n") <= 1
        if done.returncode == 2:
            assert "oo many" in done.stderr, verb
            assert "report" not in done.stderr
    stop_hub(settings)


@pytest.mark.skipif(ROOT, reason="nothing is forbidden to root")
def test_a_state_directory_that_may_not_be_written(settings: Settings, cli: Cli) -> None:
    state = Path(settings.state_dir)
    state.mkdir(mode=0o500)
    for words in VERBS.values():
        refused(cli(*words, WAITBUS_AUTOSTART="1"), state)
    state.chmod(0o700)
    assert cli(*TELL).returncode == 0


# --- what another hub left, or holds ----------------------------------------------------------------------------------


def test_stale_sockets_are_in_nobodys_way(settings: Settings, cli: Cli) -> None:
    """Files of sockets that nobody listens on: emit writes, and the first client starts a hub that takes them."""
    os.makedirs(settings.runtime_dir, mode=0o700)
    for path, kind in (
        (settings.broadcast_socket, socket.SOCK_STREAM),
        (settings.doorbell_socket, socket.SOCK_STREAM),
        (settings.bell_socket, socket.SOCK_DGRAM),
    ):
        with socket.socket(socket.AF_UNIX, kind) as stale:
            stale.bind(path)
        os.chmod(path, 0o600)
    assert cli(*TELL).returncode == 0
    looked = cli("status")
    assert looked.returncode == 1
    assert "no hub runs" in looked.stdout
    assert cli("wait", "--since", "start", "--timeout", str(PATIENCE), WAITBUS_AUTOSTART="1").returncode == 0
    assert cli("status").returncode == 0
    os.kill(hub_pid(settings), 15)


def test_of_many_hubs_at_once_one_stays(settings: Settings, cli: Cli, peer: Peers) -> None:
    hubs, ends = [], []
    for _ in range(6):
        reader, writer = os.pipe()
        hubs.append(cli.spawn("serve", "hub", "--ready-fd", str(writer), pass_fds=(writer,)))
        os.close(writer)
        ends.append(reader)
    said = []
    for reader in ends:
        assert select.select([reader], [], [], PATIENCE)[0]
        said.append(os.read(reader, 64))
        os.close(reader)
    assert sorted(said) == [b""] * 5 + [b"ready\n"]
    for hub, word in zip(hubs, said, strict=True):
        if word == b"":
            _, error = hub.communicate(timeout=PATIENCE)
            assert hub.returncode == 2
            assert error.count("\n") == 1
            assert "a hub already runs" in error
    client = peer({})
    emit(tick(0))
    assert numbers(client, 1) == [0]
