"""A plain blocking `waitbus.subscribe` that notes when it woke; runs against 0.2.0, too.

usage: subscribe.py N [PREDICATE]
With no predicate it takes everything, which 0.2.0 will not. Says ``up`` at the first warm-up event. Prints, as JSON,
the delivery_id and the monotonic nanoseconds of N events.
"""

from __future__ import annotations

import json
import sys
import time

from waitbus import subscribe


def main() -> None:
    count, predicates = int(sys.argv[1]), sys.argv[2:]
    seen: list[tuple[str, int]] = []
    up = False
    for event in subscribe(*predicates):
        now = time.monotonic_ns()
        if event.delivery_id.startswith("warm-"):
            if not up:
                print("up", flush=True)
            up = True
            continue
        seen.append((event.delivery_id, now))
        if len(seen) == count:
            break
    print(json.dumps(seen), flush=True)


main()
