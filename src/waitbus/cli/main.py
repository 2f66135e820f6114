"""The command line's front door: a table of verbs. Only the one verb's file is imported; start-up is a budget.

Here every error becomes one line on standard error, a broken pipe a quiet end, and Ctrl-C the exit code 130.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from waitbus.event import WaitbusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

INTERRUPTED = 130
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
USAGE = 2

# Verb and what it does, in a line, grouped as the overview shows them. The file is named as the verb, `_` for `-`.
GROUPS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "wait",
        (
            ("wait", "block until an event matches; the exit code is the answer"),
            ("on", "run a command on each event that matches"),
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
            ("tail", "print events as they come"),
            ("replay", "print events of the past"),
            ("events", "ask the store in SQL, read-only"),
            ("status", "say whether the bus is well"),
            ("stats", "count what is in the store"),
            ("doctor", "look for what is wrong on this machine, and say what to do"),
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
        ),
    ),
    (
        "trust",
        (
            ("verify-release", "check a wheel or sdist before it is installed"),
            ("source", "verify an installed source of a third party"),
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


class UsageError(WaitbusError):
    """Words that no verb understands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb on `argv` (default: the process's own) and give its exit code."""
    if sys.stdout is None:  # started with it closed
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for the life of the process
    # What the terminal's encoding cannot say is written as an escape instead of ending the verb.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    code = _guarded(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except OSError as error:
        return _mute(error) or code
    if argv is None:
        gc.freeze()  # the process ends: a tenth of `emit` would go into looking for garbage once more
    return code


def _guarded(words: list[str]) -> int:
    try:
        return _dispatch(words)
    except WaitbusError as error:
        from waitbus.cli.output import note

        note(str(error))
        return USAGE
    except SystemExit as end:  # argparse has said what there is to say
        return end.code if isinstance(end.code, int) else USAGE if end.code else 0
    except OSError as error:
        if not isinstance(error, BrokenPipeError) and (error.errno not in _UNWRITABLE or error.filename is not None):
            raise
        return _mute(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _mute(error: OSError) -> int:
    """Standard output takes no more: what is still buffered must not raise again when the interpreter ends.

    A reader that left has seen enough: that is a quiet end.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    if isinstance(error, BrokenPipeError):
        return 0
    sys.stderr.write(f"waitbus: cannot write to standard output: {error.strerror}\n")
    return USAGE


def _dispatch(words: list[str]) -> int:
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
    # A verb in a hurry may read its plain forms itself; the rest, help and errors are argparse's.
    quick = getattr(module, "quick", None)
    args = quick(rest) if quick else None
    if args is None:
        from waitbus.cli.parser import make_parser

        args = make_parser(verb, VERBS[verb], module).parse_args(rest)
    code: int = module.run(args)
    return code


def module_of(verb: str) -> ModuleType:
    """The file of a verb of `VERBS`, imported."""
    module: ModuleType = __import__(f"waitbus.cli.{verb.replace('-', '_')}", fromlist=["run"])
    return module


def _renamed(words: list[str]) -> list[str]:
    """`words` with what 0.2.0 called by another name put as we call it."""
    verb, rest = words[0], words[1:]
    if verb == "help":
        return [rest[0], "--help"]
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
    from difflib import get_close_matches

    from waitbus.event import one_line

    near = get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no verb {one_line(verb, 40)!r}; {hint}see waitbus --help"


def overview() -> str:
    """What stands behind `waitbus --help`."""
    lines = [
        "waitbus: a workstation-local event bus. A blocked shell wakes when something happens.",
        "",
        "usage: waitbus VERB [OPTION...]    waitbus VERB --help says more, with examples",
    ]
    for title, verbs in GROUPS:
        lines += ["", f"{title}:", *[f"  {verb:<14} {summary}" for verb, summary in verbs]]
    return "\n".join([*lines, "", EXAMPLES])
