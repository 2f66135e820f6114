"""When a wait is over, and how: one rule, a deadline, a way to fail. `wait_for` is its simplest use.

The decision is a pure machine: no socket, no clock; times are handed in (`now` in seconds of a monotonic clock). What a
passing of time alone decides is decided only while the hub is heard (`live`): silence of a dead hub is no silence.
"""

from __future__ import annotations

import time

from waitbus.client.core import CAUGHT_UP, Stream, since_ulid
from waitbus.event import ulid_ms
from waitbus.predicate import Predicate, all_of
from waitbus.settings import load
from waitbus.verdict import RUN_EVENT, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from waitbus.client.subscribe import Subscription
    from waitbus.event import Event
    from waitbus.settings import Settings
    from waitbus.verdict import CommitRuns, Run, Verdict

    class Rule(Protocol):
        """What a wait waits for."""

        def feed(self, event: Event, frame: Mapping[str, Any], now: float, age: float) -> Outcome | None:
            """Take an event in; `age` is for how many seconds it had been written when it came, 0 when live."""

        def judge(self, now: float) -> Outcome | None:
            """What is decided at this moment, everything committed before being known."""

        def due(self) -> float | None:
            """When `judge` may next say something new without another event."""

        def wanted(self) -> Predicate | None:
            """What must be subscribed to; None: everything."""


MATCHED, FAILED, TIMED_OUT = 0, 1, 124
# How long a newer run of a commit may take to appear, unless told otherwise.
SETTLE_SEC = 5.0


class Outcome:
    """How a wait ended: its exit code (0, 1 or 124), the events that decided, and one line for a person."""

    __slots__ = ("code", "events", "text")

    def __init__(self, code: int, text: str, events: Sequence[Event] = ()) -> None:
        self.code = code
        self.text = text
        self.events = list(events)


class Wait:
    """One wait. Feed it every event, tell it when the hub is caught up, ask it again when `due` is past.

    `timeout` in seconds counts from `started`; 0 looks at what is there and ends where live begins. `fail_if` ends it
    with 1.
    """

    __slots__ = ("_deadline", "_fail_if", "_look_once", "_rule", "_timeout")

    def __init__(
        self, rule: Rule, *, started: float, timeout: float | None = None, fail_if: Predicate | None = None
    ) -> None:
        self._rule = rule
        self._fail_if = fail_if
        self._timeout = timeout
        self._deadline = None if timeout is None else started + timeout
        self._look_once = timeout == 0

    def wanted(self) -> Predicate | None:
        """The predicate to subscribe with; None: everything."""
        wanted = self._rule.wanted()
        if wanted is None or self._fail_if is None:
            return wanted
        return any_of([wanted, self._fail_if])

    def feed(self, event: Event, now: float, unix_ns: int, *, live: bool) -> Outcome | None:
        """Take an event in. `live`: what is told is new, not replay."""
        frame = event.as_frame()
        if self._fail_if is not None and self._fail_if(frame):
            return Outcome(FAILED, f"--fail-if matched: {event.summary}", [event])
        # The id carries when the row was written; `received_at` is whatever the producer says.
        age = 0.0 if live else max(0.0, unix_ns / 1e9 - ulid_ms(event.event_id) / 1e3)
        outcome = self._rule.feed(event, frame, now, age)
        return outcome if outcome is not None or not live else self._rule.judge(now)

    def tick(self, now: float, *, live: bool) -> Outcome | None:
        """What time has decided. Called when live begins, and when `due` is past."""
        outcome = self._rule.judge(now) if live else None
        if outcome is not None or self._deadline is None or now < self._deadline or (self._look_once and not live):
            return outcome
        return Outcome(TIMED_OUT, f"timed out after {self._timeout:g} s")

    def due(self, *, live: bool) -> float | None:
        """When to call `tick` if nothing comes; None: no need."""
        due = self._rule.due() if live else None
        deadline = None if self._look_once and not live else self._deadline
        return min((time for time in (due, deadline) if time is not None), default=None)


class Conditions:
    """Events that must match: one of the conditions (`every=False`), or each of them at least once.

    With `by_verdict`, a match counts only when its conclusion is a verdict, and a bad one ends the wait with 1. An
    event that has neither `status` nor `conclusion`, such as a message, counts as it is.
    """

    __slots__ = ("_by_verdict", "_every", "_met", "_predicates")

    def __init__(
        self, predicates: Sequence[Predicate | None], *, every: bool = False, by_verdict: bool = False
    ) -> None:
        self._predicates = predicates
        self._every = every
        self._by_verdict = by_verdict
        self._met: dict[int, Event] = {}

    def wanted(self) -> Predicate | None:
        return any_of(self._predicates)

    def feed(self, event: Event, frame: Mapping[str, Any], now: float, age: float) -> Outcome | None:
        matching = [i for i, test in enumerate(self._predicates) if test is None or test(frame)]
        word = self._word(event)
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

    def _word(self, event: Event) -> Verdict:
        if not self._by_verdict or (event.conclusion is None and event.fields.get("status") is None):
            return "success"
        return verdict(event.conclusion)

    def judge(self, now: float) -> Outcome | None:
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

    def judge(self, now: float) -> Outcome | None:
        return Outcome(MATCHED, f"quiet for {self._span:g} s") if now >= self.due() else None

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

    __slots__ = ("_all_runs", "_predicate", "_runs", "_settle")

    def __init__(
        self, predicate: Predicate | None, runs: CommitRuns, *, all_runs: bool, settle: float = SETTLE_SEC
    ) -> None:
        nodes = [{"key": "event_type", "op": "eq", "value": RUN_EVENT}, predicate and predicate.as_object]
        self._predicate = Predicate.from_object({"all": [node for node in nodes if node is not None]})
        self._runs = runs
        self._all_runs = all_runs
        self._settle = settle

    def wanted(self) -> Predicate | None:
        return self._predicate

    def feed(self, event: Event, frame: Mapping[str, Any], now: float, age: float) -> Outcome | None:
        if self._predicate(frame):
            self._runs.feed(event.fields, _Mark(event, now + self._settle - age))
        return None

    def judge(self, now: float) -> Outcome | None:
        first = self._runs.first()
        if self._all_runs:
            final = [run for run in self._runs.failures() if _is_final(run, now)]
            if final:
                return _of_run(final[0], FAILED)
            newest = self._runs.newest()
            if newest is not None and self._runs.all_well() and now >= self._settled():
                return _of_run(newest, MATCHED)
        elif first is not None and _is_final(first, now):
            return _of_run(first, MATCHED if first.conclusion == "success" else FAILED)
        return None

    def due(self) -> float | None:
        if self._all_runs:
            if self._runs.all_well():
                return self._settled()
            return min((run.mark.until for run in self._runs.failures()), default=None)
        first = self._runs.first()
        return first.mark.until if first is not None else None

    def _settled(self) -> float:
        """When a newer run has had its time to appear, after the last change to one that counts."""
        ends: list[float] = [run.mark.until for run in self._runs.counting()]
        return max(ends)


def _is_final(run: Run, now: float) -> bool:
    return run.conclusion != "cancelled" or now >= run.mark.until


def _of_run(run: Run, code: int) -> Outcome:
    event: Event = run.mark.event
    return Outcome(code, f"{run.conclusion}: {event.summary}", [event])


def any_of(predicates: Sequence[Predicate | None]) -> Predicate | None:
    """Predicates joined by OR; None among them is everything."""
    known = [predicate for predicate in predicates if predicate is not None]
    if len(known) < len(predicates) or not known:
        return None
    return known[0] if len(known) == 1 else Predicate.from_object({"any": [one.as_object for one in known]})


def run(wait: Wait, subscription: Subscription) -> Outcome:
    """Block until the wait is over."""
    stream = subscription.stream
    while True:
        outcome = wait.tick(time.monotonic(), live=stream.live)
        if outcome is not None:
            return outcome
        items = subscription.receive(wait.due(live=stream.live))
        # What came before the marker is replay; what came before the connection was lost is judged after the next one.
        live = stream.live and not any(item is CAUGHT_UP for item in items)
        for item in items:
            if item is CAUGHT_UP:
                live = stream.live
                outcome = wait.tick(time.monotonic(), live=live)
            elif (event := subscription.resolve(item)) is not None:
                outcome = wait.feed(event, time.monotonic(), time.time_ns(), live=live)
            if outcome is not None:
                return outcome


def wait_for(
    *predicates: str | Predicate,
    source: str | None = None,
    timeout: float | None = None,
    since: str | None = None,
    settings: Settings | None = None,
    autostart: bool | None = None,
) -> Event | None:
    """Block until one event matches, and return it; None when `timeout` seconds passed first.

    `predicates`, `source`, `since` and `autostart` are those of `subscribe`. Without `since` only what is committed
    from now on counts; with it, an earlier event answers at once. A `timeout` of 0 looks at what is there and ends.
    Raises `HubError` when no hub can be reached, `PredicateError` and `SettingsError` for what cannot be read.
    """
    from waitbus.client.subscribe import Subscription

    started = time.monotonic()
    settings = settings or load()
    wait = Wait(Conditions([all_of(predicates, source)]), started=started, timeout=timeout)
    stream = Stream(wait.wanted(), since_ulid(since, time.time_ns()))
    with Subscription(stream, settings, autostart=autostart) as subscription:
        events = run(wait, subscription).events
    return events[0] if events else None
