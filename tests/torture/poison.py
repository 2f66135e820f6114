"""Rows as a foreign program may insert them, past every bound that `emit` keeps: none may stop anybody.

Each is given to those who take everything, as an event or as `truncated`, in its place in commit order.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from typing import Any

from tests.torture.bus import Bus
from waitbus.ulid import encode_ulid

PREFIX = "poison-"
MEGABYTE = 1 << 20
# Text that SQLite keeps as text although it is none: bound as bytes, and cast.
NO_UTF8 = b"\xff\xfe\xed\xa0\x80"
_GOOD: dict[str, Any] = {
    "source": "poison",
    "event_type": "tick",
    "owner": "local",
    "repo": "local",
    "payload_json": "{}",
    "ingest_method": "manual",
}


def _deep(chance: random.Random) -> dict[str, Any]:
    depth = chance.choice([64, 65, 150, 800, 5000])
    opened, closed = chance.choice([("[", "]"), ('{"a":', "}")])
    return {"fields_json": f'{{"deep":{opened * depth}1{closed * depth}}}'}


def _fat(chance: random.Random) -> dict[str, Any]:
    if chance.random() < 0.2:
        return {"fields_json": f'{{"fat":"{"x" * 5 * MEGABYTE}"}}'}
    return {"fields_json": "{" + ",".join(f'"{n}":"{"y" * 700}"' for n in range(chance.choice([90, 400]))) + "}"}


def _correlated(chance: random.Random) -> dict[str, Any]:
    size = chance.choice([65_000, 66_000, 200_000])
    return {"msg_correlation_id": chance.choice(["x", "é", "\x01"]) * size}


def _long(chance: random.Random) -> dict[str, Any]:
    return {chance.choice(["owner", "event_type", "summary", "msg_body", "delivery_id"]): "z" * 90_000}


def _blobs(chance: random.Random) -> dict[str, Any]:
    names = (
        "source",
        "event_type",
        "owner",
        "repo",
        "summary",
        "fields_json",
        "status",
        "msg_to",
        "run_id",
        "payload_json",
    )
    return {name: chance.randbytes(chance.randrange(60)) for name in chance.sample(names, 4)}


def _no_text(chance: random.Random) -> dict[str, Any]:
    return {
        name: (NO_UTF8 * chance.randint(1, 5),) for name in chance.sample(("source", "owner", "summary", "msg_to"), 2)
    }


def _numbers(chance: random.Random) -> dict[str, Any]:
    return {
        "run_id": chance.choice([5.5, float("inf"), "seven", 2**63 - 1]),
        "job_id": chance.choice([-1.5, "", b"\0"]),
        "received_at": chance.choice([0, -5, 2**63 - 1]),
    }


def _no_json(chance: random.Random) -> dict[str, Any]:
    return {"fields_json": chance.choice(["", "{", "NaN", '{"a":1e999}', '{"a":"\\ud800"}', "[1,2]", '"text"', "\0"])}


def _without_id(chance: random.Random) -> dict[str, Any]:
    return {"event_id": None}


KINDS = (_deep, _fat, _correlated, _long, _blobs, _no_text, _numbers, _no_json, _without_id)


def insert(bus: Bus, chance: random.Random, number: int) -> bool:
    """One row, as another program would, without a ring. False where there is no store to write to just now."""
    ulid = encode_ulid(time.time_ns() // 1_000_000 << 80 | chance.getrandbits(80))
    row = {**_GOOD, "event_id": ulid, "received_at": time.time_ns(), **chance.choice(KINDS)(chance)}
    row["delivery_id"] = f"{PREFIX}{number}{row.get('delivery_id', '')}"
    marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, tuple) else "?" for value in row.values())
    values = [value[0] if isinstance(value, tuple) else value for value in row.values()]
    uri = f"file:{bus.settings.db_path}?mode=rw"  # to make a store is not a foreign program's
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)) as store,
    ):
        store.execute(f"INSERT INTO events ({', '.join(row)}) VALUES ({marks})", values)
        return True
    return False
