"""The subscriber of `subscribe.py` over Redis Streams: a blocking XREAD through redis-py.

usage: redis_subscribe.py URL N
"""

from __future__ import annotations

import importlib
import json
import sys
import time


def main() -> None:
    server = importlib.import_module("redis").Redis.from_url(sys.argv[1])
    count = int(sys.argv[2])
    seen: list[tuple[str, int]] = []
    cursor: bytes | str = "$"
    up = False
    while len(seen) < count:
        for _stream, entries in server.xread({"events": cursor}, block=0):
            now = time.monotonic_ns()
            for place, entry in entries:
                cursor = place
                delivery_id = entry[b"delivery_id"].decode()
                if not delivery_id.startswith("warm-"):
                    seen.append((delivery_id, now))
                elif not up:
                    up = True
                    print("up", flush=True)
    print(json.dumps(seen), flush=True)


main()
