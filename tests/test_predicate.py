"""Predicates: text and object agree, types are exact, bad forms are told the right one, the index hides nothing."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus.event import FRAME_KEYS
from waitbus.matching import Index, freeze, glob_test, is_same, path_of
from waitbus.predicate import (
    MAX_DEPTH,
    MAX_LEAVES,
    MAX_OBJECT_BYTES,
    MAX_PATTERN_CHARS,
    MAX_TEXT_BYTES,
    MAX_VALUE_BYTES,
    Predicate,
    PredicateError,
    all_of,
    parse_text,
)
from waitbus.predicate_text import text_of

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


def eq(value: Any, key: str = "a") -> dict[str, Any]:
    return {"key": key, "op": "eq", "value": value}


def path_of_leaf(leaf: dict[str, Any]) -> tuple[str, ...]:
    return path_of(leaf["key"])


odd_keys = st.sampled_from(["fields.1x", "fields.-x", "fields.summary", 'b."c d".0', 'fields."é"', "fields"])
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


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("name=build exit_code?", "name=build && exit_code?"),
        ("name=build and exit_code?", "name=build && exit_code?"),
        ("name=build, exit_code = 1", "name=build && exit_code=1"),
        ("a=1&&b=2", "a=1 && b=2"),
        ("x>1 & x<5", "x>1 && x<5"),
        ('msg_body="a b, c" exit_code?', 'msg_body="a b, c" && exit_code?'),
        ("a=1 && b=2 c?", "a=1 && b=2 && c?"),
        ("status == completed", "status=completed"),
        ("status:completed", "status=completed"),
        ("process:name=build", "source=process && name=build"),
    ],
)
def test_what_was_meant_is_said_and_can_be_read(text: str, meant: str) -> None:
    with pytest.raises(PredicateError) as caught:
        Predicate.parse(text)
    assert str(caught.value).endswith(f"write '{meant}'")
    Predicate.parse(meant)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a=1 || b=2", "--first-of"),
        ("a=1 or b=2", "--first-of"),
        ("a=1 &&", "missing beside &&"),
        ("&& a=1", "missing beside &&"),
        ("a=1 && && b=2", "missing beside &&"),
        ("a=1 && b=True", "write b=true"),
        ("a=1 && a=2", "a=1 and a=2 can never both hold"),
        ("a=1 && fields.a=2", "never both hold"),
        ("a=1 && b=" + "x" * 260, "256 bytes"),
    ],
)
def test_joined_texts_that_cannot_be_read_are_told_what_to_do(text: str, hint: str) -> None:
    with pytest.raises(PredicateError) as caught:
        Predicate.parse(text)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("a=1 && b=2", ["a=1", "b=2"]),
        ("a=1 \t&&\n b? && c~x*", ["a=1", "b?", "c~x*"]),
        ('a="x && y" && b=1', ['a="x && y"', "b=1"]),
        ('a="x\\" && y" && b=1', ['a="x\\" && y"', "b=1"]),
        ('"k && l"=1 && b=1', ['"k && l"=1', "b=1"]),
        ('a={"x && y":[" && "]} && b=1', ['a={"x && y":[" && "]}', "b=1"]),
        ("a~*x && a~y*", ["a~*x", "a~y*"]),
        ("a=1 && a=1.0", ["a=1", "a=1.0"]),
        ("a!=1 && a!=2", ["a!=1", "a!=2"]),
    ],
)
def test_two_ampersands_join_outside_of_quotes(text: str, leaves: list[str]) -> None:
    assert parse_text(text) == {"all": [parse_text(leaf) for leaf in leaves]}


def test_what_one_text_joins_must_all_hold() -> None:
    both = Predicate.parse("name~*x && name~y*")
    assert both({"fields": {"name": "yx"}})
    assert not both({"fields": {"name": "y"}})
    joined = all_of(["a=1 && b=1", "c=1", "c=2"])
    assert joined is not None
    assert joined({"fields": {"a": 1, "b": 1, "c": 2}})
    assert not joined({"fields": {"a": 1, "b": 2, "c": 2}})


@pytest.mark.parametrize("texts", [["a=1 && b=1", "a=2 && b=1"], ["a=1 && b=1", "a=2"], ["a=2", "a=1 && b=1"]])
def test_texts_that_deny_each_other_are_refused(texts: list[str]) -> None:
    with pytest.raises(PredicateError, match=r"can never both hold.*--first-of"):
        all_of(texts)
    assert all_of([*texts[:1], "a=1"] if "b=1" in texts[0] else ["a=1", "a=2"]) is not None


@given(st.lists(leaves() | st.builds(eq, scalars, odd_keys), min_size=1, max_size=3, unique_by=path_of_leaf))
def test_what_is_written_back_is_read_as_the_same(nodes: list[dict[str, Any]]) -> None:
    predicate = Predicate.from_object(nodes[0] if len(nodes) == 1 else {"all": nodes})
    assert Predicate.parse(text_of(predicate.as_object)) == predicate


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ({"key": "fields.source", "value": "pytest"}, "source=pytest"),
        ({"key": "a", "value": "two words"}, 'a="two words"'),
        ({"key": "a", "value": "true"}, 'a="true"'),
        ({"key": "a", "value": "None"}, 'a="None"'),
        ({"key": "a", "value": True}, "a=true"),
        ({"key": "a", "op": "glob", "value": "web-*"}, "a~web-*"),
        ({"key": "a", "op": "glob", "value": "5"}, 'a~"5"'),
        ({"key": "a", "op": "exists"}, "a?"),
        ({"any": [{"key": "a", "value": 1}, {"key": "a", "value": 2}]}, "a=1 or a=2"),
        ({"all": [{"any": [{"key": "a", "value": 1}, {"key": "b", "value": 2}]}]}, "(a=1 or b=2)"),
        ({"not": {"key": "a", "value": 1}}, "not (a=1)"),
    ],
)
def test_what_is_written_back(node: dict[str, Any], text: str) -> None:
    assert text_of(Predicate.from_object(node).as_object) == text


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


@given(st.text(alphabet="ab*?[]!-\n", max_size=8), st.text(alphabet="ab\n[]-!", max_size=8))
def test_globs_agree_with_fnmatch(pattern: str, text: str) -> None:
    assert glob_test(pattern)(text) == fnmatch.fnmatchcase(text, pattern)


@given(st.lists(st.sampled_from(["*", "a", "b", "ab", "aab"]), max_size=8), st.text(alphabet="ab", max_size=12))
def test_plain_globs_agree_with_fnmatch(parts: list[str], text: str) -> None:
    pattern = "".join(parts)
    assert glob_test(pattern)(text) == fnmatch.fnmatchcase(text, pattern)


def test_glob_classes_and_hostile_patterns() -> None:
    assert glob_test("[a-c]x[!0-9]")("bxz")
    assert not glob_test("[!a-c]")("b")
    assert glob_test("[")("[")
    assert glob_test("[]a]")("]")
    assert not glob_test("Rel*")("rel-2")
    # Each would take hours if it tried again from every place.
    for pattern in ("*a" * 120 + "b", "*" + "a" * 200 + "b", "*?a" * 80 + "b", "*" + "[ab]" * 60 + "c*"):
        assert not glob_test(pattern)("a" * 200_000)


# --- equality is by meaning, types exact ------------------------------------------------------------------------------


@given(values, values)
def test_values_are_the_same_when_they_freeze_to_the_same(one: Any, other: Any) -> None:
    assert is_same(one, other) == is_same(other, one) == (freeze(one) == freeze(other))
    predicates = [Predicate.from_object({"key": "a", "op": "eq", "value": value}) for value in (one, other)]
    assert (predicates[0] == predicates[1]) == is_same(one, other)
    if predicates[0] == predicates[1]:
        assert hash(predicates[0]) == hash(predicates[1])


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("a=1", "a=true", False),
        ("a=0", "a=false", False),
        ("a=[1]", "a=[true]", False),
        ('a={"x":[0]}', 'a={"x":[false]}', False),
        ("a=1", 'a="1"', False),
        ("a=1", "a=1.0", True),
        ("a=1", " fields.a = 1 ", True),
        ('a="x"', "a=x", True),
        ('"a"=1', "a=1", True),
        ("a=1", "a!=1", False),
        ("a?", "a=null", False),
        ("a=1", "b=1", False),
        ('a."b.c"=1', "a.b.c=1", False),
    ],
)
def test_predicates_are_equal_when_they_mean_the_same(one: str, other: str, equal: bool) -> None:
    first, second = Predicate.parse(one), Predicate.parse(other)
    assert (first == second) is equal
    assert (
        Predicate.from_object({"not": first.as_object}) == Predicate.from_object({"not": second.as_object})
    ) is equal
    assert len({first, second}) == (1 if equal else 2)


# --- whatever an event holds, the answer is yes or no -----------------------------------------------------------------


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize(
    "text", ["a=1", "a!=1", "a=[1]", 'a={"a":1}', "a~x", "a>1", "a?", "a=null", "a!=[[1]]", "a.0=1"]
)
def test_an_event_deeper_than_any_stack_is_compared(text: str, kind: type) -> None:
    frame = {"fields": {"a": nested(20_000, kind), "b": 1}}
    predicate = Predicate.parse(text)
    assert predicate(frame) is (text in ("a!=1", "a?", "a!=[[1]]"))
    index = Index()
    index.add(1, predicate.terms)
    index.add(2, Predicate.parse("b=1").terms)
    assert 2 in index.candidates(frame)
    assert not predicate(frame) or 1 in index.candidates(frame)


@given(nodes, st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
))  # fmt: skip
def test_nothing_makes_a_predicate_raise(node: dict[str, Any], value: Any) -> None:
    assert Predicate.from_object(node)({"fields": {"a": value, "b": [value]}, "event_type": value}) in (True, False)


# --- keys of any name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('labels."com.docker.compose.project"=web', {"labels": {"com.docker.compose.project": "web"}}),
        ('fields.labels."com.docker.compose.project"="web"', {"labels": {"com.docker.compose.project": "web"}}),
        ('"com.docker.compose.project"=web', {"com.docker.compose.project": "web"}),
        ('fields."com.docker.compose.project"~w*', {"com.docker.compose.project": "web"}),
        ('"a b"."=".0 >= 3', {"a b": {"=": [3]}}),
        ('"a=b"="a=b"', {"a=b": "a=b"}),
        ('"\\"\\\\\\u00e9\\n"?', {'"\\é\n': None}),
        ('"\t"!=1', {"\t": 2}),
        ('""=1', {"": 1}),
        ('"1x"=1', {"1x": 1}),
        ("a.1x=1", {"a": {"1x": 1}}),
        ('"\\ud800"=1', {"\ud800": 1}),
        ('"x?"?', {"x?": 1}),
        ('"é"."ü"=1', {"é": {"ü": 1}}),
        ('fields."summary"=1', {"summary": 1}),
    ],
)
def test_a_quoted_step_names_a_field_whatever_its_name(text: str, fields: dict[str, Any]) -> None:
    predicate = Predicate.parse(text)
    frame = {"fields": fields, "summary": "s"}
    assert predicate(frame)
    assert Predicate.from_object(json.loads(json.dumps(predicate.as_object)))(frame)
    assert not predicate({"fields": {"com": {"docker": {"compose": {"project": "web"}}}, "labels": {}}, "summary": "s"})
    joined = all_of([text, predicate])
    assert joined is not None
    assert joined(frame)


@given(st.text(max_size=9), st.text(max_size=9))  # escaped, two of them fit in a text
def test_every_name_can_be_named(name: str, inner: str) -> None:
    for quoted in (json.dumps(name), json.dumps(name, ensure_ascii=False)):
        predicate = Predicate.parse(f"fields.{quoted}.{json.dumps(inner)}=1")
        assert predicate({"fields": {name: {inner: 1}}})
        assert path_of(predicate.as_object["key"]) == ("fields", name, inner)
        if name not in FRAME_KEYS:
            assert Predicate.parse(f"{quoted}=1")({"fields": {name: 1}})


@pytest.mark.parametrize("text", ['"a=1', 'a"b"=1', '"a""b"=1', '"\\x"=1', '"a".=1', '"\\u12"?', '."a"=1', '"a"'])
def test_a_key_that_is_quoted_badly_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(PredicateError) as caught:
        Predicate.parse(text)
    assert "\n" not in str(caught.value)


# --- what it costs is bounded, and said -------------------------------------------------------------------------------

LONG = "x" * (MAX_VALUE_BYTES - 2)


@pytest.mark.parametrize(
    ("node", "word"),
    [
        (eq(LONG + "x"), "1024 bytes"),
        (eq("é" * 600), "1024 bytes"),
        (eq(["x" * 100] * 20), "1024 bytes"),
        (eq({"k" * 600: "v" * 600}), "1024 bytes"),
        (eq([0] * 60_000), "1024 bytes"),
        (eq(10**4000), "1024 bytes"),
        (eq(nested(9, list)), "at most 8 deep"),
        (eq(nested(90_000, dict)), "at most 8 deep"),
        (eq(1, "a" * 257), "256 bytes"),
        (eq(1, '"' + "é" * 130 + '"'), "256 bytes"),
        ({"key": "a", "op": "glob", "value": "x" * 256}, "256 bytes"),
        ({"any": [eq(LONG) for _ in range(17)]}, "16384 bytes"),
        ({"any": [{"key": "a", "op": "glob", "value": "[ab]" * 33}] * 2}, "256 characters"),
        (eq(float("nan")), "JSON"),
        (eq((1, 2)), "JSON"),
        (eq({1: 2}), "JSON"),
        (eq({"a": {b"x"}}), "JSON"),
        ({"key": "a", "op": ["eq"], "value": 1}, "op must be one of"),
    ],
)
def test_what_passes_a_bound_is_refused(node: dict[str, Any], word: str) -> None:
    with pytest.raises(PredicateError, match=word):
        Predicate.from_object(node)


def test_what_just_fits_is_taken() -> None:
    assert Predicate.from_object(eq(LONG))({"fields": {"a": LONG}})
    assert Predicate.from_object(eq(nested(8, list)))({"fields": {"a": nested(8, list)}})
    texts = [f'a{n:02}="{"x" * (MAX_TEXT_BYTES - 6)}"' for n in range(MAX_LEAVES)]
    assert all(len(text) == MAX_TEXT_BYTES for text in texts)
    assert all_of(texts) is not None  # whatever many texts say, an object can say
    assert len(texts) * MAX_TEXT_BYTES == MAX_OBJECT_BYTES
    half = MAX_PATTERN_CHARS // 2
    Predicate.from_object({"any": [{"key": "a", "op": "glob", "value": "?" * half}] * 2})


@pytest.mark.parametrize(
    "leaves",
    [
        [eq(n) for n in range(64)],
        [eq(f"{n:02}" + "x" * 240) for n in range(64)],
        [eq(f"{n:02}" + "x" * 1000) for n in range(16)],
        [eq([n] * 100) for n in range(30)],
        [{"key": "a", "op": "glob", "value": f"{n:02}" + "*a" * 100} for n in range(64)],
        [{"key": f"a{n}.b.c", "op": "exists"} for n in range(64)],
        [{"key": "a", "op": "glob", "value": f"[{n:02}]?*"} for n in range(36)],
    ],
    ids=["numbers", "texts", "long texts", "lists", "patterns", "keys", "classes"],
)
def test_the_weight_is_no_less_than_what_it_takes(leaves: list[dict[str, Any]]) -> None:
    body = json.dumps({"any": leaves})
    Predicate.from_object(json.loads(body))  # what is made once for all
    tracemalloc.start()
    try:
        predicate = Predicate.from_object(json.loads(body))
        index = Index()
        index.add(1, predicate.terms)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= predicate.weight <= 8 * taken


@given(st.binary() | st.text())
def test_no_text_makes_anything_but_a_predicate_or_its_error(raw: bytes | str) -> None:
    text = raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")
    with contextlib.suppress(PredicateError):
        node = Predicate.parse(text).as_object
        assert node.get("op") or all(leaf["op"] for leaf in node["all"])


@pytest.mark.parametrize(
    "text", ["conclusion=0\n0", "conclusion=" + "a\n" * 200, "a\nb", "n<\n", "conclusion=True\n\x1b[2J"]
)
def test_an_error_is_one_line_whatever_the_text(text: str) -> None:
    with pytest.raises(PredicateError) as caught:
        Predicate.parse(text)
    assert "\n" not in str(caught.value)
