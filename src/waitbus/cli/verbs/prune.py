"""`waitbus prune`: make the store smaller now, beside whoever writes to it. The hub does the same by itself, slowly."""

from __future__ import annotations

import argparse
import sys
import time

from waitbus.cli.flags import duration
from waitbus.settings import load
from waitbus.store.open import open_reader, open_writer
from waitbus.store.prune import Policy, policy_of, prune_all
from waitbus.ui.output import is_terminal, note, out, out_json
from waitbus.ui.times import size
from waitbus.units import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.store.prune import PruneReport

_DESCRIPTION = """\
Delete the oldest events until the limits hold. The limit on age goes by
received_at; those on size and count delete the events that were written first.
A limit that is not given is taken from the config file (by default 30 days and
1 GiB); 0 means no limit. It works in small steps, beside a running hub and busy
producers."""

_EPILOG = """\
examples:
  waitbus prune --dry-run
  waitbus prune --max-age 7d --vacuum
  waitbus prune --max-rows 100000 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument(
        "--max-age", metavar="DURATION", type=duration, help="delete events older than this, such as 30d"
    )
    parser.add_argument("--max-size", metavar="SIZE", type=_size, help="keep the store below this size, such as 500MB")
    parser.add_argument("--max-rows", metavar="N", type=_rows, help="keep at most this many events")
    parser.add_argument("--vacuum", action="store_true", help="return all freed space to the disk")
    parser.add_argument(
        "--dry-run",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="print what would be deleted, and delete nothing",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rows(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of events: write 0 or more")


def run(args: argparse.Namespace) -> int:
    """Prune, or say what would go."""
    settings = load()
    usual = policy_of(settings)
    policy = Policy(
        usual.max_age_s if args.max_age is None else args.max_age,
        usual.max_bytes if args.max_size is None else args.max_size,
        usual.max_rows if args.max_rows is None else args.max_rows or None,
    )
    reader = open_reader(settings)  # which says what is wrong without making a store that is not there
    try:
        if args.dry_run:
            return _tell(prune_all(reader, policy, now_ns=time.time_ns(), dry_run=True), args.json)
    finally:
        reader.close()
    conn = open_writer(settings)
    shown = is_terminal(sys.stderr)
    try:
        report = prune_all(
            conn, policy, now_ns=time.time_ns(), vacuum=args.vacuum, progress=_progress if shown else None
        )
    finally:
        conn.close()
        if shown:
            sys.stderr.write("\r\x1b[K")
    return _tell(report, args.json)


def _progress(deleted: int) -> None:
    sys.stderr.write(f"\rdeleted {deleted:,}")
    sys.stderr.flush()


def _tell(report: PruneReport, as_json: bool) -> int:
    if as_json:
        out_json({name: getattr(report, name) for name in report.__slots__})
        return 0
    if report.dry_run:
        out(f"{report.deleted:,} of {report.rows_before:,} events would go, from {size(report.bytes_before)}")
        note("nothing was deleted: leave out --dry-run (or give --no-dry-run) to do it")
    else:
        change = f"{size(report.bytes_before)} before, {size(report.bytes_after)} now"
        out(f"{report.deleted:,} of {report.rows_before:,} events deleted; {change}")
    return 0
