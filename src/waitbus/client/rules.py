"""What a wait can wait for: events that match, a silence, the runs of a commit. Pure: no socket, no clock.

Times are handed in, in seconds of a monotonic clock. What the passing of time alone decides is judged at the moment up
to which everything committed is known, never at the present one: a hub that hangs is silent, too.
"""

from __future__ import annotations

from waitbus.predicate import Predicate
from waitbus.verdict import RUN_EVENT, standing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal, Protocol

    from waitbus.event import Event
    from waitbus.verdict import CommitRuns, Run

    Ending = Literal["matched", "failed", "timed out"]

    class Rule(Protocol):
        """What a wait waits for."""

        def feed(self, event: Event, frame: Mapping[str, Any], now: float, age: float) -> Outcome | None:
            """Take an event in; `age` is for how many seconds it had been written when it came, 0 when live."""

        def judge(self, known: float) -> Outcome | None:
            """What is decided when everything committed up to the moment `known` has been fed."""

        def due(self) -> float | None:
            """When time alone may decide, if no event comes before; None: never."""

        def wanted(self) -> Predicate | None:
            """What must be subscribed to; None: everything."""


MATCHED: Ending = "matched"
FAILED: Ending = "failed"
TIMED_OUT: Ending = "timed out"
# How long a newer run of a commit may take to appear, unless told otherwise.
SETTLE_SEC = 5.0


class Outcome:
    """How a wait ended, in a word; the events that decided, and one line for a person.

    `by_silence`: it was decided by what did not come.
    """

    __slots__ = ("by_silence", "ending", "events", "text")

    def __init__(self, ending: Ending, text: str, events: Sequence[Event] = (), *, by_silence: bool = False) -> None:
        self.ending: Ending = ending
        self.text = text
        self.events = list(events)
        self.by_silence = by_silence


class Conditions:
    """Events that must match: one of the conditions (`every=False`), or each of them at least once.

    With `by_verdict`, a match counts only by its verdict (see `standing`), and a failure ends the wait as failed.
    """

    __slots__ = ("_every", "_met", "_predicates", "by_verdict")

    def __init__(
        self, predicates: Sequence[Predicate | None], *, every: bool = False, by_verdict: bool = False
    ) -> None:
        self._predicates = predicates
        self._every = every
        self.by_verdict = by_verdict
        self._met: dict[int, Event] = {}

    @property
    def total(self) -> int:
        return len(self._predicates)

    def still_open(self) -> list[Predicate | None]:
        """Those that no event has met."""
        return [predicate for i, predicate in enumerate(self._predicates) if i not in self._met]

    def wanted(self) -> Predicate | None:
        return any_of(self._predicates)

    def feed(self, event: Event, frame: Mapping[str, Any], now: float, age: float) -> Outcome | None:
        matching = [i for i, test in enumerate(self._predicates) if test is None or test(frame)]
        word = standing(event.fields) if self.by_verdict else "success"
        if not matching or word == "pending":
            return None
        if word == "failure":
            return Outcome(FAILED, f"{event.conclusion}: {event.summary}", [event])
        for i in matching:
            self._met.setdefault(i, event)
        if self._every and len(self._met) < len(self._predicates):
            return None
        met = [self._met[i] for i in sorted(self._met)]
        events = list({event.event_id: event for event in met}.values())
        return Outcome(MATCHED, f"matched: {'; '.join(event.summary for event in events)}", events)

    def judge(self, known: float) -> Outcome | None:
        return None

    def due(self) -> float | None:
        return None


class Quiet:
    """Nothing matches for `span` seconds. `since` is the moment, maybe past, from which silence counts."""

    __slots__ = ("_predicate", "_since", "_span")

    def __init__(self, predicate: Predicate | None, span: float, since: float) -> None:
        self._predicate = predicate
        self._span = span
        self._since = since

    def wanted(self) -> Predicate | None:
        return self._predicate

    def feed(self, event: Event, frame: Mapping[str, Any], now: float, age: float) -> Outcome | None:
        if self._predicate is None or self._predicate(frame):
            self._since = max(self._since, now - age)
        return None

    def judge(self, known: float) -> Outcome | None:
        if known < self.due():
            return None
        return Outcome(MATCHED, f"quiet for {self._span:g} s", by_silence=True)

    def due(self) -> float:
        return self._since + self._span


class _Mark:
    """What is remembered of a run's last event: the event, and until when a newer run may still take its place."""

    __slots__ = ("event", "until")

    def __init__(self, event: Event, until: float) -> None:
        self.event = event
        self.until = until


class Commit:
    """The runs of one commit: the first one's verdict, or (`all_runs`) the first failure, or that all ended well.

    A `cancelled` run counts only when no newer one of its workflow came for `settle` seconds; all is well only when
    no run began or ended for that long.
    """

    __slots__ = ("_all_runs", "_predicate", "runs", "settle")

    def __init__(
        self, predicate: Predicate | None, runs: CommitRuns, *, all_runs: bool, settle: float = SETTLE_SEC
    ) -> None:
        nodes = [{"key": "event_type", "value": RUN_EVENT}, predicate and predicate.as_object]
        self._predicate = Predicate.from_object({"all": [node for node in nodes if node is not None]})
        self.runs = runs
        self._all_runs = all_runs
        self.settle = settle

    def wanted(self) -> Predicate | None:
        return self._predicate

    def feed(self, event: Event, frame: Mapping[str, Any], now: float, age: float) -> Outcome | None:
        if self._predicate(frame):
            self.runs.feed(event.fields, _Mark(event, now + self.settle - age))
        return None

    def judge(self, known: float) -> Outcome | None:
        first = self.runs.first()
        if self._all_runs:
            final = [run for run in self.runs.failures() if self._is_final(run, known)]
            if final:
                return _of_run(final[0], FAILED)
            newest = self.runs.newest()
            if newest is not None and self.runs.all_well() and self._is_past(self._settled(), known):
                return _of_run(newest, MATCHED, by_silence=True)
        elif first is not None and self._is_final(first, known):
            return _of_run(first, MATCHED if first.conclusion == "success" else FAILED)
        return None

    def due(self) -> float | None:
        if self.runs.all_well():
            return self._settled()
        return min((run.mark.until for run in self.runs.failures()), default=None)

    def _settled(self) -> float:
        """When a newer run has had its time to appear, after the last change to one that counts."""
        ends: list[float] = [run.mark.until for run in self.runs.counting()]
        return max(ends)

    def _is_final(self, run: Run, known: float) -> bool:
        return run.conclusion != "cancelled" or self._is_past(run.mark.until, known)

    def _is_past(self, until: float, known: float) -> bool:
        return known >= until or self.settle == 0


def _of_run(run: Run, ending: Ending, *, by_silence: bool = False) -> Outcome:
    event: Event = run.mark.event
    text = f"{run.conclusion}: {event.summary}"
    return Outcome(ending, text, [event], by_silence=by_silence or run.conclusion == "cancelled")


def any_of(predicates: Sequence[Predicate | None]) -> Predicate | None:
    """Predicates joined by OR; None among them is everything."""
    known = [predicate for predicate in predicates if predicate is not None]
    if len(known) < len(predicates) or not known:
        return None
    return known[0] if len(known) == 1 else Predicate.from_object({"any": [one.as_object for one in known]})
