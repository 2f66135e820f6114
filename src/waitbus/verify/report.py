"""Findings of a verification, and the verdict that follows from them.

Every check is reported: as `ok`, as `FAILED`, or as `not checked` with the reason and how to check it. "Verified" means
that at least one check proved whose bytes these are, no check failed, and every check that was asked for was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from waitbus.event import WaitbusError

NO_DATA = "no data"  # the file is not of a kind that can be verified
NO_INPUT = "no input"  # the file does not exist or cannot be read

OK = "ok"
FAILED = "FAILED"
UNCHECKED = "not checked"


class Unusable(WaitbusError):
    """There is nothing that can be verified. `reason` is `NO_INPUT` or `NO_DATA`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass
class Check:
    """One finding.

    `asked` says whether the user asked for this check, so that the result is incomplete without it. `proof` says
    whether passing it proves whose bytes the file holds.
    """

    name: str
    state: str
    text: str
    asked: bool = True
    proof: bool = False


@dataclass
class Report:
    """All findings, in the order in which they were made."""

    checks: list[Check] = field(default_factory=list)

    def unchecked(self, name: str, why: str, how: str, *, asked: bool = True) -> None:
        self.checks.append(Check(name, UNCHECKED, f"{why}: {how}", asked))

    def conclude(self, name: str, faults: list[str], text: str, *, proof: bool = False) -> None:
        """Add a check: `ok` with `text` if there are no faults, else `FAILED` with the first few of them."""
        self.checks.append(Check(name, FAILED if faults else OK, few(faults) if faults else text, proof=proof))

    @property
    def verdict(self) -> str:
        """`verified`, `failed`, `not authenticated`, or `incomplete` if a check that was asked for was not made."""
        if any(check.state == FAILED for check in self.checks):
            return "failed"
        if not any(check.proof and check.state == OK for check in self.checks):
            return "not authenticated"
        return "incomplete" if any(check.state == UNCHECKED and check.asked for check in self.checks) else "verified"

    def as_dict(self) -> dict[str, object]:
        """Return the findings for `--json`."""
        checks = [{"check": c.name, "state": c.state, "detail": c.text, "asked": c.asked} for c in self.checks]
        return {"checks": checks, "verdict": self.verdict}


def few(faults: list[str], limit: int = 3) -> str:
    """Join the first `limit` faults into one line that says how many more there are."""
    shown = "; ".join(faults[:limit])
    return f"{shown}; and {len(faults) - limit} more" if len(faults) > limit else shown
