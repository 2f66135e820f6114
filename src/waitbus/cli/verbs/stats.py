"""`waitbus stats`: what is in the store, by source and type: how many, how often; and how big it all is."""

from __future__ import annotations

import time

from waitbus.settings import load
from waitbus.store.open import open_reader
from waitbus.store.stats import counts, stats
from waitbus.ui.output import out, out_json
from waitbus.ui.table import print_table
from waitbus.ui.times import local, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

ONLY_PRINTS = True  # what is printed is all it is for
_HOUR_NS = 3600 * 1_000_000_000

_DESCRIPTION = """\
Count the events in the store by source and type, in total, in the last hour and
in the last day, and print how large the store is."""
_EPILOG = """\
examples:
  waitbus stats
  waitbus stats --json | jq '.types[] | select(.source == "github")'
"""
_COUNTED = ("events", "last_hour", "last_day")


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--json", action="store_true", help="one line of JSON; times in ns since the epoch")


def run(args: argparse.Namespace) -> int:
    """Count and print."""
    settings = load()
    now = time.time_ns()
    conn = open_reader(settings)
    try:
        store = stats(conn, settings.db_path)
        types = counts(conn)
        recent = {
            name: {(one["source"], one["event_type"]): one["events"] for one in counts(conn, since_ns=now - span)}
            for name, span in (("last_hour", _HOUR_NS), ("last_day", 24 * _HOUR_NS))
        }
    finally:
        conn.close()
    for one in types:
        for name, found in recent.items():
            one[name] = found.get((one["source"], one["event_type"]), 0)
    total = {name: sum(one[name] for one in types) for name in _COUNTED}
    if args.json:
        out_json({"store": store, **total, "types": types})
        return 0
    everything = {**total, "source": "all", "event_type": "", "newest_received_at": store["newest_received_at"]}
    rows = [_row(one) for one in [*types, everything]]
    print_table(["source", "type", "events", "last hour", "last day", "newest"], rows, numeric=(2, 3, 4))
    log = f", and {size(store['wal_bytes'])} of log" if store["wal_bytes"] else ""
    out(f"\n{store['path']}: {size(store['bytes'])}, of which {size(store['free_bytes'])} free{log}")
    return 0


def _row(one: dict[str, Any]) -> list[str]:
    newest = one["newest_received_at"]
    figures = [f"{one[name]:,}" for name in _COUNTED]
    return [one["source"], one["event_type"], *figures, "" if newest is None else local(newest)]
