"""`waitbus tail`: events as they come. It ends at once when nobody reads its output any more."""

from __future__ import annotations

import argparse
import os
import select
import stat
import time

from waitbus.cli.exitcodes import OK, TIMED_OUT
from waitbus.cli.flags import add_filters, add_since, count, duration, filters_of
from waitbus.client.bookmark import prepare
from waitbus.client.subscribe import Subscription
from waitbus.settings import load
from waitbus.ui.event_format import add_format, printer
from waitbus.ui.output import flush, note
from waitbus.ui.patience import OutputLate, Until, outlet
from waitbus.ui.streams import OutputLost

ONLY_PRINTS = True  # what is printed is all it is for
_POLL_MAX_SEC = 86_400.0

_DESCRIPTION = """\
Print every event that matches, as it arrives, until Ctrl-C. If no hub is
running, one is started. If the hub restarts, tail reconnects and misses no
event."""

_EPILOG = """\
exit codes: 0, or 124 if --timeout passed before --count events arrived

examples:
  waitbus tail
  waitbus tail --source pytest --match conclusion=failure
  waitbus tail --since 1h --json | jq -r .summary
  waitbus tail --count 1 --match name=build --timeout 10m
  waitbus tail --format json | ssh other waitbus emit -
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add_filters(parser)
    add_since(parser)
    parser.add_argument("--count", metavar="N", type=count, help="end after this many events")
    parser.add_argument("--timeout", metavar="DURATION", type=duration, help="end after this time")
    add_format(parser)
    parser.add_argument("--no-autostart", action="store_true", help="do not start a hub; end with 2 if none is running")


def run(args: argparse.Namespace) -> int:
    """Print until it is enough."""
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    stdout = None if deadline is None else outlet()
    if deadline is None or stdout is None:
        return _print(args, deadline)
    try:
        with Until(stdout, deadline):
            return _print(args, deadline)
    except OutputLate:
        return TIMED_OUT if args.count else OK


def _print(args: argparse.Namespace, deadline: float | None) -> int:
    show = printer(args.format)
    autostart = False if args.no_autostart else None
    seen = 0
    settings = load()
    begun_ns = time.time_ns()
    stream, inbox = prepare((*args.match, *filters_of(args)), None, args.since, None, settings)
    with Subscription(stream, settings, inbox=inbox, autostart=autostart) as events:
        events.open(deadline)
        pipe = _reader_of_ours()
        while deadline is None or time.monotonic() < deadline:
            items = events.receive(time.monotonic())
            for item in items:
                event = events.resolve(item)
                if event is not None:
                    show(event.as_frame())
                    seen += 1
                    if seen == args.count:
                        return OK
            if items:
                flush()
            else:
                _sleep(events, pipe, deadline)
    if not seen:
        from waitbus.client.hindsight import reason_of_nothing

        why = reason_of_nothing(settings, stream, begun_ns=begun_ns, deadline=deadline, since=args.since)
        note(f"nothing matched in {args.timeout:g} s{why and f': {why}'}")
    return TIMED_OUT if args.count else OK


def _reader_of_ours() -> int | None:
    """Standard output, if it is a pipe whose reader may go away; terminals and files are not to be polled."""
    try:
        mode = os.fstat(1).st_mode
    except OSError:
        return None
    return 1 if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def _sleep(events: Subscription, pipe: int | None, deadline: float | None) -> None:
    """Until the hub has something, the reader left, or `deadline`."""
    fd = events.fileno()
    now = time.monotonic()
    until = min(events.state.due, now + _POLL_MAX_SEC if deadline is None else deadline)
    poll = select.poll()
    if fd >= 0:
        poll.register(fd, select.POLLIN)
    if pipe is not None:
        poll.register(pipe, 0)  # an error is always told
    for ready, _ in poll.poll(max(0.0, until - now) * 1000):
        if ready == pipe:
            raise OutputLost
