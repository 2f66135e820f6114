"""The second part: a subscriber that never reads delays nobody, is evicted between two frames, and loses nothing.

Four others measure how late each event comes after it was due, in turns without a stuck one and with one.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from tests.torture import audit
from tests.torture.bus import PATIENCE, Bus, Child, Failure, Hub, pause, private_bus
from tests.torture.stores import Generation
from waitbus import EventInsert, emit

OTHERS = 4
QUEUE = "256KiB"
SUMMARY = "x" * 1000
ROUNDS = 4
SECONDS = 2.0
# What the stuck one would do, it would do in every round: the medians of the best rounds are compared, so that a busy
# machine is not taken for it. A factor, and some slack for the clock.
FACTOR, SLACK_US = 1.5, 500


class Reader:
    """A peer that subscribes and reads only when it is told to."""

    def __init__(self, bus: Bus, first: dict[str, Any]) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(bus.settings.broadcast_socket)
        body = json.dumps(first).encode()
        self.socket.sendall(len(body).to_bytes(4, "big") + body)
        self.state = self.socket.makefile("rb")

    def frame(self) -> dict[str, Any] | None:
        """The next frame; None at a clean end. Half a frame at the end is a `Failure`."""
        header = self.state.read(4)
        if not header:
            return None
        size = int.from_bytes(header, "big")
        body = self.state.read(size) if len(header) == 4 else b""
        if len(body) < size or not size:
            raise Failure("the stuck subscriber's stream ended in the middle of a frame")
        frame: dict[str, Any] = json.loads(body)
        return frame

    def close(self) -> None:
        self.state.close()
        self.socket.close()


def stuck(rate: float) -> dict[str, Any]:
    """All rounds and the stuck ones' accounts, as they are printed and as ``--json`` gives them."""
    delays: dict[str, list[list[int]]] = {"without": [], "with": []}
    wrongs = []
    total = audit.Account(0, 0, 0, 0)
    evicted = 0
    with private_bus(f'[hub]\nqueue_bytes = "{QUEUE}"\n') as bus:
        hub = Hub(bus)
        hub.start()
        hub.await_ready()
        for number in range(ROUNDS):
            delays["without"].append(measure(bus, f"without{number}", rate))
            victim = Reader(bus, {})
            delays["with"].append(measure(bus, f"with{number}", rate))
            received, last = drain(victim)
            evicted += last == "lag_limit_exceeded"
            total.add(audit.account(sent(bus, f"with{number}-"), received + catch_up(bus, received[-1])))
    if evicted != ROUNDS:
        wrongs.append(f"of {ROUNDS} stuck subscribers {evicted} were evicted for lag")
    if not total.good:
        wrongs.append(f"the stuck subscribers: {total}")
    figures = {phase: figures_of(rounds) for phase, rounds in delays.items()}
    before, after = (figures[phase]["best_p50_us"] for phase in ("without", "with"))
    if after > before * FACTOR + SLACK_US:
        wrongs.append(f"the others were delayed: median {before} us without a stuck one, {after} us with one")
    return {**figures, "evicted": evicted, "rounds": ROUNDS, "stuck": total.figures(), "wrongs": wrongs}


def sent(bus: Bus, prefix: str) -> list[str]:
    """The event_ids of one round, in commit order."""
    rows = Generation(Path(bus.settings.db_path), 0).rows()
    return [event_id for event_id, delivery in rows if delivery.startswith(prefix)]


def figures_of(rounds: list[list[int]]) -> dict[str, int]:
    """Over all rounds, and the median of the best one. Microseconds."""
    pooled = sorted(delay for delays in rounds for delay in delays)
    return {
        "events": len(pooled),
        "best_p50_us": min(sorted(delays)[len(delays) // 2] for delays in rounds),
        "p50_us": pooled[len(pooled) // 2],
        "p99_us": pooled[len(pooled) * 99 // 100],
        "max_us": pooled[-1],
    }


def measure(bus: Bus, phase: str, rate: float) -> list[int]:
    """Emit at `rate` for some seconds; how late each of the others got each event."""
    others = [others_child(bus, f"{phase}-{index}") for index in range(OTHERS)]
    for child in others:
        child.await_line()
    start_ns = time.monotonic_ns() + 100_000_000
    for number in range(int(rate * SECONDS)):
        due_ns = start_ns + int(number * 1e9 / rate)
        pause(max(0.0, (due_ns - time.monotonic_ns()) / 1e9), others)
        send(bus, f"{phase}-{number}", {"due_ns": due_ns})
    send(bus, f"end-{phase}", {"end": True})
    delays: list[int] = []
    for child in others:
        child.finish()
        delays += audit.delays_us(bus.path / f"{child.name}.log")[:-1]
    return delays


def others_child(bus: Bus, name: str) -> Child:
    return bus.spawn(name, "tests.torture.consumer", "fresh", str(bus.path / f"{name}.log"))


def send(bus: Bus, delivery_id: str, fields: dict[str, Any]) -> None:
    event = EventInsert(source="torture", event_type="tick", delivery_id=delivery_id, summary=SUMMARY, fields=fields)
    emit(event, settings=bus.settings)


def drain(reader: Reader) -> tuple[list[str], str | None]:
    """Read at last: the event_ids that were waiting, and the reason for the end."""
    received: list[str] = []
    reason = None
    while (frame := reader.frame()) is not None:
        if frame["kind"] == "event":
            received.append(frame["event_id"])
        reason = frame.get("reason", frame["kind"])
    reader.close()
    if not received:
        raise Failure("the stuck subscriber was given nothing at all")
    return received, reason


def catch_up(bus: Bus, since: str) -> list[str]:
    """Come back with the cursor: what was missed, up to the event that says the end."""
    reader = Reader(bus, {"since": since})
    received = []
    while (frame := reader.frame()) is not None:
        if frame["kind"] == "event":
            if "end" in frame["fields"]:
                break
            received.append(frame["event_id"])
    reader.close()
    return received
