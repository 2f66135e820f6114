"""`waitbus run`: run a command, and tell the bus that it started and how it ended. A broken bus never stops it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time

from waitbus.cli.flags import as_text
from waitbus.event import WaitbusError, one_line
from waitbus.host.job import Ended, Job
from waitbus.host.process import SIGNALLED, CannotRun, exit_code
from waitbus.ui.output import note
from waitbus.ui.passthrough import Child
from waitbus.ui.times import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

TAIL_LINES = 20
TAIL_BYTES = 4096
ARGV_BYTES = 4096
# How long the bus may hold up the command's end.
PATIENCE_SEC = 1.0

_DESCRIPTION = """\
Run a command exactly as it would run alone, and tell the bus about it: an event
process_started with its pid, and an event process_exited with its exit code,
signal, duration and last lines of output. Output passes through live and
unchanged, a terminal stays a terminal, a signal that would end waitbus is passed
on to the command, and the exit code is the command's."""

_EPILOG = """\
The store, which only you can read, keeps the command's arguments and last lines as long as it keeps other events.
--no-argv leaves out the arguments, and --tail 0 leaves out the last lines. With --tail 0 the command writes to
waitbus's own output streams directly, which full-screen programs and programs left in the background need. If the bus
cannot be told within a second of the command's end, run prints a warning.

exit codes: the command's; 126 it cannot be run, 127 there is no such command, 128+n signal n killed it

examples:
  waitbus run -- make -j8
  waitbus run --name build -- make -j8          elsewhere: waitbus wait --source process --match name=build --verdict
  waitbus run --name deploy --no-argv -- ./deploy --token "$TOKEN"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.usage = "waitbus run [OPTION...] -- COMMAND [ARGUMENT...]"
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument(
        "--name", metavar="NAME", type=as_text, help="the field name, which others wait for (default: the program's)"
    )
    parser.add_argument("--no-argv", action="store_true", help="tell only the program's name, not its arguments")
    parser.add_argument(
        "--tail",
        metavar="LINES",
        type=int,
        default=TAIL_LINES,
        help=f"how many of the last lines of output to tell, and at most {TAIL_BYTES >> 10} KiB of them "
        f"(default: {TAIL_LINES}; 0: none)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, without a shell")


def run(args: argparse.Namespace) -> int:
    """Run it, and exit as it does."""
    argv = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not argv or not argv[0]:
        raise WaitbusError("run needs a command: waitbus run --name build -- make")
    if args.tail < 0:
        raise WaitbusError("--tail takes a number of lines, or 0 for none")
    words = [_shown(word) for word in argv]
    name = args.name or os.path.basename(words[0])
    bus = _Bus({"name": name, "argv": words[:1] if args.no_argv else _bounded(words)})
    code = None
    job = Job()
    try:
        with job:
            started = time.monotonic()
            try:
                child = Child(job, argv, TAIL_BYTES if args.tail else 0)
            except CannotRun as error:
                code = error.code
                note(str(error))
                bus.tell("process_exited", f"{name} did not start: {error}", {"exit_code": code}, "failure")
            else:
                bus.fields["pid"] = child.pid
                bus.tell("process_started", f"{name} started")
                status = child.wait()
                code = exit_code(status)
                try:
                    _tell_end(bus, name, status, time.monotonic() - started, child, args.tail)
                except Exception as error:  # its code is known, and counts
                    bus.warn(repr(error))
            bus.finish(code)
    except Ended as ended:  # before the command began, or after its end
        if code is None:
            code = SIGNALLED + ended.number if job.status is None else exit_code(job.status)
        bus.give_up(code)
    return code


def _tell_end(bus: _Bus, name: str, status: int, took: float, child: Child, lines: int) -> None:
    code = exit_code(status)
    how = f"failed with exit code {code}" if code else "succeeded"
    more: dict[str, Any] = {"exit_code": code, "duration_s": round(took, 3)}
    if os.WIFSIGNALED(status):
        more["signal"] = os.WTERMSIG(status)
        how = f"was killed by {_signal_name(more['signal'])}"
    if child.lost is not None:
        note(f"not all that {name} printed could be passed on: {child.lost.strerror}")
    if lines:
        output, cut = child.tail()
        more["tail"] = last_lines(output, lines, cut=cut)
    bus.tell("process_exited", f"{name} {how} after {span(took)}", more, "failure" if code else "success")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


class _Bus:
    """What tells the bus, beside the command: a store that is slow or stuck holds nothing up.

    Whatever is wrong there is one warning, and no more than that. Each event is told after the one before.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self._last: threading.Thread | None = None
        self._has_warned = False

    def tell(
        self, event_type: str, summary: str, more: dict[str, Any] | None = None, conclusion: str | None = None
    ) -> None:
        """Begin to tell it."""
        values = {
            "event_type": event_type,
            "summary": one_line(summary),
            "status": "completed" if conclusion else "in_progress",
            "conclusion": conclusion,
            "fields": {**self.fields, **(more or {})},
        }
        # A daemon: where the store hangs, nobody waits for it.
        thread = threading.Thread(target=self._tell, args=(self._last, values), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads for us
            self.warn(str(error))
        else:
            self._last = thread

    def _tell(self, before: threading.Thread | None, values: dict[str, Any]) -> None:
        if before is not None:
            before.join()
        try:
            from waitbus.client.emit import emit
            from waitbus.event import EventInsert

            emit(EventInsert(source="process", ingest_method="run", **values))
        except Exception as error:
            self.warn(str(error))

    def warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            note(f"the bus was not told: {reason}")

    def finish(self, code: int) -> None:
        """Wait until everything is told, but not for long. `code` is what the process is to exit with then."""
        if self._last is not None:
            self._last.join(PATIENCE_SEC)
        self.give_up(code)

    def give_up(self, code: int) -> None:
        """End the process if not everything is told: a store that hangs would hold up an orderly end, too."""
        if self._last is not None and self._last.is_alive():
            self.warn("its store is busy or does not answer: look at waitbus status")
            sys.stdout.flush()
            os._exit(code)


def _shown(word: str) -> str:
    """A word of the command as text: what is text in no encoding is said with replacement characters."""
    try:
        return as_text(word)
    except argparse.ArgumentTypeError:
        return word.encode("utf-8", "replace").decode()


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
