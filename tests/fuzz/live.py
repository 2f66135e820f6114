"""A real hub under fire: noise, half frames, resets, crowds, floods of rings, rows no frame can hold, and texts that
predicates take long for. An honest subscriber must notice nothing, and be answered soon.

Afterwards the hub must still answer, hold no more descriptors than before, little more memory, and have logged no error
of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

from tests.fuzz.engine import Outcome
from tests.torture import poison
from tests.torture.bus import PATIENCE, Bus, Failure, Hub, private_bus
from waitbus import EventInsert, emit, emit_many

CROWD = 300
RSS_KIB = 16 * 1024  # what the hub may have grown by, in the end
PEAK_KIB = 64 * 1024  # and at any time
# How late an honest subscriber may be given its event, whatever else the hub does; the rest is the machine's.
ANSWER_SEC = 2.0
GOOD = [
    b"{}",
    b'{"proto":1,"since":"00000000000000000000000000"}',
    b'{"match":{"any":[{"key":"n","op":"eq","value":1},{"key":"source","op":"glob","value":"f*"}]},"caught_up":true}',
    b'{"filters":["a/b","a/*"],"event_types":["t"],"envelope":"diffs","agent":{"name":"x"}}',
    b'{"proto":2}',
    b'{"match":{"not":' + b"[" * 900 + b"]" * 900 + b"}}",
]
# What could cost the hub much: to keep, to compile, or to try on every event.
DEAR: list[dict[str, Any]] = [
    {"key": "msg_body", "op": "glob", "value": "*" + "a" * 200 + "b"},
    {"key": "msg_body", "op": "glob", "value": "*a" * 60 + "*b"},
    {"any": [{"key": "msg_body", "op": "glob", "value": f"*a*a*a*a*{n}"} for n in range(64)]},
    {"all": [{"key": "msg_body", "op": "glob", "value": "?" * n + "*[!a]"} for n in range(64)]},
    {"any": [{"key": f"fields.{'a.' * n}b", "op": "eq", "value": "x" * 800} for n in range(60)]},
    {"key": "deep", "op": "eq", "value": json.loads('{"a":' * 700 + "1" + "}" * 700)},
    {"key": "list", "op": "ne", "value": ["x" * 9] * 4000},
]


class Fire:
    """What is done to one hub. Every attack is one method; sockets held open are let go at random."""

    def __init__(self, bus: Bus, seed: str) -> None:
        self.bus = bus
        self.random = random.Random(seed)
        self.held: list[socket.socket] = []
        self.attacks: list[Callable[[], None]] = [
            self.noise,
            self.spoilt_frame,
            self.half_frame,
            self.wrong_length,
            self.talk_after_subscribing,
            self.leave_in_replay,
            self.half_close,
            self.crowd,
            self.doorbell_crowd,
            self.doorbell_noise,
            self.bell_flood,
            self.bell_noise,
            self.poison_row,
            self.dear_predicate,
            self.dear_event,
        ]
        self._rows = 0

    # --- tools -------------------------------------------------------------------------------------------------------

    def connect(self, path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)  # without a time-out: a non-blocking connect is refused while the backlog is full
        sock.settimeout(PATIENCE)
        return sock

    def say(self, data: bytes) -> socket.socket:
        """Send bytes to the broadcast socket, as far as it takes them."""
        sock = self.connect(self.bus.settings.broadcast_socket)
        with contextlib.suppress(OSError):
            for piece in self.pieces(data):
                sock.sendall(piece)
        return sock

    def pieces(self, data: bytes) -> list[bytes]:
        cut = self.random.randint(0, len(data))
        return [piece for piece in (data[:cut], data[cut:]) if piece]

    def let_go(self, sock: socket.socket) -> None:
        """Close at once, after a look at the answer, or later."""
        way = self.random.random()
        if way < 0.3:
            self.held.append(sock)
            return
        if way < 0.6:
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.recv(self.random.choice([1, 3, 65536]))
        sock.close()  # with bytes unread, the other side sees a reset

    def release(self, keep: int) -> None:
        self.random.shuffle(self.held)
        while len(self.held) > keep:
            self.held.pop().close()

    def frame(self) -> bytes:
        body = self.random.choice(GOOD)
        return len(body).to_bytes(4, "big") + body

    # --- attacks -----------------------------------------------------------------------------------------------------

    def noise(self) -> None:
        self.let_go(self.say(self.random.randbytes(self.random.choice([0, 1, 3, 4, 5, 100, 70_000]))))

    def spoilt_frame(self) -> None:
        data = bytearray(self.frame())
        for _ in range(self.random.randint(1, 4)):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        self.let_go(self.say(bytes(data)))

    def half_frame(self) -> None:
        data = self.frame()
        self.held.append(self.say(data[: self.random.randrange(len(data))]))

    def wrong_length(self) -> None:
        length = self.random.choice([0, 65_537, 2**31, 2**32 - 1])
        self.let_go(self.say(length.to_bytes(4, "big") + b"x" * self.random.choice([0, 10, 65_537])))

    def talk_after_subscribing(self) -> None:
        self.let_go(self.say(self.frame() + self.random.randbytes(self.random.choice([1, 5000, 200_000]))))

    def leave_in_replay(self) -> None:
        body = GOOD[1]
        self.let_go(self.say(len(body).to_bytes(4, "big") + body))

    def half_close(self) -> None:
        sock = self.say(self.frame())
        with contextlib.suppress(OSError):
            sock.shutdown(self.random.choice([socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR]))
        self.let_go(sock)

    def crowd(self) -> None:
        for _ in range(CROWD):
            self.held.append(self.say(self.random.choice([b"", b"\0", self.frame()])))
        self.release(CROWD // 3)

    def doorbell_crowd(self) -> None:
        socks = [self.connect(self.bus.settings.doorbell_socket) for _ in range(self.random.choice([5, 150]))]
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.send(b"!")
        for sock in socks:
            self.let_go(sock)

    def doorbell_noise(self) -> None:
        sock = self.connect(self.bus.settings.doorbell_socket)
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            for _ in range(50):
                sock.send(self.random.randbytes(20_000))
        self.let_go(sock)

    def bell_flood(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell, contextlib.suppress(OSError):
            bell.setblocking(False)
            for _ in range(500):
                bell.sendto(b".", self.bus.settings.bell_socket)

    def bell_noise(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell, contextlib.suppress(OSError):
            bell.setblocking(False)
            bell.sendto(
                self.random.randbytes(self.random.choice([0, 1, 64, 65, 100_000])), self.bus.settings.bell_socket
            )

    def poison_row(self) -> None:
        self._rows += poison.insert(self.bus, self.random, self._rows)

    def dear_predicate(self) -> None:
        first: dict[str, Any] = {"match": self.random.choice(DEAR)}
        if self.random.random() < 0.3:
            first["since"] = "0" * 26
        body = json.dumps(first).encode()
        self.held.append(self.say(len(body).to_bytes(4, "big") + body))

    def dear_event(self) -> None:
        body = self.random.choice(["a", "ab", "é"]) * self.random.choice([1000, 50_000, 100_000])
        emit(EventInsert(source="fuzz", event_type="dear", msg_body=body), settings=self.bus.settings)


class Honest:
    """A subscriber that must be given everything, once and in order, while the others rage."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.count = 0
        self.worst = 0.0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(bus.settings.broadcast_socket)
        self.socket.settimeout(PATIENCE)
        body = b'{"event_types":["honest"]}'
        self.socket.sendall(len(body).to_bytes(4, "big") + body)
        self.state = self.socket.makefile("rb")
        if self.frame()["kind"] != "subscribe_ack":
            raise Failure("no ack for an honest subscriber")

    def frame(self) -> dict[str, Any]:
        try:
            header = self.state.read(4)
            frame: dict[str, Any] = json.loads(self.state.read(int.from_bytes(header, "big")))
        except (OSError, ValueError) as error:
            raise Failure(f"an honest subscriber's stream broke: {error!r}") from None
        return frame

    def round_trip(self) -> None:
        """Emit one event, and be given that one next, soon."""
        begin = time.monotonic()
        event = EventInsert(source="fuzz", event_type="honest", fields={"n": self.count})
        emit(event, settings=self.bus.settings)
        while (frame := self.frame())["kind"] == "daemon_heartbeat":
            pass
        if frame["kind"] != "event" or frame["fields"]["n"] != self.count:
            raise Failure(f"event {self.count} was due, and there came {frame}")
        self.count += 1
        self.worst = max(self.worst, time.monotonic() - begin)

    def close(self) -> None:
        self.state.close()
        self.socket.close()


def descriptors(pid: int | None) -> dict[str, str]:
    """What a process holds open, by number; nothing where that cannot be told."""
    found = {}
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def assault(bus: Bus, hub: Hub, until: float, seed: str) -> tuple[int, str]:
    """Attack until the time is over: how many attacks there were, and what became of the hub. Raises `Failure`."""
    fire, honest = Fire(bus, seed), Honest(bus)
    pid = hub.pid()
    honest.round_trip()
    rss, held = hub.rss_kib(), descriptors(pid)
    worst = rss
    count = 0
    while time.monotonic() < until:
        attack = fire.random.choice(fire.attacks)
        attack()
        fire.release(CROWD)
        count += 1
        honest.round_trip()
        if honest.worst > ANSWER_SEC:
            raise Failure(f"after {attack.__name__} an honest subscriber waited {honest.worst:.1f} s for its event")
        if count % 20 == 0:
            worst = max(worst, hub.rss_kib())
    fire.release(0)
    Honest(bus).close()
    if hub.pid() != pid:
        raise Failure("the hub is another process than before")
    deadline = time.monotonic() + PATIENCE
    while len(descriptors(pid)) > len(held) + 2:  # it has to notice that they are gone
        honest.round_trip()
        if time.monotonic() > deadline:
            raise Failure(f"the hub held {len(held)} descriptors, and now {descriptors(pid)}")
    after = hub.rss_kib()
    if after > rss + RSS_KIB:
        raise Failure(f"the hub grew from {rss} to {after} KiB and kept it")
    if worst > rss + PEAK_KIB:
        raise Failure(f"the hub grew from {rss} to {worst} KiB while it was attacked")
    honest.close()
    return count, (
        f"hub RSS {rss} KiB before, {worst} KiB at worst, {after} KiB after; {honest.count} events in between, the "
        f"latest after {honest.worst * 1000:.0f} ms"
    )


def fuzz_live(*, seconds: float, seed: str) -> Outcome:
    """The whole of it; what went wrong is in the outcome."""
    begin = time.monotonic()
    count, note, found = 0, "", None
    with private_bus() as bus:
        backlog = (EventInsert(source="fuzz", event_type="past", summary="x" * 500) for _ in range(5000))
        emit_many(backlog, settings=bus.settings)
        hub = Hub(bus)
        try:
            hub.start()
            hub.await_ready()
            count, note = assault(bus, hub, begin + seconds, seed)
            hub.stop()
        except (Failure, OSError) as error:
            found = f"{type(error).__name__}: {error}"
        said = (bus.path / "hub.stderr").read_text(errors="replace")
        if "Traceback" in said or "Exception" in said:
            found = f"{found or 'the hub logged an error of its own'}\n{said[-3000:]}"
    return Outcome("live", count, time.monotonic() - begin, found, note)
