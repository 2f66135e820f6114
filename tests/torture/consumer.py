"""One subscriber of the torture: logs every event it is given, until the one that says the end.

``python -m tests.torture.consumer KIND LOG``. A line of LOG is an event_id and how many microseconds after it was due
it came. KIND is one of `KINDS`. Says ``ready`` on stdout when it is subscribed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from waitbus import Event, Predicate, asubscribe, subscribe

FRAMES = 250  # how deep on the stack the live kind asks for its events, as a framework's handlers do
FILTERED = "p0"  # the producer whose events the filtered kind subscribes to
_FIRST = {"since": "0" * 26}


class Log:
    """Where a subscriber writes down what it was given: one write an event, so that a kill leaves whole lines."""

    def __init__(self, path: str) -> None:
        self.name = os.path.basename(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def take(self, event_id: str, fields: dict[str, Any]) -> bool:
        """Note one event. True when it says the end."""
        late_ns = time.monotonic_ns() - fields["due_ns"] if "due_ns" in fields else 0
        os.write(self._fd, f"{event_id} {late_ns // 1000}\n".encode())
        return "end" in fields


def ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def live(log: Log) -> None:
    """Blocking, from now on, starting a hub where there is none; asked from deep on the stack."""

    def take_all(frames: int) -> None:
        if frames:
            take_all(frames - 1)
            return
        with subscribe(autostart=True) as events:
            ready()
            any(log.take(event.event_id, event.fields) for event in events)

    take_all(FRAMES)


def fresh(log: Log) -> None:
    """Blocking, from now on: the measured ones of the second part."""
    with subscribe(autostart=False) as events:
        ready()
        any(log.take(event.event_id, event.fields) for event in events)


def bookmark(log: Log) -> None:
    """Blocking, with a bookmark: the one that is killed and goes on."""
    with subscribe(since="start", bookmark=log.name, autostart=True) as events:
        ready()
        any(log.take(event.event_id, event.fields) for event in events)


def filtered(log: Log) -> None:
    """Blocking, with a predicate the hub judges: one producer's events."""
    wanted = {"any": [{"key": "producer", "op": "eq", "value": FILTERED}, {"key": "end", "op": "exists"}]}
    with subscribe(Predicate.from_object(wanted), since="start", autostart=False) as events:
        ready()
        any(log.take(event.event_id, event.fields) for event in events)


def aio(log: Log) -> None:
    """Asyncio, from now on; some of its waits are cancelled, and the next one goes on."""
    chance = random.Random(0)

    async def consume() -> None:
        async with asubscribe(autostart=False) as events:
            ready()
            while True:
                patience = chance.choice([None, None, None, 0.0005, 0.002, 0.02])
                try:
                    event: Event = await asyncio.wait_for(anext(events), patience)
                except TimeoutError:
                    continue
                if log.take(event.event_id, event.fields):
                    return

    asyncio.run(consume())


def raw(log: Log) -> None:
    """The wire by hand, from the contract alone: no part of the package."""
    first = dict(_FIRST)
    said = False
    while True:
        for frame in frames(first):
            if frame["kind"] == "subscribe_ack" and not said:
                said = True
                ready()
            if frame["kind"] in ("event", "truncated"):
                first["since"] = frame["event_id"]
                if log.take(frame["event_id"], frame.get("fields", {})):
                    return
        select.select([], [], [], 0.01)


def frames(first: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The frames of one connection, until it ends, however it ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.path.join(os.environ["WAITBUS_RUNTIME_DIR"], "broadcast.sock"))
            body = json.dumps(first).encode()
            connection.sendall(len(body).to_bytes(4, "big") + body)
            stream = connection.makefile("rb")
            while len(header := stream.read(4)) == 4:
                size = int.from_bytes(header, "big")
                if len(body := stream.read(size)) < size:
                    return
                yield json.loads(body)
        except OSError:
            return


KINDS: dict[str, Callable[[Log], None]] = {
    "live": live,
    "aio": aio,
    "raw": raw,
    "bookmark": bookmark,
    "filtered": filtered,
}

if __name__ == "__main__":
    {**KINDS, "fresh": fresh}[sys.argv[1]](Log(sys.argv[2]))
