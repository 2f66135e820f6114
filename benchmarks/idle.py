"""What a bus costs while nothing happens: the hub with nobody and with one waiting, and the waiting process itself.

Both hubs idle in the same seconds. Processor time is the scheduler's own account; a wake-up is a voluntary context
switch, of which a waiting process may have none between heartbeats.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from benchmarks import floors
from benchmarks.common import Bus, cpu_ns, has_proc, status_number
from benchmarks.figure import BenchError, Figure, at_most, excess, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.common import Lab

SWITCHES = "voluntary_ctxt_switches"
SETTLED_SEC = 0.5


def _settle(pid: int) -> None:
    """Wait until a process has slept for half a second on end."""
    deadline = time.monotonic() + 20
    before = -1
    while (now := status_number(pid, SWITCHES)) != before:
        if time.monotonic() > deadline:
            raise BenchError("the waiting process never comes to rest")
        before = now
        time.sleep(SETTLED_SEC)


def measure(lab: Lab) -> Iterator[Figure]:
    """Two hubs, one waiter, some seconds of nothing."""
    if not has_proc():
        yield skipped("idle hub and waiter", "needs /proc")
        return
    seconds = lab.pick(12, 5)
    with Bus(lab) as empty, Bus(lab) as waited:
        command = lab.installed.command
        waiter = waited.run(command, "wait", "--source", "pytest", "--match", 'conclusion="failure"')
        _settle(waiter.pid)
        hubs = [empty.hub.pid, waited.hub.pid]
        used, switched = [cpu_ns(pid) for pid in hubs], status_number(waiter.pid, SWITCHES)
        begin = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begin
        used = [cpu_ns(pid) - before for pid, before in zip(hubs, used, strict=True)]
        switched = status_number(waiter.pid, SWITCHES) - switched
        rss = [status_number(pid, "VmRSS") / 1024 for pid in (*hubs, waiter.pid)]
    hub_floor = statistics.median(floors.idle_hub_kib(lab) for _ in range(3)) / 1024
    wait_floor = statistics.median(floors.waiter_kib(lab) for _ in range(3)) / 1024
    for who, nanoseconds, mebibytes in zip(("nobody", "one waiting"), used, rss, strict=False):
        yield excess(f"idle hub, {who}: RSS", "MiB", mebibytes, "floor", hub_floor, 2)
        yield at_most(f"idle hub, {who}: CPU per second", "ms", nanoseconds / 1e6 / took, 0.2)
    yield excess("waiting `waitbus wait`: RSS", "MiB", rss[2], "floor", wait_floor, 1.5)
    yield at_most(f"waiting `waitbus wait`: wake-ups in {seconds} s", "", switched, 0)
