"""Emit at a fixed rate, in an open loop; runs against 0.2.0, too.

The times of dispatch are laid down beforehand: an emit that is late is counted as late, and so are those behind it.

usage: emit_paced.py RATE_HZ N [WORKFLOW_NAME]
Emits warm-up events until a line comes on stdin, then N numbered ones. Prints the first time of dispatch in
nanoseconds of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import select
import sys
import time

from waitbus import emit
from waitbus._types import EventInsert

LEAD_NS = 200_000_000


def event(delivery_id: str, name: str | None) -> EventInsert:
    """What both versions take; 0.2.0 asks for all of these."""
    return EventInsert(
        delivery_id=delivery_id,
        source="agent",
        event_type="agent_message",
        owner="local",
        repo="bench",
        received_at=time.time_ns(),
        payload_json="{}",
        ingest_method="manual",
        workflow_name=name,
    )


def main() -> None:
    rate, count = float(sys.argv[1]), int(sys.argv[2])
    name = sys.argv[3] if len(sys.argv) > 3 else None
    warm = 0
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        emit(event(f"warm-{time.monotonic_ns()}-{warm}", name))
        warm += 1
    prefix = sys.stdin.readline().strip()
    start = time.monotonic_ns() + LEAD_NS
    for number in range(count):
        due = start + int(number * 1e9 / rate)
        while (left := due - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)
        emit(event(f"{prefix}-{number}", name))
    print(start, flush=True)


main()
