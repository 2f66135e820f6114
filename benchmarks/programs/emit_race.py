"""One of several processes that write singly, as fast as they can.

usage: emit_race.py PRODUCER N
Says ``up``, begins at a line on stdin, prints when it began and ended (monotonic seconds) and its slowest `emit`.
"""

from __future__ import annotations

import sys
import time

from waitbus import EventInsert, emit


def main() -> None:
    producer, count = sys.argv[1], int(sys.argv[2])
    emit(EventInsert(source="agent", event_type="agent_message", delivery_id=f"warm-{producer}"))
    print("up", flush=True)
    sys.stdin.readline()
    worst = 0.0
    begin = before = time.monotonic()
    for number in range(count):
        emit(
            EventInsert(
                source="agent",
                event_type="agent_message",
                delivery_id=f"{producer}-{number}",
                status="done",
                fields={"n": number},
            )
        )
        now = time.monotonic()
        worst = max(worst, now - before)
        before = now
    print(begin, before, worst, flush=True)


main()
