"""`waitbus on`: run a command on each event that matches. What is run, how, and how it ends is `handler`'s."""

from __future__ import annotations

import argparse
import os
import time

from waitbus.cli.exitcodes import TIMED_OUT
from waitbus.cli.flags import PREDICATES, add_filters, add_since, duration, filters_of, predicate
from waitbus.client.bookmark import prepare
from waitbus.client.connect import OPEN_SEC
from waitbus.client.handler import Handler
from waitbus.client.subscribe import Subscription
from waitbus.event import WaitbusError, one_line
from waitbus.host.job import Ended
from waitbus.host.process import SIGNALLED, CannotRun
from waitbus.settings import load
from waitbus.ui.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from waitbus.client.bookmark import Inbox
    from waitbus.event import Event

# How often --restart reads on for a still newer event before it acts on what it has.
_AT_ONCE = 100

DESCRIPTION = """\
Block until an event matches, run a command, and exit with its code. With --loop,
run the command for every match, one after another; matches that arrive while it
runs are not lost. With --restart, run it for the newest match only; a command
that is still running is ended first.

The command runs as given, without a shell. The event is in its environment
(WAITBUS_SOURCE, WAITBUS_CONCLUSION, WAITBUS_SUMMARY, ...; a source's own fields
as WAITBUS_FIELD_NAME; null is left unset) and, as JSON, in the file named by
WAITBUS_EVENT_FILE. A field that is too large for the environment is only in the
file, and on says so. Text of an event never becomes an argument of the command.
If you run a shell yourself, quote what it expands: "$WAITBUS_SUMMARY".

With --bookmark NAME, the place is kept in a file and survives a restart of
everything: of the command, of on, of the hub and of the machine. It moves on
when the command has ended, whatever its exit code. A match that was being
handled when on was ended is therefore handled again: at least once, not exactly
once. Let one on at a time use a name.

In the foreground of a terminal, the command shares the terminal and its keys.
With --restart, or in the background, it has a process group of its own: Ctrl-C,
Ctrl-\\ and Ctrl-Z end and stop it together with waitbus, and it reads /dev/null
if standard input is a terminal. Any other signal that would end waitbus is
passed on to the command."""

EPILOG = """\
exit codes:
  without --loop and --restart: the command's own; 128+n if signal n killed it;
  126 or 127 if it cannot be run; 124 if no event came in time; 2 wrong usage,
  or no hub; 130 interrupted. --loop and --restart end only when --timeout
  passes, when a signal comes, or when the command cannot be run.

examples:
  waitbus on conclusion=failure --source pytest -- notify-send 'tests failed'
  waitbus on event_type=workflow_run head_branch=main conclusion=success -- ./deploy
  waitbus on --source fs 'path~*.py' --restart -- python -m http.server
  waitbus on --loop --bookmark alarm conclusion=failure -- ./alarm.sh
  waitbus on event_type=agent_message --loop -- sh -c 'jq -r .summary "$WAITBUS_EVENT_FILE"'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags of section 6 of docs/contract.md."""
    parser.usage = "waitbus on [OPTION...] [PREDICATE...] -- COMMAND [ARGUMENT...]"
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "predicates",
        metavar="PREDICATE",
        nargs="*",
        type=predicate,
        help=f"{PREDICATES}. Without one, any event matches",
    )
    add_filters(parser, match="another predicate")
    parser.add_argument("--loop", action="store_true", help="run the command for every match")
    parser.add_argument("--restart", action="store_true", help="end a running command when a newer event matches")
    parser.add_argument("--timeout", metavar="DURATION", type=duration, help="end with 124 after this long without one")
    add_since(parser)
    parser.add_argument(
        "--bookmark",
        metavar="NAME",
        help="go on where the last `on` of this NAME was, which wins over --since; each match is handled at least once",
    )
    parser.add_argument("--no-autostart", action="store_true", help="do not start a hub; end with 2 if none is running")
    parser.set_defaults(command=[])
    # argparse cannot tell where predicates end and the command begins once it has dropped the `--` between them.
    parse = parser.parse_known_args

    def split(words: Sequence[str], namespace: argparse.Namespace | None = None) -> object:
        at = words.index("--") if "--" in words else len(words)
        found, extra = parse(list(words[:at]), namespace)
        found.command = list(words[at + 1 :])
        return found, extra

    setattr(parser, "parse_known_args", split)  # noqa: B010 - a method, as far as mypy is concerned


def run(args: argparse.Namespace) -> int:
    """React; the exit code is the command's."""
    if not args.command:
        raise WaitbusError("name the command after --, such as: waitbus on conclusion=failure -- make alarm")
    settings = load()
    begun_ns = time.time_ns()
    wanted = (*args.predicates, *args.match, *filters_of(args))
    stream, inbox = prepare(wanted, None, args.since, args.bookmark, settings)
    timeout = args.timeout
    # With a terminal the command shares it, and Ctrl-C; one that is to be ended in our stead has a group of its own.
    own_group = args.restart or not _in_foreground()
    try:
        with (
            Handler(args.command, settings.runtime_dir, own_group=own_group, note=note) as handler,
            Subscription(
                stream, settings, inbox=inbox, timeout=timeout, autostart=False if args.no_autostart else None
            ) as events,
        ):
            if args.bookmark is not None:  # where it begins is kept before anything is handled
                events.open(None if timeout is None else time.monotonic() + max(timeout, OPEN_SEC))
            if args.restart:
                code = _restarting(events, handler, timeout, inbox)
            else:
                code = _looping(events, handler) if args.loop else _once(events, handler, inbox)
            fired = handler.started > 0
    except CannotRun as error:
        note(str(error))
        return error.code
    except Ended as ended:
        return SIGNALLED + ended.number
    if code == TIMED_OUT and not fired:
        from waitbus.client.hindsight import reason_of_nothing

        why = reason_of_nothing(settings, stream, begun_ns=begun_ns, since=args.since)
        note(f"nothing matched in {timeout:g} s{why and f': {why}'}")
    return code


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # standard input is no terminal, or not ours
        return False


def _once(events: Subscription, handler: Handler, inbox: Inbox) -> int:
    event = next(events, None)
    if event is None:
        return TIMED_OUT
    events.close()
    handler.start(event)
    code = handler.wait()
    inbox.done()
    return code


def _looping(events: Subscription, handler: Handler) -> int:
    for event in events:
        if _started(handler, event):
            _tell(handler.wait())
    return TIMED_OUT


def _started(handler: Handler, event: Event) -> bool:
    """Start the command; no event ends what goes on reacting. Raises `CannotRun` for a command that cannot be run."""
    try:
        handler.start(event)
    except Exception as error:
        if isinstance(error, CannotRun) and not error.may_pass:
            raise
        note(f"nothing was run for {event.event_id}: {one_line(str(error))}")
        return False
    return True


def _restarting(events: Subscription, handler: Handler, timeout: float | None, inbox: Inbox) -> int:
    idle_from = time.monotonic()
    while True:
        newest = _newest(events, inbox)
        if newest is not None:
            handler.end()
            newest = _newest(events, inbox) or newest
            if not _started(handler, newest):
                inbox.done()
                idle_from = time.monotonic()
        elif handler.running:
            code = handler.poll()
            if code is not None:
                _tell(code)
                inbox.done()
                idle_from = time.monotonic()
        elif timeout is not None and time.monotonic() >= idle_from + timeout:
            return TIMED_OUT
        until = events.state.due
        if not handler.running and timeout is not None:
            until = min(until, idle_from + timeout)
        handler.sleep([events.fileno()], until)


def _newest(events: Subscription, inbox: Inbox) -> Event | None:
    """The last event that came by now."""
    newest = None
    for _ in range(_AT_ONCE):
        items = events.receive(time.monotonic())
        if not items:
            break
        for item in items:
            newest = events.resolve(item) or newest
            inbox.pass_by(item)
    return newest


def _tell(code: int) -> None:
    if code:
        note(f"the command ended with {code}; waiting for the next event")
