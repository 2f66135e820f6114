"""One producer of the torture: emits its numbers on schedule, singly and in batches, until its stdin ends.

``python -m tests.torture.producer NAME FIRST SEED RATE START_NS SKEW_NS LOG``. Number n is due at START_NS + n/RATE of
the monotonic clock; the wall clock of this process is off by SKEW_NS. What `emit` answered for is in LOG, a line a
call: first number, count, how many were new, and when the call was begun. A producer that was killed is started again
after the last number answered for: what it had committed without learning so comes back as a duplicate. On SIGUSR1 it
kills itself after its next commit, before it rings.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable

from waitbus import EventInsert, emit, emit_many
from waitbus.client.emit import Bell
from waitbus.store import clock

BATCH_SHARE = 0.3
BATCH_MAX = 20
CATCH_UP_MAX = 200
HUGE_SHARE = 0.002  # events whose frame passes the cap and travels as `truncated`
HUGE = "x" * 70_000


class Producer:
    """Numbers, a schedule and a log."""

    def __init__(self, name: str, first: int, seed: str, rate: float, start_ns: int, log: str) -> None:
        self.name = name
        self.next = first
        self.rate = rate
        self.start_ns = start_ns
        self.random = random.Random(f"{seed}/{name}/{first}")
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def due_ns(self, number: int) -> int:
        return self.start_ns + int(number * 1e9 / self.rate)

    def event(self, number: int) -> EventInsert:
        fields: dict[str, object] = {"n": number, "producer": self.name, "due_ns": self.due_ns(number)}
        if self.random.random() < HUGE_SHARE:
            fields["huge"] = HUGE
        delivery_id = f"{self.name}-{number:08d}"
        return EventInsert(source="torture", event_type="tick", delivery_id=delivery_id, fields=fields)

    def step(self, count: int) -> None:
        """Emit `count` numbers, log what was answered."""
        events = [self.event(number) for number in range(self.next, self.next + count)]
        begun_ns = time.monotonic_ns()
        inserted = int(emit(events[0]).inserted) if count == 1 else emit_many(events).inserted
        os.write(self.log, f"{self.next} {count} {inserted} {begun_ns}\n".encode())
        self.next += count

    def size(self, behind: int) -> int:
        """How many to emit at once: mostly one, now and then a batch, many when much is overdue."""
        if behind > BATCH_MAX:
            return min(behind, CATCH_UP_MAX)
        return self.random.randint(2, BATCH_MAX) if self.random.random() < BATCH_SHARE else 1

    def run(self, ended: Callable[[float], bool]) -> None:
        """Emit on schedule until `ended(seconds)`, which waits that long for the end, says so."""
        while True:
            size = self.size(int((time.monotonic_ns() - self.start_ns) / 1e9 * self.rate) - self.next)
            wait_ns = self.due_ns(self.next + size - 1) - time.monotonic_ns()
            if ended(max(0.0, wait_ns / 1e9)):
                return
            self.step(size)


def die_before_the_ring(_number: int, _frame: object) -> None:
    Bell.ring = lambda _bell: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment]


def skew(by_ns: int) -> None:
    """Set this process's clock back, or forward: event_ids then stand in another order than commits."""
    right = time.time_ns
    time.time_ns = lambda: right() + by_ns
    clock._NOW_MS += f" + {by_ns // 1_000_000}"  # the machine's own clock, as SQLite asks for it


def main(argv: list[str]) -> None:
    name, first, seed, rate, start_ns, skew_ns, log = argv
    skew(int(skew_ns))
    signal.signal(signal.SIGUSR1, die_before_the_ring)
    producer = Producer(name, int(first), seed, float(rate), int(start_ns), log)
    producer.run(lambda seconds: bool(select.select([sys.stdin], [], [], seconds)[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
