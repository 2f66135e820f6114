"""`waitbus replay`: events of the past, read straight from the store; no hub is needed, and none is started."""

from __future__ import annotations

import argparse
import time
from collections import deque

from waitbus.cli.flags import SINCE, add_filters, count, filters_of
from waitbus.client.since import history_since, since_ulid
from waitbus.event import WaitbusError, happened_ms, is_history
from waitbus.predicate import all_of
from waitbus.settings import load
from waitbus.store.open import open_reader
from waitbus.store.prefilter import condition_of
from waitbus.store.read import cursor_of, last_seq, read_page
from waitbus.ui.event_format import add_format, printer
from waitbus.ui.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from waitbus.predicate import Predicate

    Row = tuple[int, dict[str, Any]]

ONLY_PRINTS = True  # what is printed is all it is for
_PAGE = 500

_DESCRIPTION = """\
Print past events in the order in which they were written. SINCE is a duration
back from now (1h), a time (today, yesterday, 14:30, 2026-05-17, RFC 3339), an
event_id (replay begins strictly after it), or start, which is the default. A
duration or time is compared with the time an event was written, or with
received_at if the event was imported or back-filled."""

_EPILOG = """\
--coalesce prints only the last event of each run, job, alert, container and process.

examples:
  waitbus replay 1h
  waitbus replay yesterday --match conclusion=failure
  waitbus replay --last 20
  waitbus replay 1d --source github --coalesce
  waitbus replay start --match conclusion=failure --json > failures.jsonl
  waitbus replay 01M87EV5HJ539KK8DAB8WXDA8N --limit 100     # the next hundred after that event
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("since", nargs="?", metavar="SINCE", help=f"where to start: {SINCE} (default: start)")
    parser.add_argument("--since", metavar="WHEN", dest="since_flag", help="the same as SINCE")
    add_filters(parser)
    parser.add_argument("--coalesce", action="store_true", help="print only the last event of each run")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--limit", metavar="N", type=count, help="print at most N events, the oldest")
    ends.add_argument("--last", metavar="N", type=count, help="print at most N events, the newest")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Print what the store holds."""
    if args.since is not None and args.since_flag is not None:
        raise WaitbusError("SINCE is given twice: leave --since out")
    settings, now_ns = load(), time.time_ns()
    given = args.since if args.since_flag is None else args.since_flag
    asked = "start" if given is None else given
    since = since_ulid(asked, now_ns) or ""
    wanted = all_of([*args.match, *filters_of(args)])
    printed = False
    conn = open_reader(settings)
    try:
        start, upto = cursor_of(conn, since), last_seq(conn)

        def rows() -> Iterator[Row]:
            return matching(conn, start, upto, wanted, history_since(since))

        found = last_words(rows) if args.coalesce else rows()
        show = printer(args.format)
        for _, frame in _cut(found, args.limit, args.last):
            show(frame)
            printed = True
    finally:
        conn.close()
    if not printed:
        from waitbus.client.hindsight import reason_in_store

        why = reason_in_store(settings, wanted, since, begun_ns=now_ns, since=asked)
        note(f"nothing matched{why and f': {why}'}")
    return 0


def matching(
    conn: sqlite3.Connection, start: int, upto: int, wanted: Predicate | None, history_from: float = 0.0
) -> Iterator[Row]:
    """Rows after `start` up to `upto` that `wanted` matches (None: all), a page at a time, in commit order.

    Of history only what happened from `history_from` on, in ms since the epoch.
    """
    where = condition_of(wanted.as_object) if wanted else None
    while start < upto:
        page = read_page(conn, start, _PAGE, upto=upto, where=where)
        for seq, frame in page.rows:
            if is_history(frame) and happened_ms(frame) < history_from:
                continue
            if wanted is None or wanted(frame):
                yield seq, frame
        start = page.end


def _cut(rows: Iterable[Row], limit: int | None, last: int | None) -> Iterable[Row]:
    if last is not None:
        return deque(rows, maxlen=last)
    if limit is not None:
        from itertools import islice

        return islice(rows, limit)
    return rows


def last_words(rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Rows without those that a later one about the same thing replaces. Reads twice, and holds a number a thing."""
    subject_of = _Subjects()
    last: dict[tuple[object, ...], int] = {}
    for seq, frame in rows():
        subject = subject_of(frame)
        if subject is not None:
            last[subject] = seq
    subject_of = _Subjects()
    for seq, frame in rows():
        subject = subject_of(frame)
        if subject is None or last.get(subject) == seq:
            yield seq, frame


class _Subjects:
    """What an event is about: the run, job, alert, container or process; None for an event that stands by itself."""

    _NAMES = ("job_id", "run_id", "alert_fingerprint", "container_id", "pid")
    # Other sources may use this name for something that has many events of its own.
    _OF_PYTEST = ("session_id",)

    def __init__(self) -> None:
        self._processes: dict[object, int] = {}

    def __call__(self, frame: dict[str, Any]) -> tuple[object, ...] | None:
        fields = frame["fields"]
        for name in self._OF_PYTEST if frame["event_type"] == "pytest_session" else self._NAMES:
            value = fields.get(name)
            if isinstance(value, int | str):
                where = (fields.get("source"), frame["owner"], frame["repo"], name, value)
                if name != "pid":
                    return where
                # The system gives a pid again: a process that starts is another one.
                if frame["event_type"] == "process_started":
                    self._processes[where] = self._processes.get(where, 0) + 1
                return (*where, self._processes.get(where, 0))
        return None
