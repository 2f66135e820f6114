"""When a wait is over, and how: one rule, a deadline, a way to fail. `wait_for` is its simplest use.

`Wait` is a pure machine: no socket, no clock; times are handed in (`now` in seconds of a monotonic clock). Whatever is
decided by what did not come, a time-out too, is decided only when all that was committed up to then is known: `run`
asks the hub anew, and the store where the hub does not answer.
"""

from __future__ import annotations

import time

from waitbus.client.core import CAUGHT_UP, SubscriptionState
from waitbus.client.rules import FAILED, TIMED_OUT, Conditions, Outcome, any_of
from waitbus.client.since import since_ulid
from waitbus.event import happened_ms, is_history
from waitbus.predicate import all_of
from waitbus.settings import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from waitbus.client.core import Item
    from waitbus.client.rules import Rule
    from waitbus.client.subscribe import Subscription
    from waitbus.event import Event
    from waitbus.predicate import Predicate
    from waitbus.settings import Settings

# How long the hub may take at the deadline to say what was committed before it, and then the store.
LATE_SEC = 0.2


class Wait:
    """One wait. Feed it every event, and ask it what the time decides whenever nothing came until `due`.

    `caught_up` and `lost` tell it what it may take for granted: whether all is known, and whether what comes is new.
    `timeout` in seconds counts from `started`; 0 looks at what is there and ends where live begins. `fail_if` ends it
    as failed.
    """

    __slots__ = ("_asked", "_day_ahead", "_deadline", "_fail_if", "_known", "_live", "_rule", "_timeout")

    def __init__(
        self, rule: Rule, *, started: float, timeout: float | None = None, fail_if: Predicate | None = None
    ) -> None:
        self._rule = rule
        self._fail_if = fail_if
        self._timeout = timeout
        self._deadline = None if timeout is None else started + timeout
        # Up to when everything committed has been fed, and how far the clock of day was ahead of ours then.
        self._known = float("-inf")
        self._day_ahead = float("inf")
        # Whether what comes is new; if not, since when an answer has been waited for.
        self._live = False
        self._asked = started

    @property
    def looks_once(self) -> bool:
        return self._timeout == 0

    def wanted(self) -> Predicate | None:
        """The predicate to subscribe with; None: everything."""
        wanted = self._rule.wanted()
        return wanted if self._fail_if is None else any_of([wanted, self._fail_if])

    def caught_up(self, asked_at: float, now: float, unix_ns: int) -> None:
        """What was committed before `asked_at` has been fed, and what comes from now on is new."""
        self._known = asked_at
        self._day_ahead = unix_ns / 1e9 - now
        self._live = True

    def lost(self) -> None:
        """The connection is over: what comes next was committed at some time since."""
        self._live = False

    def feed(self, event: Event, now: float, unix_ns: int) -> Outcome | None:
        """Take an event in."""
        frame = event.as_frame()
        if self._fail_if is not None and self._fail_if(frame):
            return Outcome(FAILED, f"--fail-if matched: {event.summary}", [event])
        if self.looks_once:
            self._asked = now
        age = 0.0 if self._live else self._age(frame, now, unix_ns)
        outcome = self._rule.feed(event, frame, now, age)
        return outcome if outcome is not None or not self._live else self._rule.judge(self._known)

    def tick(self) -> Outcome | None:
        """What time has decided."""
        if not self._live:
            return None
        outcome = self._rule.judge(self._known)
        if outcome is None and self._deadline is not None and self._deadline <= self._known:
            return self.timed_out()
        return outcome

    def timed_out(self) -> Outcome:
        """The outcome when nothing else is to be learned before the deadline."""
        return Outcome(TIMED_OUT, f"timed out after {self._timeout or 0:g} s")

    def must_look(self, now: float) -> bool:
        """Whether it is time for a decision by what did not come, and the hub must first say all that it has.

        True is said once: connect anew then, and tell `caught_up`.
        """
        if not self._live or (due := self._due()) is None or due > now:
            return False
        self._live = False
        self._asked = now
        return True

    def must_give_up(self, now: float) -> bool:
        """Whether the deadline has passed, and the hub had its time to say what was committed before."""
        return not self._live and (end := self._end()) is not None and now >= end

    def due(self) -> float | None:
        """When to ask again if nothing comes; None: no need."""
        return self._due() if self._live else self._end()

    def _due(self) -> float | None:
        dues = [due for due in (self._rule.due(), self._deadline) if due is not None and due > self._known]
        return min(dues, default=None)

    def _end(self) -> float | None:
        return None if self._deadline is None else max(self._deadline, self._asked + LATE_SEC)

    def _age(self, frame: Mapping[str, Any], now: float, unix_ns: int) -> float:
        """For how many seconds at most an event of the replay has been there, as far as silence is concerned."""
        age = unix_ns / 1e9 - happened_ms(frame) / 1e3
        if not is_history(frame):
            # The clock of day may have been set meanwhile, or the machine have slept; and whatever the id says, the
            # event was not there yet when all was known.
            age = min(age - max(0.0, unix_ns / 1e9 - now - self._day_ahead), now - self._known)
        return max(0.0, age)


def run(wait: Wait, subscription: Subscription, on_ready: Callable[[], object] | None = None) -> Outcome:
    """Block until the wait is over. `on_ready` is called once, when nothing can be missed any more."""
    state = subscription.state
    while True:
        now = time.monotonic()
        if wait.must_look(now):
            subscription.renew()
        elif wait.must_give_up(now):
            return _without_hub(wait, subscription)
        items = subscription.receive(wait.due())
        if on_ready is not None and state.ready:
            on_ready()
            on_ready = None
        outcome = _feed(wait, subscription, items)
        if outcome is not None:
            return outcome


def _feed(wait: Wait, subscription: Subscription, items: Sequence[Item]) -> Outcome | None:
    state = subscription.state
    # What came before the marker is replay; what came before the connection was lost is judged after the next one.
    if not state.live or any(item is CAUGHT_UP for item in items):
        wait.lost()
    for item in items:
        outcome = None
        if item is not CAUGHT_UP:
            event = subscription.resolve(item)
            outcome = None if event is None else wait.feed(event, time.monotonic(), time.time_ns())
        elif state.live:
            wait.caught_up(state.asked_at, time.monotonic(), time.time_ns())
            outcome = wait.tick()
        if outcome is not None and outcome.by_silence:
            outcome = _by_silence(wait, subscription)
        if outcome is not None:
            return outcome
    return None


def _by_silence(wait: Wait, subscription: Subscription) -> Outcome | None:
    """What did not come decides only where the store has nothing either that the hub did not tell."""
    for event in subscription.untold():
        outcome = wait.feed(event, time.monotonic(), time.time_ns())
        if outcome is not None and not outcome.by_silence:
            return outcome
    return wait.tick()


def _without_hub(wait: Wait, subscription: Subscription) -> Outcome:
    """The deadline has passed and the hub does not answer: what the store says. Silence decides nothing then.

    Only for who looks once it does: that is about the past.
    """
    until = None if wait.looks_once else time.monotonic() + LATE_SEC
    for event in subscription.untold(alone=wait.looks_once):
        outcome = wait.feed(event, time.monotonic(), time.time_ns())
        if outcome is not None:
            return outcome
        if until is not None and time.monotonic() >= until:
            return wait.timed_out()
    wait.caught_up(time.monotonic(), time.monotonic(), time.time_ns())
    outcome = wait.tick()
    if outcome is None or (outcome.by_silence and not wait.looks_once):
        return wait.timed_out()
    return outcome


def wait_for(
    *predicates: str | Predicate,
    source: str | None = None,
    timeout: float | None = None,
    since: str | None = None,
    settings: Settings | None = None,
    autostart: bool | None = None,
) -> Event | None:
    """Block until one event matches, and return it; return None if `timeout` seconds pass first.

    >>> _ = emit(EventInsert(source="pytest", event_type="pytest_session", conclusion="failure"))
    >>> event = wait_for("conclusion=failure", source="pytest", since="10m", timeout=60)
    >>> event.conclusion
    'failure'

    `predicates`, `source`, `since` and `autostart` are those of `subscribe`. Without `since`, only events committed
    from now on count; with it, an earlier event answers at once. A `timeout` of 0 looks at the events that are there,
    and returns. Raises `HubError` if no hub can be reached, and `PredicateError` and `SettingsError` for arguments and
    settings that cannot be read.
    """
    from waitbus.client.subscribe import Subscription

    started = time.monotonic()
    settings = settings or load()
    wait = Wait(Conditions([all_of(predicates, source)]), started=started, timeout=timeout)
    state = SubscriptionState(wait.wanted(), since_ulid(since, time.time_ns()))
    with Subscription(state, settings, autostart=autostart) as subscription:
        events = run(wait, subscription).events
    return events[0] if events else None
