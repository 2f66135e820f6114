"""One process that writes events in batches: `emit_many` of a generator that makes them as it goes.

usage: emit_batch.py N
Says ``up``, begins at a line on stdin, prints the seconds it took, the making of the events included.
"""

from __future__ import annotations

import sys
import time

from waitbus import EventInsert, emit, emit_many


def main() -> None:
    count = int(sys.argv[1])
    emit(EventInsert(source="agent", event_type="agent_message", delivery_id="warm-batch"))
    print("up", flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    emit_many(
        EventInsert(
            source="agent", event_type="agent_message", delivery_id=f"0-{number}", status="done", fields={"n": number}
        )
        for number in range(count)
    )
    print(time.monotonic() - begin, flush=True)


main()
