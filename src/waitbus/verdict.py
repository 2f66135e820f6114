"""What conclusions mean for an exit code, and which runs of a commit count.

Pure: no I/O, no clock, no module state. The rules are in docs/contract.md, section 6.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Literal

    Verdict = Literal["success", "failure", "pending"]
    # The identity of a workflow: its repository, the kind of name ("id", "file", "name" or "run"), and that name.
    Workflow = tuple[object, ...]
    # The workflow ids seen with each workflow file of a repository.
    Ids = dict[tuple[object, str | None], set[int | str]]

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
# Only events of this type are about a run. A job, a check or a message may name the commit too, but is not a run.
RUN_EVENT = "workflow_run"


def verdict(conclusion: object) -> Verdict:
    """Return the verdict of a conclusion: `success`, `failure` for one of `FAILURES`, and `pending` for all others."""
    if conclusion == "success":
        return "success"
    return "failure" if isinstance(conclusion, str) and conclusion in FAILURES else "pending"


def standing(fields: Mapping[str, Any]) -> Verdict:
    """Return the verdict of one event, from its `fields`.

    A failure is final, even if the status says that the rest goes on. A success counts only if the status is
    `completed` or absent. An event with neither status nor conclusion, for example a message, is a success.
    """
    status, conclusion = fields.get("status"), fields.get("conclusion")
    if status is None and conclusion is None:
        return "success"
    word = verdict(conclusion)
    return "pending" if word == "success" and status not in (None, "completed") else word


class Run:
    """One run of a workflow, as far as its events have told: its newest attempt and the state of that attempt.

    `conclusion` is None while it runs. `mark` is what the caller passed in with the last event that changed the state.
    `order` numbers such events, so that a run with a higher one changed later.
    """

    __slots__ = (
        "attempt",
        "conclusion",
        "file",
        "mark",
        "name",
        "order",
        "repository",
        "run_id",
        "trigger",
        "workflow_id",
    )

    def __init__(self, repository: tuple[str | None, str | None], run_id: int | None) -> None:
        self.repository = repository
        self.run_id = run_id
        self.workflow_id: int | str | None = None
        self.file: str | None = None
        self.name: str | None = None
        self.trigger: str | None = None
        self.attempt = 0
        self.conclusion: str | None = None
        self.order = 0
        self.mark: Any = None

    @property
    def workflow(self) -> str:
        """The workflow's name for a message."""
        return self.name or self.file or str(self.workflow_id or self.run_id)

    @property
    def age(self) -> tuple[int, int]:
        """A sort key, newest last, among runs of one workflow and trigger that all have a `run_id` or all have none."""
        return self.run_id or 0, self.order

    @property
    def names(self) -> set[str | None]:
        """All names by which a user may ask for its workflow: display name, file with or without its directory, id."""
        names = {self.name, self.file}
        if self.file is not None:
            names.add(self.file.rpartition("/")[2])
        if self.workflow_id is not None:
            names.add(str(self.workflow_id))
        return names

    def may_be(self, told: Run) -> bool:
        """Whether an event with the same `run_id` can belong to this run.

        It cannot if both name different workflows or triggers: some CI systems number the runs of each workflow from 1.
        """
        if None not in (self.trigger, told.trigger) and self.trigger != told.trigger:
            return False
        for name in ("workflow_id", "file", "name"):
            mine, theirs = getattr(self, name), getattr(told, name)
            if mine is not None and theirs is not None:
                return bool(mine == theirs)
        return True

    def learn(self, told: Run) -> bool:
        """Fill in what this event tells about the run and earlier ones did not. Returns whether there was anything."""
        known = ("workflow_id", "file", "name", "trigger")
        news = [name for name in known if getattr(self, name) is None and getattr(told, name) is not None]
        for name in news:
            setattr(self, name, getattr(told, name))
        return bool(news)

    def is_overtaken_by(self, told: Run) -> bool:
        """Whether an event of this run replaces the state known so far. The order of arrival need not decide."""
        if self.order == 0 or told.attempt != self.attempt:
            return told.attempt >= self.attempt
        if told.attempt == 0:  # attempts are not counted, so the later event is the newer one
            return told.conclusion != self.conclusion
        return _finality(told.conclusion) > _finality(self.conclusion)


class CommitRuns:
    """Follows the runs of one commit and sums up their state, in whatever order their events arrive.

    Feed it the `fields` of each event of the commit; it ignores all types but `workflow_run`.

    Events with the same `run_id` belong to the same run, unless they name different workflows or triggers. Events
    without a `run_id` belong to the same run if they have the same workflow and trigger. A workflow is identified by
    its `workflow_id`, else by its file (`path`), else by its display name.

    Of each workflow and trigger (`event`) only the newest run counts, the one with the highest `run_id`, and of a run
    only its highest `run_attempt`. Without attempts the last event counts, so that a re-run is pending until it ends.

    `workflows` restricts it to some workflows, each given by display name, file name with or without directory, or id.
    """

    def __init__(self, workflows: Iterable[str] = ()) -> None:
        self._wanted = frozenset(workflows)
        self._runs: dict[tuple[object, ...], list[Run]] = {}
        self._events = 0
        self._counting: list[Run] | None = None
        self._missing = self._wanted

    def feed(self, fields: Mapping[str, Any], mark: Any = None) -> Run | None:
        """Take one event. Returns the run that it changed, which then holds `mark`, or None if it told nothing new."""
        if fields.get("event_type") != RUN_EVENT:
            return None
        told = _told(fields)
        run = self._run_of(told)
        learned, overtaken = run.learn(told), run.is_overtaken_by(told)
        if overtaken:
            self._events += 1
            run.attempt, run.conclusion, run.mark, run.order = told.attempt, told.conclusion, mark, self._events
        if not learned and not overtaken:
            return None
        self._counting = None
        return run

    def _run_of(self, told: Run) -> Run:
        """Return the run that an event is about, a new one if none fits."""
        key: tuple[object, ...] = (told.repository, told.run_id)
        if told.run_id is None:
            key = (*_workflow(told, {}), told.trigger)
        runs = self._runs.setdefault(key, [])
        for run in runs:
            if run.may_be(told):
                return run
        runs.append(Run(told.repository, told.run_id))
        return runs[-1]

    def counting(self) -> list[Run]:
        """Return the runs that count: the newest of each workflow and trigger, within the wanted workflows."""
        if self._counting is None:
            self._counting = self._count()
        return self._counting

    def first(self) -> Run | None:
        """Return the run that counts and was the first to end with a verdict, or None."""
        ended = [run for run in self.counting() if verdict(run.conclusion) != "pending"]
        return min(ended, key=_order) if ended else None

    def failures(self) -> list[Run]:
        """Return the runs that count and failed, first ended first. A newer run may yet replace a `cancelled` one."""
        return sorted([run for run in self.counting() if verdict(run.conclusion) == "failure"], key=_order)

    def all_well(self) -> bool:
        """Whether no wanted workflow is missing and every run that counts has ended well, at least one with success."""
        words = [run.conclusion for run in self.counting()]
        return "success" in words and all(word in _WELL for word in words) and not self._missing

    def newest(self) -> Run | None:
        """Return the run that counts and changed last, or None."""
        return max(self.counting(), key=_order, default=None)

    @property
    def missing(self) -> frozenset[str]:
        """The wanted workflows of which no run was seen."""
        self.counting()
        return self._missing

    def seen(self) -> list[str]:
        """What the workflows are called of which a run was seen, wanted or not."""
        return list(dict.fromkeys(run.workflow for runs in self._runs.values() for run in runs))

    def _count(self) -> list[Run]:
        ids: Ids = {}
        runs = [run for numbered in self._runs.values() for run in numbered]
        for run in runs:
            if run.workflow_id is not None:
                ids.setdefault((run.repository, run.file), set()).add(run.workflow_id)
        newest: dict[tuple[Workflow, str | None, bool], Run] = {}
        called: dict[Workflow, set[str | None]] = {}
        for run in runs:
            workflow = _workflow(run, ids)
            called.setdefault(workflow, set()).update(run.names)
            # It is unknown whether a run without an id is older or newer than one with an id, so both count.
            slot = (workflow, run.trigger, run.run_id is None)
            other = newest.get(slot)
            if other is None or run.age > other.age:
                newest[slot] = run
        if not self._wanted:
            return list(newest.values())
        meant = {
            workflow: {word for word in self._wanted if word in names or file_of(word) in names}
            for workflow, names in called.items()
        }
        self._missing = self._wanted.difference(*meant.values())
        return [run for (workflow, _, _), run in newest.items() if meant[workflow]]


def _told(fields: Mapping[str, Any]) -> Run:
    """Return what one event says about its run."""
    told = Run((_text(fields.get("owner")), _text(fields.get("repo"))), _number(fields.get("run_id")))
    identity, path = fields.get("workflow_id"), _text(fields.get("path"))
    number = _number(identity)
    told.workflow_id = _text(identity) if number is None else number
    told.file = path and file_of(path)
    told.name = _text(fields.get("workflow_name"))
    told.trigger = _text(fields.get("event"))
    told.attempt = max(0, _number(fields.get("run_attempt")) or 0)
    if fields.get("status") in (None, "completed"):
        told.conclusion = _text(fields.get("conclusion"))
    return told


def _workflow(run: Run, ids: Ids) -> Workflow:
    """Return the identity of a run's workflow. If the run names none, it is a workflow of its own."""
    if run.workflow_id is not None:
        return run.repository, "id", run.workflow_id
    if run.file is not None:
        known = ids.get((run.repository, run.file), ())
        return (run.repository, "id", *known) if len(known) == 1 else (run.repository, "file", run.file)
    return (run.repository, "run", run.run_id) if run.name is None else (run.repository, "name", run.name)


def file_of(path: str) -> str:
    """Remove the ref that GitHub may append to a workflow's file: `.github/workflows/ci.yml@refs/heads/main`."""
    ends = [at + len(mark) - 1 for mark in _BEFORE_REF if (at := path.find(mark)) >= 0]
    return path[: min(ends)] if ends else path.partition("@refs/")[0]


_BEFORE_REF = (".yml@", ".yaml@")


def _order(run: Run) -> int:
    return run.order


def _finality(conclusion: str | None) -> tuple[int, str]:
    """A sort key for states of one attempt: any end comes after none, a success after other ends, a failure last."""
    if conclusion is None:
        return 0, ""
    rank = {"failure": 4, "success": 3, "pending": 2 if conclusion in _WELL else 1}[verdict(conclusion)]
    return rank, conclusion


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    """Return a whole number, also if a foreign producer has written it as `7.0` or `"7"`. Else return None."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < _DIGITS_MAX else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if type(value) is int else None


_DIGITS_MAX = 20
