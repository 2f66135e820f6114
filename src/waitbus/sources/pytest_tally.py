"""What became of the tests of one run: counted as pytest counts them, and put into GitHub's words. No I/O, no clock."""

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
    """What became of the tests so far.

    The numbers are those of the terminal reporter: it makes pytest's last line of them, and other plugins may have
    had their say. Without one (`-p no:terminal`) pytest is asked the same question about each report.
    """

    __slots__ = ("_config", "_own", "bad", "first_reason", "nodeids_failed", "ran")

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._own = dict.fromkeys(_CATEGORIES.values(), 0)
        self.bad = 0  # reports of a failure or an error
        self.ran = False  # whether any test was reported on
        self.nodeids_failed: list[str] = []
        self.first_reason = ""

    def take(self, report: pytest.TestReport | pytest.CollectReport) -> bool:
        """Take one report in. True when it is a failure or an error, as pytest's own exit status sees it."""
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
        """How many `failed`, `errors`, `passed`, `skipped`, `xfailed`, `xpassed`."""
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
        # Nobody answers for a call but the terminal reporter itself.
        return "error" if report.failed and report.when in ("setup", "teardown") else str(report.outcome)


def words_of(counts: dict[str, int]) -> str:
    """As in pytest's last line: "1 failed, 3 passed"."""
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    return said.replace("1 errors", "1 error") if counts["errors"] == 1 else said or "no tests ran"


def conclusion_of(exit_status: int, *, bad: bool, ran: bool) -> str:
    """GitHub's word for the end of a run with this exit status.

    A run that failed and was then interrupted has failed; one interrupted before that (exit 2, 130) is cancelled. A
    wrong argument (4) is met before any test. Where no test ran there is no success, whatever the status says.
    Any other status but zero is a failure: an internal error (3), a plugin's.
    """
    conclusion = _BY_STATUS.get(exit_status, "failure")
    if bad or (ran and conclusion == "startup_failure"):
        return "failure"
    return conclusion if ran or conclusion != "success" else "neutral"


def exit_status_of(error: BaseException) -> int:
    """What pytest, as a process, ends with when it is left by this error."""
    if isinstance(error, pytest.UsageError) or type(error).__name__ == "ConftestImportFailure":
        return int(pytest.ExitCode.USAGE_ERROR)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return as_exit_status(error.code) if isinstance(error, SystemExit) else 1


def as_exit_status(code: object) -> int:
    """What a process ends with when `code` is handed to ``sys.exit``."""
    return int(code) if isinstance(code, int) else 0 if code is None else 1


def reason_of_error(error: BaseException) -> str:
    """One line about what pytest was left by: of a usage error what is wrong, not the usage."""
    said = str(error)
    if isinstance(error, pytest.UsageError):
        said = next((line for line in said.splitlines() if ": error: " in line), said).rpartition(": error: ")[2]
    name = type(error).__name__
    return one_line(f"{name}: {said}" if said else name)


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
