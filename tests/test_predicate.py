"""Predicates: text and object agree, types are exact, bad forms are told the right one, the index hides nothing."""

from __future__ import annotations

import contextlib
import fnmatch
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus.matching import Index, freeze, glob_test
from waitbus.predicate import MAX_DEPTH, MAX_LEAVES, Predicate, PredicateError, all_of, parse_text

scalars = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "a", "b", "1", "true", "null"]))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xy01"), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["a", "b", "fields.a", "fields.a.x", "fields.a.0", "fields.b.1", "event_type", "summary"])
operators = st.sampled_from([("=", "eq"), ("!=", "ne")])


@st.composite
def frames(draw: st.DrawFn) -> dict[str, Any]:
    fields = draw(st.dictionaries(st.sampled_from("abc"), values, max_size=3))
    return {"event_type": draw(st.sampled_from(["a", "b"])), "summary": draw(scalars), "fields": fields}


@st.composite
def leaves(draw: st.DrawFn) -> dict[str, Any]:
    key, operator = draw(keys), draw(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "glob", "exists"]))
    value: Any = draw(values)
    if operator in ("lt", "le", "gt", "ge"):
        value = draw(st.integers(-5, 5))
    elif operator == "glob":
        value = draw(st.text(alphabet="ab*?[]!1", max_size=5))
    return {"key": key, "op": operator} | ({} if operator == "exists" else {"value": value})


nodes = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda c: {"all": c}),
        st.lists(inner, min_size=1, max_size=3).map(lambda c: {"any": c}),
        inner.map(lambda c: {"not": c}),
    ),
    max_leaves=6,
)


@given(keys, operators, values, frames())
def test_text_and_object_agree(key: str, operator: tuple[str, str], value: Any, frame: dict[str, Any]) -> None:
    text = Predicate.parse(f"{key}{operator[0]}{json.dumps(value)}")
    wire = Predicate.from_object({"key": key, "op": operator[1], "value": value})
    assert text == wire
    assert text(frame) == wire(frame)


@given(st.lists(nodes, min_size=1, max_size=8), frames())
def test_the_index_hides_no_match(objects: list[dict[str, Any]], frame: dict[str, Any]) -> None:
    index = Index()
    predicates = [Predicate.from_object(node) for node in objects]
    for number, predicate in enumerate(predicates):
        index.add(number, predicate.terms)
    found = index.candidates(frame)
    assert {n for n, predicate in enumerate(predicates) if predicate(frame)} <= found
    for number in range(len(predicates)):
        index.discard(number)
    assert index.candidates(frame) == set()


def test_the_index_asks_nobody_who_waits_on_another_value() -> None:
    index = Index()
    for number in range(1000):
        index.add(number, Predicate.parse(f"run_id={number}").terms)
    assert index.candidates({"fields": {"run_id": 7}}) == {7}
    assert index.candidates({"fields": {}}) == set()


def test_the_index_prefers_the_key_that_separates() -> None:
    predicate = all_of(['conclusion="failure"', 'head_sha="abc"'], source="github")
    assert predicate is not None
    assert predicate.terms == frozenset({(("fields", "head_sha"), freeze("abc"))})


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("a=1", {"a": 1}, True),
        ("a=1", {"a": 1.0}, True),
        ("a=1", {"a": "1"}, False),
        ("a=1", {"a": True}, False),
        ("a=true", {"a": 1}, False),
        ('a="1"', {"a": 1}, False),
        ("a=null", {"a": None}, True),
        ("a=null", {}, False),
        ("a=success", {"a": "success"}, True),
        ("a!=1", {"a": 2}, True),
        ("a!=1", {}, False),
        ("a~rel-*", {"a": "rel-2"}, True),
        ("a~rel-*", {"a": 5}, False),
        ("a<3", {"a": 2.5}, True),
        ("a<3", {"a": True}, False),
        ("a<3", {"a": "2"}, False),
        ("a>=3", {"a": 3}, True),
        ("a?", {"a": None}, True),
        ("a?", {}, False),
        ('fields.a.0.x="y"', {"a": [{"x": "y"}]}, True),
        ('fields.a.7="y"', {"a": ["y"]}, False),
        ("a=[1,true]", {"a": [1, 1]}, False),
        ('a={"x":[1]}', {"a": {"x": [1]}}, True),
    ],
)
def test_meaning(text: str, fields: dict[str, Any], expected: bool) -> None:
    assert Predicate.parse(text)({"fields": fields}) is expected


def test_an_undotted_key_of_the_frame_is_the_frames() -> None:
    assert Predicate.parse('summary="x"')({"summary": "x", "fields": {"summary": "y"}})


def test_keys_and_and_repeated_keys_or_but_restrictions_and() -> None:
    def test(texts: list[str], **fields: Any) -> bool:
        predicate = all_of(texts)
        assert predicate is not None
        return predicate({"fields": fields})

    assert test(["a=1", "a=2", "b=3"], a=2, b=3)
    assert not test(["a=1", "a=2", "b=3"], a=2, b=4)
    assert test(["a=1", "fields.a=2"], a=1)
    assert test(["a>1", "a<4"], a=2)
    assert not test(["a>1", "a<4"], a=9)
    assert not test(["a!=1", "a!=2"], a=2)
    assert all_of([]) is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a=True", "a=true"),
        ("a=None", "a=null"),
        ("a=NULL", "a=null"),
        ("a='x'", 'a="x"'),
        ("sha=1a2b", 'sha="1a2b"'),
        ("a=", 'a="…"'),
        ("conclusion", 'conclusion="failure"'),
        ("", 'conclusion="failure"'),
        ("=x", 'conclusion="failure"'),
        ('a<"x"', "numbers"),
        ("a~5", "pattern"),
        ("a=NaN1", "NaN1"),
        ("a..b=1", "KEY=VALUE"),
        ("a=" + "x" * 300, "256 bytes"),
        ("a=" + "[" * 200, "deeper than 8"),
    ],
)
def test_a_bad_text_is_told_the_right_form(text: str, hint: str) -> None:
    if text == "a=NaN1":
        assert parse_text(text)["value"] == "NaN1"
        return
    with pytest.raises(PredicateError) as caught:
        parse_text(text)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_is_a_word_and_never_a_number() -> None:
    assert parse_text("a=NaN")["value"] == "NaN"


@pytest.mark.parametrize(
    "node",
    [
        None,
        [],
        "a=1",
        {},
        {"all": []},
        {"any": {}},
        {"not": []},
        {"all": [{"key": "a", "value": 1}], "any": []},
        {"key": "a"},
        {"key": "a", "op": "regex", "value": "x"},
        {"key": "a b", "op": "eq", "value": 1},
        {"key": "a", "op": "lt", "value": "x"},
        {"key": "a", "op": "glob", "value": 1},
        {"key": 5, "op": "eq", "value": 1},
        {"any": [{"key": "a", "value": 1}] * (MAX_LEAVES + 1)},
    ],
)
def test_a_bad_object_is_refused(node: object) -> None:
    with pytest.raises(PredicateError):
        Predicate.from_object(node)


def test_depth_is_bounded() -> None:
    node: dict[str, Any] = {"key": "a", "op": "eq", "value": 1}
    for _ in range(MAX_DEPTH - 1):
        node = {"not": node}
    Predicate.from_object(node)
    with pytest.raises(PredicateError, match="deeper"):
        Predicate.from_object({"not": node})


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab\n", max_size=8))
def test_globs_agree_with_fnmatch(pattern: str, text: str) -> None:
    assert glob_test(pattern)(text) == fnmatch.fnmatchcase(text, pattern)


def test_glob_classes_and_a_hostile_pattern() -> None:
    assert glob_test("[a-c]x[!0-9]")("bxz")
    assert not glob_test("[!a-c]")("b")
    assert glob_test("[")("[")
    assert glob_test("[]a]")("]")
    assert not glob_test("*a" * 60 + "b")("a" * 20_000)


@given(st.binary() | st.text())
def test_no_text_makes_anything_but_a_predicate_or_its_error(raw: bytes | str) -> None:
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")
    with contextlib.suppress(PredicateError):
        assert Predicate.parse(text).as_object["op"]


@pytest.mark.parametrize(
    "text", ["conclusion=0\n0", "conclusion=" + "a\n" * 200, "a\nb", "n<\n", "conclusion=True\n\x1b[2J"]
)
def test_an_error_is_one_line_whatever_the_text(text: str) -> None:
    with pytest.raises(PredicateError) as caught:
        Predicate.parse(text)
    assert "\n" not in str(caught.value)
