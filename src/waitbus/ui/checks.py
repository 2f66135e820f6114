"""The checks of a report on standard output, a line for each."""

from __future__ import annotations

from waitbus.ui.output import has_colour, out, painted, safe
from waitbus.verify.report import FAILED, OK, UNCHECKED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.verify.report import Check, Report

_COLOURS = {OK: "green", FAILED: "red", UNCHECKED: "yellow"}


def show(report: Report) -> None:
    """Print a line for each check."""
    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        out(line_of(check, width))


def line_of(check: Check, width: int) -> str:
    """A check as one line: its state, its name, what was found."""
    loud = check.asked or check.state != UNCHECKED
    colour = _COLOURS[check.state] if loud and has_colour() else None
    return f"{painted(f'{check.state:<11}', colour)}  {check.name:<{width}}  {safe(check.text)}"
