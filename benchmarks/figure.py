"""One line of the table, and the ways in which a figure is judged. No clock, no process: only numbers."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BenchError(Exception):
    """A figure that could not be measured, and why; or a promise broken on the way, such as an event lost."""


@dataclass(frozen=True)
class Figure:
    """One line of the table. `judged` is what the budget limits: a ratio, a difference or the value itself."""

    what: str
    measured: str
    against: str = ""
    ratio: float | None = None
    judged: float | None = None
    budget: str = ""
    limit: float | None = None
    at_most: bool = True
    problem: str = ""

    @property
    def verdict(self) -> str:
        if self.problem:
            return self.problem
        if self.limit is None or self.judged is None:
            return ""
        fits = self.judged <= self.limit if self.at_most else self.judged >= self.limit
        return "OK" if fits else "OVER" if self.at_most else "UNDER"

    @property
    def failed(self) -> bool:
        return not (self.verdict in ("", "OK") or self.verdict.startswith("skipped"))

    def as_json(self) -> dict[str, object]:
        return {
            "what": self.what,
            "measured": self.measured,
            "against": self.against or None,
            "ratio": self.ratio,
            "judged": self.judged,
            "budget": self.budget or None,
            "verdict": self.verdict or None,
        }


def ratio(what: str, unit: str, measured: float, against: str, reference: float, limit: float | None = None) -> Figure:
    """A figure judged as a multiple of a floor's or a peer's; without a limit it is only shown."""
    times = measured / reference
    budget = "" if limit is None else f"≤ {limit:g}x"
    shown = f"{reference:.3g} {unit} ({against})"
    return Figure(what, f"{measured:.3g} {unit}", shown, times, times, budget, limit)


def times_under(what: str, unit: str, measured: float, against: str, reference: float, limit: float) -> Figure:
    """A figure that must be so many times smaller than a peer's."""
    shown = f"{reference:.3g} {unit} ({against})"
    under = reference / measured
    return Figure(what, f"{measured:.3g} {unit}", shown, measured / reference, under, f"{limit:g}x under", limit, False)


def excess(what: str, unit: str, measured: float, against: str, reference: float, limit: float) -> Figure:
    """A figure judged by what it has over a floor."""
    shown = f"{reference:.1f} {unit} ({against})"
    over = measured - reference
    budget = f"≤ floor + {limit:g} {unit}"
    return Figure(what, f"{measured:.1f} {unit}", shown, measured / reference, over, budget, limit)


def at_most(what: str, unit: str, measured: float, limit: float) -> Figure:
    """A figure judged by itself."""
    return Figure(what, f"{measured:,.4g} {unit}", judged=measured, budget=f"≤ {limit:,g} {unit}", limit=limit)


def at_least(what: str, unit: str, measured: float, limit: float) -> Figure:
    """A rate judged by itself."""
    return Figure(
        what, f"{measured:,.0f} {unit}", judged=measured, budget=f"≥ {limit:,g} {unit}", limit=limit, at_most=False
    )


def shown(what: str, unit: str, measured: float) -> Figure:
    """A figure without a budget."""
    return Figure(what, f"{measured:,.4g} {unit}")


def skipped(what: str, reason: str) -> Figure:
    """A figure that this machine cannot give."""
    return Figure(what, "", problem=f"skipped: {reason}")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, as the floor computes it."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def median_of(rounds: Sequence[Sequence[float]], share: float) -> float:
    """The median over rounds of one percentile: a round disturbed by something else does not decide."""
    return statistics.median(percentile(one, share) for one in rounds)
