"""What an event may hold: refused where it is written, given as truncated where a foreign program wrote it."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_store_read import check_frame, insert
from waitbus.event import (
    MAX_FIELDS_BYTES,
    MAX_FIELDS_DEPTH,
    MAX_NAME_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SUMMARY_BYTES,
    EventInsert,
)
from waitbus.json_text import depth_of, is_deeper
from waitbus.settings import Settings
from waitbus.store import read
from waitbus.store.append import Appender
from waitbus.store.open import open_writer
from waitbus.store.rows import fields_of_event
from waitbus.wire import decode, encode_event


@pytest.fixture
def conn(settings: Settings) -> Iterator[sqlite3.Connection]:
    made = open_writer(settings)
    yield made
    made.close()


def nested(depth: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def event(**more: Any) -> EventInsert:
    return EventInsert(**{"source": "s", "event_type": "t", "summary": "x", **more})


def filled(size: int) -> EventInsert:
    """An event whose fields have so many bytes as JSON."""
    empty = event(fields={"é": ""})
    rest = size - len(json.dumps(fields_of_event(empty), separators=(",", ":"), ensure_ascii=False).encode())
    return event(fields={"é": "x" * rest})


# --- depth, without parsing ------------------------------------------------------------------------------------------


@given(st.recursive(
    st.none() | st.text(alphabet='[]{}"\\aé\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\'), inner, max_size=3),
    max_leaves=12,
))  # fmt: skip
def test_depth_is_what_a_walk_finds(value: Any) -> None:
    def walked(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(walked, inner), default=0)

    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert depth_of(text) == walked(value)
        assert is_deeper(text, walked(value) - 1)
        assert not is_deeper(text, walked(value))


# --- written ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "met", "most"),
    [
        *[({name: "x" * 1025}, 1025, MAX_NAME_BYTES) for name in ("source", "event_type", "owner", "repo")],
        ({"delivery_id": "é" * 600}, 1200, MAX_NAME_BYTES),
        ({"ingest_method": "m" * 5000}, 5000, MAX_NAME_BYTES),
        ({"fields": {"n" * 2000: 1}}, 2000, MAX_NAME_BYTES),
        ({"summary": "s" * 70_000}, 70_000, MAX_SUMMARY_BYTES),
        ({"payload_json": '"' + "x" * MAX_PAYLOAD_BYTES + '"'}, MAX_PAYLOAD_BYTES + 2, MAX_PAYLOAD_BYTES),
        ({"payload_json": '"' + "😀" * (5 << 20) + '"'}, 20 << 20, MAX_PAYLOAD_BYTES),
        ({"fields": {"a": nested(64)}}, 65, MAX_FIELDS_DEPTH),
        ({"fields": nested(800, dict)}, 800, MAX_FIELDS_DEPTH),
        ({"fields": {"a": ["[" * 99, nested(50_000)]}}, 50_002, MAX_FIELDS_DEPTH),
    ],
)
def test_what_passes_a_bound_is_refused_with_the_size_that_was_met(
    settings: Settings, conn: sqlite3.Connection, more: dict[str, Any], met: int, most: int
) -> None:
    appender = Appender(settings)
    with pytest.raises(ValueError, match=rf"{str(met)[:3]}\d* .* at most {most}"):
        appender.append(event(**more))
    with pytest.raises(ValueError, match="at most"):
        appender.append_many([event(), event(**more)])
    appender.close()
    assert read.last_seq(conn) == 0


@pytest.mark.parametrize("column", ["msg_body", "workflow_name", "fields"])
def test_fields_are_bounded_whatever_holds_them(settings: Settings, conn: sqlite3.Connection, column: str) -> None:
    text = "x" * MAX_FIELDS_BYTES
    appender = Appender(settings)
    with pytest.raises(ValueError, match=rf"fields as JSON: 262\d\d\d bytes, at most {MAX_FIELDS_BYTES}"):
        appender.append(event(**{column: {"a": text} if column == "fields" else text}))
    with pytest.raises(ValueError, match="fields as JSON"):  # it is their size as JSON: a control character takes six
        appender.append(event(msg_body="\x01" * (MAX_FIELDS_BYTES // 6)))
    appender.close()
    assert read.last_seq(conn) == 0


def test_a_field_that_holds_itself_is_refused(settings: Settings) -> None:
    circle: list[Any] = []
    circle.append([circle, circle])
    with pytest.raises(ValueError, match=r"fields are nested \d+ deep, at most 64"):
        Appender(settings).append(event(fields={"a": circle}))


@pytest.mark.parametrize(
    "kept",
    [
        event(source="x" * 1024, delivery_id="é" * 512, fields={"n" * 1024: 1}),
        event(fields={"a": nested(63)}),
        event(fields=nested(64, dict)),
        event(fields={"a": "[" * 500, "b": ['"\\[[' * 99]}),
        event(payload_json='"' + "x" * (MAX_PAYLOAD_BYTES - 2) + '"', summary="s" * MAX_SUMMARY_BYTES),
        filled(MAX_FIELDS_BYTES),
    ],
    ids=["names", "lists", "objects", "brackets in text", "payload", "fields"],
)
def test_what_just_fits_is_stored_and_read_whole(
    settings: Settings, conn: sqlite3.Connection, kept: EventInsert
) -> None:
    appender = Appender(settings)
    written = appender.append(kept).event
    appender.close()
    ((_, frame),) = read.read_after(conn, 0, 1)
    assert frame == written.as_frame()
    assert frame["kind"] == "event"
    found = read.event_with_payload(conn, written.event_id)
    assert found is not None
    assert found.payload_json == kept.payload_json


def test_one_byte_more_than_fits_does_not(settings: Settings) -> None:
    with pytest.raises(ValueError, match=f"{MAX_FIELDS_BYTES + 1} bytes"):
        Appender(settings).append(filled(MAX_FIELDS_BYTES + 1))


# --- inserted by a foreign program ------------------------------------------------------------------------------------

LONG = "y" * (MAX_FIELDS_BYTES + 1)
PAST = {
    "long fields": {"fields_json": json.dumps({"a": LONG})},
    "deep fields": {"fields_json": '{"a":' * 65 + "1" + "}" * 65},
    "very deep fields": {"fields_json": '{"a":' * 30_000 + "1" + "}" * 30_000},
    "a long name": {"fields_json": json.dumps({"b": 1, "n" * 1025: 2})},
    "not closed": {"fields_json": "[" * 5000},
    "a long body": {"msg_body": LONG},
    "a long blob": {"msg_body": LONG.encode()},
    "a long text that is no UTF-8": {"msg_body": [b"\xff" * (MAX_FIELDS_BYTES + 1)]},
    "a long text for a number": {"run_id": LONG},
    "a long id": {"event_id": LONG},
    "a long summary": {"summary": LONG},
    **{f"a long {name}": {name: LONG} for name in ("source", "event_type", "owner", "repo", "ingest_method")},
    "a long key": {"delivery_id": LONG},
    "a name of 1025 bytes": {"source": "x" * 1025},
    "a name of 600 characters": {"owner": "é" * 600},
}


@pytest.mark.parametrize("columns", PAST.values(), ids=PAST.keys())
def test_a_foreign_row_past_the_bounds_is_told_by_its_columns_alone(
    conn: sqlite3.Connection, columns: dict[str, Any]
) -> None:
    for n in range(3):
        insert(conn, delivery_id=f"before {n}", fields_json='{"a": 1}')
    insert(conn, **{"conclusion": "failure", "fields_json": '{"a": 1}', **columns})
    insert(conn, delivery_id="after", fields_json='{"a": 1}')
    *before, (_, frame), after = read.read_after(conn, 0, 10)
    others = [(other["delivery_id"], other["kind"], other["fields"]["a"]) for _, other in (*before, after)]
    assert others == [(name, "event", 1) for name in ("before 0", "before 1", "before 2", "after")]
    check_frame(frame)
    assert frame["kind"] == "truncated"
    assert frame["fields"]["conclusion"] == "failure"
    assert "a" not in frame["fields"]
    assert len(json.dumps(frame)) < 10_000
    said = decode(encode_event(frame)[4:])
    assert said["kind"] == "truncated"
    assert read.seq_of(conn, said["event_id"]) == 4
    event = read.event_with_payload(conn, said["event_id"])
    assert event is not None
    assert event.fields == frame["fields"]
    # A condition in SQL must not trip over it either.
    where = ("(msg_body GLOB ? OR length(CAST(msg_body AS BLOB)) > 256)", ("y*",))
    passed = [seq for seq, _ in read.read_after(conn, 0, 10, upto=5, where=where)]
    assert 4 in passed or "msg_body" not in columns


def test_a_long_text_keeps_its_beginning(conn: sqlite3.Connection) -> None:
    insert(conn, msg_body="begin " + LONG)
    ((_, frame),) = read.read_after(conn, 0, 1)
    assert frame["fields"]["msg_body"] == ("begin " + LONG)[:MAX_NAME_BYTES] + "…"


def test_a_long_payload_is_not_fetched(conn: sqlite3.Connection) -> None:
    insert(conn, payload_json="x" * (MAX_PAYLOAD_BYTES + 1))
    ((_, frame),) = read.read_after(conn, 0, 1)
    assert frame["kind"] == "event"
    event = read.event_with_payload(conn, frame["event_id"])
    assert event is not None
    assert event.payload_json is None


def test_what_is_too_long_never_comes_into_memory(conn: sqlite3.Connection) -> None:
    text = json.dumps({"k": [0] * 500_000})
    for n in range(5):
        insert(conn, delivery_id=str(n), fields_json=text)
    tracemalloc.start()
    try:
        rows = read.read_after(conn, 0, 10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [frame["kind"] for _, frame in rows] == ["truncated"] * 5
    assert peak < 1 << 20


def test_a_page_ends_by_its_text_as_well_as_by_its_rows(conn: sqlite3.Connection) -> None:
    for n in range(9):
        insert(conn, delivery_id=str(n), msg_body="x" * 1000)
    insert(conn, delivery_id="long", msg_body=LONG)
    page = read.read_page(conn, 0, 100, max_chars=3000)
    assert ([seq for seq, _ in page.rows], page.end, page.more) == ([1, 2, 3], 3, True)
    page = read.read_page(conn, 0, 4)
    assert (len(page.rows), page.end, page.more) == (4, 4, True)
    page = read.read_page(conn, 4, 100, upto=40)
    assert ([seq for seq, _ in page.rows], page.end, page.more) == ([5, 6, 7, 8, 9, 10], 40, False)
    page = read.read_page(conn, 8, 2, upto=40, max_chars=2000)
    assert ([seq for seq, _ in page.rows], page.end, page.more) == ([9, 10], 10, True)
    page = read.read_page(conn, 10, 100)
    assert (page.rows, page.end, page.more) == ([], 10, False)
