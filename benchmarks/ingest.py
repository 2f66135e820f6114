"""How fast events are taken in: one process in batches, then eight processes singly; and what a subscriber is given.

Every event must reach a subscriber once, in the order of the store. The producers' time includes the making of the
events. Batches are written twice: with nobody listening until they are in (the budget is what the store takes), and
with a subscriber all along, where producer, hub and subscriber share the processors.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from benchmarks.common import Bus, has_proc, status_number
from benchmarks.figure import BenchError, Figure, at_least, at_most, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.common import Child, Lab

PRODUCERS = 8


def measure(lab: Lab) -> Iterator[Figure]:
    """Both ways of writing, each on a bus of its own."""
    yield from _batches(lab)
    yield from _singly(lab)


def _batches(lab: Lab) -> Iterator[Figure]:
    count = lab.pick(200_000, 60_000)
    with Bus(lab) as bus:
        producer = bus.part("emit_batch", count)
        producer.hear()
        producer.say()
        rate = count / float(producer.hear())
        counter = bus.part("count", count, bus.home / "seen", "start")
        counter.hear()
        replayed = _delivered(counter, count)
        _check_order(bus, count)
    yield at_least("ingest, 1 process in batches", "events/s", rate, 50_000)
    yield shown("  replayed to a subscriber after", "events/s", replayed)
    with Bus(lab) as bus:
        producer = bus.part("emit_batch", count)
        producer.hear()
        counter = bus.part("count", count, bus.home / "seen")
        counter.hear()
        producer.say()
        shared = count / float(producer.hear())
        delivered = _delivered(counter, count)
        _check_order(bus, count)
        rss = status_number(bus.hub.pid, "VmRSS") / 1024 if has_proc() else None
    yield shown("  with a subscriber all along", "events/s", shared)
    yield shown("  delivered to it meanwhile and after", "events/s", delivered)
    if rss is not None:
        yield shown("  hub RSS after it", "MiB", rss)


def _singly(lab: Lab) -> Iterator[Figure]:
    each = lab.pick(5000, 1500)
    count = each * PRODUCERS
    with Bus(lab) as bus:
        producers = [bus.part("emit_race", number, each) for number in range(PRODUCERS)]
        for producer in producers:
            producer.hear()
        counter = bus.part("count", count, bus.home / "seen")
        counter.hear()
        for producer in producers:
            producer.say()
        told = [[float(word) for word in producer.hear().split()] for producer in producers]
        begin, end, worst = min(t[0] for t in told), max(t[1] for t in told), max(t[2] for t in told)
        delivered = _delivered(counter, count)
        _check_order(bus, count)
    yield at_least(f"ingest, {PRODUCERS} processes singly", "events/s", count / (end - begin), 8000)
    yield at_most("  worst single emit among them", "ms", worst * 1e3, 200)
    yield shown("  delivered meanwhile and after", "events/s", delivered)


def _delivered(counter: Child, count: int) -> float:
    first, last = (float(word) for word in counter.hear().split())
    counter.wait()
    return count / (last - first)


def _check_order(bus: Bus, count: int) -> None:
    """What the subscriber was given is what the store holds, in the same order."""
    seen = (bus.home / "seen").read_text(encoding="utf-8").splitlines()
    with closing(sqlite3.connect(bus.database)) as store:
        query = "SELECT delivery_id FROM events WHERE delivery_id NOT LIKE 'warm-%' ORDER BY seq"
        stored = [name for (name,) in store.execute(query)]
    if len(stored) != count:
        raise BenchError(f"{count} events were emitted, {len(stored)} stored")
    if seen != stored:
        raise BenchError(
            f"the subscriber did not get the store's order: {len(seen)} events, {len(set(seen))} different"
        )
