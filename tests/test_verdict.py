"""What conclusion words mean, and which run of a commit speaks for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus.verdict import CONCLUSIONS, FAILURES, CommitRuns, file_of, verdict


def test_the_four_failure_words_and_success_are_verdicts_and_nothing_else_is() -> None:
    assert {word for word in CONCLUSIONS if verdict(word) == "failure"} == FAILURES
    assert verdict("success") == "success"
    others: list[object] = [*(CONCLUSIONS - FAILURES - {"success"}), None, "", "Success", 1, ["failure"], {}]
    for word in others:
        assert verdict(word) == "pending"


def test_the_words_are_those_of_the_contract() -> None:
    words = "success failure cancelled timed_out skipped neutral action_required stale startup_failure"
    assert set(words.split()) == CONCLUSIONS


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"workflow_id": 1}, {"workflow_id": 2}),
        ({"workflow_id": "1"}, {"workflow_id": "2"}),
        ({"workflow_id": "ci"}, {"workflow_id": "docs"}),
        ({"workflow_id": "7"}, {"workflow_id": "\u0667"}),
        ({"owner": "o"}, {"owner": "fork"}),
        ({"repo": "r"}, {"repo": "fork"}),
        ({"path": ".github/workflows/a.yml"}, {"path": ".github/workflows/b.yml@refs/heads/main"}),
        ({"workflow_id": 1, "path": "a.yml"}, {"path": "b.yml"}),
        ({"event": "push"}, {"event": "pull_request"}),
        ({"workflow_id": 1, "event": "push"}, {"workflow_id": 1, "event": "workflow_dispatch"}),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_two_workflows_of_one_name_and_two_triggers_of_one_workflow_stand_beside_each_other(
    one: dict[str, Any], other: dict[str, Any], turned: bool
) -> None:
    runs = CommitRuns()
    told = [fields("CI", 1, "failure", **one), fields("CI", 2, "success", **other)]
    for event in reversed(told) if turned else told:
        runs.feed(event)
    assert [run.run_id for run in runs.failures()] == [1]
    assert len(runs.counting()) == 2
    assert not runs.all_well()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"workflow_id": 1}, {"workflow_id": 1.0}),
        ({"workflow_id": 1, "path": "a.yml"}, {"workflow_id": "1"}),
        ({"path": ".github/workflows/a.yml"}, {"path": ".github/workflows/a.yml@main"}),
        (
            {"path": ".github/workflows/a.yaml@refs/pull/1/merge"},
            {"path": ".github/workflows/a.yaml@refs/heads/x.yml@y"},
        ),
        ({"path": "dynamic/codeql@refs/heads/main"}, {"path": "dynamic/codeql"}),
        ({"path": "a.yml"}, {"workflow_id": 1, "path": "a.yml@main"}),
        ({}, {}),
    ],
)
def test_a_workflow_is_its_id_or_else_its_file_or_else_its_name(one: dict[str, Any], other: dict[str, Any]) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "failure", **one))
    runs.feed(fields("CI", 2, "success", **other))
    assert runs.all_well()


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("a.yml", "a.yml"),
        ("a.yml@x.yml@y", "a.yml"),
        ("a.yaml@x.yml@y", "a.yaml"),
        (".yml@main", ".yml"),
        ("deploy@prod.yml", "deploy@prod.yml"),
        ("ci.toml@refs/heads/main", "ci.toml"),
        ("ci.toml@main", "ci.toml@main"),
        ("", ""),
    ],
)
def test_a_file_is_told_from_its_ref(path: str, file: str) -> None:
    assert file_of(path) == file


@pytest.mark.parametrize("at", ["deploy@prod.yml", "deploy@prod.yml@refs/heads/main", "deploy@prod"])
def test_an_at_in_the_name_of_a_file_is_no_ref(at: str) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "failure", path=at))
    runs.feed(fields("CI", 2, "success", path="deploy@test.yml"))
    assert len(runs.failures()) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"workflow_name": "A"}, {"workflow_name": "B"}),
        ({"workflow_id": 1}, {"workflow_id": 2}),
        ({"path": "a.yml"}, {"path": "b.yml"}),
        ({"event": "push"}, {"event": "pull_request"}),
    ],
)
def test_systems_that_number_the_runs_of_each_workflow_anew_are_understood(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 12, "failure") | one)
    runs.feed(fields("CI", 12, "success") | other)
    assert len(runs.failures()) == 1
    assert not runs.all_well()


def test_a_file_of_two_ids_takes_no_run_for_its_own() -> None:
    """A workflow that was deleted and made again: a run that tells the file alone may be of either."""
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "failure", path="ci.yml"))
    runs.feed(fields("CI", 2, "success", path="ci.yml", workflow_id=1))
    assert runs.failures() == []
    runs.feed(fields("CI", 3, "success", path="ci.yml", workflow_id=2))
    assert [run.run_id for run in runs.failures()] == [1]


def test_events_of_one_run_are_known_by_its_number_whatever_else_they_tell() -> None:
    runs = CommitRuns(["ci.yml"])
    assert runs.feed(fields("CI", 1, None)) is not None
    assert runs.counting() == []
    runs.feed({**fields("", 1, None), "path": ".github/workflows/ci.yml@main", "event": "push"})
    assert [run.workflow for run in runs.counting()] == ["CI"]
    runs.feed({**fields("", 1, "failure"), "workflow_id": 7})
    assert [run.run_id for run in runs.failures()] == [1]
    runs.feed({**fields("", 2, "success"), "workflow_id": 7, "event": "push"})
    assert runs.all_well()


def test_runs_that_tell_no_workflow_at_all_stand_for_themselves() -> None:
    runs = CommitRuns()
    for number, word in ((1, "failure"), (2, "success")):
        runs.feed({"event_type": "workflow_run", "run_id": number, "conclusion": word})
    assert [run.workflow for run in runs.failures()] == ["1"]


def test_a_run_without_a_number_is_replaced_by_its_next_word_and_stands_beside_those_with_one() -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", None, "failure"))
    runs.feed(fields("CI", 5, "success"))
    assert len(runs.failures()) == 1
    runs.feed(fields("CI", None, "success"))
    assert runs.all_well()


OTHER_TYPES = (
    "workflow_job",
    "check_run",
    "check_suite",
    "commit_status",
    "agent_message",
    "agent_task_failed",
    "docker_container",
    "pytest_session",
    "process_exited",
    "stalled",
    "build",
)


@pytest.mark.parametrize("event_type", [*OTHER_TYPES, None, 7])
@pytest.mark.parametrize("word", [None, "success", "failure"])
def test_only_events_about_a_run_count(event_type: object, word: str | None) -> None:
    runs = CommitRuns()
    assert runs.feed(fields("CI", 1, word, event_type=event_type)) is None
    assert runs.newest() is None
    runs.feed(fields("CI", 1, "success"))
    assert runs.feed(fields("CI", 2, word, event_type=event_type)) is None
    assert runs.all_well()


@pytest.mark.parametrize("source", ["github", "ci", "agent", None])
def test_a_run_is_one_whoever_tells_of_it(source: str | None) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "success", source=source))
    assert runs.all_well()


@pytest.mark.parametrize(
    "name", ["CI", "ci.yml", ".github/workflows/ci.yml", ".github/workflows/ci.yml@refs/heads/main", "7"]
)
def test_a_workflow_is_asked_for_by_its_name_its_file_or_its_id(name: str) -> None:
    runs = CommitRuns([name])
    runs.feed(fields("Docs", 1, "failure", workflow_id=8, path=".github/workflows/docs.yml"))
    assert runs.counting() == []
    runs.feed(fields("CI", 2, "success", workflow_id=7, path=".github/workflows/ci.yml@refs/pull/3/merge"))
    assert runs.all_well()
    assert [run.run_id for run in runs.counting()] == [2]


def test_a_name_that_looks_like_a_file_with_a_ref_is_a_name_too() -> None:
    runs = CommitRuns(["deploy.yml@prod"])
    runs.feed(fields("deploy.yml@prod", 1, "success"))
    assert runs.all_well()


def test_what_a_run_does_not_tell_is_no_name() -> None:
    runs = CommitRuns(["None", ""])
    runs.feed(fields("", 1, "success"))
    assert runs.counting() == []


@pytest.mark.parametrize(
    ("known", "name"), [({"workflow_name": "CI"}, "CI"), ({"path": "a.yml@main"}, "a.yml"), ({"workflow_id": 7}, "7")]
)
def test_a_run_is_called_by_the_name_that_people_know(known: dict[str, Any], name: str) -> None:
    run = CommitRuns().feed({"event_type": "workflow_run", "run_id": 3, "workflow_id": 7} | known)
    assert run is not None
    assert run.workflow == name


def test_two_files_of_one_name_are_both_meant_by_it() -> None:
    runs = CommitRuns(["CI"])
    runs.feed(fields("CI", 1, "success", workflow_id=1))
    runs.feed(fields("CI", 2, "failure", workflow_id=2))
    assert [run.run_id for run in runs.failures()] == [2]


@pytest.mark.parametrize("run_id", [7.5, "7.5", "1" * 20, "\u0667", "-7", "", True, None])
def test_what_is_not_a_whole_number_is_none(run_id: object) -> None:
    run = CommitRuns().feed({**fields("CI", None, "success"), "run_id": run_id})
    assert run is not None
    assert run.run_id is None


def test_a_number_may_be_as_long_as_a_column_holds() -> None:
    run = CommitRuns().feed({**fields("CI", None, "success"), "run_id": "9" * 19})
    assert run is not None
    assert run.run_id == int("9" * 19)


@pytest.mark.parametrize("status", ["queued", "in_progress", "waiting"])
def test_a_conclusion_counts_once_the_run_has_ended(status: str) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, "failure", status=status))
    assert runs.failures() == []
    runs.feed(fields("CI", 1, "failure", status=None))
    assert len(runs.failures()) == 1


@pytest.mark.parametrize("attempt", [None, 1])
@pytest.mark.parametrize("word", [None, "success"])
def test_the_event_that_brought_a_run_there_is_kept_and_a_repeat_is_none(attempt: int | None, word: str | None) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", 1, word, run_attempt=attempt), "first")
    assert runs.feed(fields("CI", 1, word, run_attempt=attempt), "again") is None
    assert [run.mark for run in runs.counting()] == ["first"]


@pytest.mark.parametrize(
    ("lesser", "greater"),
    [
        (None, "a new word"),
        (None, "action_required"),
        ("stale", "neutral"),
        ("stale", "skipped"),
        ("action_required", "success"),
        ("skipped", "success"),
        ("neutral", "cancelled"),
        ("success", "cancelled"),
        ("success", "startup_failure"),
        ("cancelled", "failure"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_words_about_one_attempt_it_is_the_same_that_counts_in_either_order(
    lesser: str | None, greater: str, turned: bool
) -> None:
    runs = CommitRuns()
    for word in (greater, lesser) if turned else (lesser, greater):
        runs.feed(fields("CI", 1, word, run_attempt=1))
    assert [run.conclusion for run in runs.counting()] == [greater]


def test_the_first_of_several_that_ended_is_the_one_that_ended_first() -> None:
    runs = CommitRuns()
    for name in "AB":
        runs.feed(fields(name, ord(name), None))
    for name in "BA":
        runs.feed(fields(name, ord(name), "success"))
    first = runs.first()
    assert first is not None
    assert first.workflow == "B"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"workflow_name": "A"}, {"workflow_name": "B"}),
        ({"event": "push"}, {"event": "schedule"}),
        ({"repo": "r"}, {"repo": "fork"}),
        ({"workflow_name": "", "workflow_id": 1}, {"workflow_name": "CI"}),
        ({"workflow_name": "", "workflow_id": 1}, {"workflow_name": "", "path": "a.yml"}),
    ],
)
def test_without_a_number_runs_are_told_apart_by_what_they_are_runs_of(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    runs = CommitRuns()
    runs.feed(fields("CI", None, "failure") | one)
    runs.feed(fields("CI", None, "success") | other)
    assert len(runs.failures()) == 1


def test_two_without_a_number_that_turn_out_to_be_of_one_workflow_are_one_after_the_other() -> None:
    runs = CommitRuns()
    runs.feed(fields("", None, "failure", workflow_id=1))
    runs.feed(fields("", None, "success", path="a.yml"))
    assert len(runs.failures()) == 1
    runs.feed(fields("", 5, "success", workflow_id=1, path="a.yml"))
    assert runs.all_well()


@pytest.mark.parametrize(("run_id", "attempt"), [("10", "2"), (10.0, 2.0)])
def test_numbers_written_otherwise_are_the_same(run_id: object, attempt: object) -> None:
    runs = CommitRuns()
    runs.feed({**fields("CI", 10, "failure", run_attempt=1), "workflow_id": "3"})
    runs.feed({**fields("CI", None, "success"), "run_id": run_id, "run_attempt": attempt, "workflow_id": 3})
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
                    "workflow_id",
                    "path",
                    "event",
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
        runs.feed({"event_type": "workflow_run", **event})
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


# What GitHub tells of some runs of one commit, in every order: two workflows of one display name, two triggers of one,
# re-runs, and one that was cancelled and superseded.
run_stories = st.lists(
    st.tuples(
        st.sampled_from([(1, ".github/workflows/a.yml"), (2, ".github/workflows/b.yml@refs/heads/main")]),
        st.sampled_from(["push", "pull_request"]),
        # The ends of its attempts; None: the last one runs on.
        st.lists(st.sampled_from(sorted(CONCLUSIONS)), max_size=2),
        st.booleans(),
    ),
    max_size=5,
)


def news_of(stories: list[Any]) -> list[dict[str, Any]]:
    news = []
    for run_id, ((workflow_id, path), trigger, ends, runs_on) in enumerate(stories, 1):
        for attempt, word in enumerate([*ends, *([None] if runs_on or not ends else [])], 1):
            for conclusion in dict.fromkeys([None, word]):
                known = {"workflow_id": workflow_id, "path": path, "event": trigger, "run_attempt": attempt}
                news.append(fields("CI", run_id, conclusion, **known))
    return news


@given(st.data(), run_stories)
def test_the_order_in_which_the_news_arrives_changes_nothing(data: st.DataObject, stories: list[Any]) -> None:
    news = news_of(stories)
    told = data.draw(st.permutations(news + data.draw(st.lists(st.sampled_from(news), max_size=3)) if news else []))
    runs = CommitRuns()
    for event in told:
        runs.feed(event)
    newest: dict[Any, tuple[int, str | None]] = {}
    for run_id, ((workflow_id, _), trigger, ends, runs_on) in enumerate(stories, 1):
        newest[workflow_id, trigger] = (run_id, None if runs_on or not ends else ends[-1])
    assert {run.run_id: run.conclusion for run in runs.counting()} == dict(newest.values())
    words = [word for _, word in newest.values()]
    assert len(runs.failures()) == sum(word in FAILURES for word in words)
    assert runs.all_well() == ("success" in words and set(words) <= {"success", "skipped", "neutral"})


@given(st.data(), run_stories)
def test_nor_does_it_when_each_event_tells_only_some_of_what_its_run_is(
    data: st.DataObject, stories: list[Any]
) -> None:
    """As long as somebody tells it once."""
    told = news_of(stories)
    for event in list(told):
        keys = data.draw(st.sets(st.sampled_from(["workflow_id", "path", "event", "workflow_name"])))
        told.append({key: value for key, value in event.items() if key not in keys})
    whole, parts = CommitRuns(), CommitRuns()
    for event in news_of(stories):
        whole.feed(event)
    for event in data.draw(st.permutations(told)):
        parts.feed(event)
    assert {run.run_id: run.conclusion for run in parts.counting()} == {
        run.run_id: run.conclusion for run in whole.counting()
    }
