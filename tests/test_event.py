"""The pure event files: ULIDs, EventInsert's checks, the fields object."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus.event import (
    ALWAYS_FIELDS,
    FIELD_COLUMNS,
    Event,
    EventInsert,
    happened_ms,
    is_history,
    one_line,
)
from waitbus.store.fields import default_summary, fields_of
from waitbus.ulid import UlidFactory, encode_ulid, is_ulid, ulid_at, ulid_ms


@given(st.lists(st.integers(min_value=0, max_value=2**47), min_size=1, max_size=200))
def test_ulids_are_unique_and_rise_whatever_the_clock_does(clock: list[int]) -> None:
    times = iter([ms * 1_000_000 for ms in clock])
    make = UlidFactory(lambda: next(times), os.urandom)
    made = [make() for _ in clock]
    assert made == sorted(set(made))
    assert all(is_ulid(ulid) for ulid in made)


def test_a_ulid_carries_its_millisecond() -> None:
    now = time.time_ns()
    assert ulid_ms(UlidFactory(lambda: now, os.urandom)()) == now // 1_000_000
    assert ulid_ms(ulid_at(now)) == now // 1_000_000
    assert ulid_at(now) <= UlidFactory(lambda: now, os.urandom)()


def test_the_encoding_is_crockfords() -> None:
    # The example of the ULID specification: 2016-07-30T23:54:10.259Z.
    assert ulid_ms("01ARZ3NDEKTSV4RRFFQ69G5FAV") == 1469922850259
    assert encode_ulid((1 << 128) - 1) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
    assert encode_ulid(0) == "0" * 26


@pytest.mark.parametrize("text", ["", "zzz", "01ARZ3NDEKTSV4RRFFQ69G5FAU", "01arz3ndektsv4rrffq69g5fav", 5, None])
def test_what_is_no_ulid(text: object) -> None:
    assert not is_ulid(text)


def test_a_column_named_in_fields_moves_to_its_column() -> None:
    event = EventInsert(source="s", event_type="t", fields={"conclusion": "success", "pid": 3, "owner": "x"})
    assert event.conclusion == "success"
    assert event.fields == {"pid": 3}
    assert event.owner == "local"


@pytest.mark.parametrize(
    "bad",
    [
        {"source": ""},
        {"event_type": 5},
        {"run_id": "1"},
        {"run_id": True},
        {"conclusion": 1},
        {"received_at": 1.5},
        {"received_at": -1},
        {"payload_json": {}},
        {"delivery_id": ""},
        {"summary": b"x"},
        {"fields": [1]},
        {"fields": {"run_id": "1"}},
    ],
)
def test_an_ill_typed_insert_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the text differs for each)
        EventInsert(**{"source": "s", "event_type": "t", **bad})


def test_an_unknown_argument_says_where_it_belongs() -> None:
    with pytest.raises(TypeError, match=r"no field 'temperature'; put it in fields=\{"):
        EventInsert(source="s", event_type="t", temperature=20)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean conclusion"):
        EventInsert(source="s", event_type="t", conclusio="x")  # type: ignore[call-arg]


class _Text(str):
    __slots__ = ()


def test_a_column_takes_a_subclass_of_its_type_and_a_field_never_replaces_what_was_given() -> None:
    event = EventInsert(
        source="s", event_type="t", conclusion=_Text("failure"), fields={"conclusion": "x", "run_id": 4}
    )
    assert (event.conclusion, event.run_id) == ("failure", 4)
    assert EventInsert(source="s", event_type="t", conclusion=None, fields={"conclusion": "x"}).conclusion == "x"


def test_fields_hold_the_seven_always_and_a_natural_name_hides_no_column() -> None:
    fields = fields_of({"source": "s", "event_type": "t", "run_id": 4}, {"run_id": 9, "pid": 1})
    assert set(ALWAYS_FIELDS) <= set(fields)
    assert fields["run_id"] == 4
    assert fields["pid"] == 1
    assert fields["conclusion"] is None


def test_an_event_survives_its_frame() -> None:
    event = Event("0" * 26, "t", "o", "r", 5, "d", "sum", {"source": "s", "conclusion": "failure"})
    assert Event.from_frame(event.as_frame()) == event
    assert list(event.as_frame())[-1] == "kind"
    assert event.source == "s"
    assert event.conclusion == "failure"


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 200
    assert line.isprintable()


def test_a_default_summary_names_source_type_and_outcome() -> None:
    fields = fields_of({"source": "github", "event_type": "workflow_run", "owner": "o", "repo": "r"}, {})
    fields |= {"workflow_name": "CI", "conclusion": "failure"}
    assert default_summary(fields) == "github workflow_run o/r CI failure"


def test_columns_are_what_the_insert_takes() -> None:
    event = EventInsert(source="s", event_type="t", **{n: kind("1") for n, kind in FIELD_COLUMNS.items()})
    assert all(getattr(event, name) == kind("1") for name, kind in FIELD_COLUMNS.items())


@pytest.mark.parametrize(
    ("method", "history"),
    [("import", True), ("backfill", True), ("manual", False), ("webhook", False), (None, False), (["import"], False)],
)
def test_history_is_told_by_its_ingest_method_and_dated_by_its_received_at(method: object, history: bool) -> None:
    frame = {"event_id": ulid_at(5_000_000_000), "received_at": 2_000_000_000, "fields": {"ingest_method": method}}
    assert is_history(frame) is history
    assert happened_ms(frame) == (2_000 if history else 5_000)


def test_history_of_another_daemon_without_a_time_is_old() -> None:
    assert happened_ms({"event_id": ulid_at(5), "received_at": "now", "fields": {"ingest_method": "import"}}) == 0
