"""How long from the intended dispatch of `emit()` until the subscriber's process has the event in hand.

Three processes: an emitter (`waitbus.emit`), the hub, a plain blocking `waitbus.subscribe`. Open loop at 200 Hz. The
floor runs alternately with it, under the same accounting; a figure is the median of the rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import floors
from benchmarks.common import Bus, open_loop
from benchmarks.figure import Figure, median_of, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.common import Lab

RATE_HZ = 200.0


def one_round(lab: Lab, count: int, *predicates: str) -> list[float]:
    """Milliseconds of `count` wakes on a bus of their own."""
    with Bus(lab) as bus:
        subscriber = bus.part("subscribe", count, *predicates)
        emitter = bus.part("emit_paced", RATE_HZ, count)
        return open_loop(emitter, subscriber, rate=RATE_HZ, count=count)


def measure(lab: Lab) -> Iterator[Figure]:
    """The rounds, floor first each time, and two percentiles of them."""
    count = lab.pick(500, 300)
    floor: list[list[float]] = []
    ours: list[list[float]] = []
    for _ in range(lab.pick(8, 3)):  # many short ones: the machine drifts
        floor.append(floors.wake(lab, rate=RATE_HZ, count=count))
        ours.append(one_round(lab, count))
    yield ratio("wake p50", "ms", median_of(ours, 0.5), "floor", median_of(floor, 0.5), 1.5)
    yield ratio("wake p99", "ms", median_of(ours, 0.99), "floor", median_of(floor, 0.99), 2.0)
