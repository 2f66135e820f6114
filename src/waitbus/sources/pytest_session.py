"""One pytest run as two events: the first failure at once, and the end with the final counts.

Two rules: the run never fails and hardly waits for the bus (an error ends up as one line of the summary, a busy
store costs a fraction of a second); and whatever the tests patch, fake or close, this file does not trip over it.
"""

from __future__ import annotations

import os
import time

import pytest

from waitbus.event import EventInsert, UlidFactory, WaitbusError, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EVENT_TYPE = "pytest_session"
STORE_TIMEOUT_S = 0.25
MAX_NODEIDS = 20
MAX_NODEID_CHARS = 200
_CATEGORIES = ("failed", "errors", "passed", "skipped", "xfailed", "xpassed")
_LABEL_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


class Tally:
    """What became of the tests so far, counted as pytest's own last line counts them."""

    __slots__ = ("counts", "first_reason", "nodeids_failed")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_CATEGORIES, 0)
        self.nodeids_failed: list[str] = []
        self.first_reason = ""

    def count(self, report: pytest.TestReport | pytest.CollectReport) -> bool:
        """Take one report in. True when it is a failure or an error."""
        outcome = report.outcome
        expected_to_fail = hasattr(report, "wasxfail")
        if outcome == "passed":
            # Set-up and teardown pass unseen, and so does a passed sub-test: its test is what counts.
            if report.when == "call" and not hasattr(report, "context"):
                self.counts["xpassed" if expected_to_fail else "passed"] += 1
        elif outcome == "skipped":
            self.counts["xfailed" if expected_to_fail else "skipped"] += 1
        elif outcome == "failed":
            self.counts["failed" if report.when == "call" else "errors"] += 1
            self._remember(report)
            return True
        return False

    def _remember(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        nodeid = clean(report.nodeid, MAX_NODEID_CHARS)
        if len(self.nodeids_failed) < MAX_NODEIDS and nodeid not in self.nodeids_failed:
            self.nodeids_failed.append(nodeid)
        self.first_reason = self.first_reason or reason_of(report.longrepr)

    @property
    def bad(self) -> int:
        """Failures and errors together."""
        return self.counts["failed"] + self.counts["errors"]

    def words(self) -> str:
        """As in pytest's last line: "1 failed, 3 passed"."""
        said = (f"{number} {name}" for name, number in self.counts.items() if number)
        return ", ".join(said) or "no tests ran"


def conclusion_of(exit_status: int, bad: int) -> str:
    """GitHub's word for the end of a run with this exit status and so many failures and errors.

    A run that failed and was then interrupted has failed; one interrupted before that (exit 2) is cancelled. A
    wrong argument (4) never got as far as a test. Any other but zero is a failure: an internal error (3), a plugin's.
    """
    if bad:
        return "failure"
    return {0: "success", 2: "cancelled", 4: "startup_failure", 5: "neutral"}.get(exit_status, "failure")


def reason_of(longrepr: object) -> str:
    """The line of a failure's report that says why: the exception's first, else the last of the text."""
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        return one_line(str(crash.message).strip().partition("\n")[0])
    lines = str(longrepr or "")[-1000:].strip().splitlines()
    return one_line(lines[-1].removeprefix("E ")) if lines else ""


def clean(text: str, limit: int) -> str:
    """`text` as the store takes it: no control characters, no lone surrogates, at most `limit` characters."""
    text = "".join(char if char.isprintable() else "?" for char in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def label_of(rootdir: str) -> str:
    """The last part of the root directory, as a repository's name may be written: a filter can name it."""
    name = os.path.basename(rootdir)[:100]
    return "".join(char if char in _LABEL_CHARS else "-" for char in name) or "local"


class _Voice:
    """All it takes to tell the bus, bound before any test: later the environment or a module may be fake.

    Raises whatever goes wrong; its owner catches.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        from waitbus.client.emit import Bell
        from waitbus.settings import load
        from waitbus.store.append import Appender

        settings = load(environ)
        self._appender = Appender(settings, timeout=STORE_TIMEOUT_S)
        self._bell = Bell(settings)

    def tell(self, event: EventInsert) -> None:
        """Commit and ring. Opened anew each time: there is no descriptor for a test to close, count or fork."""
        try:
            self._appender.append(event)
            self._bell.ring()
        finally:
            self._appender.close()
            self._bell.close()


class SessionReporter:
    """The hooks of one run. The clocks are bound now, out of reach of a test that freezes them."""

    def __init__(self, rootdir: Path, environ: Mapping[str, str]) -> None:
        self._now_ns = time.time_ns
        self._elapsed = time.perf_counter
        self._pid = os.getpid()
        self._session_id = UlidFactory(time.time_ns, os.urandom)()
        self._rootdir = clean(str(rootdir), 1000)
        self._repo = label_of(self._rootdir)
        self._environ = environ
        self._voice: _Voice | None = None
        self._started = self._elapsed()
        self._tally = Tally()
        self._failure_seen = False
        self._again: EventInsert | None = None
        self._trouble = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Everything is imported and read here, before the first test."""
        self._started = self._elapsed()
        try:
            self._voice = _Voice(self._environ)
        except Exception as error:
            self._note(error)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported is an error like any other."""
        self._take(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Set-up, call and teardown of every test; with xdist, as its workers report them."""
        self._take(report)

    def pytest_runtest_logfinish(self) -> None:
        """The test's patches are undone: what could not be told from inside it may be told now."""
        if self._again is not None:
            event, self._again = self._again, None
            if self._tell(event):
                self._trouble = ""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The end: after the other plugins' say about the exit status, before the summary is printed."""
        self._again = None
        try:
            exit_status = int(session.exitstatus)
            conclusion = conclusion_of(exit_status, self._tally.bad)
            event = self._event("end", "completed", conclusion, exit_status)
        except Exception as error:
            self._note(error)
        else:
            self._tell(event)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """At most one line, and only when something could not be told."""
        if self._trouble:
            terminalreporter.write_line(f"waitbus could not be told: {self._trouble}")

    def _take(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        try:
            if not self._tally.count(report) or self._failure_seen:
                return
            self._failure_seen = True
            event = self._event("first-failure", "in_progress", "failure", None)
        except Exception as error:
            self._note(error)
            return
        if not self._tell(event):
            self._again = event

    def _event(self, moment: str, status: str, conclusion: str, exit_status: int | None) -> EventInsert:
        tally = self._tally
        duration_s = round(self._elapsed() - self._started, 3)
        words = f"{tally.words()} in {duration_s:.2f} s" if status == "completed" else "first failure"
        where = f": {tally.nodeids_failed[0]}" if tally.nodeids_failed else ""
        why = f" - {tally.first_reason}" if tally.first_reason else ""
        return EventInsert(
            source="pytest",
            event_type=EVENT_TYPE,
            delivery_id=f"{self._session_id}:{moment}",
            repo=self._repo,
            received_at=self._now_ns(),
            ingest_method="plugin",
            summary=one_line(f"pytest {self._repo}: {words}{where}{why}"),
            status=status,
            conclusion=conclusion,
            fields={
                **tally.counts,
                "duration_s": duration_s,
                "nodeids_failed": list(tally.nodeids_failed),
                "exit_status": exit_status,
                "rootdir": self._rootdir,
            },
        )

    def _tell(self, event: EventInsert) -> bool:
        """False when it could not be told; nobody listens to a fork of the run, nor without settings."""
        if self._voice is None or os.getpid() != self._pid:
            return True
        try:
            self._voice.tell(event)
        except Exception as error:
            self._note(error)
            return False
        return True

    def _note(self, error: Exception) -> None:
        name = "" if isinstance(error, WaitbusError) else f"{type(error).__name__}: "
        self._trouble = one_line(f"{name}{error}")
