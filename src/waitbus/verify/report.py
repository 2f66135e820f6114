"""Findings, and the verdict they come to.

A check is `ok`, `FAILED`, or `not checked` with why and how: never silence. Verified has one meaning: a check that is
ok says whose bytes these are, none failed, and each that was asked for has been made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from waitbus.event import WaitbusError

NO_DATA = "no data"  # the file is not of the kind that can be verified
NO_INPUT = "no input"  # there is no such file, or it cannot be read

OK = "ok"
FAILED = "FAILED"
UNCHECKED = "not checked"


class Unusable(WaitbusError):
    """There is nothing to verify: `reason` is `NO_INPUT` or `NO_DATA`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass
class Check:
    """One finding.

    `asked` says whether leaving it unchecked leaves the question open; `proof`, whether an ok says whose bytes it is.
    """

    name: str
    state: str
    text: str
    asked: bool = True
    proof: bool = False


@dataclass
class Report:
    """Findings in the order in which they were made."""

    checks: list[Check] = field(default_factory=list)

    def unchecked(self, name: str, why: str, how: str, *, asked: bool = True) -> None:
        self.checks.append(Check(name, UNCHECKED, f"{why}: {how}", asked))

    def conclude(self, name: str, faults: list[str], text: str, *, proof: bool = False) -> None:
        """`ok` with `text` when there are no faults, else `FAILED` with the first few of them."""
        self.checks.append(Check(name, FAILED if faults else OK, few(faults) if faults else text, proof=proof))

    @property
    def verdict(self) -> str:
        """`verified`, `failed`, `not authenticated`, or, when one who was named did not answer, `incomplete`."""
        if any(check.state == FAILED for check in self.checks):
            return "failed"
        if not any(check.proof and check.state == OK for check in self.checks):
            return "not authenticated"
        return "incomplete" if any(check.state == UNCHECKED and check.asked for check in self.checks) else "verified"

    def as_dict(self) -> dict[str, object]:
        """The findings as JSON says them."""
        told = [{"check": c.name, "state": c.state, "detail": c.text, "asked": c.asked} for c in self.checks]
        return {"checks": told, "verdict": self.verdict}


def few(faults: list[str], limit: int = 3) -> str:
    """The first `limit` faults in one line, and how many more there are."""
    shown = "; ".join(faults[:limit])
    return f"{shown}; and {len(faults) - limit} more" if len(faults) > limit else shown
