"""The open loop of `emit_paced.py` over Redis Streams: XADD through redis-py.

usage: redis_paced.py URL RATE_HZ N
"""

from __future__ import annotations

import importlib
import select
import sys
import time

LEAD_NS = 200_000_000


def main() -> None:
    server = importlib.import_module("redis").Redis.from_url(sys.argv[1])
    rate, count = float(sys.argv[2]), int(sys.argv[3])
    fields = {"source": "agent", "event_type": "agent_message", "owner": "local", "repo": "bench", "payload": "{}"}
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        server.xadd("events", {"delivery_id": "warm-", "received_at": time.time_ns(), **fields})
    prefix = sys.stdin.readline().strip()
    start = time.monotonic_ns() + LEAD_NS
    for number in range(count):
        due = start + int(number * 1e9 / rate)
        while (left := due - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)
        server.xadd("events", {"delivery_id": f"{prefix}-{number}", "received_at": time.time_ns(), **fields})
    print(start, flush=True)


main()
