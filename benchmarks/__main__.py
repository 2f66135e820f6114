"""``python -m benchmarks [NAME…] [--json] [--quick]``: measure, print a table, exit 1 when a budget is missed."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import Lab, machine
from benchmarks.figure import BenchError, Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMES = ("wheel", "startup", "idle", "wake", "many_waiters", "ingest", "peers")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def collect(lab: Lab, names: Sequence[str]) -> Iterator[Figure]:
    """Every figure asked for; one that cannot be measured is one that failed, and the others go on."""
    for name in names:
        say(f"measuring {name}")
        try:
            yield from importlib.import_module(f"benchmarks.{name}").measure(lab)
        except BenchError as error:
            yield Figure(name, "", problem=f"FAILED: {error}")


def table(figures: Sequence[Figure]) -> str:
    """The figures in columns."""
    rows = [["what", "measured", "floor or peer", "ratio", "budget", "verdict"]]
    for figure in figures:
        times = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        rows.append([figure.what, figure.measured, figure.against, times, figure.budget, figure.verdict])
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    rows.insert(1, [*["-" * width for width in widths], "-------"])
    lines = [
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[5]]) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all): {', '.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="for machines: one object on standard output")
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds: to see that it runs, not to judge"
    )
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"no such figure: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every `with` ends what it started
    begin = time.monotonic()
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="wb-") as folder:
        figures = list(collect(Lab(Path(folder), quick=arguments.quick, say=say), arguments.names or NAMES))
    failed = any(figure.failed for figure in figures)
    if arguments.json:
        told = {
            "machine": facts,
            "quick": arguments.quick,
            "figures": [one.as_json() for one in figures],
            "ok": not failed,
        }
        print(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        print(f"\n{' · '.join(facts)}{' · quick: not for judging' if arguments.quick else ''}\n\n{table(figures)}")
    say(f"{time.monotonic() - begin:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
