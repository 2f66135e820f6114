"""Reports one pytest run as two events: the first failure at once, and the end with the final counts.

Three rules apply. The bus never makes a run fail and hardly delays it: an error becomes one line on stderr, and a busy
store costs at most a quarter of a second. Whatever the tests patch, fake or close, this file goes on working. Success
is reported last, when pytest has nothing left to do, because until then a hook of another plugin may raise.
"""

from __future__ import annotations

import atexit
import os
import sys
import time

import pytest

from waitbus.event import EventInsert, WaitbusError, one_line
from waitbus.sources.pytest_plugin import complain
from waitbus.sources.pytest_tally import (
    Tally,
    as_exit_status,
    clean,
    conclusion_of,
    exit_status_of,
    label_of,
    reason_of_error,
    words_of,
)
from waitbus.sources.pytest_voice import Voice
from waitbus.store.clock import elapsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import Any

    from pluggy import Result

EVENT_TYPE = "pytest_session"
# How long the run may wait for a busy store in all: at its first failure, and at its end.
FIRST_WAIT_S = 0.1
LAST_WAIT_S = 0.15
# An event that could not be emitted at once is tried again after a test, without waiting, but not more often than this.
AGAIN_S = 1.0
# Options with which pytest runs no tests. If pytest fails while it starts, only its options tell whether it was going
# to run tests. (pytest's own loop tests `collectonly` and `setuponly`.)
_TESTLESS = ("collectonly", "setuponly", "setupplan")
_QUERIES = (*_TESTLESS, "showfixtures", "show_fixtures_per_test", "markers", "cacheshow", "help", "version")
_BAD_NEWS = ("failure", "startup_failure")


class SessionReporter:
    """The hooks of one run. Clocks and `getpid` are bound early, so that a test cannot patch them."""

    def __init__(self, config: pytest.Config, environ: Mapping[str, str]) -> None:
        self._config = config
        self._now = time.perf_counter
        self._getpid = os.getpid
        self._pid = os.getpid()
        self._rootdir = clean(str(config.rootpath), 1000)
        self._repo = label_of(self._rootdir)
        self._began = self._now()
        self._tally = Tally(config)
        self._is_up = False  # whether the session has started
        self._has_entered = False  # whether it has started to collect or run tests
        self._failure_seen = False
        self._again: EventInsert | None = None
        self._again_at = 0.0
        self._end_event: EventInsert | None = None
        self._is_over = False
        self._crash = ""
        self._trouble = ""
        self._voice: Voice | None = None
        try:
            self._voice = Voice(environ)
        except Exception as error:
            self._note(error)

    # What pytest is about to do.

    @pytest.hookimpl(tryfirst=True, hookwrapper=True)
    def pytest_sessionstart(self) -> Generator[None, Result[Any], None]:
        """Note that the session starts. From now on pytest keeps an exit status."""
        self._began = self._now()
        atexit.register(self._at_exit)
        outcome = yield
        self._is_up = outcome.excinfo is None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Note that this is a test run. `--cache-show` and similar options have a session, but never get here."""
        self._has_entered = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Note that this is a test run, even if another plugin has replaced the collection."""
        self._has_entered = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Remember an error outside of a test."""
        self._crash = self._crash or reason_of_error(excinfo.value)

    # The results of tests. These hooks are wrappers, so that they run after the terminal reporter has counted, and even
    # if another plugin raises.

    @pytest.hookimpl(hookwrapper=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> Generator[None, None, None]:
        """Count a collection report: a module that cannot be imported is an error."""
        yield
        self._take(report)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        """Count the set-up, call and teardown of every test; with xdist, as its workers report them."""
        yield
        self._take(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self) -> None:
        """Try again to emit what could not be emitted during the test, now that its patches are undone."""
        if self._again is not None and elapsed() >= self._again_at:
            self._again_at = elapsed() + AGAIN_S
            if self._tell(self._again, 0.0):
                self._again = None

    def _take(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        try:
            is_news = self._tally.take(report) and not self._failure_seen
            if not is_news or not self._has_entered or self._is_silent(_TESTLESS):
                return
            self._failure_seen = True
            event = self._event("first-failure", "in_progress", "failure", None)
        except Exception as error:
            self._note(error)
            return
        if not self._tell(event, FIRST_WAIT_S):
            self._again = event

    # How it ends.

    @pytest.hookimpl(tryfirst=True, hookwrapper=True)
    def pytest_unconfigure(self) -> Generator[None, None, None]:
        """Report a failure now: it cannot become a success any more, and a plugin may end the process in this hook."""
        if sys.exc_info()[1] is None and self._is_bad_already():
            self.end(None)
        yield

    def end(self, error: BaseException | None) -> None:
        """Emit the end of the run, once. `error` is the exception that pytest ends with, if any."""
        if self._is_over or self._getpid() != self._pid:
            return
        try:
            status, conclusion = self._verdict(error)
            if conclusion and self._end_event is None:
                if conclusion == "success":
                    self._crash = ""  # it left by `sys.exit(0)`
                elif error is not None:
                    self._crash = self._crash or reason_of_error(error)
                self._end_event = self._event("end", "completed", conclusion, status)
            told = self._end_event is None or self._tell(self._end_event, LAST_WAIT_S)
        except Exception as error:
            self._note(error)
            told = False
        # After an interrupt above, this is not reached, and the event is tried once more when Python exits.
        self._is_over = True
        atexit.unregister(self._at_exit)
        if not told:
            complain(self._trouble)

    def _is_bad_already(self) -> bool:
        try:
            return self._verdict(None)[1] in _BAD_NEWS
        except Exception:
            return False  # `end` reports the error

    def _at_exit(self) -> None:
        self.end(getattr(sys, "last_value", None) or RuntimeError("pytest did not come to its end"))

    def _verdict(self, error: BaseException | None) -> tuple[int, str]:
        """Return exit status and conclusion. The conclusion is empty if pytest was not going to run tests."""
        session = self._config.pluginmanager.get_plugin("session")
        status = as_exit_status(session.exitstatus) if session is not None else 0
        if error is not None:
            status = exit_status_of(error)
        if self._is_silent(_TESTLESS):
            return status, ""
        if self._has_entered:
            return status, conclusion_of(status, bad=self._tally.bad > 0, ran=self._tally.ran)
        if self._is_up or not status or self._is_silent(_QUERIES):
            return status, ""
        if session is None and not isinstance(error, KeyboardInterrupt):
            return status, "startup_failure"
        return status, conclusion_of(status, bad=False, ran=False)

    def _is_silent(self, modes: tuple[str, ...]) -> bool:
        config = self._config
        options = (config.option, getattr(config, "known_args_namespace", None))
        return any(getattr(found, mode, False) for found in options for mode in modes)

    def _event(self, moment: str, status: str, conclusion: str, exit_status: int | None) -> EventInsert:
        tally, counts = self._tally, self._tally.counts()
        duration_s = round(max(0.0, self._now() - self._began), 3)
        words = f"{words_of(counts)} in {duration_s:.2f} s" if status == "completed" else "first failure"
        where = f": {tally.nodeids_failed[0]}" if tally.nodeids_failed else ""
        reason = tally.first_reason or self._crash
        why = f" - {reason}" if reason else ""
        return EventInsert(
            source="pytest",
            event_type=EVENT_TYPE,
            delivery_id=f"{self._voice.session_id}:{moment}" if self._voice else None,
            repo=self._repo,
            ingest_method="plugin",
            summary=one_line(f"pytest {self._repo}: {words}{where}{why}"),
            status=status,
            conclusion=conclusion,
            fields={
                **counts,
                "session_id": self._voice.session_id if self._voice else "",
                "duration_s": duration_s,
                "nodeids_failed": list(tally.nodeids_failed),
                "exit_status": exit_status,
                "rootdir": self._rootdir,
            },
        )

    def _tell(self, event: EventInsert, timeout: float) -> bool:
        """Emit an event and return whether that worked. A forked child does nothing: the run goes on in its parent."""
        if self._getpid() != self._pid:
            return True
        if self._voice is None:
            return False
        try:
            self._voice.tell(event, timeout)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a function that a test patched may call `pytest.fail`: not an Exception
            self._note(error)
            return False
        return True

    def _note(self, error: BaseException) -> None:
        self._trouble = one_line(str(error)) if isinstance(error, WaitbusError) else reason_of_error(error)
