"""What a start costs: the whole process of `waitbus emit`, and `import waitbus`. Runs alternate; medians."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import floors
from benchmarks.common import Bus
from benchmarks.figure import Figure, at_most, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.common import Lab

_IMPORT = "import time; t = time.perf_counter(); import waitbus; print((time.perf_counter() - t) * 1e3)"


def _import(lab: Lab) -> float:
    command = [str(lab.installed.python), "-I", "-c", _IMPORT]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(lab: Lab) -> Iterator[Figure]:
    """The bare interpreter, the floor, `emit` with a hub and without one, in turn."""
    with (
        Bus(lab) as bus,
        Bus(lab, hub=False) as alone,
        tempfile.TemporaryDirectory(prefix="floor-", dir=lab.folder) as folder,
    ):
        emit = [str(lab.installed.command), "emit", "--source", "agent", "--event-type", "agent_message"]
        runs: dict[str, Callable[[], float]] = {
            "bare": floors.bare_start(lab, bus.env),
            "floor": floors.bare_emit(lab, bus.env, Path(folder)),
            "emit": floors.timer(emit, bus.env),
            "alone": floors.timer(emit, alone.env),
            "import": lambda: _import(lab),
        }
        took: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(lab.pick(31, 11) + 1):
            for name, run in runs.items():
                milliseconds = run()
                if number:  # the first fills caches and makes the stores
                    took[name].append(milliseconds)
    middle = {name: statistics.median(values) for name, values in took.items()}
    yield ratio("`waitbus emit`, whole process", "ms", middle["emit"], "floor", middle["floor"], 1.5)
    yield ratio("  with no hub running", "ms", middle["alone"], "floor", middle["floor"], 1.5)
    yield ratio("  beside the bare interpreter", "ms", middle["emit"], "python -I -c pass", middle["bare"], 2.5)
    yield at_most("`import waitbus`", "ms", middle["import"], 5)
