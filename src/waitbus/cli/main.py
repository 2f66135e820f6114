"""The command line's front door: a table of verbs. Only the one verb's file is imported; start-up is a budget.

Here every error becomes one line on standard error: 2 for one that its reader can mend, 70 for a fault of ours, so that
none is taken for a verdict. Ctrl-C is 130.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from waitbus import __repository__
from waitbus.cli.exitcodes import INTERRUPTED, OK, SOFTWARE, USAGE
from waitbus.cli.parser import make_parser
from waitbus.event import WaitbusError, one_line
from waitbus.ui.streams import OutputLost, take_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from waitbus.ui.streams import Outlet

# The reader can mend these: this process, or the machine, may open no more files.
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_ISSUES = f"https://github.com/{__repository__}/issues"
_REPORT = f"please report it at {_ISSUES}, with what WAITBUS_DEBUG=1 before the command prints"

# Verb and what it does, in a line, grouped as the overview shows them. The file is named as the verb, `_` for `-`.
GROUPS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "wait",
        (
            ("wait", "block until an event matches; the exit code is the answer"),
            ("on", "run a command when an event matches"),
        ),
    ),
    (
        "tell",
        (
            ("emit", "write one event from flags, or many from JSON lines"),
            ("run", "run a command, and tell the bus how it ended"),
        ),
    ),
    (
        "look",
        (
            ("tail", "print events as they arrive"),
            ("replay", "print past events"),
            ("events", "query the store in SQL, read-only"),
            ("status", "say whether the bus works"),
            ("stats", "count the events in the store"),
            ("doctor", "find what is wrong on this machine, and say what to do"),
        ),
    ),
    (
        "keep",
        (
            ("init", "make the directories, the store and a config file"),
            ("serve", "run the hub in the foreground"),
            ("prune", "make the store smaller, by age, size or count"),
            ("completion", "print the completion script of a shell"),
            ("demo", "see it work, on a bus of its own"),
            ("help", "explain predicates, fields, exit-codes, time, agents or ci"),
        ),
    ),
    (
        "trust",
        (
            ("verify-release", "check a wheel or sdist before it is installed"),
            ("source", "verify an installed third-party source"),
        ),
    ),
)
VERBS: dict[str, str] = {verb: summary for _, verbs in GROUPS for verb, summary in verbs}

EXAMPLES = """\
examples:
  waitbus wait --source pytest --match 'conclusion="failure"' --timeout 10m
  waitbus run --name build -- make -j8
  waitbus emit --source agent --event-type agent_message --summary 'schema is done'
"""
# What 0.2.0 called by other names.
_OLD_NAMES = ("broadcast", "listener", "read-events", "db-prune", "migrate")
# Verbs of 0.2.0 that this release does not have, and what to use: docs/from-0.2.md says more.
_NOT_HERE = {
    "allowlist": "waitbus source verify",
    "config": "waitbus doctor",
    "etag-poll": "waitbus emit",
    "install-credentials": "",
    "install-launchd": "waitbus serve hub in a unit of your own",
    "install-systemd": "waitbus serve hub in a unit of your own",
    "mcp": "waitbus wait",
    "pr-monitor": "waitbus wait --sha",
    "stress": "",
    "swarm-demo": "waitbus demo",
    "top": "waitbus tail or waitbus status",
    "verify-plugin": "waitbus source verify",
    "watchdog-check": "waitbus wait --quiet",
}


class UsageError(WaitbusError):
    """Words that no verb understands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb on `argv` and give its exit code.

    Without `argv` it is the process's own, and what happens to the process's streams changes no exit code.
    """
    outlet = None
    try:
        if argv is None:
            outlet = take_over()
        code = _guarded(list(sys.argv[1:] if argv is None else argv), outlet)
        if outlet is None:
            sys.stdout.flush()
            return code
        code, complaint = outlet.settle(code)
        if complaint:
            _say(complaint)
    except KeyboardInterrupt:
        code = INTERRUPTED
        if outlet is not None:
            outlet.give_up()
    gc.freeze()  # the process ends: a tenth of `emit` would go into looking for garbage once more
    return code


def _guarded(words: list[str], outlet: Outlet | None) -> int:
    try:
        try:
            return _dispatch(words, outlet)
        except WaitbusError as error:
            from waitbus.ui.output import note

            note(str(error))
            return USAGE
    except SystemExit as end:  # argparse has said what there is to say
        return end.code if isinstance(end.code, int) else USAGE if end.code else OK
    except OutputLost:
        return OK
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if outlet is None and not isinstance(error, Exception):
            raise
        if isinstance(error, OSError) and error.errno in _TOO_MANY:
            _say("too many files are open: raise the limit, such as with ulimit -n 256")
            return USAGE
        return _unexpected(error)


def _unexpected(error: BaseException) -> int:
    """A fault of ours, or of the machine: one line, and never an exit code that is a verdict."""
    if os.environ.get("WAITBUS_DEBUG"):
        import traceback

        traceback.print_exception(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" ({os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno})" if place else ""
    _say(f"unexpected error: {one_line(f'{type(error).__name__}: {error}')}{where}; {_REPORT}")
    return SOFTWARE


def _say(text: str) -> None:
    """One line on standard error, without importing anything: there may be no descriptor left to do it with."""
    if sys.stderr is not None:
        sys.stderr.write(f"waitbus: {text}\n")
        sys.stderr.flush()


def _dispatch(words: list[str], outlet: Outlet | None) -> int:
    if not words or words[0] in ("-h", "--help") or words == ["help"]:
        sys.stdout.write(overview())
        return 0
    if words[0] in ("-V", "--version"):
        from waitbus import __version__

        sys.stdout.write(f"waitbus {__version__}\n")
        return 0
    verb, *rest = _renamed(words)
    if verb not in VERBS:
        raise UsageError(_unknown(verb))
    module = module_of(verb)
    args = make_parser(verb, VERBS[verb], module).parse_args(rest)
    if outlet is not None:
        outlet.is_all = getattr(module, "ONLY_PRINTS", False)
    code: int = module.run(args)
    return code


def module_of(verb: str) -> ModuleType:
    """The file of a verb of `VERBS`, imported."""
    module: ModuleType = __import__(f"waitbus.cli.verbs.{verb.replace('-', '_')}", fromlist=["run"])
    return module


def _renamed(words: list[str]) -> list[str]:
    """`words` with what 0.2.0 called by another name put as we call it."""
    verb, rest = words[0], words[1:]
    if verb == "help" and (rest[0] in VERBS or rest[0] in ("-h", "--help")):
        return [rest[0] if rest[0] in VERBS else verb, "--help"]
    if verb not in _OLD_NAMES:
        return words
    if verb == "db-prune":
        return ["prune", "--dry-run", *rest]
    if verb == "migrate":
        return ["init", "--store-only", *["--dry-run" if word == "--status" else word for word in rest]]
    match (verb, *rest[:1]):
        case ("broadcast", "serve"):
            return ["serve", "hub", *rest[1:]]
        case ("read-events", "list"):
            return ["replay", *rest[1:]]
        case ("read-events", "watch"):
            return ["tail", *rest[1:]]
        case ("listener", "serve"):
            raise UsageError("the webhook listener is not part of this release: run the hub alone, waitbus serve hub")
    words_of = {"read-events": "list or watch"}
    raise UsageError(f"waitbus {verb} takes {words_of.get(verb, 'serve')}; see waitbus --help")


def _unknown(verb: str) -> str:
    if verb in _NOT_HERE:
        use = f"use {_NOT_HERE[verb]}; " if _NOT_HERE[verb] else ""
        return f"{verb} of 0.2.0 is not part of this release; {use}see waitbus --help"
    from difflib import get_close_matches

    near = get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no verb {one_line(verb, 40)!r}; {hint}see waitbus --help"


def overview() -> str:
    """What stands behind `waitbus --help`."""
    lines = [
        "waitbus: a workstation-local event bus. A blocked shell wakes when something happens.",
        "",
        "usage: waitbus VERB [OPTION...]    waitbus VERB --help shows flags and examples",
    ]
    for title, verbs in GROUPS:
        lines += ["", f"{title}:", *[f"  {verb:<14} {summary}" for verb, summary in verbs]]
    return "\n".join([*lines, "", EXAMPLES])
