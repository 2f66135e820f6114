"""Why nothing matched: one line that names what was missing, whatever was asked for and whatever came."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_predicate import nodes
from waitbus.client.explain import Evidence, counts, name_of, narrowing, why, why_open
from waitbus.client.explain_runs import why_no_run, why_no_verdict
from waitbus.event import Event
from waitbus.predicate import Predicate, all_of
from waitbus.verdict import CommitRuns


def frame(source: str = "process", event_type: str = "t", **fields: Any) -> dict[str, Any]:
    whole = {"source": source, "event_type": event_type, "status": None, "conclusion": None, **fields}
    return Event("E" * 26, event_type, "o", "r", 0, "d", "a summary", whole).as_frame()


STARTED = frame("process", "process_started", status="in_progress", name="build", pid=7)
ENDED = frame("process", "process_exited", status="completed", conclusion="success", name="build", exit_code=0)
TOOL = frame("tool", labels={"com.x": "web", "n": 1}, exit_code="1", took="5")


def evidence(*frames: dict[str, Any], **more: Any) -> Evidence:
    made = Evidence(frames)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def known(*names: str) -> dict[str, list[str]]:
    return {name: [f"{name}_event"] for name in names}


def line(texts: list[str], found: Evidence, **more: Any) -> str:
    return why(all_of(texts), found, **more)


# What was asked for, what the store holds, and the line. The first five are the examples of the promise itself.
LINES: list[tuple[list[str], Evidence, str]] = [
    (
        ["source=process", "conclusoin=failure"],
        evidence(STARTED, ENDED),
        "2 events came from process, none has a field conclusoin; did you mean conclusion?",
    ),
    (
        ["source=proces"],
        evidence(never=True, known=known("process", "pytest")),
        "no event was ever seen from source proces; seen: process, pytest; did you mean process?",
    ),
    (
        ["source=process", "event_type=process_exited", "conclusion=failure"],
        evidence(ENDED, ENDED, ENDED),
        "3 matched source and type, the nearest miss: conclusion was success",
    ),
    (
        ["source=pytest"],
        evidence(never=True, known=known("process")),
        "no event was ever seen from source pytest; seen: process; pytest speaks only when asked: pytest --waitbus",
    ),
    (
        ["name=build"],
        evidence(earlier_sec=4.2),
        "something that matches was committed 4 s before this wait began: --since 10s would have seen it",
    ),
]
NOTHING: list[tuple[list[str], Evidence, str]] = [
    ([], evidence(), "no event was ever written to this store"),
    ([], evidence(known=known("a")), "no event came meanwhile"),
    (["n=1"], evidence(known=known("a")), "no event came meanwhile"),
    (["source=a"], evidence(never=True), "no event was ever written to this store"),
    (
        ["source=a"],
        evidence(known=known("a", "b"), came={("b", "t"): 5}, never=False, last_sec=7500.0),
        "5 events came, none from a; the last one was 2 h before",
    ),
    (
        ["source=a"],
        evidence(known=known("a"), never=False, last_sec=0.25),
        "no event came from a meanwhile; the last one was 0.25 s before",
    ),
    (["source=a"], evidence(known=known("b"), came={("b", "t"): 1}), "1 event came, not from a"),
    (
        ["source=a", "source=b"],
        evidence(known=known("c"), never=True),
        "no event was ever seen from source a or b; seen: c",
    ),
    (
        ["source=pytst"],
        evidence(known=known(*"abcdefg"), never=True),
        "no event was ever seen from source pytst; seen: a, b, c, d, e, …; did you mean pytest?",
    ),
    (
        ["source=tool", "event_type=tool_exitd"],
        evidence(came={("tool", "tool_begun"): 2, ("a", "t"): 1}, known={"tool": ["tool_exited"]}),
        "2 events came from tool, none of type tool_exitd; seen: tool_exited; did you mean tool_exited?",
    ),
    (
        ["event_type=ended"],
        evidence(came={("a", "begun"): 1}, known={"a": ["begun"]}),
        "1 event came, not of type ended; seen: begun",
    ),
    (["event_type=ended"], evidence(known={"a": ["begun"]}), "no event came meanwhile; of type ended; seen: begun"),
    (
        ["source=a", "exitcode=1"],
        evidence(known=known("a"), never=False, before=[STARTED, ENDED]),
        "no event came from a meanwhile; none before has a field exitcode; did you mean exit_code?",
    ),
    (
        ["conclusion=failed"],
        evidence(known=known("a")),
        "no event came meanwhile; conclusion=failed is not one of the usual words; did you mean failure?",
    ),
]
FIELDS: list[tuple[list[str], Evidence, str]] = [
    (["exit_code?"], evidence(STARTED), "1 event came, it has no field exit_code"),
    (["branch=main"], evidence(STARTED), "1 event came, it has no field branch; did you mean head_branch?"),
    (["labels.com=1"], evidence(TOOL), "1 event came, it has no field labels.com; did you mean com.x?"),
    (["labels.n.deep=1"], evidence(TOOL), "1 event came, it has no field labels.n.deep"),
    (["zzz=1", "source=tool"], evidence(TOOL), "1 event came from tool, it has no field zzz"),
    (["event_type=t", "zzz!=1"], evidence(TOOL, TOOL), "2 events of type t came, none has a field zzz"),
]
VALUES: list[tuple[list[str], Evidence, str]] = [
    (["name=deploy"], evidence(STARTED), "name was build"),
    (["name=deploy", "name=lint"], evidence(STARTED), "name was build"),
    (["name~dep*", "pid>7"], evidence(STARTED), "name was build, pid was 7"),
    (["name=build", "pid=8", "a=1"], evidence(STARTED, frame(a=1)), "pid was 7, it has no a"),
    (["status=completed", "exit_code=1"], evidence(STARTED, ENDED), "exit_code was 0"),
    (["exit_code=0 && name=x"], evidence(STARTED, ENDED), "name was build"),
    (["exit_code=0", "pid=7"], evidence(STARTED, ENDED), "it has no exit_code"),
    (["conclusion=failed"], evidence(STARTED, ENDED), "conclusion was success; did you mean failure?"),
    (["name!=build"], evidence(STARTED), "name was build"),
    (["summary=x"], evidence(STARTED), "summary was a summary"),
    (["name=x"], evidence(frame(name="\x1b[2J" + "y" * 500)), "name was [2J" + "y" * 56 + "…"),
    (["exit_code=1"], evidence(TOOL), 'exit_code was 1, which is text, not a number: write exit_code="1"'),
    (['exit_code="0"'], evidence(ENDED), "exit_code was 0, which is a number, not text: write exit_code=0"),
    (["took>3"], evidence(TOOL), 'took was 5, which is text, not a number: write took="5"'),
]


@pytest.mark.parametrize(("texts", "found", "expected"), [*LINES, *NOTHING, *FIELDS])
def test_it_says_what_was_missing(texts: list[str], found: Evidence, expected: str) -> None:
    assert why(all_of(texts), found) == expected


@pytest.mark.parametrize(("texts", "found", "expected"), VALUES)
def test_it_says_by_which_value_the_nearest_event_missed(texts: list[str], found: Evidence, expected: str) -> None:
    assert why(all_of(texts), found).partition(", the nearest miss: ")[2] == expected


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"not": {"key": "name", "value": "build"}}, "name=build held"),
        ({"any": [{"key": "name", "value": "x"}, {"key": "pid", "value": 1}]}, "none of name=x or pid=1"),
        ({"not": {"any": [{"key": "name", "value": "x"}, {"key": "pid", "value": 7}]}}, "name=x or pid=7 held"),
    ],
)
def test_what_no_text_can_say_is_said_too(node: dict[str, Any], expected: str) -> None:
    assert why(Predicate.from_object(node), evidence(STARTED)) == f"1 event came, the nearest miss: {expected}"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "in_progress"}, "is still under way: status in_progress"),
        ({"status": "queued", "conclusion": "success"}, "is still under way: status queued"),
        ({"status": "completed"}, "has no conclusion: status completed"),
        ({"conclusion": "neutral"}, "has a conclusion that is not a verdict: neutral"),
        ({"conclusion": "passed"}, "has a conclusion that is not a verdict: passed; success would be one"),
    ],
)
def test_a_match_that_does_not_count_by_its_verdict(fields: dict[str, Any], expected: str) -> None:
    found = evidence(frame(**fields))
    assert why(None, found, by_verdict=True) == f"1 matched, and it {expected}"
    found.frames.append(frame())
    assert why(None, found, by_verdict=True) == f"2 matched, and the newest {expected}"
    assert why(None, found) == "one that matches came too late"
    assert not counts(None, frame(**fields), by_verdict=True)
    assert counts(None, frame(**fields), by_verdict=False)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.001 s before this wait began: --since 10s would"),
        (9.2, "9 s before this wait began: --since 30s would"),
        (110.0, "110 s before this wait began: --since 2m would"),
        (125.0, "2 min before this wait began: --since 5m would"),
        (86_399.5, "24 h before this wait began: --since 2d would"),
        (9e9, "104167 days before this wait began: --since start would"),
    ],
)
def test_what_came_before_the_wait_began(seconds: float, words: str) -> None:
    assert words in why(None, evidence(earlier_sec=seconds))


def test_what_came_meanwhile_says_more_than_a_match_of_long_ago() -> None:
    assert why(all_of(["name=x"]), evidence(STARTED, earlier_sec=4000.0)).endswith("name was build")
    assert "1 h before" not in why(all_of(["name=x"]), evidence(STARTED, earlier_sec=3700.0))
    assert "59 min before --since 5m: --since 1h" in why(None, evidence(earlier_sec=3540.0), since="5m")


def test_who_looks_once_and_at_nothing_is_told_so() -> None:
    assert "add --since 10m" in why(None, evidence(), looks_once=True)
    assert why(None, evidence(), looks_once=True, since="1h") == "no event was ever written to this store"


def test_several_conditions_say_which_are_open() -> None:
    one, two = all_of(["name=x"], "process"), all_of(["source=a", "source=b", "n=1 && m?"])
    assert why_open([(one, "because")], 1) == "because"
    assert why_open([(one, "this"), (two, "that")], 3) == (
        "1 of 3 met; still open: process:name=x: this; *:source=a or source=b && n=1 && m?: that"
    )
    many = why_open([(None, "so")] * 9, 9)
    assert many == "0 of 9 met; still open: " + "; ".join(["*: so"] * 5) + "; 4 more"
    assert name_of(all_of([f"a={'x' * 200}"])).endswith("…")


@given(nodes, st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from([None, 1, "1", [1], {"x": "y"}]))))
def test_it_is_one_line_whatever_was_asked_for_and_came(node: dict[str, Any], came: list[dict[str, Any]]) -> None:
    predicate = Predicate.from_object(node)
    found = evidence(*[frame(**fields) for fields in came])
    for by_verdict in (False, True):
        said = why(predicate, found, by_verdict=by_verdict)
        assert said
        assert said.isprintable()
    narrowed = narrowing(predicate)
    if narrowed is not None:
        assert all(narrowed(one) for one in found.frames if predicate(one))


# --- the runs of a commit ---------------------------------------------------------------------------------------------


def run(name: str, number: int, conclusion: str | None = None, status: str = "in_progress") -> dict[str, Any]:
    status = "completed" if conclusion else status
    return frame(
        "github",
        "workflow_run",
        workflow_name=name,
        run_id=number,
        status=status,
        conclusion=conclusion,
        head_sha="a1b2",
    )


@pytest.mark.parametrize(
    ("workflows", "runs", "expected"),
    [
        (
            [],
            [run("CI", 1, status="queued"), run("Docs", 2, "success")],
            "seen of this commit: CI queued, Docs success",
        ),
        (
            ["CI", "rel.yml"],
            [run("CI", 1, "success"), run("Docs", 2, "success")],
            "seen of this commit: CI success; --workflow rel.yml was not seen (seen: Docs)",
        ),
        (
            ["a", "b"],
            [run("CI", 1)],
            "no run of a workflow that was asked for; --workflow a and --workflow b was not seen (seen: CI)",
        ),
        (
            [],
            [run("CI", 1, "success")],
            "seen of this commit: CI success; a newer run may still come for 5 s after the last (--settle)",
        ),
        ([], [run("CI", 1, "skipped")], "seen of this commit: CI skipped; none of that is a verdict"),
        (
            [],
            [run(f"W{n}", n) for n in range(7)],
            f"seen of this commit: {', '.join(f'W{n} in_progress' for n in range(5))}, 2 more",
        ),
    ],
)
def test_runs_of_the_commit_were_seen(workflows: list[str], runs: list[dict[str, Any]], expected: str) -> None:
    commit = CommitRuns(workflows)
    for one in runs:
        commit.feed(one["fields"], _Mark(one["fields"]))
    assert why_no_verdict(commit, 5.0) == expected


class _Mark:
    def __init__(self, fields: dict[str, Any]) -> None:
        self.event = Event("E" * 26, "workflow_run", "o", "r", 0, "d", "s", fields)


def test_no_run_of_the_commit_was_seen() -> None:
    assert why_no_run("f" * 40, [], {"workflow_job": 2, "note": 1}) == (
        "no run of this commit was ever seen; what names it is 2 workflow_job, 1 note, and a run is a workflow_run"
    )
    assert why_no_run("f" * 40, [], {}).startswith("no run was ever seen, of any commit; nothing here asks GitHub yet")
    others = [run("CI", 2, "failure"), run("CI", 1, "success"), frame("x", "workflow_run", head_sha="c3d4e5f6a7")]
    assert why_no_run("f" * 40, others, {}) == (
        "no run of commit ffffffffffff was ever seen; the newest are of a1b2 (CI failure), c3d4e5f (a run under way)"
    )
