"""What conclusion words mean, and which run of a commit speaks for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus.verdict import CONCLUSIONS, FAILURES, CommitRuns, verdict


def test_the_four_failure_words_and_success_are_verdicts_and_nothing_else_is() -> None:
    assert {word for word in CONCLUSIONS if verdict(word) == "failure"} == FAILURES
    assert verdict("success") == "success"
    others: list[object] = [*(CONCLUSIONS - FAILURES - {"success"}), None, "", "Success", 1, ["failure"], {}]
    for word in others:
        assert verdict(word) == "pending"


def fields(workflow: str, run_id: int | None, conclusion: str | None, **more: Any) -> dict[str, Any]:
    status = "completed" if conclusion else "in_progress"
    return {
        "source": "github",
        "event_type": "workflow_run",
        "owner": "o",
        "repo": "r",
        "workflow_name": workflow,
        "run_id": run_id,
        "status": status,
        "conclusion": conclusion,
        **more,
    }


def test_nothing_seen_is_no_verdict() -> None:
    runs = CommitRuns()
    assert runs.first() is None
    assert runs.failures() == []
    assert not runs.all_well()
    assert runs.newest() is None


def test_only_the_newest_run_of_a_workflow_counts() -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "failure"), "old")
    assert runs.feed(fields("CI", 2, None), "new") is not None
    assert runs.first() is None
    assert runs.feed(fields("CI", 1, "failure")) is None
    assert runs.failures() == []
    runs.feed(fields("CI", 2, "success"), "end")
    first = runs.first()
    assert first is not None
    assert (first.run_id, first.mark) == (2, "end")
    assert runs.all_well()


def test_a_rerun_takes_its_verdict_back_until_it_ends_again() -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "failure"))
    runs.feed(fields("CI", 1, None))
    assert runs.first() is None
    runs.feed(fields("CI", 1, "success"))
    assert runs.all_well()


def test_word_of_an_attempt_that_comes_late_takes_nothing_back() -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "failure", run_attempt=1))
    assert runs.feed(fields("CI", 1, None, run_attempt=1)) is None
    assert [run.workflow for run in runs.failures()] == ["CI"]
    runs.feed(fields("CI", 1, None, run_attempt=2))
    assert runs.failures() == []
    assert runs.feed(fields("CI", 1, "failure", run_attempt=1)) is None
    assert runs.feed(fields("CI", 1, "success", run_attempt=2)) is not None
    assert runs.all_well()


def test_the_same_workflow_of_two_repositories_is_two() -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "failure"))
    runs.feed(fields("CI", 2, "success", repo="fork"))
    assert len(runs.failures()) == 1
    assert not runs.all_well()


def test_jobs_and_other_workflows_do_not_count() -> None:
    runs = CommitRuns(["CI"])
    assert runs.feed(fields("CI", 1, "failure", event_type="workflow_job")) is None
    assert runs.feed(fields("Docs", 1, "failure")) is None
    assert runs.feed(fields("CI", 1, "success")) is not None
    assert runs.all_well()


def test_every_wanted_workflow_must_have_been_seen() -> None:
    runs = CommitRuns(["CI", "Docs"])
    runs.feed(fields("CI", 1, "success"))
    assert not runs.all_well()
    runs.feed(fields("Docs", 2, "skipped"))
    assert runs.all_well()


@pytest.mark.parametrize("word", ["skipped", "neutral"])
def test_all_skipped_is_not_success(word: str) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, word))
    assert not runs.all_well()
    assert runs.first() is None


@pytest.mark.parametrize("word", ["action_required", "stale", "a new word"])
def test_some_words_hold_a_commit_up(word: str) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "success"))
    runs.feed(fields("Docs", 2, word))
    assert not runs.all_well()
    assert runs.failures() == []


def test_failures_come_in_the_order_of_their_ends() -> None:
    runs = CommitRuns()
    for workflow, run_id in (("A", 1), ("B", 2)):
        runs.feed(fields(workflow, run_id, None))
    runs.feed(fields("B", 2, "timed_out"))
    runs.feed(fields("A", 1, "cancelled"))
    assert [run.workflow for run in runs.failures()] == ["B", "A"]


def test_a_source_without_run_ids_or_workflow_names_counts_by_its_type() -> None:
    runs = CommitRuns()
    event = {"source": "pytest", "event_type": "pytest_session", "conclusion": "failure"}
    run = runs.feed(event)
    assert run is not None
    assert run.workflow == "pytest/pytest_session"
    runs.feed({**event, "conclusion": "success"})
    assert runs.all_well()


anything = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=1)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                (
                    "source",
                    "event_type",
                    "owner",
                    "repo",
                    "workflow_name",
                    "run_id",
                    "run_attempt",
                    "status",
                    "conclusion",
                ),
                anything,
            ),
        )
    )
)
def test_whatever_the_fields_hold_it_answers(events: list[dict[str, Any]]) -> None:
    runs = CommitRuns()
    for event in events:
        runs.feed(event)
    assert not (runs.all_well() and runs.failures())
    assert runs.newest() is not None or not (runs.first() or runs.failures() or runs.all_well())


@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.integers(1, 3), st.sampled_from([None, "success", "failure", "skipped"])),
        max_size=12,
    )
)
def test_the_verdict_is_that_of_the_last_word_of_the_highest_runs(words: list[tuple[str, int, str | None]]) -> None:
    runs = CommitRuns()
    for workflow, run_id, conclusion in words:
        runs.feed(fields(workflow, run_id, conclusion))
    last: dict[str, str | None] = {}
    for workflow in {workflow for workflow, _, _ in words}:
        newest = max(run_id for name, run_id, _ in words if name == workflow)
        last[workflow] = [word for name, run_id, word in words if (name, run_id) == (workflow, newest)][-1]
    assert {run.workflow for run in runs.failures()} == {name for name, word in last.items() if word == "failure"}
    assert runs.all_well() == ("success" in last.values() and set(last.values()) <= {"success", "skipped"})
