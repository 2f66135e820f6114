"""`waitbus wait`: block until an event matches; the exit code is the answer.

Flags in, one `client.wait.Wait` out, and what to say when it is over. A waiting process is a memory budget: what is not
needed for waiting is not imported here.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from waitbus.cli.exitcodes import OF_WAIT
from waitbus.cli.flags import (
    add_filters,
    add_since,
    condition,
    duration,
    filters_of,
    named,
    one_of,
    predicate,
    repo,
    sha,
)
from waitbus.client.core import CLOSE_HEARTBEAT_SEC, SubscriptionState
from waitbus.client.rules import MATCHED, SETTLE_SEC, TIMED_OUT, Commit, Conditions, Quiet, any_of
from waitbus.client.since import since_ulid
from waitbus.client.subscribe import Subscription
from waitbus.client.wait import Wait
from waitbus.client.wait import run as run_wait
from waitbus.event import WaitbusError
from waitbus.predicate import Predicate, all_of
from waitbus.settings import load
from waitbus.ui.output import is_terminal, note, out_json
from waitbus.ulid import ulid_ms
from waitbus.verdict import CommitRuns, file_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waitbus.client.rules import Outcome, Rule
    from waitbus.settings import Settings

DESCRIPTION = """\
Block until an event matches, using no CPU meanwhile. Without a condition, any
event ends the wait.

Without --since, only events committed from now on count. --sha looks back at
everything the store still holds. If no hub is running, one is started. If the
hub restarts, the wait reconnects and misses no event.

Standard output stays empty unless --print is given. Standard error gets one
line that says how the wait ended, if the exit code is not 0 or if standard
error is a terminal. A time-out says why nothing matched."""

EPILOG = """\
exit codes:
  0    matched; with --sha or --verdict, the conclusion is also success; with
       --quiet, nothing matched for that long
  1    a conclusion of failure, cancelled, timed_out or startup_failure; or
       --fail-if matched
  2    wrong usage, or no hub
  70   an unexpected error: a fault of waitbus or of the machine
  124  timed out
  130  interrupted

To start something and then wait for it without a gap, take the time first:
  begin=$(date -u +%Y-%m-%dT%H:%M:%SZ); ./start-it
  waitbus wait --since "$begin" --match name=it --verdict

With --sha (waitbus help ci has more):
  - a failure is final at once; --settle holds back only cancelled and success
  - name every workflow that must be seen: --workflow ci.yml --workflow docs.yml
  - after a re-run of a failure, wait again: the newest attempt of the newest
    run of each workflow and trigger counts, whatever it said before
  - a run is an event, from any source, that anyone can emit to try this out:
    --event-type workflow_run --head-sha SHA --run-id N --workflow-name NAME
    --status completed --conclusion success --field run_attempt=1
    --field event=push --field path=.github/workflows/ci.yml

More: waitbus help predicates, fields, time, exit-codes

examples:
  waitbus wait --source pytest --verdict --timeout 10m
  waitbus wait --source pytest --match conclusion=failure --print | jq .summary
  waitbus wait --sha "$(git rev-parse HEAD)" --all-runs --timeout 30m
  waitbus wait --all-of 'process:name=build && event_type=process_exited' agent:msg_from=reviewer
  waitbus wait --match msg_to=me --fail-if event_type=agent_lost
  waitbus wait --source process --match name=backup --quiet 26h
  waitbus wait --source pytest --since 1h --timeout 0
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags of section 6 of docs/contract.md."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    what = parser.add_argument_group("what to wait for")
    add_filters(what)
    what.add_argument("--repo", metavar="OWNER/NAME", type=repo, help="only this repository, or OWNER/*; default: any")
    what.add_argument(
        "--workflow",
        metavar="NAME",
        type=named,
        action="append",
        default=[],
        help="only this workflow: its display name, its file (ci.yml) or its id; can be given several times",
    )
    what.add_argument("--sha", metavar="HEX", type=sha, help="the first CI run of this commit to end (7-40 digits)")
    what.add_argument(
        "--all-runs",
        action="store_true",
        help="with --sha: end with 1 at the first failure, and with 0 when the newest run of every workflow ended well",
    )
    for flag, meaning in (("--all-of", "each of these, in any order"), ("--first-of", "whichever comes first")):
        what.add_argument(
            flag,
            metavar="SOURCE[:PREDICATE]",
            type=condition,
            nargs="+",
            action="extend",
            default=[],
            help=f"{meaning}; * is any source",
        )
    what.add_argument(
        "--quiet", metavar="DURATION", type=duration, help="end with 0 when nothing matches for this long"
    )
    _configure_end(parser.add_argument_group("how it ends"))


def _configure_end(how: argparse._ArgumentGroup) -> None:
    how.add_argument(
        "--verdict",
        action="store_true",
        help="exit with the verdict of the event that matched (0 or 1); an event still under way does not count, and "
        "one that has neither status nor conclusion ends the wait with 0",
    )
    how.add_argument(
        "--fail-if",
        metavar="PREDICATE",
        type=predicate,
        action="append",
        default=[],
        help="end with 1 when this matches; --source, --repo, --sha and --workflow also apply to it, --match does not",
    )
    how.add_argument(
        "--timeout", metavar="DURATION", type=duration, help="end with 124 after this time; 0: look once, and end"
    )
    add_since(how)
    how.add_argument(
        "--settle",
        metavar="DURATION",
        type=duration,
        help=f"with --sha: how long a newer run may take to appear (default: {SETTLE_SEC:g}s)",
    )
    how.add_argument("--print", action="store_true", help="print the events that decided, as JSON, one per line")
    how.add_argument("--json", action="store_true", dest="print", help="the same as --print")
    how.add_argument("--no-autostart", action="store_true", help="do not start a hub; end with 2 if none is running")
    how.add_argument(
        "--ready-fd",
        metavar="N",
        type=int,
        help="for programs: write a line to this descriptor, and close it, once no event can be missed any more",
    )


def run(args: argparse.Namespace) -> int:
    """Wait; the exit code is the answer."""
    _check(args)
    now, unix_ns = time.monotonic(), time.time_ns()
    since = since_ulid("start" if args.since is None and args.sha else args.since, unix_ns)
    scope = _scope(args)
    fail_if = any_of([all_of([*scope, one]) for one in args.fail_if])
    rule = _rule(args, scope, since, now, unix_ns)
    wait = Wait(rule, started=now, timeout=args.timeout, fail_if=fail_if)
    # Silence counts only while the hub is there: one that hangs is to be noticed soon.
    heartbeat = None if args.quiet is None else CLOSE_HEARTBEAT_SEC
    stream = SubscriptionState(wait.wanted(), since, jitter=unix_ns % 1000 / 1000, heartbeat_sec=heartbeat)

    def ready() -> None:
        if args.ready_fd is not None:
            try:
                os.write(args.ready_fd, b"ready\n")
                os.close(args.ready_fd)
            except OSError:  # nobody wants to know any more
                return

    settings = load()
    with Subscription(stream, settings, autostart=False if args.no_autostart else None) as subscription:
        outcome = run_wait(wait, subscription, ready)
    if outcome.ending == TIMED_OUT:
        outcome.text += _reason(args, settings, rule, stream, now, unix_ns)
    _tell(outcome, args.print)
    return OF_WAIT[outcome.ending]


def _reason(
    args: argparse.Namespace, settings: Settings, rule: Rule, stream: SubscriptionState, now: float, unix_ns: int
) -> str:
    """Why nothing matched, after the time-out; empty where the store does not say."""
    from waitbus.client.hindsight import reason  # not before: a waiter's memory is a budget

    looks_once = args.timeout == 0
    deadline = None if looks_once else now + args.timeout
    said = reason(settings, rule, stream, begun_ns=unix_ns, deadline=deadline, since=args.since, looks_once=looks_once)
    return said and f": {said}"


def _rule(args: argparse.Namespace, scope: list[Predicate], since: str | None, now: float, unix_ns: int) -> Rule:
    if args.all_of or args.first_of:
        conditions = [all_of([*scope, *tests], source) for source, tests in args.all_of or args.first_of]
        return Conditions(conditions, every=bool(args.all_of), by_verdict=args.verdict)
    if args.sha:
        # Not narrowed by workflow: one event of a run may know the file alone, the next one the display name alone.
        wanted = all_of([*_scope(args, workflow=False), *args.match])
        settle = SETTLE_SEC if args.settle is None else args.settle
        return Commit(wanted, CommitRuns(args.workflow), all_runs=args.all_runs, settle=settle)
    wanted = all_of([*scope, *args.match])
    if args.quiet is not None:
        window = 0.0 if since is None else max(0.0, unix_ns / 1e9 - ulid_ms(since) / 1e3)
        return Quiet(wanted, args.quiet, now - window)
    return Conditions([wanted], by_verdict=args.verdict)


def _scope(args: argparse.Namespace, *, workflow: bool = True) -> list[Predicate]:
    """What narrows everything, --fail-if too. Each stands in an `all` of its own: no --match on its key widens it."""
    leaves: list[dict[str, Any]] = []
    if args.repo is not None:
        owner, repository = args.repo
        leaves.append({"key": "owner", "op": "eq", "value": owner})
        if repository != "*":
            leaves.append({"key": "repo", "op": "eq", "value": repository})
    if args.sha:
        leaves.append({"key": "fields.head_sha", "op": "glob", "value": f"{args.sha}*"})
    if args.workflow and workflow:
        leaves.append(one_of([leaf for workflow in args.workflow for leaf in _names_workflow(workflow)]))
    return [*filters_of(args), *[Predicate.from_object({"all": [one]}) for one in leaves]]


def _names_workflow(name: str) -> list[dict[str, Any]]:
    """An event's workflow is meant by `name` when one of these holds: display name, id, or file, with a ref or not."""
    leaves: list[dict[str, Any]] = [{"key": "workflow_name", "op": "eq", "value": name}]
    if name.isascii() and name.isdigit() and len(name) < 20:
        leaves += [{"key": "workflow_id", "op": "eq", "value": value} for value in (int(name), name)]
    file = file_of(name)
    if file.endswith((".yml", ".yaml")):
        plain = "".join([f"[{char}]" if char in "*?[" else char for char in file])
        patterns = [f"{plain}{ref}" for ref in ("", "@*")]
        if "/" not in file:
            patterns += [f"*/{pattern}" for pattern in patterns]
        leaves += [{"key": "fields.path", "op": "glob", "value": pattern} for pattern in patterns]
    return leaves


_CONTRADICTIONS = (
    ("all_of", ("first_of", "sha", "quiet", "source", "match")),
    ("first_of", ("sha", "quiet", "source", "match")),
    ("quiet", ("sha", "verdict")),
    ("sha", ("event_type",)),
)


def _check(args: argparse.Namespace) -> None:
    given = {name for name, value in vars(args).items() if value is not None and value is not False and value != []}
    for name, others in _CONTRADICTIONS:
        for other in others:
            if name in given and other in given:
                raise WaitbusError(f"{_flag(name)} and {_flag(other)} contradict each other: leave one of them out")
    for name in ("all_runs", "settle"):
        if name in given and "sha" not in given:
            raise WaitbusError(f"{_flag(name)} goes with --sha: name the commit, such as --sha $(git rev-parse HEAD)")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _tell(outcome: Outcome, with_events: bool) -> None:
    if with_events:
        for event in outcome.events:
            out_json(event.as_frame())
    if outcome.ending != MATCHED or is_terminal(sys.stderr):
        note(outcome.text)
