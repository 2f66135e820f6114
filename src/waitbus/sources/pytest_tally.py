"""Counts the results of one run as pytest does, and translates them into GitHub's conclusions. No I/O, no clock."""

from __future__ import annotations

import os

import pytest

from waitbus.event import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_NODEIDS = 20
MAX_NODEID_CHARS = 200
# Our names for pytest's categories, in the order of a summary.
_CATEGORIES = {
    "failed": "failed",
    "errors": "error",
    "passed": "passed",
    "skipped": "skipped",
    "xfailed": "xfailed",
    "xpassed": "xpassed",
}
_LABEL_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_BY_STATUS = {0: "success", 2: "cancelled", 4: "startup_failure", 5: "neutral", 130: "cancelled"}


class Tally:
    """The results of the tests so far.

    The counts are those of the terminal reporter, from which pytest's last line is made and which other plugins may
    have changed. Without a terminal reporter (`-p no:terminal`) each report is counted here by pytest's own hook.
    """

    __slots__ = ("_config", "_own", "bad", "first_reason", "nodeids_failed", "ran")

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._own = dict.fromkeys(_CATEGORIES.values(), 0)
        self.bad = 0  # reports of a failure or an error
        self.ran = False  # whether there was a report of any test
        self.nodeids_failed: list[str] = []
        self.first_reason = ""

    def take(self, report: pytest.TestReport | pytest.CollectReport) -> bool:
        """Count one report. Returns whether it is a failure or an error, as pytest's own exit status counts them."""
        collecting = isinstance(report, pytest.CollectReport)
        self.ran = self.ran or not collecting
        if self._stats() is None:
            category = self._category(report, collecting)
            if category in self._own and getattr(report, "count_towards_summary", True):
                self._own[category] += 1
        if report.outcome != "failed" or hasattr(report, "wasxfail"):
            return False
        self.bad += 1
        nodeid = clean(report.nodeid, MAX_NODEID_CHARS)
        if len(self.nodeids_failed) < MAX_NODEIDS and nodeid not in self.nodeids_failed:
            self.nodeids_failed.append(nodeid)
        self.first_reason = self.first_reason or reason_of(report.longrepr)
        return True

    def counts(self) -> dict[str, int]:
        """Return the numbers of `failed`, `errors`, `passed`, `skipped`, `xfailed` and `xpassed`."""
        stats = self._stats()
        if stats is None:
            return {name: self._own[category] for name, category in _CATEGORIES.items()}
        return {
            name: sum(1 for report in stats.get(category, ()) if getattr(report, "count_towards_summary", True))
            for name, category in _CATEGORIES.items()
        }

    def _stats(self) -> dict[str, list[Any]] | None:
        stats = getattr(self._config.pluginmanager.get_plugin("terminalreporter"), "stats", None)
        return stats if isinstance(stats, dict) else None

    def _category(self, report: pytest.TestReport | pytest.CollectReport, collecting: bool) -> str:
        if collecting:
            return "error" if report.failed else report.outcome if report.skipped else ""
        status = self._config.hook.pytest_report_teststatus(report=report, config=self._config)
        if status:
            return str(status[0])
        # No hook has answered: for an ordinary call only the terminal reporter does.
        return "error" if report.failed and report.when in ("setup", "teardown") else str(report.outcome)


def words_of(counts: dict[str, int]) -> str:
    """Write the counts as in pytest's last line: "1 failed, 3 passed"."""
    words = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    return words.replace("1 errors", "1 error") if counts["errors"] == 1 else words or "no tests ran"


def conclusion_of(exit_status: int, *, bad: bool, ran: bool) -> str:
    """Return GitHub's conclusion for a run with this exit status.

    A run that was interrupted (2, 130) is `cancelled`, but if a test had failed before, it is `failure`. A usage error
    (4) is `startup_failure` if no test ran. A run without tests is never a success. Any other status than 0, of an
    internal error (3) or of a plugin, is `failure`.
    """
    conclusion = _BY_STATUS.get(exit_status, "failure")
    if bad or (ran and conclusion == "startup_failure"):
        return "failure"
    return conclusion if ran or conclusion != "success" else "neutral"


def exit_status_of(error: BaseException) -> int:
    """Return the exit status of a pytest process that ends with this exception."""
    if isinstance(error, pytest.UsageError) or type(error).__name__ == "ConftestImportFailure":
        return int(pytest.ExitCode.USAGE_ERROR)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return as_exit_status(error.code) if isinstance(error, SystemExit) else 1


def as_exit_status(code: object) -> int:
    """Return the exit status of a process that calls ``sys.exit(code)``."""
    return int(code) if isinstance(code, int) else 0 if code is None else 1


def reason_of_error(error: BaseException) -> str:
    """Return one line about the exception that pytest ends with. Of a usage error this is the error, not the usage."""
    text = str(error)
    if isinstance(error, pytest.UsageError):
        text = next((line for line in text.splitlines() if ": error: " in line), text).rpartition(": error: ")[2]
    name = type(error).__name__
    return one_line(f"{name}: {text}" if text else name)


def reason_of(longrepr: object) -> str:
    """Return the line that explains a failure: the first of the exception's message, else the last of the report."""
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        return one_line(str(crash.message).strip().partition("\n")[0])
    lines = str(longrepr or "")[-1000:].strip().splitlines()
    return one_line(lines[-1].removeprefix("E ")) if lines else ""


def clean(text: str, limit: int) -> str:
    """Make `text` fit for the store: no control characters, no lone surrogates, at most `limit` characters."""
    text = "".join(char if char.isprintable() else "?" for char in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def label_of(rootdir: str) -> str:
    """Return the last part of the root directory as a valid repository name, so that a filter can name it."""
    name = os.path.basename(rootdir)[:100]
    return "".join(char if char in _LABEL_CHARS else "-" for char in name) or "local"
