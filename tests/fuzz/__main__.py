"""``python -m tests.fuzz``: every target for its time, then a live hub; exit 1 when one found a defect."""

from __future__ import annotations

import argparse
import json
import os
import sys

from tests.fuzz import costly, pure, rows, words
from tests.fuzz.engine import Outcome, fuzz
from tests.fuzz.live import fuzz_live

TARGETS = {target.name: target for target in (*pure.TARGETS, *costly.TARGETS, *rows.TARGETS, *words.TARGETS)}
LIVE = "live"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        epilog="targets: " + ", ".join([*TARGETS, LIVE]),
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="which (default: all)")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument("--examples", type=int, default=None, help="so many for each instead of a time")
    parser.add_argument("--seed", default=None, help="the same examples again (with --examples)")
    parser.add_argument("--json", action="store_true", help="one JSON object a target on stdout")
    options = parser.parse_args()
    unknown = set(options.targets) - {*TARGETS, LIVE}
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return options


def report(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**vars(outcome), "seconds": round(outcome.seconds, 1)}), flush=True)
        return
    rate = outcome.examples / outcome.seconds if outcome.seconds else 0
    verdict = "DEFECT" if outcome.found else "nothing found"
    print(f"{outcome.name:<18}{outcome.examples:>10} examples {rate:>8.0f}/s  {verdict}", flush=True)
    if outcome.note:
        print(f"{'':<18}{outcome.note}", flush=True)
    if outcome.found:
        print(outcome.found, flush=True)


def main() -> int:
    options = arguments()
    seed = options.seed or os.urandom(4).hex()
    chosen = options.targets or [*TARGETS, LIVE]
    outcomes = []
    for name in chosen:
        if name == LIVE:
            outcome = fuzz_live(seconds=options.seconds, seed=seed)
        else:
            outcome = fuzz(TARGETS[name], seconds=options.seconds, examples=options.examples, base_seed=seed)
        outcomes.append(outcome)
        report(outcome, as_json=options.json)
    found = [outcome.name for outcome in outcomes if outcome.found]
    if not options.json:
        total = sum(outcome.examples for outcome in outcomes)
        verdict = f"FAILED: {', '.join(found)}" if found else "PASSED"
        print(f"{verdict}: {len(outcomes)} targets, {total} examples, {len(found)} with a defect (seed {seed})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
