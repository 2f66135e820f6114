"""What the store says at the end of a wait that nothing ended: on a real store, within bounds, and never in the way."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import PATIENCE, HubProcess
from waitbus.cli.main import main
from waitbus.client import hindsight
from waitbus.client.emit import emit
from waitbus.client.hindsight import Asked, why_not
from waitbus.client.rules import Commit, Conditions, Quiet
from waitbus.event import Event, EventInsert
from waitbus.predicate import Predicate, all_of
from waitbus.settings import Settings
from waitbus.ulid import ULID_MIN, ulid_at
from waitbus.verdict import CommitRuns

SHA = "0123456789abcdef0123456789abcdef01234567"


def tell(source: str = "s", event_type: str = "t", **more: Any) -> Event:
    return emit(EventInsert(source=source, event_type=event_type, **more)).event


def now_ms() -> float:
    return time.time_ns() / 1e6


def reason(settings: Settings, *texts: str, cursor: str = ULID_MIN, until: float | None = None, **more: Any) -> str:
    rule = Conditions([all_of(texts)], by_verdict=more.pop("by_verdict", False))
    asked = Asked(cursor, now_ms(), more.pop("gives", lambda frame: True), **more)
    return why_not(settings, rule, asked, time.monotonic() + PATIENCE if until is None else until)


class TestConditions:
    def test_what_came_since_the_cursor_is_what_counts(self, settings: Settings) -> None:
        tell("process", fields={"name": "old"})
        first = tell("process", fields={"n": 1}).event_id
        tell("other")
        assert reason(settings, "source=process", "nmae=x") == (
            "2 events came from process, none has a field nmae; did you mean name?"
        )
        assert reason(settings, "source=process", "nmae=x", cursor=first).startswith(
            "1 event came, not from process; the last one was 0.0"
        )
        assert reason(settings, "source=process", cursor=first).startswith("something that matches was committed 0.0")

    def test_sources_and_types_that_were_ever_seen(self, settings: Settings) -> None:
        tell("pytest", "pytest_session")
        last = tell("process", "process_started").event_id
        assert reason(settings, "source=proces") == (
            "no event was ever seen from source proces; seen: process, pytest; did you mean process?"
        )
        assert "none of type" not in reason(settings, "event_type=x", cursor=last)
        assert reason(settings, "source=process", "event_type=x") == (
            "1 event came from process, not of type x; seen: process_started"
        )

    def test_a_match_of_before_counts_only_if_it_would_have_ended_the_wait(self, settings: Settings) -> None:
        last = tell("a", status="in_progress").event_id
        assert reason(settings, "source=a", cursor=last, by_verdict=True).startswith("no event came from a meanwhile")
        assert reason(settings, "source=a", cursor=last).startswith("something that matches was committed")

    def test_one_that_matches_and_came_too_late(self, settings: Settings) -> None:
        tell("a")
        assert reason(settings, "source=a") == "one that matches came too late"

    def test_only_what_is_given_counts(self, settings: Settings) -> None:
        tell("a", ingest_method="import")
        assert reason(settings, "source=a", gives=lambda frame: False).startswith(
            "no event was ever seen from source a"
        )

    def test_the_nearest_of_many_is_found_among_the_newest(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hindsight, "COMPARED_MAX", 40)
        for number in range(60):
            tell("a", conclusion="failure" if number == 59 else None, fields={"n": number})
        assert reason(settings, "source=a", "conclusion=failure", "n=1") == (
            "more than 40 events came from a, the nearest miss: n was 59"
        )
        monkeypatch.setattr(hindsight, "LOOKED_MAX", 25)
        assert reason(settings, "source=a", "n=1") == "more than 25 events came from a, the nearest miss: n was 59"
        monkeypatch.setattr(hindsight, "CAME_MAX", 10)
        assert reason(settings, 'source="ü"') == "more than 10 events came, none from ü"
        assert "no event was ever seen from source b" in reason(settings, "source=b")

    def test_big_events_are_bounded_in_bytes(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hindsight, "CHARS_MAX", 1)
        for _ in range(30):
            tell("a", fields={"blob": "x" * 1000})
        assert reason(settings, "source=a", "n=1") == "more than 25 events came from a, none has a field n"


class TestCommit:
    def rule(self, *texts: str, workflows: tuple[str, ...] = ()) -> Commit:
        sha = {"key": "fields.head_sha", "op": "glob", "value": f"{SHA[:9]}*"}
        wanted = all_of([*texts, *[Predicate.from_object({"all": [sha]})]])
        return Commit(wanted, CommitRuns(workflows), all_runs=True)

    def reason(self, settings: Settings, rule: Commit, since: str | None = None, cursor: str = ULID_MIN) -> str:
        asked = Asked(cursor, now_ms(), lambda frame: True, since=since)
        return why_not(settings, rule, asked, time.monotonic() + PATIENCE)

    def test_other_commits_and_other_events_of_this_one(self, settings: Settings) -> None:
        tell()
        assert self.reason(settings, self.rule()).startswith("no run was ever seen, of any commit")
        tell("github", "workflow_run", head_sha="e" * 40, workflow_name="CI", status="queued")
        said = self.reason(settings, self.rule())
        assert said == "no run of commit 012345678 was ever seen; the newest are of eeeeeee (CI queued)"
        tell("github", "workflow_job", head_sha=SHA)
        assert "what names it is 1 workflow_job" in self.reason(settings, self.rule())

    def test_a_run_that_was_narrowed_away_or_came_before(self, settings: Settings) -> None:
        last = tell("github", "workflow_run", head_sha=SHA, conclusion="success").event_id
        said = self.reason(settings, self.rule("owner=me"))
        assert said == "1 event of type workflow_run came, the nearest miss: owner was local"
        said = self.reason(settings, self.rule(), since="1s", cursor=last)
        assert said.startswith("something that matches was committed")
        assert "before --since 1s: --since 10s would have seen it" in said

    def test_runs_that_were_seen_need_no_look(self, settings: Settings) -> None:
        rule = self.rule()
        event = tell("github", "workflow_run", head_sha=SHA, workflow_name="CI", run_id=1, status="in_progress")
        rule.feed(event, event.as_frame(), 0.0, 0.0)
        assert self.reason(settings, rule) == "seen of this commit: CI in_progress"


class TestBounds:
    def test_nothing_is_said_without_a_store_or_time(self, settings: Settings) -> None:
        assert reason(settings) == ""
        tell()
        assert reason(settings, "n=1") != ""
        assert reason(settings, "n=1", until=time.monotonic()) == ""

    def test_silence_needs_no_reason(self, settings: Settings) -> None:
        tell()
        asked = Asked(ULID_MIN, now_ms(), lambda frame: True)
        assert why_not(settings, Quiet(None, 1.0, 0.0), asked, time.monotonic() + PATIENCE) == ""

    def test_a_store_that_cannot_be_read_leaves_the_reason_out(self, settings: Settings) -> None:
        tell()
        os.chmod(settings.db_path, 0o666)
        assert reason(settings, "n=1") == ""
        os.chmod(settings.db_path, 0o600)
        with sqlite3.connect(settings.db_path) as conn:
            conn.execute("ALTER TABLE events RENAME COLUMN summary TO other")
        conn.close()
        assert reason(settings, "n=1") == ""

    def test_a_fault_of_ours_leaves_it_out_too(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        tell()

        def fault(*_: object, **__: object) -> str:
            raise ZeroDivisionError

        monkeypatch.setattr(hindsight, "why", fault)
        assert reason(settings, "n=1") == ""
        monkeypatch.setenv("WAITBUS_DEBUG", "1")
        with pytest.raises(ZeroDivisionError):
            reason(settings, "n=1")

    @pytest.mark.parametrize("looks", range(3, 40, 4))
    def test_when_the_time_is_over_it_says_what_it_has(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, looks: int
    ) -> None:
        for number in range(60):
            tell("a", fields={"n": number})
        left = [looks]

        def clock() -> float:
            left[0] -= 1
            return 0.0 if left[0] > 0 else 100.0

        monkeypatch.setattr("waitbus.client.hindsight.time.monotonic", clock)
        asked = Asked(ULID_MIN, now_ms(), lambda frame: True)
        said = why_not(settings, Conditions([all_of(["source=a", "n=1.5"])]), asked, 50.0)
        assert said in ("", "60 events came from a, the nearest miss: n was 59")

    def test_the_deadline_bounds_it(self) -> None:
        now = time.monotonic()
        assert now < hindsight.until_of(None) < now + PATIENCE
        assert hindsight.until_of(now - 1) == now - 1 + hindsight.AFTER_DEADLINE_SEC
        assert hindsight.READ_SEC <= hindsight.AFTER_DEADLINE_SEC <= 0.5


Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs a verb here, with all the time it wants to find a reason; its exit code and what it says on stderr."""
    monkeypatch.setattr(hindsight, "READ_SEC", PATIENCE)
    monkeypatch.setattr(hindsight, "AFTER_DEADLINE_SEC", PATIENCE)

    def run(*words: str) -> tuple[int, str]:
        code = main(list(words))
        return code, capfd.readouterr().err.removeprefix("waitbus: ").rstrip("\n")

    return run


class TestVerbs:
    def test_wait_says_it_with_print_and_without(self, hub: HubProcess, say: Say) -> None:
        tell("process", "process_exited", conclusion="success", fields={"name": "build"})
        for more in ([], ["--print"], ["--json"]):
            words = ["--source", "process", "--match", "conclusoin=failure", "--since", "1h", "--timeout", "0", *more]
            assert say("wait", *words) == (
                124,
                "timed out after 0 s: 1 event came from process, it has no field conclusoin; did you mean conclusion?",
            )
        code, said = say("wait", "--match", "name=build", "--timeout", "0.05")
        assert code == 124
        assert said.startswith("timed out after 0.05 s: something that matches was committed ")
        assert say("wait", "--quiet", "1h", "--timeout", "0.05") == (124, "timed out after 0.05 s")

    def test_wait_says_which_condition_is_open(self, hub: HubProcess, say: Say) -> None:
        tell("a", conclusion="success", fields={"n": 1})
        flags = ["--since", "start", "--timeout", "0"]
        assert say("wait", "--all-of", "a:n=1", "b:m=2", *flags) == (
            124,
            "timed out after 0 s: 1 of 2 met; still open: b:m=2: no event was ever seen from source b; seen: a",
        )
        assert (
            "0 of 2 met; still open: a:n=2: 1 event came from a, the nearest miss: n was 1; b:"
            in say("wait", "--first-of", "a:n=2", "b", *flags)[1]
        )

    def test_wait_by_sha_says_how_the_runs_stand(self, hub: HubProcess, say: Say) -> None:
        tell("ci", "workflow_run", head_sha=SHA, workflow_name="CI", run_id=1, conclusion="success", status="completed")
        assert say("wait", "--sha", SHA, "--all-runs", "--workflow", "CI", "--workflow", "x.yml", "--timeout", "0") == (
            124,
            "timed out after 0 s: seen of this commit: CI success; --workflow x.yml was not seen",
        )
        assert (
            "no run of commit ffffffff was ever seen; the newest are of 0123456 (CI success)"
            in say("wait", "--sha", "ffffffff", "--timeout", "0")[1]
        )

    def test_wait_by_verdict_says_what_is_under_way(self, hub: HubProcess, say: Say) -> None:
        tell("a", status="in_progress")
        assert say("wait", "--source", "a", "--verdict", "--since", "start", "--timeout", "0") == (
            124,
            "timed out after 0 s: 1 matched, and it is still under way: status in_progress",
        )

    def test_a_failed_wait_says_how_with_print_too(self, hub: HubProcess, say: Say) -> None:
        tell("a", conclusion="failure", summary="broken")
        words = ["wait", "--source", "a", "--verdict", "--since", "start", "--timeout", "0"]
        assert say(*words, "--print") == say(*words) == (1, "failure: broken")

    def test_the_hub_that_does_not_answer_is_the_reason(self, unstarted_hub: HubProcess, say: Say) -> None:
        tell()
        unstarted_hub.start()
        os.kill(unstarted_hub.pid, 19)
        code, said = say("wait", "--timeout", "0.05")
        assert (code, said) == (
            124,
            "timed out after 0.05 s: the hub did not answer in time; waitbus status says how it is",
        )
        words = ["wait", "--match", "n=1", "--since", "start", "--timeout", "0"]
        assert say(*words) == (124, "timed out after 0 s: 1 event came, it has no field n")

    def test_on_says_it_when_it_never_fired(self, hub: HubProcess, say: Say) -> None:
        tell("a", fields={"n": 1})
        for more in ([], ["--loop"], ["--restart"]):
            code, said = say("on", "m=1", "--since", "start", "--timeout", "0.05", *more, "--", "true")
            assert (code, said) == (124, "nothing matched in 0.05 s: 1 event came, it has no field m")
            if more:
                code, said = say("on", "n=1", "--since", "start", "--timeout", "0.05", *more, "--", "true")
                assert (code, said) == (124, "")

    def test_tail_says_it_when_nothing_came(self, hub: HubProcess, say: Say) -> None:
        tell("a", fields={"n": 1})
        for more, code in ((["--count", "1"], 124), ([], 0)):
            words = ["tail", "--match", "n=2", "--since", "start", "--timeout", "0.05", *more]
            assert say(*words) == (code, "nothing matched in 0.05 s: 1 event came, the nearest miss: n was 1")
        assert say("tail", "--since", "start", "--timeout", "0.2") == (0, "")

    def test_replay_says_it_when_nothing_is_there(self, say: Say) -> None:
        tell("a", fields={"n": 1}, ingest_method="backfill", received_at=time.time_ns() - 90 * 10**9)
        assert say("replay", "--match", "n=2") == (0, "nothing matched: 1 event came, the nearest miss: n was 1")
        assert say("replay", "1m", "--json", "--match", "n=1")[1].startswith("nothing matched: no event came meanwhile")
        assert say("replay") == (0, "")


def test_the_places_of_a_cursor_in_time(settings: Settings) -> None:
    tell("a")
    future = ulid_at(time.time_ns() + 10**12)
    assert reason(settings, "source=a", cursor=future).startswith("something that matches was committed")
