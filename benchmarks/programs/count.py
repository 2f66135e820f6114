"""A blocking `waitbus.subscribe` that writes down every delivery_id it is given, in order.

usage: count.py N FILE [SINCE]
Says ``up`` when subscribed. After N events that are no warm-up, prints the monotonic seconds of the first and the last.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from waitbus import subscribe


def main() -> None:
    count = int(sys.argv[1])
    seen: list[str] = []
    first = 0.0
    with subscribe(since=sys.argv[3] if len(sys.argv) > 3 else None) as events:
        print("up", flush=True)
        for event in events:
            if event.delivery_id.startswith("warm-"):
                continue
            if not seen:
                first = time.monotonic()
            seen.append(event.delivery_id)
            if len(seen) == count:
                break
    print(first, time.monotonic(), flush=True)
    Path(sys.argv[2]).write_text("\n".join(seen), encoding="utf-8")


main()
