"""A real hub process: who is let in, what reaches whom and in which order, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, HubProcess, Peer
from waitbus import __version__, wire
from waitbus.client.emit import emit, emit_many
from waitbus.event import EventInsert
from waitbus.hub.server import Hub
from waitbus.settings import Settings
from waitbus.store.append import Appender
from waitbus.store.open import open_reader, open_writer
from waitbus.ulid import ULID_MIN

VECTORS = [json.loads(line) for line in (Path(__file__).parent / "vectors/wire-v1.jsonl").read_text().splitlines()]
Peers = Callable[..., Peer]


def numbered(first: int, last: int, **more: Any) -> list[EventInsert]:
    return [EventInsert(source="test", event_type="tick", fields={"n": n}, **more) for n in range(first, last)]


def numbers(peer: Peer, count: int) -> list[int]:
    return [peer.event()["fields"]["n"] for _ in range(count)]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["about"])
def test_the_daemon_answers_as_was_seen(hub: HubProcess, peer: Peers, vector: dict[str, Any]) -> None:
    client = peer()
    if "raw_hex" in vector:
        client.socket.sendall(bytes.fromhex(vector["raw_hex"]))
    else:
        client.send(vector["first"].encode() if "first" in vector else bytes.fromhex(vector["first_hex"]))
    if vector["answer"] == "wait":
        assert not select.select([client.socket], [], [], 0.2)[0]
        return
    frame = client.read()
    if vector["answer"] == "end":
        assert frame is None
        return
    assert frame is not None
    assert frame["kind"] == vector["answer"]
    if frame["kind"] == "subscribe_rejected":
        assert frame["reason"] == vector["reason"]
        assert frame["supported"] == vector["supported"]
        assert client.read() is None


def test_the_ack_says_what_the_contract_says(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    client = peer()
    client.send({})
    assert client.read() == {
        "proto": 1,
        "caught_up_at": None,
        "heartbeat_sec": 60,
        "max_frame_bytes": 65536,
        "features": ["match", "caught_up", "heartbeat_sec", "status"],
        "store": os.path.realpath(settings.db_path),
        "version": __version__,
        "kind": "subscribe_ack",
    }


def test_an_event_reaches_all_who_want_it_and_nobody_else(hub: HubProcess, peer: Peers) -> None:
    everyone, failures, others = (
        peer({}),
        peer({"match": {"key": "conclusion", "op": "eq", "value": "failure"}}),
        peer({"event_types": ["other"]}),
    )
    emit(EventInsert(source="s", event_type="t", conclusion="success"))
    result = emit(EventInsert(source="s", event_type="t", conclusion="failure", payload_json='{"secret":1}'))
    emit(EventInsert(source="s", event_type="other"))
    assert [everyone.event()["fields"]["conclusion"] for _ in range(3)] == ["success", "failure", None]
    frame = failures.event()
    assert frame["event_id"] == result.event.event_id
    assert "payload_json" not in frame
    assert list(frame) == [*wire_keys(), "kind"]
    assert others.event()["event_type"] == "other"


def wire_keys() -> list[str]:
    return ["event_id", "event_type", "owner", "repo", "received_at", "delivery_id", "summary", "fields"]


def test_replay_joins_live_without_gap_or_repeat(hub: HubProcess, peer: Peers) -> None:
    emit_many(numbered(0, 3000))
    client = peer()
    client.send({"since": ULID_MIN})
    emit_many(numbered(3000, 5000))
    ack = client.read()
    assert ack is not None
    assert ack["caught_up_at"]
    emit_many(numbered(5000, 5050))
    assert numbers(client, 5050) == list(range(5050))


def test_replay_starts_strictly_after_the_cursor(hub: HubProcess, peer: Peers) -> None:
    ids = [emit(event).event.event_id for event in numbered(0, 5)]
    assert numbers(peer({"since": ids[2]}), 2) == [3, 4]


def test_without_since_what_was_committed_before_is_past(hub: HubProcess, peer: Peers) -> None:
    emit_many(numbered(0, 2000))
    client = peer({})
    emit_many(numbered(2000, 2001))
    assert numbers(client, 1) == [2000]


def test_the_end_of_replay_is_marked_for_who_asks(hub: HubProcess, peer: Peers) -> None:
    emit_many(numbered(0, 250))
    client = peer({"since": ULID_MIN, "caught_up": True, "match": {"key": "n", "op": "ge", "value": 249}})
    assert (client.read() or {})["fields"]["n"] == 249
    mark = client.read()
    assert mark is not None
    assert mark["kind"] == "daemon_heartbeat"
    assert mark["caught_up"] is True
    emit_many(numbered(250, 251))
    assert numbers(peer({"since": mark["cursor"]}), 1) == [250]


def test_a_commit_nobody_rang_for_is_noticed(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    client = peer({})
    with contextlib.closing(open_writer(settings)) as store:
        store.execute(
            "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, payload_json,"
            " ingest_method) VALUES ('d', 's', 't', 'o', 'r', 5, '{}', 'm')"
        )
    assert client.event()["delivery_id"] == "d"


def test_any_program_rings_the_doorbell(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    client = peer({})
    for n in range(3):
        with contextlib.closing(sqlite3.connect(settings.db_path)) as store, store:
            store.execute(
                "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, payload_json,"
                " ingest_method) VALUES (?, 's', 't', 'o', 'r', 5, '{}', 'm')",
                (str(n),),
            )
        with socket.socket(socket.AF_UNIX) as bell:
            bell.connect(settings.doorbell_socket)
            bell.send(b"!")
        assert client.event()["delivery_id"] == str(n)


def test_ill_typed_rows_of_a_foreign_program_stop_nobody(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    client = peer({})
    rows: list[tuple[Any, ...]] = [
        ("a", b"\xff\xfe", 1.5, "x", "{}"),
        ("b", "s", "text", b"\x00", "not json"),
        ("c", "s", 5, float("inf"), "[1e999]"),
        ("d", "s", 2**62, None, '{"deep":' + "[" * 3000 + "]" * 3000 + "}"),
    ]
    with contextlib.closing(open_writer(settings)) as store:
        store.executemany(
            "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, run_id, fields_json,"
            " payload_json, ingest_method) VALUES (?, ?, 't', 'o', 'r', ?, ?, ?, '{}', 'm')",
            rows,
        )
    emit(EventInsert(source="s", event_type="t", delivery_id="e"))
    seen = []
    while "e" not in seen:
        frame = client.read()
        assert frame is not None
        seen.append(frame.get("delivery_id", frame["kind"]))
    assert len(seen) == 5


def test_a_stuck_subscriber_delays_nobody_and_can_come_back(
    unstarted_hub: HubProcess, bus_dir: Path, peer: Peers
) -> None:
    (bus_dir / "config.toml").write_text('[hub]\nqueue_bytes = "128KiB"\n')
    unstarted_hub.start()
    stuck, reader = peer({}), peer({"match": {"key": "n", "op": "ge", "value": 1990}})
    emit_many(numbered(0, 2000, summary="x" * 1000))
    assert numbers(reader, 10) == list(range(1990, 2000))
    seen: list[dict[str, Any]] = []
    while (frame := stuck.read()) is not None:
        seen.append(frame)
    *events, last = seen
    assert last["kind"] == "subscribe_rejected"
    assert last["reason"] == "lag_limit_exceeded"
    assert 0 < len(events) < 2000
    back = peer({"since": events[-1]["event_id"]})
    assert numbers(back, 2000 - len(events)) == list(range(len(events), 2000))


def test_sigterm_drains_and_leaves_nothing_behind(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    client = peer({})
    emit_many(numbered(0, 700))
    assert hub.process is not None
    hub.process.terminate()
    assert numbers(client, 700) == list(range(700))
    assert client.read() is None
    assert hub.process.wait(PATIENCE) == 0
    assert os.listdir(settings.runtime_dir) == []
    assert hub.stderr == ""


def test_a_killed_hub_leaves_a_stale_socket_that_the_next_one_takes(hub: HubProcess, peer: Peers) -> None:
    hub.stop(signal.SIGKILL)
    emit_many(numbered(0, 3))
    hub.start()
    assert numbers(peer({"since": ULID_MIN}), 3) == [0, 1, 2]


def test_two_hubs_at_once_are_one(hub: HubProcess, cli: Any) -> None:
    second = cli("serve", "hub")
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"pid {hub.pid}" in second.stderr


def test_a_file_in_the_place_of_a_socket_is_left_alone(settings: Settings, cli: Any) -> None:
    os.makedirs(settings.runtime_dir, mode=0o700)
    Path(settings.broadcast_socket).write_text("mine")
    refused = cli("serve", "hub")
    assert refused.returncode == 2
    assert settings.broadcast_socket in refused.stderr
    assert Path(settings.broadcast_socket).read_text() == "mine"


def test_a_store_moved_away_is_begun_anew(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    client = peer({})
    emit_many(numbered(0, 1))
    assert numbers(client, 1) == [0]
    for name in os.listdir(settings.state_dir):
        if name.startswith("waitbus.db"):
            os.unlink(os.path.join(settings.state_dir, name))
    script = "from waitbus import *; emit(EventInsert(source='s', event_type='t', fields={'n': 1}))"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)
    assert numbers(client, 1) == [1]


def test_an_idle_hub_leaves(unstarted_hub: HubProcess) -> None:
    unstarted_hub.start("--idle-exit", "0.1")
    assert unstarted_hub.process is not None
    assert unstarted_hub.process is not None
    assert unstarted_hub.process.wait(PATIENCE) == 0


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize("which", ["broadcast_socket", "doorbell_socket"])
def test_a_foreign_user_is_closed_unread(hub: HubProcess, settings: Settings, bus_dir: Path, which: str) -> None:
    for path in (bus_dir, Path(settings.runtime_dir)):
        path.chmod(0o755)
    path = getattr(settings, which)
    os.chmod(path, 0o666)
    script = (
        "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b'\\0\\0\\0\\2{}'); print(s.recv(100))"
    )
    seen = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=PATIENCE)
    assert seen.stdout == "b''\n" or "ConnectionResetError" in seen.stderr or "BrokenPipeError" in seen.stderr


def activated(
    settings: Settings, bus_dir: Path, names: str, sockets: list[socket.socket], stderr: Any = None
) -> subprocess.Popen[bytes]:
    """Start a hub the way systemd does: descriptors from 3 on, named, with a notify socket."""
    launcher = (
        "import os, sys\n"
        "fds = [int(fd) for fd in sys.argv[1].split(',')]\n"
        "for target, fd in enumerate(fds, 3): os.dup2(fd, target, inheritable=True)\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "os.environ['LISTEN_FDS'] = str(len(fds))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'waitbus', 'serve', 'hub'])\n"
    )
    fds = [fcntl_high(sock) for sock in sockets]
    return subprocess.Popen(
        [sys.executable, "-c", launcher, ",".join(map(str, fds))],
        pass_fds=fds,
        stderr=stderr,
        env={
            **os.environ,
            "LISTEN_FDNAMES": names,
            "NOTIFY_SOCKET": str(bus_dir / "notify"),
            "WATCHDOG_USEC": "200000",
        },
    )


def fcntl_high(sock: socket.socket) -> int:
    """A duplicate of the descriptor above the range the hub will use."""
    import fcntl

    return fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 60)


def test_socket_activation_and_notification(settings: Settings, bus_dir: Path, peer: Peers) -> None:
    os.makedirs(settings.runtime_dir, mode=0o700)
    with contextlib.ExitStack() as stack:
        notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(bus_dir / "notify"))
        notify.settimeout(PATIENCE)
        listeners = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for listener, path in zip(listeners, (settings.broadcast_socket, settings.doorbell_socket), strict=True):
            listener.bind(path)
            listener.listen()
        early = peer()  # before the hub runs: the kernel holds the connection for it
        early.send({})
        process = activated(settings, bus_dir, "broadcast:doorbell", listeners)
        try:
            assert notify.recv(100) == b"READY=1"
            assert (early.read() or {})["kind"] == "subscribe_ack"
            assert notify.recv(100) == b"WATCHDOG=1"
            emit_many(numbered(0, 1))
            assert numbers(early, 1) == [0]
            process.terminate()
            while (word := notify.recv(100)) != b"STOPPING=1":
                assert word == b"WATCHDOG=1"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait(PATIENCE)
    assert sorted(os.listdir(settings.runtime_dir)) == ["broadcast.sock", "doorbell.sock"]


def test_the_hub_loads_the_standard_library_only(settings: Settings, bus_dir: Path) -> None:
    script = (
        "import atexit, json, os, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules))))\n"
        "sys.argv = ['waitbus', 'serve', 'hub', '--idle-exit', '1ms']\n"
        "from waitbus.cli.main import main\n"
        "sys.exit(main())\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    source = str(Path(__file__).parent.parent / "src")
    ran = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
        env={**environ, "PYTHONPATH": source},
    )
    loaded = set(json.loads(ran.stdout))
    foreign = {name for name in loaded if name.partition(".")[0] not in {*sys.stdlib_module_names, "waitbus"}}
    assert foreign <= {"__main__", "__mp_main__"}
    assert not loaded & {"ssl", "_ssl", "http", "http.client", "ctypes", "_hashlib", "urllib.request"}
    assert not {name for name in loaded if name.startswith(("waitbus.client", "waitbus.sources", "waitbus.mcp"))}


def in_process_hub(settings: Settings, scenario: Callable[[Hub, asyncio.AbstractEventLoop], Any]) -> None:
    """Run a scenario beside a hub on one loop: for what a process of its own would take seconds to show."""
    for path in (settings.state_dir, settings.runtime_dir):
        os.makedirs(path, mode=0o700, exist_ok=True)

    async def run() -> None:
        hub = Hub(settings, asyncio.get_running_loop())
        try:
            await asyncio.wait_for(scenario(hub, asyncio.get_running_loop()), PATIENCE)
        finally:
            await hub.drain()

    asyncio.run(run())


def test_an_old_event_that_nobody_rang_for_is_delivered_before_it_is_pruned(settings: Settings) -> None:
    async def scenario(hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, settings.broadcast_socket)
            await loop.sock_sendall(client, wire.encode(wire.subscribe_frame(caught_up=True)))
            decoder, frames = wire.Decoder(), list[dict[str, Any]]()
            while len(frames) < 2:
                frames += [wire.decode(body) for body in decoder.feed(await loop.sock_recv(client, 9999))]
            with contextlib.closing(Appender(settings)) as quiet:
                quiet.append(EventInsert(source="s", event_type="old", received_at=1))
            for _ in range(3):
                hub.reader._prune_step(loop)
            hub.pump()
            frames += [wire.decode(body) for body in decoder.feed(await loop.sock_recv(client, 9999))]
            assert frames[-1]["event_type"] == "old"
            hub.reader._prune_step(loop)
        with contextlib.closing(open_reader(settings)) as store:
            assert store.execute("SELECT count(*) FROM events").fetchone() == (0,)

    in_process_hub(settings, scenario)


@pytest.mark.parametrize(("idle_exit", "leaves"), [(None, False), (0, False), (0.0, False), (600, True)])
def test_an_idle_exit_of_0_is_none(settings: Settings, idle_exit: float | None, leaves: bool) -> None:
    async def scenario() -> None:
        hub = Hub(settings, asyncio.get_running_loop(), idle_exit)
        assert (hub.may_leave(), hub._idle_timer is not None) == (leaves, leaves)
        await hub.drain()

    for path in (settings.state_dir, settings.runtime_dir):
        os.makedirs(path, mode=0o700, exist_ok=True)
    asyncio.run(scenario())


def test_a_hub_of_a_short_life_prunes_when_it_leaves(settings: Settings, unstarted_hub: HubProcess) -> None:
    emit_many(numbered(0, 1200, received_at=1))
    emit_many(numbered(1200, 1210))
    unstarted_hub.start("--idle-exit", "1ms")
    assert unstarted_hub.process is not None
    assert unstarted_hub.process.wait(PATIENCE) == 0
    with contextlib.closing(open_reader(settings)) as store:
        assert store.execute("SELECT count(*) FROM events").fetchone() == (10,)


def test_a_first_frame_that_never_comes_whole_is_closed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FIRST_FRAME_SEC", 0.05)

    async def scenario(hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as slow:
            for client in (silent, slow):
                client.setblocking(False)
                await loop.sock_connect(client, settings.broadcast_socket)
            await loop.sock_sendall(slow, b"\x00\x00\x00\x02{")
            assert await loop.sock_recv(silent, 1) == b""
            assert await loop.sock_recv(slow, 1) == b""

    in_process_hub(settings, scenario)


def test_heartbeats_come(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEARTBEAT_SEC", 0.05)

    async def scenario(hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, settings.broadcast_socket)
            await loop.sock_sendall(client, b"\x00\x00\x00\x02{}")
            decoder = wire.Decoder()
            kinds: list[str] = []
            while len(kinds) < 3:
                kinds += [wire.decode(body)["kind"] for body in decoder.feed(await loop.sock_recv(client, 9999))]
            assert kinds[:3] == ["subscribe_ack", "daemon_heartbeat", "daemon_heartbeat"]

    in_process_hub(settings, scenario)


def test_old_events_are_pruned_in_steps_beside_the_live_stream(
    settings: Settings, bus_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit_many(numbered(0, 1500, received_at=1))
    emit_many(numbered(1500, 1510))
    monkeypatch.setattr("waitbus.hub.store_reader.PRUNE_STEP_PAUSE_SEC", 0.0)

    async def scenario(hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        gone = loop.create_future()
        with contextlib.closing(sqlite3.connect(settings.db_path)) as store:

            def look() -> None:
                (left,) = store.execute("SELECT count(*) FROM events").fetchone()
                if left == 10:
                    gone.set_result(None)
                else:
                    loop.call_later(0.02, look)

            hub.reader.maintain(loop)
            look()
            await gone

    in_process_hub(settings, scenario)
