"""``python -m tests.torture``: three parts, one closing verdict; exit 1 when a promise was broken in one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.torture.bus import Failure, private_bus
from tests.torture.run import REPLACING, progress, torture
from tests.torture.stuck import stuck

ABOUT = {
    "kills": "kills, stopped hubs, swept directories and poison rows",
    "stuck": "a subscriber that never reads, and how late the others are",
    "replaced": "the same kills while the store is taken away or replaced",
}
# A replacement takes longer than a kill: so many times fewer of these.
REPLACED_SHARE = 5


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how many kills and other deeds (1000; some minutes)")
    parser.add_argument("--rate", type=float, default=500, help="events per second, all producers together (500)")
    parser.add_argument("--subscribers", type=int, default=5, help="how many, of five kinds in turn (5)")
    parser.add_argument("--seed", default=None, help="draw the same victims and pauses again")
    parser.add_argument("--part", choices=list(ABOUT), help="one part alone (default: all three)")
    parser.add_argument("--without", action="append", default=[], choices=list(REPLACING), help="leave a deed out")
    parser.add_argument("--json", action="store_true", help="the whole account as one JSON object on stdout")
    return parser.parse_args(argv)


def subscribers(deeds: dict[str, Any]) -> list[str]:
    """The accounts of one run of deeds, for a person."""
    lines = [f"{'subscriber':<12}{'expected':>10}{'lost':>8}{'repeated':>10}{'disordered':>12}{'as promised':>13}"]
    for name, figures in deeds["subscribers"].items():
        columns = ("lost", "repeated", "disordered")
        counts = "".join(f"{figures[key]:>{width}}" for key, width in zip(columns, (8, 10, 12), strict=True))
        lines.append(f"{name:<12}{figures['expected']:>10}{counts}{figures['repeated_as_promised']:>13}")
    lines.append(
        f"{deeds['committed_but_learned_late']} events were committed by a producer that was killed before it learned "
        f"so; {deeds['poison_rows']} rows were poison; commits nobody rang for came within "
        f"{deeds['unrung_latest_ms']:.0f} ms; swept sockets were there again within {deeds['swept_sec']} s; "
        f"{deeds['stores']} files were the store"
    )
    return lines


def delays(stuck: dict[str, Any]) -> list[str]:
    """What a stuck subscriber did to the others, and what became of it."""
    lines = []
    for phase in ("without", "with"):
        figures = stuck[phase]
        lines.append(
            f"delay {phase} a stuck subscriber: p50 {figures['p50_us']} us (best round {figures['best_p50_us']} us), "
            f"p99 {figures['p99_us']} us, worst {figures['max_us']} us over {figures['events']} deliveries"
        )
    ones = stuck["stuck"]
    lines.append(
        f"{stuck['evicted']} of {stuck['rounds']} stuck subscribers were evicted between two frames and came back: "
        f"{ones['expected']} expected, {ones['lost']} lost, {ones['repeated']} repeated"
    )
    return lines


def verdict(deeds: list[dict[str, Any]], wrong: bool, seed: str) -> str:
    accounts = [one for run in deeds for one in run["subscribers"].values()]
    lost, repeated, disordered = (sum(one[key] for one in accounts) for key in ("lost", "repeated", "disordered"))
    done = sum((Counter(run["deeds"]) for run in deeds), Counter[str]())
    named = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
    return (
        f"{'FAILED' if wrong else 'PASSED'}: {done.total()} deeds ({named}) in "
        f"{sum(run['seconds'] for run in deeds):.0f} s, {sum(run['rows'] for run in deeds)} events, {len(accounts)} "
        f"subscribers: {lost} lost, {repeated} repeated, {disordered} out of order (seed {seed})"
    )


def parts(options: argparse.Namespace, seed: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is run, by name."""

    def deeds(kills: int, *, replacing: bool) -> dict[str, Any]:
        with private_bus() as bus:
            return torture(
                bus,
                kills=kills,
                rate=options.rate,
                subscribers=options.subscribers,
                seed=seed,
                replacing=replacing,
                without=options.without,
            )

    return {
        "kills": lambda: deeds(options.kills, replacing=False),
        "stuck": lambda: stuck(options.rate),
        "replaced": lambda: deeds(max(1, options.kills // REPLACED_SHARE), replacing=True),
    }


def main() -> int:
    options = arguments()
    seed = options.seed or os.urandom(4).hex()
    found: dict[str, dict[str, Any]] = {}
    wrongs: list[str] = []
    for name, part in parts(options, seed).items():
        if options.part in (None, name):
            progress(f"now {ABOUT[name]}")
            try:
                found[name] = part()
            except Failure as failure:
                wrongs.append(f"{name}: {failure}")
            else:
                wrongs += [f"{name}: {wrong}" for wrong in found[name]["wrongs"]]
    if options.json:
        print(json.dumps({"ok": not wrongs, "wrongs": wrongs, **found}))
        return 1 if wrongs else 0
    for name, account in found.items():
        print("\n".join([f"{ABOUT[name]}:", *(delays(account) if name == "stuck" else subscribers(account))]))
    print("\n".join(f"wrong: {wrong}" for wrong in wrongs))
    print(verdict([found[name] for name in ("kills", "replaced") if name in found], bool(wrongs), seed))
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
