"""``python -m tests.torture``: both parts, one closing verdict; exit 1 when anything was lost, repeated or delayed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from tests.torture.bus import Failure, private_bus
from tests.torture.run import progress, torture
from tests.torture.stuck import stuck


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how many processes to kill (1000; some minutes)")
    parser.add_argument("--rate", type=float, default=500, help="events per second, all producers together (500)")
    parser.add_argument("--subscribers", type=int, default=5, help="how many, of five kinds in turn (5)")
    parser.add_argument("--seed", default=None, help="draw the same victims and pauses again")
    parser.add_argument("--json", action="store_true", help="the whole account as one JSON object on stdout")
    return parser.parse_args(argv)


def described(kills: dict[str, Any], delays: dict[str, Any]) -> list[str]:
    """The accounts for a person."""
    lines = [f"{'subscriber':<12}{'expected':>10}{'lost':>8}{'repeated':>10}{'disordered':>12}{'as promised':>13}"]
    for name, figures in kills["subscribers"].items():
        columns = ("lost", "repeated", "disordered")
        counts = "".join(f"{figures[key]:>{width}}" for key, width in zip(columns, (8, 10, 12), strict=True))
        lines.append(f"{name:<12}{figures['expected']:>10}{counts}{figures['repeated_as_promised']:>13}")
    lines.append(
        f"{kills['committed_but_learned_late']} events were committed by a producer that was killed before it learned "
        f"so; commits nobody rang for came within {kills['unrung_latest_ms']:.0f} ms"
    )
    for phase in ("without", "with"):
        figures = delays[phase]
        lines.append(
            f"delay {phase} a stuck subscriber: p50 {figures['p50_us']} us (best round {figures['best_p50_us']} us), "
            f"p99 {figures['p99_us']} us, worst {figures['max_us']} us over {figures['events']} deliveries"
        )
    stuck_ones = delays["stuck"]
    lines.append(
        f"{delays['evicted']} of {delays['rounds']} stuck subscribers were evicted between two frames and came back: "
        f"{stuck_ones['expected']} expected, {stuck_ones['lost']} lost, {stuck_ones['repeated']} repeated"
    )
    return lines


def verdict(kills: dict[str, Any], delays: dict[str, Any]) -> str:
    wrongs = kills["wrongs"] + delays["wrongs"]
    accounts = kills["subscribers"].values()
    lost, repeated, disordered = (sum(one[key] for one in accounts) for key in ("lost", "repeated", "disordered"))
    killed = ", ".join(f"{count} {name}" for name, count in sorted(kills["kills"].items()))
    return (
        f"{'FAILED' if wrongs else 'PASSED'}: {sum(kills['kills'].values())} kills ({killed}) in {kills['seconds']} s, "
        f"{kills['rows']} events, {len(accounts)} subscribers: {lost} lost, {repeated} repeated, "
        f"{disordered} out of order (seed {kills['seed']})"
    )


def main() -> int:
    options = arguments()
    seed = options.seed or os.urandom(4).hex()
    try:
        with private_bus() as bus:
            kills = torture(bus, kills=options.kills, rate=options.rate, subscribers=options.subscribers, seed=seed)
        progress(f"{len(kills['wrongs'])} wrongs in the first part; now a subscriber that never reads")
        delays = stuck(options.rate)
    except Failure as failure:
        sys.stderr.write(f"FAILED: {failure}\n")
        return 1
    wrongs = kills["wrongs"] + delays["wrongs"]
    if options.json:
        print(json.dumps({"ok": not wrongs, "kills": kills, "stuck": delays}))
    else:
        print("\n".join([*described(kills, delays), *[f"wrong: {wrong}" for wrong in wrongs]]))
        print(verdict(kills, delays))
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
