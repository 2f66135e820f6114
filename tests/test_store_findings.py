"""What fuzzing found in the store, so that it stays found."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import pytest

from waitbus.event import EventInsert
from waitbus.predicate import Predicate
from waitbus.settings import Settings
from waitbus.store.append import Appender
from waitbus.store.open import open_writer
from waitbus.store.prefilter import condition_of
from waitbus.store.read import cursor_of, read_after
from waitbus.ulid import ULID_MIN


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"summary": ""}, {"summary": "s t"}),
        ({"fields": {"argv": ("make", "-j8")}}, {"argv": ["make", "-j8"]}),
        ({"fields": {"tail": {1: {2: None}}}}, {"tail": {"1": {"2": None}}}),
        ({"fields": {1: 2}}, {"1": 2}),
    ],
)
def test_the_answer_of_an_append_is_what_readers_see(
    settings: Settings, given: dict[str, Any], read: dict[str, Any]
) -> None:
    answer = Appender(settings).append(EventInsert(source="s", event_type="t", **given)).event.as_frame()
    with contextlib.closing(open_writer(settings)) as store:
        assert read_after(store, 0, 2) == [(1, answer)]
    assert read.items() <= {**answer, **answer["fields"]}.items()


@pytest.mark.parametrize("odd", [b"a\0b", b"a\xff", b"a\xe2\x82"])
@pytest.mark.parametrize("pattern", ["a?*", "a*", "a?", "??"])
def test_sqlite_hides_no_odd_text_that_a_pattern_matches(settings: Settings, odd: bytes, pattern: str) -> None:
    predicate = Predicate.from_object({"key": "workflow_name", "op": "glob", "value": pattern})
    with contextlib.closing(open_writer(settings)) as store:
        insert(store, odd)
        matching = [seq for seq, frame in read_after(store, 0, 9) if predicate(frame)]
        passed = [seq for seq, _ in read_after(store, 0, 9, upto=9, where=condition_of(predicate.as_object))]
    assert set(matching) <= set(passed)


def insert(store: sqlite3.Connection, name: bytes) -> None:
    store.execute(
        "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, payload_json, ingest_method,"
        " workflow_name) VALUES ('d', 's', 't', 'o', 'r', 5, '{}', 'm', CAST(? AS TEXT))",
        (name,),
    )


@pytest.mark.parametrize("event_id", [None, "", "0", "00000000-0000-4000-8000-000000000000", "zzz", 0, b"\xff"])
def test_from_the_start_is_everything_whatever_ids_a_foreign_program_gave(settings: Settings, event_id: object) -> None:
    with contextlib.closing(open_writer(settings)) as store:
        insert(store, b"name")
        store.execute("UPDATE events SET event_id = ?", (event_id,))
        Appender(settings).append(EventInsert(source="s", event_type="t"))
        assert cursor_of(store, ULID_MIN) == 0
        (first, _), (second, _) = read_after(store, 0, 9)
        assert (first, second) == (1, 2)
