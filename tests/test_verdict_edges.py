"""The rules of a commit's runs at their edges, where a small fault would turn a verdict round."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from waitbus.verdict import CONCLUSIONS, CommitRuns, file_of

# Of two words about one attempt the later in this list stands, whichever came first.
BY_FINALITY = [None, "action_required", "neutral", "skipped", "success", "cancelled", "failure", "timed_out"]


def news(conclusion: str | None = None, **told: Any) -> dict[str, Any]:
    status = "completed" if conclusion else "in_progress"
    return {"event_type": "workflow_run", "status": status, "conclusion": conclusion, **told}


def test_the_words_of_the_contract() -> None:
    words = "success failure cancelled timed_out skipped neutral action_required stale startup_failure"
    assert set(words.split()) == CONCLUSIONS


@pytest.mark.parametrize("pair", list(permutations(range(len(BY_FINALITY)), 2)))
def test_of_two_words_about_one_attempt_the_same_one_stands_in_either_order(pair: tuple[int, int]) -> None:
    runs = CommitRuns()
    for index in pair:
        runs.feed(news(BY_FINALITY[index], workflow_name="CI", run_id=1, run_attempt=1))
    (run,) = runs.counting()
    assert run.conclusion == BY_FINALITY[max(pair)]


def test_the_same_word_again_is_no_news() -> None:
    runs = CommitRuns()
    told = news("failure", workflow_name="CI", run_id=1, run_attempt=1)
    assert runs.feed(told, "first") is not None
    assert runs.feed(told, "again") is None
    (run,) = runs.failures()
    assert run.mark == "first"


@pytest.mark.parametrize("conclusion", ["success", "failure"])
def test_a_conclusion_of_a_run_that_has_not_ended_is_none(conclusion: str) -> None:
    runs = CommitRuns()
    runs.feed(news(conclusion, workflow_name="CI", run_id=1) | {"status": "in_progress"})
    assert runs.first() is None
    assert not runs.all_well()
    assert runs.failures() == []


def test_a_run_that_is_only_begun_is_known_with_its_mark() -> None:
    runs = CommitRuns()
    runs.feed(news(None, workflow_name="CI", run_id=1), "begun")
    newest = runs.newest()
    assert newest is not None
    assert newest.mark == "begun"


def test_the_first_end_is_the_first_end_not_the_first_run() -> None:
    runs = CommitRuns()
    for name in ("A", "B"):
        runs.feed(news(None, workflow_name=name, run_id=ord(name)))
    runs.feed(news("success", workflow_name="B", run_id=ord("B")))
    runs.feed(news("failure", workflow_name="A", run_id=ord("A")))
    first = runs.first()
    assert first is not None
    assert first.workflow == "B"


@pytest.mark.parametrize(("key", "values"), [("owner", "ab"), ("repo", "ab"), ("workflow_id", ["x", "y"])])
def test_what_differs_in_one_of_these_is_not_one_workflow(key: str, values: list[str]) -> None:
    runs = CommitRuns()
    runs.feed(news("failure", workflow_name="CI", run_id=1, **{key: values[0]}))
    runs.feed(news("success", workflow_name="CI", run_id=2, **{key: values[1]}))
    assert len(runs.failures()) == 1


def test_runs_without_a_number_that_share_no_trait_are_two() -> None:
    runs = CommitRuns()
    runs.feed(news("failure", workflow_name="CI"))
    runs.feed(news("success", path=".github/workflows/docs.yml"))
    assert len(runs.failures()) == 1
    assert len(runs.counting()) == 2


@pytest.mark.parametrize("late_first", [True, False])
def test_of_runs_without_a_number_the_one_that_spoke_last_counts(late_first: bool) -> None:
    """One is known by its file and one by its id, too: that they are of one workflow is learned from the second."""
    file, both = {"path": "ci.yml"}, {"path": "ci.yml", "workflow_id": 7}
    early, late = (both, file) if late_first else (file, both)
    runs = CommitRuns()
    if late_first:
        runs.feed(news(None, **late))
    runs.feed(news("failure", **early))
    runs.feed(news("success", **late))
    assert runs.all_well()
    runs.feed(news("failure", **early) | {"conclusion": "timed_out"})
    assert [run.conclusion for run in runs.failures()] == ["timed_out"]


@pytest.mark.parametrize(
    ("told", "called"),
    [
        ({"workflow_name": "CI", "path": "ci.yml", "workflow_id": 7}, "CI"),
        ({"path": "ci.yml", "workflow_id": 7}, "ci.yml"),
        ({"workflow_id": 7}, "7"),
        ({}, "1"),
    ],
)
def test_what_a_person_calls_a_workflow(told: dict[str, Any], called: str) -> None:
    run = CommitRuns().feed(news("success", run_id=1, **told))
    assert run is not None
    assert run.workflow == called


def test_a_workflow_of_no_id_is_not_the_one_called_none() -> None:
    runs = CommitRuns(["None"])
    runs.feed(news("success", workflow_name="CI", run_id=1))
    assert runs.counting() == []
    assert not runs.all_well()


def test_a_name_that_looks_like_a_ref_is_asked_for_as_it_is() -> None:
    runs = CommitRuns(["deploy@refs/heads/main"])
    runs.feed(news("success", workflow_name="deploy@refs/heads/main", run_id=1))
    assert runs.all_well()


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("ci.yml@refs/heads/x.yml@y", "ci.yml"),
        ("ci.yaml@v1", "ci.yaml"),
        (".yml@main", ".yml"),
        ("ci@refs/heads/main", "ci"),
        ("c@i.yml", "c@i.yml"),
    ],
)
def test_a_ref_is_no_part_of_a_file(path: str, file: str) -> None:
    assert file_of(path) == file


@pytest.mark.parametrize("number", ["9" * 5000, "²", 7.5, float("inf"), float("nan"), True, "-1", ""])
def test_what_is_not_a_whole_number_is_no_run_id(number: object) -> None:
    run = CommitRuns().feed(news("failure", workflow_name="CI", run_id=number))
    assert run is not None
    assert run.run_id is None
