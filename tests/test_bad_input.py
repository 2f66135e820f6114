"""Bad input against the real thing: frames, predicates, floods, clocks. A clear error or a silent close, no more."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import select
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess, Peer
from tests.test_hub_server import in_process_hub
from waitbus import wire
from waitbus.client.emit import emit
from waitbus.client.subscribe import subscribe
from waitbus.event import EventInsert, WaitbusError
from waitbus.hub import server, sweep
from waitbus.hub.doorbell import Doorbell
from waitbus.settings import Settings
from waitbus.store import read
from waitbus.store.read import read_page
from waitbus.ulid import ULID_MIN

Peers = Callable[..., Peer]


def tick(n: int, **more: Any) -> EventInsert:
    return EventInsert(source="test", event_type="tick", fields={"n": n}, **more)


def numbers(peer: Peer, count: int) -> list[int]:
    return [peer.event()["fields"]["n"] for _ in range(count)]


def refused(done: subprocess.CompletedProcess[str], path: str | Path) -> None:
    """One line that names the place, exit 2, nothing on standard output."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("waitbus")
    assert done.stderr.count("\n") == 1
    assert str(path) in done.stderr


# --- first frames -----------------------------------------------------------------------------------------------------

BAD_FRAMES = {
    "no object": b"[]",
    "deep": b'{"match":' + b'{"not":' * 9000 + b"{}" + b"}" * 9001,
    "deep and not closed": b"[" * 60_000,
    "not UTF-8": b'{"proto":1,"event_types":["\xff\xfe"]}',
    "a zero byte": b'{"proto":1}\0',
    "a zero byte first": b"\0{}",
    "half a surrogate": b'{"filters":["\\ud800"]}',
    "a long number": b'{"proto":' + b"9" * 5000 + b"}",
    "no number": b'{"proto":NaN}',
    "twice": b"{}{}",
    "UTF-16": '{"proto":1}'.encode("utf-16"),
}
BAD_BYTES = {name: len(body).to_bytes(4, "big") + body for name, body in BAD_FRAMES.items()} | {
    "65,537 bytes": (65_537).to_bytes(4, "big") + b'{"proto":1}' + b" " * 65_526,
    "nothing": bytes(4),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


def test_bad_first_frames_end_silently_and_nobody_hears_of_them(
    hub: HubProcess, settings: Settings, peer: Peers
) -> None:
    honest = peer({})
    for number, (name, data) in enumerate(BAD_BYTES.items()):
        bad = peer()
        with contextlib.suppress(BrokenPipeError):
            bad.socket.sendall(data)
        with contextlib.suppress(ConnectionResetError):  # the hub left bytes unread
            assert bad.socket.recv(1) == b"", name
        emit(tick(number))
        assert numbers(honest, 1) == [number], name
    assert hub.stderr == ""


def test_the_largest_frame_is_a_frame(hub: HubProcess, peer: Peers) -> None:
    client = peer()
    client.send(b'{"proto":1}'.ljust(wire.MAX_FRAME_BYTES))
    assert (client.read() or {})["kind"] == "subscribe_ack"


def test_a_first_frame_byte_by_byte_is_a_frame_and_holds_up_nobody(hub: HubProcess, peer: Peers) -> None:
    honest, slow = peer({}), peer()
    body = b'{"match":{"key":"n","op":"ge","value":10}}'
    frame = len(body).to_bytes(4, "big") + body
    for number, byte in enumerate(frame[:-1]):
        slow.socket.sendall(bytes([byte]))
        if number < 10:
            emit(tick(number))
            assert numbers(honest, 1) == [number]
    assert not select.select([slow.socket], [], [], 0)[0]
    slow.socket.sendall(frame[-1:])
    assert (slow.read() or {})["kind"] == "subscribe_ack"
    emit(tick(10))
    assert numbers(slow, 1) == numbers(honest, 1) == [10]


def test_a_subscriber_that_goes_on_talking_is_not_listened_to(hub: HubProcess, peer: Peers) -> None:
    talker = peer({})
    for _ in range(50):
        talker.socket.sendall(b'\0\0\0\x0c{"proto": 2}' * 1000)
    emit(tick(1))
    assert numbers(talker, 1) == [1]


class Exhausted:
    """A doorbell that somebody waits at, while the process has no descriptor left."""

    def __init__(self, readable: socket.socket) -> None:
        self.fileno = readable.fileno
        self.asked = 0

    def accept(self) -> Any:
        self.asked += 1
        raise OSError(errno.EMFILE, "Too many open files")


def test_a_doorbell_without_descriptors_does_not_keep_the_hub_busy() -> None:
    async def scenario() -> int:
        ours, theirs = socket.socketpair()
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs, bell:
            theirs.send(b"!")
            exhausted = Exhausted(ours)
            places: Any = SimpleNamespace(doorbell=exhausted, bell=bell)
            doorbell = Doorbell(asyncio.get_running_loop(), places, lambda: None)
            for _ in range(50):
                await asyncio.sleep(0)
            doorbell.close()
            return exhausted.asked

    assert asyncio.run(scenario()) == 1


DESCRIPTORS = 40


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux's prlimit")
def test_a_hub_without_descriptors_serves_who_is_there_and_lets_in_others_later(
    settings: Settings, unstarted_hub: HubProcess, peer: Peers
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    unstarted_hub.start()
    pid = unstarted_hub.pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, limits[1]))
    honest = peer({})
    crowd = []
    for path in [settings.broadcast_socket, settings.doorbell_socket] * DESCRIPTORS:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        crowd.append(sock)
    emit(tick(0))
    assert numbers(honest, 1) == [0]
    for sock in crowd:
        sock.close()
    late = peer({})
    emit(tick(1))
    assert numbers(late, 1) == numbers(honest, 1) == [1]
    assert "Traceback" not in unstarted_hub.stderr


# --- what a shell leaves of a predicate -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ('conclusion="failure"', 0),  # the shell takes the quotes: a bare word is the text
        ("conclusion=failure", 0),
        ("'conclusion=\"failure\"'", 0),
        ("n=7", 0),
        ('n="7"', 0),  # and here it takes them from a number
        ("'n=\"7\"'", 124),  # a text is no number
    ],
)
def test_a_predicate_as_a_shell_hands_it_on(hub: HubProcess, settings: Settings, words: str, code: int) -> None:
    emit(tick(7, conclusion="failure"))
    command = f"{sys.executable} -m waitbus wait --since start --timeout 0 --match {words}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (code, "")


@pytest.mark.parametrize(
    ("match", "form"),
    [
        ("conclusion=True", "conclusion=true"),
        ("conclusion=two words", "'conclusion=\"two words\"'"),
        ("conclusion", 'conclusion="failure"'),
        ('conclusion="failure', "'conclusion=\"failure\"'"),
        ("conclusion=fail\0ure", ""),
        ("x" * 300 + "=1", "256 bytes"),
    ],
)
def test_a_predicate_that_cannot_be_read_names_the_right_form(
    hub: HubProcess, settings: Settings, cli: Cli, match: str, form: str
) -> None:
    if "\0" in match:  # no shell can hand this on, but a program could
        with pytest.raises(WaitbusError):
            subscribe(match)
        return
    refused(cli("wait", "--match", match, "--timeout", "0"), form)


# --- a store that fails for a while ----------------------------------------------------------------------------------


def test_a_read_that_fails_is_tried_again_although_nobody_rings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SWEEP_SEC", 0.02)
    failed: list[bool] = []

    def fails_thrice(*args: Any, **options: Any) -> read.Page:
        if len(failed) < 3:
            failed.append(True)
            raise sqlite3.OperationalError("disk I/O error")
        return read_page(*args, **options)

    async def scenario(hub: server.Hub, loop: asyncio.AbstractEventLoop) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, settings.broadcast_socket)
            await loop.sock_sendall(client, b"\0\0\0\2{}")
            decoder = wire.Decoder()
            kinds: list[str] = []
            while kinds != ["subscribe_ack", "event"]:
                kinds += [wire.decode(body)["kind"] for body in decoder.feed(await loop.sock_recv(client, 9999))]
                if not failed:
                    monkeypatch.setattr(read, "read_page", fails_thrice)
                    emit(tick(0))
        assert failed

    in_process_hub(settings, scenario)


# --- clocks -----------------------------------------------------------------------------------------------------------

HOUR = 3600 * 10**9
SHIFTED = """
import sys, time
real, shift = time.time_ns, int(sys.argv[1])
time.time_ns = lambda: real() + shift
from waitbus import EventInsert, emit
from waitbus.store import clock
clock._NOW_MS += f" + {shift // 1_000_000}"  # the machine's own clock, as SQLite asks for it
for n in map(int, sys.argv[2:]):
    emit(EventInsert(source="test", event_type="tick", fields={"n": n}))
"""


def tell_at(shift_ns: int, *ns: int) -> None:
    """Emit from a process whose clock is off by so much."""
    words = [str(shift_ns), *map(str, ns)]
    subprocess.run([sys.executable, "-c", SHIFTED, *words], check=True, timeout=PATIENCE)


def test_commit_order_is_the_order_whatever_the_clocks_say(hub: HubProcess, peer: Peers) -> None:
    live = peer({})
    shifts = (0, -HOUR, HOUR, -24 * HOUR, -2 * HOUR)
    for index, shift in enumerate(shifts):
        tell_at(shift, 2 * index, 2 * index + 1)
    everything = list(range(2 * len(shifts)))
    frames = [live.event() for _ in everything]
    assert [frame["fields"]["n"] for frame in frames] == everything
    ids = [frame["event_id"] for frame in frames]
    assert ids != sorted(ids)
    for place, event_id in enumerate(ids[:-1]):
        assert numbers(peer({"since": event_id}), len(everything) - place - 1) == everything[place + 1 :]
    assert numbers(peer({"since": ULID_MIN}), len(everything)) == everything
    emit(tick(99))
    assert numbers(peer({"since": ids[-1]}), 1) == [99]


@pytest.mark.parametrize("met", [True, False], ids=["after an event", "before the first event"])
def test_a_clock_set_back_loses_nothing_over_a_restart_of_the_hub(hub: HubProcess, met: bool) -> None:
    with subscribe(timeout=PATIENCE, autostart=False) as events:
        if met:
            tell_at(0, 0)
            assert next(events).fields["n"] == 0
        hub.stop()
        tell_at(-HOUR, 1)
        tell_at(0, 2)
        hub.start()
        tell_at(-HOUR, 3)
        assert [next(events).fields["n"] for _ in range(3)] == [1, 2, 3]
