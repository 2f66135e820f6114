"""Reading: cursors, and frames out of whatever a foreign program wrote."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from waitbus.event import ALWAYS_FIELDS, FIELD_COLUMNS, FRAME_KEYS, Event, EventInsert
from waitbus.settings import Settings
from waitbus.store import frames, read
from waitbus.store.append import Appender
from waitbus.store.open import StoreDamaged, StoreError, open_reader, open_writer
from waitbus.ulid import ULID_MIN, encode_ulid, is_ulid, ulid_at, ulid_ms
from waitbus.wire import decode, encode_event

# The columns of 0.2.0: what a foreign program knows to insert.
OLD_COLUMNS = (
    "delivery_id", "source", "event_type", "owner", "repo", "run_id", "workflow_name", "head_branch", "head_sha",
    "status", "conclusion", "received_at", "payload_json", "ingest_method", "job_id", "job_name", "parent_run_id",
    "alert_name", "alert_severity", "alert_fingerprint", "msg_to", "msg_from", "msg_correlation_id", "msg_reply_to",
    "msg_thread", "msg_body", "event_id",
)  # fmt: skip
REQUIRED = {
    "delivery_id": "d", "source": "s", "event_type": "t", "owner": "o", "repo": "r", "received_at": 1,
    "payload_json": "{}", "ingest_method": "m",
}  # fmt: skip


@pytest.fixture
def conn(settings: Settings) -> Iterator[sqlite3.Connection]:
    made = open_writer(settings)
    yield made
    made.close()


def insert(conn: sqlite3.Connection, **columns: Any) -> int:
    """As a foreign program does it: `?` of raw values; bytes in a list are text that is no UTF-8."""
    row = {**REQUIRED, **columns}
    marks = ["CAST(? AS TEXT)" if isinstance(value, list) else "?" for value in row.values()]
    seq = conn.execute(
        "INSERT INTO events ({}) VALUES ({})".format(", ".join(row), ", ".join(marks)),
        [value[0] if isinstance(value, list) else value for value in row.values()],
    ).lastrowid
    assert seq is not None
    return seq


def check_frame(frame: dict[str, Any]) -> None:
    """What the contract promises of every event frame."""
    assert list(frame) == [*FRAME_KEYS, "kind"]
    assert is_ulid(frame["event_id"])
    assert type(frame["received_at"]) is int
    for key in ("event_type", "owner", "repo", "delivery_id", "summary"):
        assert type(frame[key]) is str
    fields = frame["fields"]
    assert set(ALWAYS_FIELDS) <= set(fields)
    for key in ("source", "event_type", "owner", "repo", "ingest_method"):
        assert type(fields[key]) is str
    for name, kind in FIELD_COLUMNS.items():
        assert fields.get(name) is None or type(fields[name]) is kind
    json.dumps(frame, allow_nan=False)
    decode(encode_event(frame)[4:])
    Event.from_frame(frame)


def test_a_row_of_0_2_0s_columns_is_heard(conn: sqlite3.Connection) -> None:
    names: dict[str, Any] = {name: 5 if FIELD_COLUMNS.get(name) is int else name for name in OLD_COLUMNS}
    del names["event_id"]
    insert(conn, **{**names, "received_at": 1_763_337_600_000_000_000})
    ((seq, frame),) = read.read_after(conn, 0, 10)
    assert seq == 1
    check_frame(frame)
    assert frame["fields"] == {
        name: names[name] for name in (*ALWAYS_FIELDS, *FIELD_COLUMNS)
    }  # nothing more, nothing less
    assert frame["received_at"] == 1_763_337_600_000_000_000
    assert frame["summary"]


@pytest.mark.parametrize(
    "event_id", [None, "", "short", b"01ARZ3NDEKTSV4RRFFQ69G5FAV", 5, "01arz3ndektsv4rrffq69g5fav", "U" * 26, "é" * 26]
)
def test_a_row_without_a_ulid_is_read_with_one_of_its_own(conn: sqlite3.Connection, event_id: object) -> None:
    insert(conn, delivery_id="first")
    insert(conn, event_id=event_id, received_at=1_763_337_600_123_456_789)
    ((seq, frame),) = read.read_after(conn, 1, 1)
    found = frame["event_id"]
    assert is_ulid(found)
    assert ulid_ms(found) == 1_763_337_600_123
    assert read.read_after(conn, 1, 1)[0][1]["event_id"] == found
    assert read.seq_of(conn, found) == seq
    assert read.cursor_of(conn, found) == seq
    event = read.event_with_payload(conn, found)
    assert event is not None
    assert event.event_id == found
    assert read.seq_of(conn, frames.derived_id(1_763_337_600_123_456_789, seq + 1)) is None


def test_a_point_in_time_is_found_among_rows_without_ids(conn: sqlite3.Connection) -> None:
    for second in range(10):
        insert(conn, delivery_id=str(second), received_at=second * 1_000_000_000)
    assert read.cursor_of(conn, ulid_at(4_500_000_000)) == 5
    assert read.cursor_of(conn, ulid_at(20_000_000_000)) == 10


def test_a_ulid_that_is_given_is_kept_and_those_made_differ(conn: sqlite3.Connection) -> None:
    insert(conn, event_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")
    conn.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        " INSERT OR IGNORE INTO events (delivery_id, source, event_type, owner, repo, received_at, payload_json,"
        " ingest_method) SELECT i, 's', 't', 'o', 'r', i, '{}', 'm' FROM n"
    )
    ids = [frame["event_id"] for _, frame in read.read_after(conn, 0, 1000)]
    assert ids[0] == "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert len(set(ids)) == 501


def test_an_id_taken_away_afterwards_still_gives_a_frame(conn: sqlite3.Connection) -> None:
    insert(conn)
    conn.execute("UPDATE events SET event_id = NULL, received_at = -5")
    ((_, frame),) = read.read_after(conn, 0, 1)
    check_frame(frame)


# A text column of SQLite turns numbers into text by itself; blobs and broken UTF-8 stay.
values = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.binary(max_size=6),
    st.binary(max_size=6).map(lambda raw: [raw]),
)
present = values.filter(lambda value: value is not None and not (isinstance(value, float) and math.isnan(value)))
broken_json = st.sampled_from([
    "", "{", "null", "[1]", "3", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 5000,
    '{"a": ' + "1" * 5000 + "}", '{"run_id": "x", "status": 5, "path": "/p", "nodeids_failed": [1]}', "\0", "{}\0",
    '{"": {"": []}}',
])  # fmt: skip


@given(
    columns=st.fixed_dictionaries({}, optional={
        **dict.fromkeys(REQUIRED, present), **dict.fromkeys(FIELD_COLUMNS, values),
        "event_id": values, "summary": values, "fields_json": values | broken_json,
    }),
)  # fmt: skip
@hypothesis_settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_row_holds_it_gives_a_frame(conn: sqlite3.Connection, columns: dict[str, Any]) -> None:
    conn.execute("BEGIN")
    try:
        first = insert(conn, delivery_id="before", fields_json='{"path": "/p"}')
        insert(conn, **columns)
        insert(conn, delivery_id="after")
        found = read.read_after(conn, first - 1, 10)
        assert [seq for seq, _ in found] == [first, first + 1, first + 2]
        for _, frame in found:
            check_frame(frame)
        assert found[0][1]["fields"]["path"] == "/p"
        event = read.event_with_payload(conn, found[1][1]["event_id"])
        assert event is not None
        assert event.as_frame() == {**found[1][1], "kind": "event"}
        conn.execute("SELECT sum(length(path)), sum(length(argv)), sum(exit_code) FROM events").fetchone()
    finally:
        conn.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("column", "stored", "shown"),
    [
        ("run_id", "12a", None),
        ("run_id", 5.5, 5),
        ("run_id", "12", 12),
        ("run_id", b"5", None),
        ("run_id", float("inf"), None),
        ("status", b"ok", "ok"),
        ("status", [b"a\xffb"], "a\ufffdb"),
        ("status", 5, "5"),
        ("conclusion", None, None),
    ],
)
def test_how_what_is_ill_typed_is_shown(conn: sqlite3.Connection, column: str, stored: object, shown: object) -> None:
    insert(conn, **{column: stored})
    ((_, frame),) = read.read_after(conn, 0, 1)
    assert frame["fields"].get(column) == shown


def test_fields_json_never_stands_for_a_column(conn: sqlite3.Connection) -> None:
    insert(conn, status="real", fields_json='{"status": "fake", "source": "fake", "conclusion": "fake", "run_id": 7}')
    ((_, frame),) = read.read_after(conn, 0, 1)
    assert frame["fields"]["status"] == "real"
    assert frame["fields"]["source"] == "s"
    assert frame["fields"]["conclusion"] is None
    assert "run_id" not in frame["fields"]


def test_generated_columns_survive_what_is_no_json(conn: sqlite3.Connection) -> None:
    for number, text in enumerate(("{", "[1]", "5", None, b"\xff", '{"path": {"a": 1}}', '{"path": "/x"}')):
        insert(conn, delivery_id=str(number), fields_json=text)
    found = [row[0] for row in conn.execute("SELECT path FROM events ORDER BY seq")]
    assert found == [None, None, None, None, None, '{"a":1}', "/x"]


# Cursors.


@pytest.fixture
def ids(settings: Settings) -> list[str]:
    """Ten events; their ids."""
    appender = Appender(settings)
    found = [appender.append(EventInsert(source="agent", event_type="t")).event.event_id for _ in range(10)]
    appender.close()
    return found


def test_pages(settings: Settings, ids: list[str]) -> None:
    conn = open_reader(settings)
    seen: list[str] = []
    seq = 0
    while page := read.read_after(conn, seq, 3):
        assert len(page) <= 3
        seq = page[-1][0]
        seen += [frame["event_id"] for _, frame in page]
    assert seen == ids
    assert [seq for seq, _ in read.read_after(conn, 2, 100, upto=5)] == [3, 4, 5]
    assert read.read_after(conn, 10, 100) == []
    conn.close()


@pytest.mark.parametrize("max_chars", [1, read.PAGE_CHARS])
def test_pages_back_from_the_newest(conn: sqlite3.Connection, max_chars: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages it takes forward, a page back begins with the newest."""
    monkeypatch.setattr(
        read.read_page, "__kwdefaults__", {**(read.read_page.__kwdefaults__ or {}), "max_chars": max_chars}
    )
    for number in range(1, 8):
        insert(conn, delivery_id=str(number), source="a" if number % 2 else "b", run_id=number)
    conn.execute("DELETE FROM events WHERE seq = 5")
    page = read.read_back(conn, 7, 3)
    assert [seq for seq, _ in page.rows] == [7, 6, 4]
    assert (page.end, page.more, page.chars > 0) == (4, True, True)
    assert [frame["fields"]["run_id"] for _, frame in page.rows] == [7, 6, 4]
    page = read.read_back(conn, page.end - 1, 3, after=1)
    assert ([seq for seq, _ in page.rows], page.end, page.more) == ([3, 2], 2, False)
    odd = ("source = ?", ("a",))
    assert [seq for seq, _ in read.read_back(conn, 6, 9, where=odd).rows] == [3, 1]
    assert read.read_back(conn, 3, 9, after=3).rows == []


def test_where_each_cursor_starts(settings: Settings, ids: list[str]) -> None:
    conn = open_reader(settings)
    assert read.last_seq(conn) == 10
    for number, event_id in enumerate(ids, 1):
        assert read.seq_of(conn, event_id) == number
        assert read.cursor_of(conn, event_id) == number
        assert read.event_id_at(conn, number) == event_id
    assert read.seq_of(conn, ULID_MIN) is None
    assert read.cursor_of(conn, ULID_MIN) == 0
    assert read.cursor_of(conn, "7" * 26) == 10
    assert read.event_id_at(conn, 0) is None
    assert read.event_id_at(conn, 99) == ids[-1]
    conn.close()


def test_cursors_of_an_empty_store(conn: sqlite3.Connection) -> None:
    assert read.last_seq(conn) == 0
    assert read.cursor_of(conn, ULID_MIN) == 0
    assert read.event_id_at(conn, 5) is None
    assert read.event_with_payload(conn, ULID_MIN) is None


def test_a_known_id_is_its_place_in_commit_order_whatever_its_time(conn: sqlite3.Connection) -> None:
    """Clocks of several processes differ, and are set back: seq is the order."""
    late, early = ulid_at(2_000_000_000_000_000_000), ulid_at(1_000_000_000_000_000_000)
    insert(conn, delivery_id="a", event_id=late)
    insert(conn, delivery_id="b", event_id=early)
    assert read.cursor_of(conn, late) == 1
    assert read.cursor_of(conn, early) == 2


@given(
    stamps=st.lists(st.integers(1, 60), min_size=1, max_size=30, unique=True),
    since=st.integers(0, 61),
)
@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_unknown_id_starts_before_the_first_greater_one(
    conn: sqlite3.Connection, stamps: list[int], since: int
) -> None:
    conn.execute("BEGIN")
    try:
        rows = [(insert(conn, delivery_id=str(n), event_id=encode_ulid(n << 100)), n) for n in stamps]
        if since in stamps:
            wanted = next(seq for seq, stamp in rows if stamp == since)
        else:
            greater = [seq for seq, stamp in rows if stamp > since]
            wanted = min(greater) - 1 if greater else rows[-1][0]
        assert read.cursor_of(conn, encode_ulid(since << 100)) == wanted
    finally:
        conn.execute("ROLLBACK")


HOUR_MS = 3_600_000
FROZEN_MS = 499_224_240_000  # 1985
FAR_MS = 4_070_908_800_000  # 2099


@pytest.mark.parametrize("named", [True, False], ids=["ids", "no-ids"])
@pytest.mark.parametrize("wrong", [FROZEN_MS, FAR_MS])
@pytest.mark.parametrize(
    ("hours_ago", "wanted"),
    [
        # Hours ago in commit order, None: by a wrong clock. `wanted`: how many the last two hours hold.
        ([9, 8, 7, None], 1),  # nobody can say when: just now, for all that the others say
        ([9, 8, 7, None, None, None], 3),
        ([9, 8, None, 7], 0),
        ([9, 8, None, 7, 1], 1),
        ([9, 8, None, 1], 2),
        ([9, 1, None], 2),
        ([9, 1, None, 0.5], 3),
        ([None, 9, 8, 1], 1),
        ([None, 9, 8], 0),
        ([9, 8, 8.001, 1, 0.9, 1.001], 3),
    ],
)
def test_one_wrong_clock_does_not_move_where_a_time_begins(
    conn: sqlite3.Connection, hours_ago: list[float | None], wanted: int, wrong: int, named: bool
) -> None:
    now = time.time_ns() // 1_000_000
    for number, hours in enumerate(hours_ago):
        stamp = wrong if hours is None else now - int(hours * HOUR_MS)
        event_id = encode_ulid((stamp << 80) + number) if named else None
        insert(conn, delivery_id=str(number), event_id=event_id, received_at=stamp * 1_000_000)
    cursor = read.cursor_of(conn, ulid_at((now - 2 * HOUR_MS) * 1_000_000))
    assert len(read.read_after(conn, cursor, 100)) == wanted


def test_imported_history_is_not_taken_for_a_wrong_clock(conn: sqlite3.Connection) -> None:
    now = time.time_ns() // 1_000_000
    for number, (hours, method) in enumerate([(9, "manual"), (9000, "import"), (8000, "import"), (4000, "backfill")]):
        stamp = now - hours * HOUR_MS
        insert(conn, delivery_id=str(number), event_id=ulid_at(stamp * 1_000_000), ingest_method=method)
    assert read.cursor_of(conn, ulid_at((now - 2 * HOUR_MS) * 1_000_000)) == 4


def test_the_data_version_moves_with_the_commits_of_others(settings: Settings, ids: list[str]) -> None:
    conn = open_reader(settings)
    before = read.data_version(conn)
    assert read.data_version(conn) == before
    appender = Appender(settings)
    appender.append(EventInsert(source="agent", event_type="t"))
    assert read.data_version(conn) != before
    appender.close()
    conn.close()


def test_a_file_that_fails_is_a_store_error(conn: sqlite3.Connection) -> None:
    conn.execute("ALTER TABLE events RENAME TO gone")
    with pytest.raises(StoreDamaged, match=r"waitbus\.db is damaged or not an SQLite database \(no such table"):
        read.read_after(conn, 0, 1)
    with pytest.raises(StoreError, match="no such table"):
        read.last_seq(conn)


def test_more_shapes_of_rows_than_are_remembered(conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_SIGNATURES", 3)
    for number, name in enumerate(FIELD_COLUMNS):
        insert(conn, delivery_id=str(number), **{name: 5 if FIELD_COLUMNS[name] is int else "x"})
    for _, frame in read.read_after(conn, 0, 100):
        check_frame(frame)
