"""Conclusion words and what they mean for an exit code; which run of a commit speaks for it.

Pure: no I/O, no clock, no state of the module's own. Rules: section 6 of the contract.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Literal

    Verdict = Literal["success", "failure", "pending"]

CONCLUSIONS = frozenset(
    {
        "success",
        "failure",
        "cancelled",
        "timed_out",
        "skipped",
        "neutral",
        "action_required",
        "stale",
        "startup_failure",
    }
)
_WELL = ("success", "skipped", "neutral")
FAILURES = frozenset({"failure", "cancelled", "timed_out", "startup_failure"})


def verdict(conclusion: object) -> Verdict:
    """`success` ends a wait well, the four failure words end it badly, everything else is no verdict yet."""
    if conclusion == "success":
        return "success"
    return "failure" if isinstance(conclusion, str) and conclusion in FAILURES else "pending"


class Run:
    """The newest run of one workflow: its last conclusion word (None while it runs), and the caller's mark."""

    __slots__ = ("attempt", "conclusion", "mark", "order", "run_id", "workflow")

    def __init__(self, workflow: str, run_id: int | None, attempt: int | None) -> None:
        self.workflow = workflow
        self.run_id = run_id
        self.attempt = attempt
        self.conclusion: str | None = None
        self.order = 0
        self.mark: Any = None


class CommitRuns:
    """Follows the runs of one commit and says what they amount to.

    Feed the `fields` of each event of the commit in order. Only the newest run of a workflow counts (the highest
    `run_id`); a later event of the same run replaces its word, so a re-run is pending until it ends again. Where the
    source tells `run_attempt`, word of the same attempt that comes late does not take an end back.
    """

    def __init__(self, workflows: Iterable[str] = ()) -> None:
        self._wanted = frozenset(workflows)
        self._runs: dict[tuple[object, object, str], Run] = {}
        self._events = 0

    def feed(self, fields: Mapping[str, Any], mark: Any = None) -> Run | None:
        """Take one event in. The run it counts for, which then holds `mark`.

        None when it does not count: a job, an older run, old news of this one, a workflow nobody asked for.
        """
        if fields.get("event_type") == "workflow_job":
            return None
        workflow = _text(fields, "workflow_name") or f"{fields.get('source')}/{fields.get('event_type')}"
        if self._wanted and workflow not in self._wanted:
            return None
        place = (_text(fields, "owner"), _text(fields, "repo"), workflow)
        run_id, attempt = _number(fields, "run_id"), _number(fields, "run_attempt")
        ended = fields.get("status") in (None, "completed")
        run = self._runs.get(place)
        if run is None or _is_newer(run_id, attempt, run):
            run = self._runs[place] = Run(workflow, run_id, attempt)
        elif _is_older(run_id, attempt, run) or (attempt is not None and not ended and run.conclusion is not None):
            return None
        self._events += 1
        run.order = self._events
        run.mark = mark
        run.conclusion = _text(fields, "conclusion") if ended else None
        return run

    def first(self) -> Run | None:
        """The run that ended first with a verdict, among the newest of each workflow."""
        ended = [run for run in self._runs.values() if verdict(run.conclusion) != "pending"]
        return min(ended, key=lambda run: run.order) if ended else None

    def failures(self) -> list[Run]:
        """The newest runs that failed, in the order of their ends. A `cancelled` one may yet be superseded."""
        failed = [run for run in self._runs.values() if verdict(run.conclusion) == "failure"]
        return sorted(failed, key=lambda run: run.order)

    def all_well(self) -> bool:
        """Whether every newest run has ended, none badly, at least one with success, and no wanted one is missing."""
        words = [run.conclusion for run in self._runs.values()]
        seen = {workflow for _, _, workflow in self._runs}
        return "success" in words and all(word in _WELL for word in words) and self._wanted <= seen

    def newest(self) -> Run | None:
        """The run that spoke last."""
        return max(self._runs.values(), key=lambda run: run.order, default=None)


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None


def _number(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if type(value) is int else None


def _is_newer(run_id: int | None, attempt: int | None, run: Run) -> bool:
    if run_id is None or run.run_id is None:
        return run_id is not None
    return run_id > run.run_id or (run_id == run.run_id and (attempt or 0) > (run.attempt or 0))


def _is_older(run_id: int | None, attempt: int | None, run: Run) -> bool:
    if run_id is None or run.run_id is None:
        return False
    return run_id < run.run_id or (run_id == run.run_id and attempt is not None and attempt < (run.attempt or 0))
