"""When a wait is over: the machine with a clock of the test's own, then `wait_for` on a real hub."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import PATIENCE, HubProcess
from waitbus.cli.exitcodes import OF_WAIT
from waitbus.client.core import HubError, SubscriptionState
from waitbus.client.emit import emit, emit_many
from waitbus.client.fetch import committed_after
from waitbus.client.rules import Commit, Conditions, Outcome, Quiet, any_of
from waitbus.client.subscribe import Subscription, subscribe
from waitbus.client.wait import LATE_SEC, Wait, run, wait_for
from waitbus.event import HISTORY_METHODS, Event, EventInsert
from waitbus.predicate import Predicate, PredicateError, all_of
from waitbus.settings import Settings
from waitbus.store.errors import StoreDamaged
from waitbus.ulid import ULID_MIN, UlidFactory
from waitbus.verdict import CommitRuns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from waitbus.client.core import Item

EPOCH_NS = 1_800_000_000_000_000_000


class Clock:
    """Seconds by hand: monotonic and of day."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.day_ns = EPOCH_NS

    def unix_ns(self) -> int:
        return self.day_ns + round(self.now * 1e9)

    def set(self, seconds: float) -> None:
        """Set the clock of day forward, or back; what a sleep of the machine does to it, too."""
        self.day_ns += round(seconds * 1e9)


class Bench:
    """Feeds a wait the way `run` does, and keeps the first outcome. Its hub answers at once, while there is one."""

    def __init__(self, rule: Any, **options: Any) -> None:
        self.clock = Clock()
        self.wait = Wait(rule, started=self.clock.now, **options)
        self.count = 0
        self.looks = 0
        self.hub = True
        self.outcome: Outcome | None = None

    def says(self, outcome: Outcome | None) -> int | None:
        if outcome is not None and self.outcome is None:
            self.outcome = outcome
        return None if outcome is None else OF_WAIT[outcome.ending]

    def feed(self, age: float = 0.0, **fields: Any) -> int | None:
        stamp = self.clock.now
        self.clock.now = stamp - age
        self.count += 1
        event_id = UlidFactory(self.clock.unix_ns, lambda n: self.count.to_bytes(n, "big"))()
        self.clock.now = stamp
        source, event_type = fields.pop("source", "test"), fields.pop("event_type", "test")
        received_at = fields.pop("received_at", 0)
        whole = {"source": source, "event_type": event_type, "conclusion": None, "status": None, **fields}
        event = Event(event_id, event_type, "o", "r", received_at, event_id, f"{source} {fields}", whole)
        return self.says(self.wait.feed(event, self.clock.now, self.clock.unix_ns()))

    def run(self, workflow: str, run_id: int, conclusion: str | None = None, age: float = 0.0) -> int | None:
        status = "completed" if conclusion else "in_progress"
        return self.feed(
            age,
            source="github",
            event_type="workflow_run",
            workflow_name=workflow,
            run_id=run_id,
            status=status,
            conclusion=conclusion,
        )

    def go_live(self) -> int | None:
        """The hub answers, or comes back: all that was committed before has been fed."""
        self.hub = True
        self.caught_up(self.clock.now)
        return self.tick()

    def caught_up(self, asked_at: float) -> None:
        self.wait.caught_up(asked_at, self.clock.now, self.clock.unix_ns())

    def lose_hub(self) -> None:
        self.hub = False
        self.wait.lost()

    def tick(self) -> int | None:
        return self.says(self.wait.tick())

    def sleep(self, seconds: float) -> int | None:
        """Let time pass the way `run` does: from one `due` to the next."""
        end = self.clock.now + seconds
        while True:
            due = self.wait.due()
            if due is None or due > end:
                self.clock.now = end
                return None
            self.clock.now = max(due, self.clock.now)
            if self.wait.must_give_up(self.clock.now):
                return self.says(self.wait.timed_out())
            looks = self.wait.must_look(self.clock.now)
            self.looks += looks
            code = self.go_live() if looks and self.hub else self.tick()
            if code is not None:
                return code
            after = self.wait.due()
            assert after is None or after > due, "a due that stays would spin"


def leaf(text: str) -> Predicate:
    return Predicate.parse(text)


class TestConditions:
    def test_the_first_match_ends_it_in_replay_too(self) -> None:
        bench = Bench(Conditions([leaf("n=2")]))
        assert bench.feed(n=1) is None
        assert bench.feed(n=2) == 0
        assert bench.outcome is not None
        assert [event.fields["n"] for event in bench.outcome.events] == [2]

    def test_no_condition_is_any_event(self) -> None:
        bench = Bench(Conditions([None]))
        assert bench.wait.wanted() is None
        assert bench.go_live() is None
        assert bench.feed() == 0

    @pytest.mark.parametrize("word", ["failure", "skipped", None])
    def test_without_a_verdict_asked_for_conclusion_and_status_do_not_matter(self, word: str | None) -> None:
        bench = Bench(Conditions([None]))
        assert bench.feed(conclusion=word, status="in_progress") == 0

    def test_it_says_what_matched(self) -> None:
        bench = Bench(Conditions([leaf("n=1"), leaf("n=2")], every=True))
        bench.feed(n=1)
        bench.feed(n=2)
        assert bench.outcome is not None
        assert bench.outcome.text == "matched: test {'n': 1}; test {'n': 2}"

    def test_first_of_several(self) -> None:
        bench = Bench(Conditions([leaf("n=1"), leaf("n=2")]))
        assert bench.feed(n=3) is None
        assert bench.feed(n=2) == 0

    def test_all_of_several_in_any_order(self) -> None:
        bench = Bench(Conditions([leaf("n=1"), leaf("n=2"), leaf("n<9")], every=True))
        assert bench.feed(n=2) is None
        assert bench.feed(n=2) is None
        assert bench.feed(n=1) == 0
        assert bench.outcome is not None
        assert [event.fields["n"] for event in bench.outcome.events] == [1, 2]

    def test_by_verdict_only_verdicts_count(self) -> None:
        bench = Bench(Conditions([leaf("n=1")], by_verdict=True))
        for word in ("skipped", "neutral", "action_required", "stale", "unheard_of"):
            assert bench.feed(n=1, conclusion=word) is None
        assert bench.feed(n=1, status="in_progress") is None
        assert bench.feed(n=1, status="completed") is None
        assert bench.feed(n=1, status="in_progress", conclusion="success") is None
        assert bench.feed(n=2, conclusion="failure") is None
        assert bench.feed(n=1, conclusion="success") == 0

    def test_by_verdict_what_has_neither_status_nor_conclusion_counts_as_it_is(self) -> None:
        bench = Bench(Conditions([leaf("n=1"), leaf("n=2")], every=True, by_verdict=True))
        assert bench.feed(n=2) is None
        assert bench.feed(n=1, conclusion="success") == 0

    @pytest.mark.parametrize("word", ["failure", "cancelled", "timed_out", "startup_failure"])
    def test_by_verdict_the_four_words_end_it_with_1(self, word: str) -> None:
        bench = Bench(Conditions([leaf("n=1"), leaf("n=2")], every=True, by_verdict=True))
        assert bench.feed(n=1, conclusion="success") is None
        assert bench.feed(n=2, conclusion=word) == 1

    def test_by_verdict_a_failure_is_final_while_the_rest_goes_on(self) -> None:
        bench = Bench(Conditions([leaf("n=1"), leaf("n=2")], every=True, by_verdict=True))
        assert bench.feed(n=2, conclusion="failure", status="in_progress") == 1

    @given(
        st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=5),
        st.lists(st.integers(0, 4), max_size=12),
        st.booleans(),
    )
    def test_it_ends_with_the_event_that_completes_it(
        self, wanted: list[set[int]], numbers: list[int], every: bool
    ) -> None:
        tests = [all_of([f"n={n}" for n in some] or ["never=1"]) for some in wanted]
        bench = Bench(Conditions(tests, every=every))
        seen: set[int] = set()
        for number in numbers:
            seen.add(number)
            done = (all if every else any)(bool(some & seen) for some in wanted)
            assert bench.feed(n=number) == (0 if done else None)
            if done:
                break


class TestDeadline:
    def test_time_runs_out_with_124(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]), timeout=30)
        bench.go_live()
        assert bench.sleep(29.9) is None
        assert bench.sleep(1) == 124
        assert bench.clock.now == 1030
        assert bench.outcome is not None
        assert bench.outcome.text == "timed out after 30 s"

    def test_it_runs_out_while_no_hub_is_heard_too(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]), timeout=30)
        bench.go_live()
        bench.lose_hub()
        assert bench.sleep(29.9) is None
        assert bench.sleep(1) == 124
        assert bench.clock.now == 1030

    def test_so_it_does_where_none_was_ever_heard(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]), timeout=30)
        assert bench.sleep(31) == 124
        assert bench.clock.now == 1030

    def test_one_that_was_asked_just_now_has_its_time_to_answer(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 29.9, 1000.0), timeout=30)
        bench.go_live()
        bench.hub = False
        assert bench.sleep(31) == 124
        assert bench.clock.now == 1029.9 + LATE_SEC

    def test_the_hub_is_first_asked_what_was_committed_before(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]), timeout=30)
        bench.go_live()
        assert bench.wait.due() == 1030
        bench.clock.now += 30
        assert not bench.wait.must_look(1029.9)
        assert bench.wait.must_look(1030)
        assert bench.feed(age=0.5, n=1) == 0

    def test_however_late_it_is_seen_the_hub_has_its_time_to_answer(self) -> None:
        """A process that was stopped past its deadline."""
        bench = Bench(Conditions([leaf("n=1")]), timeout=30)
        bench.go_live()
        assert bench.wait.must_look(1100)
        assert not bench.wait.must_look(1100)
        assert not bench.wait.must_give_up(1100)
        assert bench.wait.due() == 1100 + LATE_SEC
        assert bench.wait.must_give_up(1100 + LATE_SEC)

    def test_an_answer_to_an_earlier_question_is_none(self) -> None:
        """What was replayed until after the deadline was asked for before it."""
        bench = Bench(Conditions([leaf("n=1")]), timeout=30)
        bench.clock.now += 31
        bench.caught_up(1029)
        assert bench.tick() is None
        assert bench.wait.must_look(bench.clock.now)
        assert bench.go_live() == 124

    def test_a_rule_that_is_due_and_decides_nothing_is_not_asked_again(self) -> None:
        class Undecided(Conditions):
            def due(self) -> float | None:
                return 999.0

        bench = Bench(Undecided([leaf("n=1")]))
        bench.go_live()
        assert bench.wait.due() is None
        assert not bench.wait.must_look(2000)

    def test_zero_looks_at_what_is_there_and_ends_where_live_begins(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]), timeout=0)
        for _ in range(10):
            assert not bench.wait.must_give_up(bench.clock.now)
            bench.clock.now += 0.9 * LATE_SEC
            assert bench.feed(age=60, n=2) is None  # as long as something comes
        assert bench.go_live() == 124

    def test_zero_gives_up_on_a_hub_that_says_nothing(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]), timeout=0)
        assert bench.wait.due() == 1000 + LATE_SEC
        assert bench.wait.must_give_up(1000 + LATE_SEC)

    def test_zero_finds_what_is_there(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]), timeout=0)
        assert bench.feed(age=60, n=1) == 0

    def test_without_one_nothing_is_ever_due(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]))
        assert bench.wait.due() is None
        bench.go_live()
        assert bench.wait.due() is None
        assert not bench.wait.must_give_up(1e9)


class TestFailIf:
    def test_it_ends_with_1(self) -> None:
        bench = Bench(Conditions([leaf("n=1")]), fail_if=leaf("n=2"))
        assert bench.feed(n=3) is None
        assert bench.feed(n=2) == 1

    def test_it_wins_over_a_match_by_the_same_event(self) -> None:
        assert Bench(Conditions([leaf("n=1")]), fail_if=leaf("n=1")).feed(n=1) == 1

    def test_it_is_subscribed_to(self) -> None:
        wait = Wait(Conditions([leaf("n=1")]), started=0, fail_if=leaf("n=2"))
        wanted = wait.wanted()
        assert wanted is not None
        assert [wanted({"fields": {"n": n}}) for n in (1, 2, 3)] == [True, True, False]
        assert Wait(Conditions([None]), started=0, fail_if=leaf("n=2")).wanted() is None


class TestQuiet:
    def test_silence_ends_it_with_0(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        assert bench.go_live() is None
        assert bench.sleep(59) is None
        assert bench.sleep(2) == 0
        assert bench.clock.now == 1060

    def test_each_match_starts_it_anew_and_nothing_else_does(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        bench.sleep(50)
        assert bench.feed(n=1) is None
        bench.sleep(50)
        assert bench.feed(n=2) is None
        assert bench.sleep(20) == 0
        assert bench.clock.now == 1110

    def test_it_can_time_out(self) -> None:
        bench = Bench(Quiet(None, 60, 1000.0), timeout=100)
        bench.go_live()
        bench.sleep(50)
        bench.feed()
        assert bench.sleep(60) == 124

    def test_silence_in_the_past_counts(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0 - 600))
        bench.feed(age=300, n=1)
        assert bench.outcome is None
        assert bench.go_live() == 0

    def test_a_match_in_the_past_counts_from_when_it_was_written(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0 - 600))
        bench.feed(age=20, n=1)
        assert bench.go_live() is None
        assert bench.sleep(60) == 0
        assert bench.clock.now == pytest.approx(1040, abs=0.01)

    def test_what_was_written_just_now_counts_from_now(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        bench.lose_hub()
        bench.sleep(50)
        bench.feed(age=0.0, n=1)
        assert bench.go_live() is None
        assert bench.sleep(59.9) is None
        assert bench.sleep(0.2) == 0

    def test_the_silence_of_a_dead_hub_is_none(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        bench.sleep(50)
        bench.lose_hub()
        assert bench.sleep(500) is None
        bench.feed(age=10, n=1)
        assert bench.go_live() is None
        assert bench.sleep(50.1) == 0

    def test_nor_is_that_of_one_that_hangs(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0), timeout=300)
        bench.go_live()
        bench.hub = False
        assert bench.sleep(200) is None
        bench.feed(age=10, n=1)
        assert bench.go_live() is None
        assert bench.sleep(50.1) == 0

    def test_one_that_hangs_for_good_lets_it_time_out(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0), timeout=300)
        bench.go_live()
        bench.hub = False
        assert bench.sleep(301) == 124
        assert bench.clock.now <= 1300 + LATE_SEC

    def test_what_a_live_hub_tells_is_new_whatever_its_id_says(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        bench.sleep(50)
        bench.feed(age=40, n=1)
        assert bench.sleep(59) is None
        assert bench.sleep(2) == 0

    def test_the_hub_is_asked_once_and_only_when_it_is_time(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        for _ in range(5):
            bench.sleep(50)
            bench.feed(n=1)
        assert bench.looks == 0
        assert bench.sleep(60) == 0
        assert bench.looks == 1

    def test_an_answer_that_is_on_its_way_at_the_deadline_is_waited_for(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0), timeout=60)
        bench.go_live()
        assert bench.sleep(60) == 0

    def test_silence_that_a_long_replay_hid_is_asked_for_again(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.clock.now += 100
        bench.feed(age=99, n=1)
        bench.caught_up(1000)  # asked then, and all told only now
        assert bench.tick() is None
        assert bench.sleep(0) == 0
        assert bench.looks == 1

    def test_what_the_store_has_and_the_hub_did_not_tell_breaks_it(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        bench.clock.now += 60
        bench.caught_up(bench.clock.now)
        assert bench.feed(age=20, n=1) is None
        assert bench.tick() is None
        assert bench.sleep(59) is None
        assert bench.sleep(2) == 0

    @pytest.mark.parametrize("step", [-7200, 7200])
    @pytest.mark.parametrize("before", [True, False])
    def test_a_clock_of_day_that_is_set_makes_no_silence(self, step: float, before: bool) -> None:
        """While no hub is heard an event is written, a second before the clock is set or after."""
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        bench.sleep(50)
        bench.caught_up(1050)
        bench.lose_hub()
        bench.sleep(9)
        bench.clock.set(step)
        bench.feed(age=1 + (step if before else 0), n=1)
        assert bench.go_live() is None
        assert bench.sleep(58) is None
        assert bench.sleep(3) == 0

    def test_an_event_with_an_absurd_id_breaks_it(self) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        bench.sleep(50)
        bench.caught_up(1050)
        bench.lose_hub()
        bench.sleep(5)
        bench.feed(age=40 * 365 * 86_400, n=1)
        assert bench.go_live() is None
        assert bench.sleep(54) is None

    @pytest.mark.parametrize("method", HISTORY_METHODS)
    def test_history_breaks_no_silence(self, method: str) -> None:
        bench = Bench(Quiet(leaf("n=1"), 60, 1000.0))
        bench.go_live()
        bench.sleep(50)
        bench.caught_up(1050)
        bench.lose_hub()
        bench.feed(n=1, ingest_method=method, received_at=bench.clock.unix_ns() - 86_400_000_000_000)
        bench.go_live()
        assert bench.sleep(10) == 0


def commit(*workflows: str, all_runs: bool = False, settle: float = 5, **options: Any) -> Bench:
    rule = Commit(leaf('source="github"'), CommitRuns(workflows), all_runs=all_runs, settle=settle)
    return Bench(rule, **options)


class TestCommit:
    """Alone: the first run's verdict."""

    @pytest.mark.parametrize(("word", "code"), [("success", 0), ("failure", 1), ("timed_out", 1)])
    def test_the_first_verdict_ends_it(self, word: str, code: int) -> None:
        bench = commit()
        bench.go_live()
        assert bench.run("CI", 1) is None
        assert bench.run("Docs", 2, "skipped") is None
        assert bench.run("CI", 1, word) == code
        assert bench.outcome is not None
        assert bench.outcome.events[0].fields["workflow_name"] == "CI"

    def test_a_run_that_ended_answers_at_once_but_only_when_all_is_known(self) -> None:
        bench = commit()
        assert bench.run("CI", 1, "failure", age=900) is None
        assert bench.run("CI", 2, "success", age=300) is None
        assert bench.go_live() == 0

    def test_nor_is_anything_decided_in_the_middle_of_what_a_later_connection_replays(self) -> None:
        bench = commit()
        bench.go_live()
        bench.lose_hub()
        assert bench.run("CI", 1, "failure", age=5) is None
        assert bench.tick() is None
        assert bench.run("CI", 2, "success", age=2) is None
        assert bench.go_live() == 0

    def test_a_rerun_under_way_takes_the_old_verdict_back(self) -> None:
        bench = commit(timeout=60)
        bench.run("CI", 1, "failure", age=900)
        bench.run("CI", 1, age=10)
        assert bench.go_live() is None
        assert bench.run("CI", 1, "success") == 0

    def test_the_one_that_ended_first_speaks(self) -> None:
        bench = commit()
        bench.run("Docs", 2, "success", age=300)
        bench.run("CI", 1, "failure", age=200)
        assert bench.go_live() == 0

    def test_a_cancelled_run_counts_when_nothing_newer_came(self) -> None:
        bench = commit()
        bench.go_live()
        assert bench.run("CI", 1, "cancelled") is None
        assert bench.sleep(4.9) is None
        assert bench.sleep(0.2) == 1

    def test_a_cancelled_run_that_was_superseded_is_none(self) -> None:
        bench = commit()
        bench.go_live()
        bench.run("CI", 1, "cancelled")
        bench.sleep(3)
        assert bench.run("CI", 2) is None
        assert bench.sleep(100) is None
        assert bench.run("CI", 2, "success") == 0

    def test_a_newer_one_may_be_known_before_the_old_is_cancelled(self) -> None:
        bench = commit()
        bench.go_live()
        bench.run("CI", 1)
        bench.run("CI", 2)
        assert bench.run("CI", 1, "cancelled") is None
        assert bench.sleep(60) is None

    def test_a_cancelled_run_of_long_ago_answers_at_once(self) -> None:
        bench = commit()
        bench.run("CI", 1, "cancelled", age=60)
        assert bench.go_live() == 1

    def test_one_cancelled_just_now_is_held_for_the_rest(self) -> None:
        bench = commit()
        bench.run("CI", 1, "cancelled", age=2)
        assert bench.go_live() is None
        assert bench.sleep(10) == 1
        assert bench.clock.now == pytest.approx(1003, abs=0.01)

    def test_only_the_named_workflows_count(self) -> None:
        bench = commit("CI")
        bench.go_live()
        assert bench.run("Docs", 1, "failure") is None
        assert bench.run("CI", 2, "success") == 0

    def test_nothing_seen_is_no_success(self) -> None:
        bench = commit(timeout=60)
        bench.go_live()
        assert bench.sleep(61) == 124

    def test_other_events_are_none_of_its_business(self) -> None:
        bench = commit()
        bench.go_live()
        assert bench.feed(source="docker", event_type="workflow_run", conclusion="failure") is None
        assert bench.feed(source="github", event_type="check_run", conclusion="failure") is None
        assert bench.run("CI", 1, "success") == 0

    def test_it_subscribes_to_runs_alone(self) -> None:
        wanted = commit().wait.wanted()
        assert wanted is not None
        for source, event_type, whether in (
            ("github", "workflow_run", True),
            ("github", "workflow_job", False),
            ("ci", "workflow_run", False),
        ):
            assert wanted({"event_type": event_type, "fields": {"source": source}}) is whether

    def test_it_says_which_run_it_was(self) -> None:
        bench = commit()
        bench.go_live()
        bench.run("CI", 1, "failure")
        assert bench.outcome is not None
        assert bench.outcome.text.startswith("failure: github {'workflow_name': 'CI'")
        assert not bench.outcome.by_silence

    def test_a_cancelled_run_is_one_by_what_did_not_come(self) -> None:
        bench = commit()
        bench.go_live()
        bench.run("CI", 1, "cancelled")
        bench.sleep(6)
        assert bench.outcome is not None
        assert bench.outcome.by_silence


class TestAllRuns:
    def test_all_well_and_none_new_for_the_settle_time(self) -> None:
        bench = commit(all_runs=True)
        bench.go_live()
        bench.run("CI", 1)
        bench.run("Docs", 2)
        assert bench.run("CI", 1, "success") is None
        assert bench.sleep(60) is None
        assert bench.run("Docs", 2, "skipped") is None
        assert bench.sleep(4.9) is None
        assert bench.sleep(0.2) == 0

    def test_five_seconds_unless_told_otherwise(self) -> None:
        bench = Bench(Commit(None, CommitRuns(), all_runs=True))
        bench.go_live()
        bench.run("CI", 1, "success")
        assert bench.sleep(4.9) is None
        assert bench.sleep(0.2) == 0

    def test_a_run_that_begins_meanwhile_is_waited_for(self) -> None:
        bench = commit(all_runs=True)
        bench.go_live()
        bench.run("CI", 1, "success")
        bench.sleep(4)
        assert bench.run("Deploy", 2) is None
        assert bench.sleep(60) is None
        bench.run("Deploy", 2, "success")
        assert bench.sleep(5.1) == 0

    def test_the_first_failure_ends_it_at_once(self) -> None:
        bench = commit(all_runs=True)
        bench.go_live()
        bench.run("CI", 1)
        assert bench.run("Docs", 2, "failure") == 1

    def test_long_ended_runs_answer_at_once(self) -> None:
        bench = commit(all_runs=True)
        bench.run("CI", 1, "success", age=90)
        bench.run("Docs", 2, "success", age=60)
        assert bench.go_live() == 0

    def test_an_old_failure_that_was_rerun_well_is_none(self) -> None:
        bench = commit(all_runs=True)
        bench.run("CI", 1, "failure", age=90)
        bench.run("CI", 1, "success", age=60)
        assert bench.go_live() == 0

    def test_a_cancelled_one_ends_it_while_others_run(self) -> None:
        bench = commit(all_runs=True)
        bench.go_live()
        bench.run("Docs", 2)
        assert bench.run("CI", 1, "cancelled") is None
        assert bench.sleep(4.9) is None
        assert bench.sleep(0.2) == 1

    def test_a_named_workflow_not_seen_holds_it_up(self) -> None:
        bench = commit("CI", "Deploy", all_runs=True, timeout=120)
        bench.go_live()
        bench.run("CI", 1, "success")
        assert bench.sleep(60) is None
        bench.run("Deploy", 2, "success")
        assert bench.sleep(6) == 0

    def test_all_skipped_is_not_success(self) -> None:
        bench = commit(all_runs=True, timeout=60)
        bench.go_live()
        bench.run("CI", 1, "skipped")
        assert bench.sleep(61) == 124

    def test_the_silence_of_a_hub_that_hangs_settles_nothing(self) -> None:
        bench = commit(all_runs=True)
        bench.go_live()
        bench.run("CI", 1, "success")
        bench.hub = False
        assert bench.sleep(60) is None
        bench.run("Deploy", 2, "failure", age=50)
        assert bench.go_live() == 1

    def test_nor_does_it_make_a_cancelled_run_final(self) -> None:
        bench = commit(all_runs=True)
        bench.go_live()
        bench.run("CI", 1, "cancelled")
        bench.hub = False
        assert bench.sleep(60) is None
        bench.run("CI", 2, "success", age=50)
        assert bench.go_live() == 0

    def test_no_settle_time_ends_at_the_event(self) -> None:
        bench = commit(all_runs=True, settle=0)
        bench.go_live()
        bench.sleep(1)
        assert bench.run("CI", 1, "success") == 0
        assert bench.outcome is not None
        assert bench.outcome.by_silence

    @given(
        st.lists(
            st.one_of(
                st.floats(0, 12),
                st.tuples(
                    st.sampled_from("AB"),
                    st.integers(1, 3),
                    st.sampled_from([None, "success", "failure", "cancelled", "skipped"]),
                ),
            ),
            max_size=14,
        ),
        st.booleans(),
        st.integers(0, 14),
    )
    def test_whatever_happens_it_never_spins_and_a_success_is_one(
        self, script: list[Any], all_runs: bool, live_from: int
    ) -> None:
        bench = commit(all_runs=all_runs)
        ended: dict[str, tuple[int, str | None]] = {}
        for position, step in enumerate(script):
            if position == live_from and bench.go_live() is not None:
                break
            if isinstance(step, float):
                if bench.sleep(step) is not None:
                    break
                continue
            workflow, run_id, word = step
            if run_id >= ended.get(workflow, (0, None))[0]:
                ended[workflow] = (run_id, word)
            if bench.run(workflow, run_id, word) is not None:
                break
        words = {word for _, word in ended.values()}
        if bench.outcome is not None and bench.outcome.ending == "matched":
            assert "success" in words
            assert not all_runs or words <= {"success", "skipped"}
        elif bench.outcome is not None:
            assert words & {"failure", "cancelled"}


def test_any_of_joins_and_everything_swallows() -> None:
    assert any_of([]) is None
    assert any_of([leaf("n=1"), None]) is None
    assert any_of([leaf("n=1")]) == leaf("n=1")
    both = any_of([leaf("n=1"), leaf("n=2")])
    assert both is not None
    assert both({"fields": {"n": 2}})


# On a real hub.


def make(number: int, **fields: Any) -> EventInsert:
    return EventInsert(source="test", event_type="test", fields={"n": number, **fields})


class TestWaitFor:
    def test_it_returns_an_event_of_the_past(self, hub: HubProcess) -> None:
        for number in range(3):
            emit(make(number))
        found = wait_for("n=1", source="test", since="start", timeout=PATIENCE)
        assert found is not None
        assert found.fields["n"] == 1

    def test_without_since_only_the_future_counts(self, hub: HubProcess) -> None:
        emit(make(1))
        assert wait_for("n=1", timeout=0) is None
        assert wait_for("n=1", timeout=0, since="1h") is not None

    def test_it_blocks_until_one_matches(self, hub: HubProcess) -> None:
        found: list[Event | None] = []
        waiter = threading.Thread(target=lambda: found.append(wait_for("n=2", timeout=PATIENCE)))
        waiter.start()
        while waiter.is_alive():  # no peer sees another's subscription: say it until it is heard
            emit(make(1))
            emit(make(2))
            waiter.join(0.05)
        assert found[0] is not None
        assert found[0].fields["n"] == 2

    def test_time_runs_out(self, hub: HubProcess) -> None:
        assert wait_for("n=1", timeout=0.05) is None

    def test_an_event_too_large_for_a_frame_comes_from_the_store(self, hub: HubProcess) -> None:
        stored = emit(make(1, blob="x" * 70_000)).event
        found = wait_for("n=1", since="start", timeout=PATIENCE)
        assert found is not None
        assert found.event_id == stored.event_id
        assert found.fields["blob"] == "x" * 70_000

    def test_a_predicate_that_cannot_be_read_is_told(self, settings: Settings) -> None:
        with pytest.raises(PredicateError):
            wait_for("conclusion=True", timeout=0)

    def test_no_hub_is_told(self, settings: Settings) -> None:
        with pytest.raises(HubError, match="no hub is running"):
            wait_for(timeout=0)

    def test_what_came_before_the_deadline_counts_however_late_it_is_read(
        self, settings: Settings, hub: HubProcess
    ) -> None:
        """A process that was stopped past its deadline finds several reads' worth of events, the match last."""
        begun = time.monotonic()
        stream = SubscriptionState(None)
        with subscribe("n=1", timeout=PATIENCE) as other, Subscription(stream, settings).open() as subscription:
            emit_many([make(0, blob="x" * 30_000) for _ in range(6)] + [make(1)])
            next(other)
            wait = Wait(Conditions([leaf("n=1")]), started=begun - 60, timeout=30)
            assert OF_WAIT[run(wait, subscription).ending] == 0
            assert (
                OF_WAIT[run(Wait(Conditions([leaf("n=9")]), started=begun - 60, timeout=30), subscription).ending]
                == 124
            )

    def test_a_flood_does_not_keep_it_past_its_deadline(self, settings: Settings, hub: HubProcess) -> None:
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                emit_many(make(0, blob="x" * 1000) for _ in range(100))

        flooding = threading.Thread(target=flood)
        with Subscription(SubscriptionState(None), settings).open() as subscription:
            flooding.start()
            try:
                wait = Wait(Conditions([leaf("n=1")]), started=time.monotonic(), timeout=0.2)
                assert OF_WAIT[run(wait, subscription).ending] == 124
            finally:
                stop.set()
                flooding.join()


@pytest.fixture
def stopped(hub: HubProcess) -> Iterator[HubProcess]:
    """A hub that hangs, once the test says so."""
    yield hub
    os.kill(hub.pid, signal.SIGCONT)


class TestHubThatHangs:
    """At the deadline the store answers in its stead."""

    def test_a_match_committed_before_the_deadline_counts(self, settings: Settings, stopped: HubProcess) -> None:
        with Subscription(SubscriptionState(leaf("n=1")), settings).open() as subscription:
            os.kill(stopped.pid, signal.SIGSTOP)
            emit(make(1))
            wait = Wait(Conditions([leaf("n=1")]), started=time.monotonic(), timeout=0.1)
            assert OF_WAIT[run(wait, subscription).ending] == 0

    @pytest.mark.parametrize(("word", "code"), [("success", 124), ("failure", 1)])
    def test_so_does_a_failed_run_but_no_silence(
        self, settings: Settings, stopped: HubProcess, word: str, code: int
    ) -> None:
        rule = Commit(None, CommitRuns(), all_runs=True, settle=0.01)
        with Subscription(SubscriptionState(rule.wanted()), settings).open() as subscription:
            os.kill(stopped.pid, signal.SIGSTOP)
            emit(EventInsert(source="ci", event_type="workflow_run", run_id=1, conclusion=word))
            assert OF_WAIT[run(Wait(rule, started=time.monotonic(), timeout=0.1), subscription).ending] == code

    @pytest.mark.parametrize(
        ("rule", "code"),
        [
            (Conditions([leaf("n=1")]), 0),
            (Conditions([leaf("n=2")]), 124),
            (Conditions([leaf("n=1"), leaf("n=2")], every=True), 124),
        ],
    )
    def test_who_looks_once_has_its_answer(
        self, settings: Settings, stopped: HubProcess, rule: Conditions, code: int
    ) -> None:
        emit(make(1))
        os.kill(stopped.pid, signal.SIGSTOP)
        wait = Wait(rule, started=time.monotonic(), timeout=0)
        with Subscription(SubscriptionState(wait.wanted(), ULID_MIN), settings) as subscription:
            assert OF_WAIT[run(wait, subscription).ending] == code

    @pytest.mark.parametrize(("word", "code"), [("success", 0), ("failure", 1), (None, 124)])
    def test_runs_that_ended_long_ago_too(
        self, settings: Settings, stopped: HubProcess, word: str | None, code: int
    ) -> None:
        status = "completed" if word else "queued"
        emit(EventInsert(source="ci", event_type="workflow_run", run_id=1, conclusion=word, status=status))
        os.kill(stopped.pid, signal.SIGSTOP)
        wait = Wait(Commit(None, CommitRuns(), all_runs=True, settle=0.001), started=time.monotonic(), timeout=0)
        with Subscription(SubscriptionState(wait.wanted(), ULID_MIN), settings) as subscription:
            assert OF_WAIT[run(wait, subscription).ending] == code

    def test_the_store_is_not_searched_for_ever(
        self, settings: Settings, stopped: HubProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Past its time the search ends; who looks once has all the time that it takes."""
        emit_many(make(number) for number in range(3))
        os.kill(stopped.pid, signal.SIGSTOP)
        monkeypatch.setattr("waitbus.client.wait.LATE_SEC", 0.0)
        for timeout, code in ((0.0, 0), (0.01, 124)):
            wait = Wait(Conditions([leaf("n=2")]), started=time.monotonic(), timeout=timeout)
            with Subscription(SubscriptionState(None, ULID_MIN), settings) as subscription:
                assert OF_WAIT[run(wait, subscription).ending] == code


class Deaf(SubscriptionState):
    """A stream whose hub serves another file: it answers, and has nothing."""

    def _on_event(self, frame: Mapping[str, Any], items: list[Item]) -> None:
        return

    def _on_heartbeat(self, frame: Mapping[str, Any], items: list[Item]) -> None:
        super()._on_heartbeat({**frame, "cursor": None}, items)


class TestSilence:
    """What did not come decides only when the hub is there, and the store has nothing else either."""

    def test_what_the_hub_does_not_tell_is_found_in_the_store(self, settings: Settings, hub: HubProcess) -> None:
        told = emit(make(0)).event
        with Subscription(Deaf(leaf("n=1"), told.event_id), settings).open() as subscription:
            emit(make(2))
            emit(make(1))
            assert [event.fields["n"] for event in subscription.untold()] == [1]
            assert list(subscription.untold()) == []
            emit(make(1))
            wait = Wait(Quiet(leaf("n=1"), 0.05, time.monotonic()), started=time.monotonic(), timeout=PATIENCE)
            before = time.monotonic()
            assert OF_WAIT[run(wait, subscription).ending] == 0
            assert time.monotonic() - before >= 0.05

    def test_a_failure_found_there_ends_it_with_1(self, settings: Settings, hub: HubProcess) -> None:
        told = emit(make(0)).event
        quiet = Quiet(leaf("n=1"), 0.0, time.monotonic())
        wait = Wait(quiet, started=time.monotonic(), timeout=PATIENCE, fail_if=leaf("n=2"))
        with Subscription(Deaf(wait.wanted(), told.event_id), settings).open() as subscription:
            emit(make(2))
            assert OF_WAIT[run(wait, subscription).ending] == 1

    def test_without_a_store_of_ours_the_hub_is_taken_at_its_word(self, settings: Settings) -> None:
        stream = SubscriptionState(None, since="start")
        assert list(Subscription(stream, settings).untold()) == []
        assert list(committed_after(settings, ULID_MIN, None)) == []

    def test_a_store_that_is_damaged_is_told(self, settings: Settings) -> None:
        os.makedirs(settings.state_dir, mode=0o700)
        path = Path(settings.db_path)
        path.write_bytes(b"no database" * 1000)
        path.chmod(0o600)
        with pytest.raises(StoreDamaged):
            list(committed_after(settings, ULID_MIN, None))

    def test_it_reads_on_from_the_cursor_in_commit_order(self, settings: Settings) -> None:
        first = emit(make(0)).event
        emit_many(make(number) for number in range(1, 250))
        got = [frame["fields"]["n"] for frame in committed_after(settings, first.event_id, leaf("n>=100"))]
        assert got == list(range(1, 250))
        assert list(committed_after(settings, first.event_id, leaf("source=other"))) == []
