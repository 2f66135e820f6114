"""`waitbus stats`: what is in the store, by source and type: how many, how often, how big."""

from __future__ import annotations

import sqlite3
import time

from waitbus.cli.output import out, out_json
from waitbus.cli.rows import print_table
from waitbus.cli.status import file_bytes
from waitbus.cli.times import local, size
from waitbus.settings import load
from waitbus.store.errors import explain
from waitbus.store.open import open_reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

_HOUR_NS = 3600 * 1_000_000_000

_DESCRIPTION = """\
Count the events in the store by source and type: all, of the last hour and of
the last day; the bytes of their payloads and fields; the newest one's time."""
_EPILOG = """\
examples:
  waitbus stats
  waitbus stats --json | jq '.types[] | select(.source == "github")'
"""

# What is no number sorts after all numbers: a foreign row's time is looked at only when it is one.
_QUERY = """
SELECT CAST(source AS TEXT), CAST(event_type AS TEXT), count(*),
    count(*) FILTER (WHERE typeof(received_at) = 'integer' AND received_at >= :now - :hour),
    count(*) FILTER (WHERE typeof(received_at) = 'integer' AND received_at >= :now - 24 * :hour),
    coalesce(sum(length(CAST(payload_json AS BLOB)) + coalesce(length(CAST(fields_json AS BLOB)), 0)), 0),
    min(received_at) FILTER (WHERE typeof(received_at) = 'integer'),
    max(received_at) FILTER (WHERE typeof(received_at) = 'integer')
FROM events GROUP BY 1, 2 ORDER BY count(*) DESC, 1, 2
"""
_NAMES = ("source", "event_type", "events", "last_hour", "last_day", "bytes", "oldest", "newest")
_TITLES = ["source", "type", "events", "last hour", "last day", "size", "newest"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--json", action="store_true", help="one line of JSON; times in ns since the epoch")


def run(args: argparse.Namespace) -> int:
    """Count and print."""
    settings = load()
    conn = open_reader(settings)
    try:
        conn.text_factory = _decode
        found = conn.execute(_QUERY, {"now": time.time_ns(), "hour": _HOUR_NS}).fetchall()
    except sqlite3.Error as error:
        raise explain(error, conn) from error
    finally:
        conn.close()
    types = [dict(zip(_NAMES, row, strict=True)) for row in found]
    total = {name: sum(one[name] for one in types) for name in ("events", "last_hour", "last_day", "bytes")}
    if args.json:
        out_json({"path": settings.db_path, "file_bytes": file_bytes(settings.db_path), **total, "types": types})
        return 0
    rows = [_row(one) for one in [*types, {**total, "source": "all", "event_type": "", "newest": None}]]
    print_table(_TITLES, rows, numeric=(2, 3, 4, 5))
    out(f"\n{settings.db_path}: {size(file_bytes(settings.db_path))}")
    return 0


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _row(one: dict[str, Any]) -> list[str]:
    counts = [f"{one[name]:,}" for name in ("events", "last_hour", "last_day")]
    newest = "" if one["newest"] is None else local(one["newest"])
    return [str(one["source"]), str(one["event_type"]), *counts, size(one["bytes"]), newest]
