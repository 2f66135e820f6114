"""What the store says, at the end, of a wait that nothing ended. A waiter pays nothing for it before.

The reading is bounded in rows, bytes and time, and whatever goes wrong with it leaves the explanation out: a time-out
stays what it is.
"""

from __future__ import annotations

import os
import sqlite3
import time

from waitbus.client.explain import Evidence, counts, narrowing, why, why_open
from waitbus.client.rules import Commit, Conditions
from waitbus.client.since import history_since
from waitbus.event import WaitbusError, happened_ms, is_history
from waitbus.predicate import Predicate
from waitbus.requirements import requirements_of
from waitbus.store.open import open_reader
from waitbus.store.prefilter import condition_of
from waitbus.store.read import cursor_of, last_seq, read_back
from waitbus.verdict import RUN_EVENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

    from waitbus.client.core import SubscriptionState
    from waitbus.client.rules import Rule
    from waitbus.settings import Settings

    Frame = dict[str, Any]

# For so long the store may be asked, in seconds, and until so long after the deadline: a time-out is kept to half a
# second, and what the hub took at the deadline counts.
READ_SEC = 0.25
AFTER_DEADLINE_SEC = 0.45
# So many events of a source are compared, and so many of all are looked at for what came, and for what is known.
COMPARED_MAX = 500
CAME_MAX = 1000
KNOWN_MAX = 5000
BEFORE_MAX = 100
RUNS_MAX = 100
SHA_KEY = "fields.head_sha"
# The bounds of any one search: so many events, and so many characters of them.
LOOKED_MAX = 5000
CHARS_MAX = 8 << 20
_STEP = 25
_OPERATIONS = 1000  # of SQLite's machine between two looks at the clock
_KNOWN = (
    "SELECT DISTINCT source, event_type FROM (SELECT seq, source, event_type FROM events ORDER BY seq DESC LIMIT ?) "
    "ORDER BY 1, 2"
)


class Asked:
    """What was asked for: the cursor after which events counted, its text, and what of it counts as given.

    `begun_ms` is when the waiting began, in milliseconds since the epoch. `looks_once`: nothing was waited for.
    """

    __slots__ = ("begun_ms", "cursor", "gives", "looks_once", "since")

    def __init__(
        self,
        cursor: str,
        begun_ms: float,
        gives: Callable[[Frame], bool],
        *,
        since: str | None = None,
        looks_once: bool = False,
    ) -> None:
        self.cursor = cursor
        self.begun_ms = begun_ms
        self.gives = gives
        self.since = since
        self.looks_once = looks_once


def reason(
    settings: Settings,
    rule: Rule,
    state: SubscriptionState,
    *,
    begun_ns: int,
    deadline: float | None = None,
    since: str | None = None,
    looks_once: bool = False,
) -> str:
    """One line on why a subscription brought nothing that meets `rule`; empty: nothing can be said.

    `begun_ns` is when it was made, in nanoseconds since the epoch, and `deadline` when it had to end, a time of
    ``time.monotonic()``.
    """
    cursor = state.began_at or (state.cursor if looks_once else None)
    if cursor is None:
        return "the hub did not answer in time; waitbus status says how it is"
    asked = Asked(cursor, begun_ns / 1e6, state.gives, since=since, looks_once=looks_once)
    return why_not(settings, rule, asked, until_of(deadline))


def reason_of_nothing(
    settings: Settings, state: SubscriptionState, *, begun_ns: int, deadline: float | None = None, since: str | None
) -> str:
    """The same for a subscription that brought nothing at all."""
    rule = Conditions([state.predicate])
    return reason(settings, rule, state, begun_ns=begun_ns, deadline=deadline, since=since)


def reason_in_store(settings: Settings, predicate: Predicate | None, cursor: str, *, begun_ns: int, since: str) -> str:
    """The same for a look at the store alone, at what came after `cursor`."""
    history_from = history_since(cursor)

    def gives(frame: Frame) -> bool:
        return not is_history(frame) or happened_ms(frame) >= history_from

    asked = Asked(cursor, begun_ns / 1e6, gives, since=since)
    return why_not(settings, Conditions([predicate]), asked, until_of(None))


def until_of(deadline: float | None) -> float:
    """Until when the store may be asked when a wait had to end at `deadline` (both of ``time.monotonic()``)."""
    now = time.monotonic()
    return now + READ_SEC if deadline is None else min(now + READ_SEC, deadline + AFTER_DEADLINE_SEC)


def why_not(settings: Settings, rule: Rule, asked: Asked, until: float) -> str:
    """One line on why `rule` was not met, found by `until` (of ``time.monotonic()``); empty: nothing can be said."""
    try:
        with _Look(settings, asked, until) as look:
            if isinstance(rule, Commit):
                return look.commit(rule)
            if isinstance(rule, Conditions):
                return look.conditions(rule)
    except (WaitbusError, sqlite3.Error, OSError):  # nothing is there, or it cannot be read now
        return ""
    except Exception:  # a fault of ours is not to take the place of the exit code
        if os.environ.get("WAITBUS_DEBUG"):
            raise
    return ""


class _Look:
    """One look at the store, for `with`. Raises `WaitbusError`, also when the time is over."""

    def __init__(self, settings: Settings, asked: Asked, until: float) -> None:
        self._settings = settings
        self._asked = asked
        self._until = until
        self._was_cut = False

    def __enter__(self) -> Self:
        patience = self._until - time.monotonic()
        if patience <= 0 or not os.path.exists(self._settings.db_path):
            raise WaitbusError("no time, or no store")
        self._conn = open_reader(self._settings, timeout=patience)
        self._conn.set_progress_handler(lambda: time.monotonic() > self._until, _OPERATIONS)
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    def conditions(self, rule: Conditions) -> str:
        """What the open ones among several conditions lack."""
        self._place()
        asked, by_verdict = self._asked, rule.by_verdict
        reasons = []
        for predicate in rule.still_open():
            evidence = self._evidence(predicate, by_verdict)
            said = why(predicate, evidence, by_verdict=by_verdict, since=asked.since, looks_once=asked.looks_once)
            reasons.append((predicate, said))
        return why_open(reasons, rule.total)

    def commit(self, rule: Commit) -> str:
        """How the runs of a commit stand, or which others were seen."""
        from waitbus.client.explain_runs import why_no_run, why_no_verdict

        if rule.runs.seen():
            return why_no_verdict(rule.runs, rule.settle)
        self._place()
        wanted = rule.wanted()
        sha = next((node for node in requirements_of(wanted) if node.get("key") == SHA_KEY), None)
        if sha is None:
            return ""
        named = list(self._back(self._end, 0, Predicate.from_object(sha), CAME_MAX))
        of_commit = [frame for frame in named if frame["event_type"] == RUN_EVENT]
        if of_commit:
            evidence = Evidence(of_commit)
            earlier = next((frame for frame in of_commit if wanted is None or wanted(frame)), None)
            if earlier is not None:
                evidence.frames.clear()
                evidence.earlier_sec = self._sec_before(earlier)
            return why(wanted, evidence, since=self._asked.since)
        others: dict[str, int] = {}
        for frame in named:
            others[frame["event_type"]] = others.get(frame["event_type"], 0) + 1
        runs = Predicate.from_object({"key": "event_type", "op": "eq", "value": RUN_EVENT})
        return why_no_run(sha["value"].rstrip("*"), list(self._back(self._end, 0, runs, RUNS_MAX)), others)

    def _place(self) -> None:
        self._start, self._end = cursor_of(self._conn, self._asked.cursor), last_seq(self._conn)

    def _evidence(self, predicate: Predicate | None, by_verdict: bool) -> Evidence:
        """As much as there is time for, what matters most first. Raises when there was not even time for that."""
        narrowed = narrowing(predicate)
        frames = list(self._back(self._end, self._start, narrowed, COMPARED_MAX + 1))
        evidence = Evidence(frames[:COMPARED_MAX], is_cut=self._was_cut or len(frames) > COMPARED_MAX)
        try:
            self._add(evidence, predicate, by_verdict)
        except (WaitbusError, sqlite3.Error):
            if time.monotonic() < self._until:
                raise
        return evidence

    def _add(self, evidence: Evidence, predicate: Predicate | None, by_verdict: bool) -> None:
        if not evidence.frames:
            came = list(self._back(self._end, self._start, None, CAME_MAX + 1))
            evidence.is_cut = self._was_cut or len(came) > CAME_MAX
            for frame in came[:CAME_MAX]:
                kind = (str(frame["fields"]["source"]), frame["event_type"])
                evidence.came[kind] = evidence.came.get(kind, 0) + 1
            for source, event_type in self._conn.execute(_KNOWN, (KNOWN_MAX,)):
                evidence.known.setdefault(str(source), []).append(str(event_type))
        before = self._first_before(predicate, lambda frame: counts(predicate, frame, by_verdict=by_verdict))
        if before is not None:
            evidence.earlier_sec = self._sec_before(before)
        if not evidence.frames:
            evidence.before = list(self._back(self._start, 0, narrowing(predicate), BEFORE_MAX))
        source = narrowing(predicate, source_only=True)
        if not evidence.frames and source is not None:
            last = self._first_before(source, source)
            if last is None and not self._was_cut:
                evidence.never = not any(True for _ in self._back(self._end, 0, source, 1)) and not self._was_cut
            elif last is not None:
                evidence.last_sec = self._sec_before(last)

    def _sec_before(self, frame: Frame) -> float:
        return max(0.0, (self._asked.begun_ms - happened_ms(frame)) / 1000)

    def _first_before(self, predicate: Predicate | None, test: Callable[[Frame], bool]) -> Frame | None:
        return next((frame for frame in self._back(self._start, 0, predicate, -1) if test(frame)), None)

    def _back(self, seq: int, after: int, predicate: Predicate | None, limit: int) -> Iterator[Frame]:
        """Events from `seq` back to `after` that `predicate` matches, at most `limit` (-1: no limit), newest first.

        `_was_cut` says whether a bound of this file ended it.
        """
        where = condition_of(predicate.as_object) if predicate is not None else None
        looked = chars = 0
        self._was_cut = False
        while seq > after:
            if time.monotonic() > self._until:
                raise WaitbusError("no more time")
            page = read_back(self._conn, seq, _STEP, after=after, where=where)
            for _, frame in page.rows:
                if self._asked.gives(frame) and (predicate is None or predicate(frame)):
                    yield frame
                    limit -= 1
                    if not limit:
                        return
            looked, chars, seq = looked + len(page.rows), chars + page.chars, page.end - 1
            if looked >= LOOKED_MAX or chars >= CHARS_MAX:
                self._was_cut = seq > after
                return
