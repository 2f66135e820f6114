"""Events, ULIDs and JSON text at their edges: what each refuses, keeps and says, to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from waitbus.event import (
    ALWAYS_FIELDS,
    FIELD_COLUMNS,
    FRAME_KEYS,
    HISTORY_METHODS,
    NATURAL_FIELDS,
    EmitResult,
    Event,
    EventInsert,
    happened_ms,
    is_history,
    one_line,
)
from waitbus.json_text import depth_of, from_json, is_deeper, to_json
from waitbus.store.fields import default_summary, fields_of
from waitbus.ulid import CROCKFORD, ULID_MIN, UlidFactory, decode_ulid, encode_ulid, is_ulid, ulid_at, ulid_ms


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("as it is", "as it is"),
        (" a\tb\n\nc  d ", "a b c d"),
        ("a\x1b[31mb\x00c", "a [31mb c"),
        ("é ✓", "é ✓"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        (" " * 5 + "x" * 200, "x" * 200),
        ("a  " * 100, "a " * 99 + "a"),
    ],
)
def test_one_line_for_a_person(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_line_is_cut_where_it_is_asked_to_be() -> None:
    assert one_line("abcdef", 6) == "abcdef"
    assert one_line("abcdefg", 6) == "abcde…"
    # Of an endless text only so much is looked at as may make the line.
    assert one_line(" " * 24 + "x", 6) == ""
    assert one_line(" " * 23 + "x", 6) == "x"


@pytest.mark.parametrize(
    ("fields", "summary"),
    [
        ({}, "s t"),
        ({"owner": "o", "repo": "r"}, "s t o/r"),
        ({"owner": "local", "repo": "r"}, "s t"),
        ({"conclusion": "failure", "status": "completed", "action": "x"}, "s t failure"),
        ({"status": "queued", "action": "x"}, "s t queued"),
        ({"action": "die"}, "s t die"),
        *[
            ({name: "it", **dict.fromkeys(after, "no")}, "s t it")
            for name, *after in [
                names[at:]
                for names in (
                    ["workflow_name", "job_name", "alert_name", "container_name", "path", "msg_body", "name"],
                )
                for at in range(7)
            ]
        ],
    ],
)
def test_a_summary_for_producers_that_gave_none(fields: dict[str, str], summary: str) -> None:
    assert default_summary({"source": "s", "event_type": "t", "owner": "local", **fields}) == summary


# --- the vocabulary of the contract ----------------------------------------------------------------------------------


def test_the_names_of_the_contract() -> None:
    assert list(FRAME_KEYS) == [
        "event_id",
        "event_type",
        "owner",
        "repo",
        "received_at",
        "delivery_id",
        "summary",
        "fields",
    ]
    assert list(ALWAYS_FIELDS) == ["source", "event_type", "owner", "repo", "ingest_method", "status", "conclusion"]
    assert {name for name, kind in FIELD_COLUMNS.items() if kind is int} == {"run_id", "job_id", "parent_run_id"}
    texts = (
        "workflow_name head_branch head_sha status conclusion job_name alert_name alert_severity alert_fingerprint "
        "msg_to msg_from msg_correlation_id msg_reply_to msg_thread msg_body"
    )
    assert {name for name, kind in FIELD_COLUMNS.items() if kind is str} == set(texts.split())
    natural: dict[type, str] = {
        str: "container_id container_name image action compose_project compose_service path name change rootdir tail "
        "event head_repo html_url",
        int: "exit_code passed failed errors skipped exit_status pid signal run_attempt workflow_id",
        float: "duration_s",
        list: "nodeids_failed argv",
        dict: "labels",
        bool: "oom",
    }
    assert {name: kind for kind, names in natural.items() for name in names.split()} == NATURAL_FIELDS
    assert set(HISTORY_METHODS) == {"import", "backfill"}


def test_what_an_insert_holds_when_nothing_is_said() -> None:
    event = EventInsert(source="s", event_type="t")
    said = {name: getattr(event, name) for name in EventInsert.__slots__}
    assert said == {
        **dict.fromkeys(FIELD_COLUMNS),
        "source": "s",
        "event_type": "t",
        "delivery_id": None,
        "owner": "local",
        "repo": "local",
        "received_at": None,
        "payload_json": "{}",
        "ingest_method": "manual",
        "summary": None,
        "fields": {},
    }


@pytest.mark.parametrize("received_at", [0, 1, (1 << 63) - 1])
def test_times_that_an_insert_takes(received_at: int) -> None:
    assert EventInsert(source="s", event_type="t", received_at=received_at).received_at == received_at


@pytest.mark.parametrize(
    "bad",
    [
        {"received_at": -1},
        {"received_at": 1 << 63},
        {"received_at": True},
        {"summary": 5},
        {"payload_json": b"{}"},
        {"delivery_id": 5},
        {"owner": ""},
        {"repo": None},
        {"ingest_method": ""},
        {"job_id": False},
        {"msg_to": 5},
    ],
)
def test_what_an_insert_refuses(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(ValueError, match=name):
        EventInsert(**{"source": "s", "event_type": "t", **bad})


def test_an_argument_is_stronger_than_a_field_of_the_same_name_and_names_of_the_bus_are_not_for_fields() -> None:
    fields = {"run_id": 1, "job_id": 2, "n": 3, "source": "x", "ingest_method": "y", "event_type": "z"}
    event = EventInsert(source="s", event_type="t", run_id=9, fields=fields)
    assert (event.run_id, event.job_id, event.fields) == (9, 2, {"n": 3})
    assert (event.source, event.ingest_method, event.event_type) == ("s", "manual", "t")


def test_fields_are_what_every_event_carries_then_columns_then_natural_names() -> None:
    fields = fields_of({"source": "s", "run_id": 4, "job_id": None, "msg_to": ""}, {"run_id": 9, "source": "x", "n": 1})
    assert fields == {**dict.fromkeys(ALWAYS_FIELDS), "source": "s", "run_id": 4, "msg_to": "", "n": 1}
    assert list(fields) == [*ALWAYS_FIELDS, "run_id", "msg_to", "n"]


def test_what_is_history_goes_by_its_own_time_and_news_by_when_it_was_written() -> None:
    frame: dict[str, Any] = {"event_id": ulid_at(7_000_000), "received_at": 5_000_000, "fields": {}}
    assert (is_history(frame), happened_ms(frame)) == (False, 7)
    for method in HISTORY_METHODS:
        frame["fields"] = {"ingest_method": method}
        assert (is_history(frame), happened_ms(frame)) == (True, 5)
    assert happened_ms({**frame, "received_at": None}) == 0
    assert happened_ms({**frame, "received_at": -5_000_000}) == 0


def test_events_are_equal_by_what_they_say_and_an_answer_holds_its_event() -> None:
    said = {**dict.fromkeys(FRAME_KEYS, "x"), "received_at": 5, "fields": {"source": "s"}}
    event, other = Event.from_frame(said), Event.from_frame({**said, "summary": "y"})
    assert event == Event.from_frame(said)
    assert event != other
    assert event != said
    assert hash(event) == hash(other) == hash("x")
    assert event.as_frame() == {**said, "kind": "event"}
    assert event.payload_json is None
    assert (event.source, event.conclusion) == ("s", None)
    answer = EmitResult(True, event)
    assert (answer.inserted, answer.event) == (True, event)


# --- ULIDs -----------------------------------------------------------------------------------------------------------


def made_at(*times_ms: int, entropy: bytes = b"") -> UlidFactory:
    times = iter([ms * 1_000_000 for ms in times_ms])
    return UlidFactory(lambda: next(times), lambda count: entropy or b"\xff" * count)


def test_a_ulid_is_time_then_chance_with_room_to_count_up() -> None:
    make = made_at(5, 5, 6)
    first, second, third = make(), make(), make()
    assert [ulid_ms(ulid) for ulid in (first, second, third)] == [5, 5, 6]
    chance = (1 << 79) - 1  # its top bit is clear, whatever was drawn
    assert decode_ulid(first) == 5 << 80 | chance
    assert decode_ulid(second) == decode_ulid(first) + 1
    assert decode_ulid(third) == 6 << 80 | chance


def test_a_clock_that_is_set_back_makes_no_earlier_ulid() -> None:
    make = made_at(5, 3, 5)
    assert [decode_ulid(make()) - (5 << 80 | (1 << 79) - 1) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("low", [0, 1, 1023, 1024, (1 << 20) - 4, (1 << 20) - 3, (1 << 20) - 2, (1 << 20) - 1])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_batch_goes_on_counting_and_leaves_the_next_one_after_it(low: int, count: int) -> None:
    entropy = (low << 1).to_bytes(10, "big")
    batch = made_at(*[5] * 9, entropy=entropy)
    ids = batch.batch(count)
    assert [decode_ulid(ulid) for ulid in ids] == [(5 << 80) + low + n for n in range(count)]
    assert decode_ulid(batch()) == (5 << 80) + low + count


def test_every_number_has_its_ulid() -> None:
    assert encode_ulid(0) == ULID_MIN == "0" * 26
    for shift in range(128):
        assert decode_ulid(encode_ulid(1 << shift)) == 1 << shift
    assert [encode_ulid(n)[-1] for n in range(32)] == list(CROCKFORD) == list("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@pytest.mark.parametrize(("unix_ns", "ms"), [(0, 0), (999_999, 0), (1_000_000, 1), (-5_000_000, 0)])
def test_the_first_ulid_of_a_millisecond(unix_ns: int, ms: int) -> None:
    assert decode_ulid(ulid_at(unix_ns)) == ms << 80
    assert is_ulid(ulid_at(unix_ns))


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_json_is_compact_and_says_what_json_can_say() -> None:
    assert to_json({"b": 1, "a": [{}, []]}) == '{"b":1,"a":[{},[]]}'
    assert to_json({"a": [1, 2.5, None, True], "é": "\n"}) == '{"a":[1,2.5,null,true],"é":"\\n"}'
    for bad in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match=r"JSON|Out of range"):
            to_json([bad])
    for value in ({"a": b"x"}, {(1, 2): 3}):
        with pytest.raises(TypeError):
            to_json(value)


@pytest.mark.parametrize("text", ["1", ' {"a": [1]} ', "\n[]\n", '"x"', "null", "1.5e3"])
def test_one_value_with_space_around_it(text: str) -> None:
    assert from_json(text) == json.loads(text)


@pytest.mark.parametrize("text", ["", " ", "1 2", "[1]x", "NaN", "-Infinity", "1e999", "[1e999]", "{'a':1}", "[1"])
def test_what_is_no_json_value(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the text differs for each)
        from_json(text)


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("1", 0),
        ("[]", 1),
        ('{"a":[1,{"b":2}]}', 3),
        ("[[],[[]]]", 3),
        ("[{},{},{}]", 2),
        ("[{},[[1]]]", 3),
        ('"[[["', 0),
        ('{"a":"[[","b":[]}', 2),
        (r'["\"[[","x"]', 1),
        (r'["\\",[1]]', 2),
        (r'["\\\"[[",{}]', 2),
    ],
)
def test_how_deep_a_text_is_nested(text: str, depth: int) -> None:
    assert depth_of(text) == depth
    assert [is_deeper(text, limit) for limit in (depth - 1, depth, depth + 1)] == [True, False, False]
