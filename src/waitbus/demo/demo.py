"""The bus at work, on a bus of its own that leaves nothing behind.

Whatever it shows is a real process, run by the command line it prints; this file starts them, watches and measures.
A step that does not do what it says ends the demo with exit code 1. What runs the processes is `demo/sandbox.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import time

from waitbus.demo.sandbox import PATIENCE_S, WAITBUS, Sandbox, Signals, WrongStep, last_line
from waitbus.event import one_line
from waitbus.ui.output import flush, has_colour, note, out, out_json, painted, safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BUGGY, _FIXED = "sum(prices[1:])", "sum(prices)"
_SHOP = "def total(prices):\n    return {}\n"
_PYTEST_TESTS = """\
from shop import total


def test_an_empty_basket():
    assert total([]) == 0


def test_a_full_basket():
    assert total([1, 2, 3]) == 6
"""
_UNITTEST_TESTS = """\
import unittest

from shop import total


class Basket(unittest.TestCase):
    def test_an_empty_basket(self):
        self.assertEqual(total([]), 0)

    def test_a_full_basket(self):
        self.assertEqual(total([1, 2, 3]), 6)
"""
# Prints pytest's version, if this Python can run our plugin and has a pytest that can load it.
_PROBE = (
    "import sys; from importlib.metadata import version as v; p = v('pytest'); "
    "sys.exit(sys.version_info < (3, 11) or int(p.partition('.')[0]) < 7 or print(p))"
)


def run(*, as_json: bool) -> int:
    """Play it through, clean up, then say how it went. 0 when every step did what it says, else 1."""
    started = time.monotonic()
    story = Story(quiet=as_json)
    error = None
    with Signals() as signals:
        sandbox = Sandbox(signals)
        try:
            with sandbox:
                _play(sandbox, story)
        except WrongStep as wrong:
            error = str(wrong)
        except OSError as wrong:
            error = f"{wrong.filename or sandbox.root}: {wrong.strerror or wrong}"
    if error is None and os.path.exists(sandbox.root):
        error = f"{sandbox.root} could not be removed"
    seconds = round(time.monotonic() - started, 2)
    if as_json:
        story.facts |= {"ok": error is None, "error": error, "seconds": seconds, "steps": story.steps}
        out_json(story.facts)
    elif error is None:
        story.line(
            f"\nEvery step did what it says, in {seconds:.1f} s. The hub has stopped, and the directory is gone."
        )
        story.line("Now try your own tests: pytest -p waitbus.pytest, or waitbus run -- any command.")
    else:
        note(f"the demo went wrong: {error}")
    return 0 if error is None else 1


class Story:
    """What is told: to a person line by line, or kept for the one JSON object."""

    def __init__(self, *, quiet: bool) -> None:
        self.facts: dict[str, Any] = {}
        self.steps: list[dict[str, Any]] = []
        self._quiet = quiet
        self._colour = has_colour()

    def line(self, text: str, colour: str | None = None) -> None:
        """One line (or an empty one and it), at once: what follows may take a moment."""
        if not self._quiet:
            gap, text = ("\n", text[1:]) if text.startswith("\n") else ("", text)
            out(gap + painted(safe(text), colour if self._colour else None))
            flush()

    def step(self, name: str, text: str) -> None:
        """Begin a step."""
        self.steps.append({"name": name, "says": text, "commands": []})
        self.line(f"\n{len(self.steps)}. {text}", "bold")

    def command(self, shown: str) -> None:
        """A command, before it is run, as it can be typed."""
        self.steps[-1]["commands"].append({"command": shown, "exit_code": None})
        self.line(f"   $ {shown}", "green")

    def ended(self, who: str, shown: str, code: int, expected: int, text: str, output: bytes = b"") -> None:
        """How a command ended. Raises `WrongStep` when it should have ended otherwise."""
        begun = (entry for step in reversed(self.steps) for entry in step["commands"] if entry["command"] == shown)
        next(begun)["exit_code"] = code
        if code != expected:
            raise WrongStep(f"`{shown}` ended with exit code {code} instead of {expected}: {last_line(output)}")
        self.remark(f"{who} exit {code}, {text}")

    def remark(self, text: str, **facts: object) -> None:
        """A line under a command, and the figures in it."""
        self.steps[-1] |= facts
        self.line(f"     {text}")


class Tests:
    """How the project's tests are run here: the source that tells of them, the command as shown and as run."""

    def __init__(self, name: str, source: str, text: str, shown: str, argv: list[str]) -> None:
        self.name = name
        self.source = source
        self.text = text
        self.shown = shown
        self.argv = argv


def find_tests(sandbox: Sandbox) -> Tests:
    """Pytest in this interpreter, else the one of `python3`, else unittest under `waitbus run`."""
    own = sys.executable if importlib.util.find_spec("pytest") else None
    for python in (own, shutil.which("python3")):
        if python is None:
            continue
        probe = sandbox.start([python, "-c", _PROBE])
        version = sandbox.finish(probe)[0].decode().strip()
        if probe.returncode == 0 and version:
            flags = ["-q", "-p", "waitbus.pytest"]
            shown = shlex.join(["pytest", *flags])
            return Tests(f"pytest {version}", "pytest", _PYTEST_TESTS, shown, [python, "-m", "pytest", *flags])
    words = ["run", "--name", "tests", "--"]
    return Tests(
        "unittest",
        "process",
        _UNITTEST_TESTS,
        shlex.join(["waitbus", *words, "python3", "-m", "unittest"]),
        [*WAITBUS, *words, sys.executable, "-m", "unittest"],
    )


def _play(sandbox: Sandbox, story: Story) -> None:
    tests = find_tests(sandbox)
    story.facts = {"directory": sandbox.root, "tests": tests.name}
    story.line(f"This demo has a bus of its own in {sandbox.root}. The tests are run by {tests.name}.")
    if tests.source != "pytest":
        story.line(
            "There is no pytest here, so `waitbus run` tells the bus when the tests end, not when the first fails."
        )
    sandbox.write("test_shop.py", tests.text)
    _wake(sandbox, story, tests)
    _time_out(sandbox, story, tests)
    _both(sandbox, story, tests)


def _wake(sandbox: Sandbox, story: Story, tests: Tests) -> None:
    """A blocked wait, a failing run, and how long it took from the one to the other."""
    story.step("wake", "One shell waits for a test to fail. Another runs the tests, and one fails.")
    words = ["wait", "--source", tests.source, "--match", 'conclusion="failure"', "--timeout", "20s", "--print"]
    waiting = shlex.join(["waitbus", *words])
    story.command(waiting)
    waiter = sandbox.start_ready(*words)
    story.remark("wait:  blocked, asleep in the kernel", blocked=waiter.poll() is None)
    sandbox.write("shop.py", _SHOP.format(_BUGGY))
    story.command(tests.shown)
    runner = sandbox.start(tests.argv)
    wake_ms, still_running, event = _woken(sandbox, waiter, runner)
    printed = b"".join(sandbox.finish(runner))
    story.ended("tests:", tests.shown, runner.returncode, 1, last_line(printed), printed)
    # Under `waitbus run` it is the runner that is still there: the tests had ended.
    early = still_running and tests.source == "pytest"
    text = f"woken {wake_ms:.1f} ms after the failure became an event{', before pytest had ended' if early else ''}"
    story.ended("wait: ", waiting, waiter.returncode, 0, text)
    story.remark(f"       {one_line(event['summary'], 100)}", wake_ms=wake_ms, before_the_end=early)


def _woken(
    sandbox: Sandbox, waiter: subprocess.Popen[bytes], cause: subprocess.Popen[bytes]
) -> tuple[float, bool, dict[str, Any]]:
    """How long the wake took in ms, whether its cause still ran then, and the event.

    It counts from the event's `received_at`, which the producer stamps before it commits, to the first byte of the
    wait's output here. So it holds the commit, the ring, the hub, the waking of the waiting process, its printing and
    our own waking: a little more than a program that itself waits would see.
    """
    heard = _speaks(waiter, cause)
    seen_ns = time.time_ns()
    still_running = cause.poll() is None
    if not heard:
        raise WrongStep(f"the wait did not wake; the command it waits for said: {last_line(sandbox.end(cause))}")
    out, err = sandbox.finish(waiter)
    try:
        event = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        raise WrongStep(f"the wait printed no event: {last_line(out + err)}") from None
    return round((seen_ns - event["received_at"]) / 1e6, 3), still_running, event


def _speaks(waiter: subprocess.Popen[bytes], cause: subprocess.Popen[bytes]) -> bool:
    """Block until the wait prints something. False when it did not for two seconds after its cause ended."""
    until = time.monotonic() + PATIENCE_S
    ended = False
    while time.monotonic() < until:
        # It comes round only while nothing happens: the wait's first word ends the `select` at once.
        if select.select([waiter.stdout or -1], [], [], 0.2)[0]:
            return True
        if not ended and cause.poll() is not None:
            ended, until = True, time.monotonic() + 2.0
    return False


def _time_out(sandbox: Sandbox, story: Story, tests: Tests) -> None:
    story.step("timeout", "Nothing else fails, so the next wait times out.")
    words = ["wait", "--source", tests.source, "--match", 'conclusion="failure"', "--timeout", "500ms"]
    shown = shlex.join(["waitbus", *words])
    story.command(shown)
    began = time.monotonic()
    waiter = sandbox.start([*WAITBUS, *words])
    printed = b"".join(sandbox.finish(waiter))
    seconds = round(time.monotonic() - began, 2)
    text = f"timed out, {seconds:.2f} s after the command was started"
    story.ended("wait: ", shown, waiter.returncode, 124, text, printed)
    story.steps[-1]["seconds"] = seconds


def _both(sandbox: Sandbox, story: Story, tests: Tests) -> None:
    """One wait over two sources: still blocked after the first, woken by the second."""
    story.step("all-of", "One wait for two sources: the tests succeed, and an agent approves.")
    green, approved = f'{tests.source}:conclusion="success"', 'agent:msg_body="approved"'
    words = ["wait", "--all-of", green, approved, "--timeout", "20s", "--print"]
    waiting = shlex.join(["waitbus", *words])
    story.command(waiting)
    waiter = sandbox.start_ready(*words)
    sandbox.write("shop.py", _SHOP.format(_FIXED))
    story.command(tests.shown)
    runner = sandbox.start(tests.argv)
    printed = b"".join(sandbox.finish(runner))
    if waiter.poll() is not None:
        raise WrongStep("the wait ended after the first of its two sources")
    text = f"{last_line(printed)}; the wait is still blocked"
    story.ended("tests:", tests.shown, runner.returncode, 0, text, printed)
    telling = ["emit", "--source", "agent", "--event-type", "agent_message", "--msg-body", "approved"]
    shown = shlex.join(["waitbus", *telling])
    story.command(shown)
    teller = sandbox.start([*WAITBUS, *telling])
    wake_ms, _, _ = _woken(sandbox, waiter, teller)
    printed = b"".join(sandbox.finish(teller))
    story.ended("emit: ", shown, teller.returncode, 0, last_line(printed), printed)
    text = f"woken {wake_ms:.1f} ms after the second event"
    story.ended("wait: ", waiting, waiter.returncode, 0, text)
    story.steps[-1]["wake_ms"] = wake_ms
