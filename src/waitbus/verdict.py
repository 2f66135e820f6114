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
FAILURES = frozenset({"failure", "cancelled", "timed_out", "startup_failure"})


def verdict(conclusion: object) -> Verdict:
    """`success` ends a wait well, the four failure words end it badly, everything else is no verdict yet."""
    if conclusion == "success":
        return "success"
    return "failure" if isinstance(conclusion, str) and conclusion in FAILURES else "pending"


class _Run:
    """The newest run of one workflow: its id, its last conclusion word, and when it spoke last."""

    __slots__ = ("conclusion", "order", "run_id")

    def __init__(self, run_id: int | None) -> None:
        self.run_id = run_id
        self.conclusion: str | None = None
        self.order = 0


class CommitRuns:
    """Follows the runs of one commit and says what they amount to.

    Feed the `fields` of each event of the commit in order. Only the newest run of a workflow counts (the highest
    `run_id`); a later event of the same run replaces its word, so a re-run is pending until it ends again.
    """

    def __init__(self, workflows: Iterable[str] = ()) -> None:
        self._wanted = frozenset(workflows)
        self._runs: dict[str, _Run] = {}
        self._events = 0

    def feed(self, fields: Mapping[str, Any]) -> bool:
        """Take one event in. True when it counts: not a job, not an older run, not a workflow nobody asked for."""
        if fields.get("event_type") == "workflow_job":
            return False
        workflow = fields.get("workflow_name") or f"{fields.get('source')}/{fields.get('event_type')}"
        if self._wanted and workflow not in self._wanted:
            return False
        run_id = fields.get("run_id") if isinstance(fields.get("run_id"), int) else None
        run = self._runs.get(workflow)
        if run is None or (run_id is not None and (run.run_id is None or run_id > run.run_id)):
            run = self._runs[workflow] = _Run(run_id)
        elif run_id is not None and run.run_id is not None and run_id < run.run_id:
            return False
        self._events += 1
        run.order = self._events
        done = fields.get("status") in (None, "completed")
        run.conclusion = fields.get("conclusion") if done else None
        return True

    def first(self) -> Verdict:
        """The verdict of the run that ended first, among the newest of each workflow."""
        ended = [run for run in self._runs.values() if verdict(run.conclusion) != "pending"]
        return verdict(min(ended, key=lambda run: run.order).conclusion) if ended else "pending"

    def failed(self) -> str | None:
        """The workflow whose newest run failed for good; a `cancelled` one may yet be superseded and is left out."""
        return self._with(lambda word: word != "cancelled" and verdict(word) == "failure")

    def cancelled(self) -> str | None:
        """The workflow whose newest run was cancelled: a failure once nothing newer came for the settle time."""
        return self._with(lambda word: word == "cancelled")

    def all_well(self) -> bool:
        """Whether every newest run has ended, none badly, at least one with success, and no wanted one is missing."""
        words = [run.conclusion for run in self._runs.values()]
        ended = all(word is not None for word in words)
        blocking = any(word in ("action_required", "stale") or verdict(word) == "failure" for word in words)
        return ended and not blocking and "success" in words and self._wanted <= self._runs.keys()

    def _with(self, test: Any) -> str | None:
        return next((name for name, run in self._runs.items() if test(run.conclusion)), None)
