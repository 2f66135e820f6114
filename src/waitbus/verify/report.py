"""Findings, and the exit code they come to.

A check is `ok`, `FAILED`, or `not checked` with why and how: never silence. Exit codes are those of sysexits(3), as
every verb that verifies gives them.
"""

from __future__ import annotations

from waitbus.event import WaitbusError

VERIFIED = 0
NO_DATA = 65  # the file is not of the kind that can be verified
NO_INPUT = 66  # there is no such file, or it cannot be read
MISMATCH = 76  # something was checked and is wrong
NOT_SET_UP = 78  # something asked for could not be checked

OK = "ok"
FAILED = "FAILED"
UNCHECKED = "not checked"
_VERDICTS = {VERIFIED: "verified", MISMATCH: "failed", NOT_SET_UP: "incomplete"}


class Unusable(WaitbusError):
    """There is nothing to verify: `code` is `NO_INPUT` or `NO_DATA`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Check:
    """One finding. `asked` says whether leaving it unchecked leaves the question open."""

    __slots__ = ("asked", "name", "state", "text")

    def __init__(self, name: str, state: str, text: str, *, asked: bool = True) -> None:
        self.name = name
        self.state = state
        self.text = text
        self.asked = asked


class Report:
    """Findings in the order in which they were made."""

    __slots__ = ("checks",)

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def ok(self, name: str, text: str) -> None:
        self.checks.append(Check(name, OK, text))

    def failed(self, name: str, text: str) -> None:
        self.checks.append(Check(name, FAILED, text))

    def unchecked(self, name: str, why: str, how: str, *, asked: bool = True) -> None:
        self.checks.append(Check(name, UNCHECKED, f"{why}: {how}", asked=asked))

    def conclude(self, name: str, faults: list[str], text: str) -> None:
        """`ok` with `text` when there are no faults, else `FAILED` with the first few of them."""
        if faults:
            self.failed(name, few(faults))
        else:
            self.ok(name, text)

    @property
    def exit_code(self) -> int:
        """`MISMATCH` outweighs `NOT_SET_UP`; `VERIFIED` only when all that was asked for was checked."""
        if any(check.state == FAILED for check in self.checks):
            return MISMATCH
        if any(check.state == UNCHECKED and check.asked for check in self.checks):
            return NOT_SET_UP
        return VERIFIED

    @property
    def verdict(self) -> str:
        """`verified`, `failed` or `incomplete`."""
        return _VERDICTS[self.exit_code]

    def as_dict(self) -> dict[str, object]:
        """The findings as JSON says them."""
        return {
            "checks": [
                {"check": check.name, "state": check.state, "detail": check.text, "asked": check.asked}
                for check in self.checks
            ],
            "verdict": self.verdict,
            "exit_code": self.exit_code,
        }


def few(faults: list[str], limit: int = 3) -> str:
    """The first `limit` faults in one line, and how many more there are."""
    shown = "; ".join(faults[:limit])
    return f"{shown}; and {len(faults) - limit} more" if len(faults) > limit else shown
