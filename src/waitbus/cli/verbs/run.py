"""`waitbus run`: run a command, and tell the bus that it started and how it ended. A broken bus never stops it."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time

from waitbus.cli.child import SIGNALLED, CannotRun, Child
from waitbus.event import WaitbusError, one_line
from waitbus.ui.output import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

TAIL_LINES = 20
TAIL_BYTES = 4096
ARGV_BYTES = 4096

_DESCRIPTION = """\
Run a command as it would run without us, and tell the bus: process_started with
its pid, process_exited with exit code, signal, duration and last lines. Output
passes through live and unchanged, a terminal stays a terminal, signals are
forwarded, and the exit code is the command's."""

_EPILOG = """\
What is told stays in the store (a directory of yours alone) as long as other events do: the command's words, unless
--no-argv is given, and its last lines, unless --tail 0 is. With --tail 0 the command keeps our own output streams,
which full-screen programs need, and so does what it leaves running in the background.

exit codes: the command's; 126 it cannot be run, 127 there is no such command, 128+n it was killed by signal n

examples:
  waitbus run -- make -j8
  waitbus run --name build -- make -j8          elsewhere: waitbus wait --source process --match name=build --verdict
  waitbus run --name deploy --no-argv -- ./deploy --token "$TOKEN"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.usage = "waitbus run [OPTION...] -- COMMAND [ARGUMENT...]"
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--name", metavar="NAME", help="what others wait for: the field name (default: the program's)")
    parser.add_argument("--no-argv", action="store_true", help="tell the program's name alone, not its arguments")
    parser.add_argument(
        "--tail",
        metavar="LINES",
        type=int,
        default=TAIL_LINES,
        help=f"how many last lines of output to tell (default: {TAIL_LINES}; 0: none)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, without a shell")


def run(args: argparse.Namespace) -> int:
    """Run it, and exit as it does."""
    argv = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not argv or not argv[0]:
        raise WaitbusError("run needs a command: waitbus run --name build -- make")
    if args.tail < 0:
        raise WaitbusError("--tail takes a number of lines, or 0 for none")
    name = args.name or os.path.basename(argv[0])
    fields = {"name": name, "argv": argv[:1] if args.no_argv else _bounded(argv)}
    started = time.monotonic()
    try:
        child = Child(argv, TAIL_BYTES if args.tail else 0)
    except CannotRun as error:
        note(str(error))
        _tell("process_exited", f"{name} did not start: {error}", fields, {"exit_code": error.code}, "failure")
        return error.code
    fields["pid"] = child.pid
    # Beside the command: a store that is slow or stuck must not hold its output back.
    first = threading.Thread(target=_tell, args=("process_started", f"{name} started", fields))
    first.start()
    status = child.wait()
    took = time.monotonic() - started
    first.join()
    code, how = _ending(status)
    more: dict[str, Any] = {"exit_code": code, "duration_s": round(took, 3)}
    if os.WIFSIGNALED(status):
        more["signal"] = os.WTERMSIG(status)
    if args.tail:
        output, cut = child.tail()
        more["tail"] = last_lines(output, args.tail, cut=cut)
    from waitbus.ui.times import span

    summary = f"{name} {how} after {span(took)}"
    _tell("process_exited", summary, fields, more, "failure" if code else "success")
    return code


def _ending(status: int) -> tuple[int, str]:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            word = signal.Signals(number).name
        except ValueError:
            word = f"signal {number}"
        return SIGNALLED + number, f"was killed by {word}"
    code = os.WEXITSTATUS(status)
    return code, f"failed with exit code {code}" if code else "succeeded"


def _tell(
    event_type: str,
    summary: str,
    fields: dict[str, Any],
    more: dict[str, Any] | None = None,
    conclusion: str | None = None,
) -> None:
    """One event to the bus. Whatever is wrong there is a warning, once, and no more than that."""
    try:
        from waitbus.client.emit import emit
        from waitbus.event import EventInsert

        emit(
            EventInsert(
                source="process",
                event_type=event_type,
                ingest_method="run",
                summary=one_line(summary),
                status="completed" if conclusion else "in_progress",
                conclusion=conclusion,
                fields=_sayable({**fields, **(more or {})}),
            )
        )
    except Exception as error:
        if not _warned:
            _warned.append(True)
            note(f"the bus was not told: {error}")


_warned: list[bool] = []


def _sayable(fields: dict[str, Any]) -> dict[str, Any]:
    """Words that are no UTF-8, as a command's may be, said with replacement characters."""

    def mended(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode("utf-8")
        return [mended(item) for item in value] if isinstance(value, list) else value

    return {name: mended(value) for name, value in fields.items()}


def _bounded(argv: Sequence[str]) -> list[str]:
    """The command's words, cut where they would crowd an event."""
    words: list[str] = []
    room = ARGV_BYTES
    for word in argv:
        room -= len(word)
        if room < 0:
            return [*words, "…"]
        words.append(word)
    return words


def last_lines(output: bytes, lines: int, *, cut: bool = False) -> str:
    """The last lines of output as plain text: no escapes, no overwritten progress; `cut` when it begins mid-line."""
    import re

    text = re.sub(_ESCAPES, "", output.decode("utf-8", "replace"))
    found = text.split("\n")
    if cut and len(found) > 1:
        del found[0]
    if found[-1] == "":
        found.pop()
    plain = []
    for line in found[-lines:]:
        shown = line.rstrip("\r").rpartition("\r")[2]
        plain.append("".join([char for char in shown if char.isprintable() or char == "\t"]))
    return "\n".join(plain)


# Control sequences (colours, cursor), operating system commands (titles, links), and other escapes.
_ESCAPES = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
