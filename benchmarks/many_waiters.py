"""What 1,000 subscribers cost, each waiting on another value: the wake of one among them, and memory in the hub.

The one that is woken is a process of its own, as in `wake.py`; the rest are sockets of one process, which must sleep
through it all. Rounds alternate between one subscriber and all, on one hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import Bus, has_proc, open_loop, status_number
from benchmarks.figure import BenchError, Figure, at_most, median_of, ratio, skipped
from benchmarks.wake import RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.common import Lab

SUBSCRIBERS = 1000
TARGET = "the-one"


def _one_round(bus: Bus, count: int) -> list[float]:
    subscriber = bus.part("subscribe", count, f'workflow_name="{TARGET}"')
    emitter = bus.part("emit_paced", RATE_HZ, count, TARGET)
    took = open_loop(emitter, subscriber, rate=RATE_HZ, count=count)
    subscriber.wait()
    emitter.wait()
    return took


def measure(lab: Lab) -> Iterator[Figure]:
    """The wake with and without the crowd, and what the hub grew by."""
    count = lab.pick(500, 200)
    alone: list[list[float]] = []
    among: list[list[float]] = []
    grown: list[float] = []
    with Bus(lab) as bus:
        for _ in range(lab.pick(5, 1)):
            alone.append(_one_round(bus, count))
            before = status_number(bus.hub.pid, "VmRSS") if has_proc() else 0
            crowd = bus.part("crowd", bus.broadcast, SUBSCRIBERS - 1)
            crowd.hear()
            among.append(_one_round(bus, count))
            if has_proc():
                grown.append((status_number(bus.hub.pid, "VmRSS") - before) / (SUBSCRIBERS - 1))
            crowd.say()
            if strays := int(crowd.hear()):
                raise BenchError(f"{strays} events reached subscribers that wait on another value")
            crowd.wait()
    against = "1 subscriber"
    yield ratio(
        f"wake p50, {SUBSCRIBERS} subscribers", "ms", median_of(among, 0.5), against, median_of(alone, 0.5), 1.5
    )
    yield ratio(f"wake p99, {SUBSCRIBERS} subscribers", "ms", median_of(among, 0.99), against, median_of(alone, 0.99))
    if grown:
        yield at_most("hub RSS per subscriber", "KiB", max(grown), 12)
    else:
        yield skipped("hub RSS per subscriber", "needs /proc")
