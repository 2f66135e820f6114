"""Targets on a real SQLite file: rows of foreign programs, conditions in SQL, events in and out, 0.2.0's store."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sqlite3
import tempfile
from functools import cache
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.engine import Target
from tests.fuzz.shapes import json_values, names, numbers, texts, ulids
from waitbus import wire
from waitbus.client.core import SubscriptionState
from waitbus.event import FIELD_COLUMNS, FRAME_KEYS, Event, EventInsert
from waitbus.predicate import Predicate
from waitbus.settings import Settings, load
from waitbus.store import frames, read
from waitbus.store.append import Appender
from waitbus.store.importer import import_v020
from waitbus.store.open import open_writer
from waitbus.store.prefilter import condition_of
from waitbus.ulid import ULID_MIN, is_ulid

NEEDED = ("delivery_id", "source", "event_type", "owner", "repo", "received_at", "ingest_method", "payload_json")
COLUMNS = (*NEEDED, *FIELD_COLUMNS, "event_id", "summary", "fields_json")
FIRST = wire.encode(wire.ack_frame(None))


@cache
def place() -> str:
    memory = "/dev/shm"  # stores are made and thrown away: none has to reach a disk
    path = tempfile.mkdtemp(prefix="wb-", dir=memory if os.access(memory, os.W_OK) else None)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def settings_at(name: str) -> Settings:
    """Settings of a store of its own."""
    base = os.path.join(place(), name)
    return load({"WAITBUS_STATE_DIR": base, "WAITBUS_RUNTIME_DIR": base, "WAITBUS_CONFIG": f"{base}.toml"})


@cache
def store(name: str) -> sqlite3.Connection:
    """A store that keeps nothing: each example begins with an empty table, and none waits for the disk."""
    connection = open_writer(settings_at(name))
    connection.execute("PRAGMA synchronous = OFF")
    return connection


# --- rows of foreign programs -----------------------------------------------------------------------------------------

# SQLite takes 64 bits, and text that UTF-8 can say; bytes in a column are also put there as text, valid or not.
short = st.sampled_from([b"a", b"\xff\xfe", b"\xed\xa0\x80", b"a\0b", b"\xc3\xa9", b"{}", b'{"a":1}']) | st.binary(
    max_size=8
)
sql_texts = texts.filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))
sql_numbers = st.integers(-(2**63), 2**63 - 1) | st.floats()
sql_values = st.none() | sql_numbers | sql_texts | short | st.tuples(short)
json_texts = (
    st.sampled_from(
        ["[1e999]", "NaN", '{"a":NaN}', '{"tail":1e999}', "{" * 9, "[" * 2000 + "]" * 2000, '{"n":"\\ud800"}']
    )
    | st.dictionaries(names | texts, json_values(), max_size=4).map(wire._ENCODE_ASCII)
    | sql_texts
)
foreign_rows = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(COLUMNS, sql_values),
            "event_id": ulids | sql_values,
            "fields_json": json_texts | sql_values,
        },
    ),
    max_size=4,
)
FILLED: dict[str, Any] = {
    "source": "s",
    "event_type": "t",
    "owner": "o",
    "repo": "r",
    "received_at": 5,
    "ingest_method": "m",
    "payload_json": "{}",
}


def insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert as a foreign program would; what the schema itself refuses is left out."""
    for number, row in enumerate(rows):
        filled = {"delivery_id": f"d{number}", **FILLED, **row}
        marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, tuple) else "?" for value in filled.values())
        values = [value[0] if isinstance(value, tuple) else value for value in filled.values()]
        with contextlib.suppress(sqlite3.IntegrityError):
            connection.execute(f"INSERT INTO {table} ({', '.join(filled)}) VALUES ({marks})", values)


def check_rows(rows: list[dict[str, Any]]) -> None:
    connection = store("rows")
    connection.execute("BEGIN")
    try:
        insert(connection, "events", rows)
        (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
        found = read.read_after(connection, 0, 100)
        assert len(found) == count
        for seq, frame in found:
            check_frame(frame)
            assert read.cursor_of(connection, frame["event_id"]) == seq, "a cursor that does not lead back to its row"
            assert read.event_id_at(connection, seq) == frame["event_id"]
            event = read.event_with_payload(connection, frame["event_id"])
            assert event is not None
            assert event.as_frame() == {**frame, "kind": "event"}
            assert isinstance(event.payload_json, str)
        # The generated columns, which are computed when they are read.
        list(connection.execute("SELECT count(exit_code), count(nodeids_failed), count(duration_s) FROM events"))
    finally:
        connection.execute("ROLLBACK")


def check_frame(frame: dict[str, Any]) -> None:
    """A frame has the contract's keys and types, goes over the wire, and arrives as the same event."""
    assert list(frame) == [*FRAME_KEYS, "kind"]
    kinds = {"received_at": int, "fields": dict}
    assert all(type(frame[key]) is kinds.get(key, str) for key in frame)
    assert is_ulid(frame["event_id"])
    stream = SubscriptionState(since=ULID_MIN)  # history, too
    stream.first_frame(0, 0)
    (_, item) = [None, *stream.feed(FIRST + wire.encode_event(frame), 0)]
    if isinstance(item, Event):
        assert item.as_frame() == frame
    else:
        assert stream.cursor == frame["event_id"]


# --- a predicate as a condition: SQLite may let through too many, never too few --------------------------------------

COMPARED = ("source", "owner", "event_id", "delivery_id", "run_id", "conclusion", "workflow_name", "msg_to")
DERIVED = [frames.derived_id(5, seq) for seq in (1, 2, 3)]  # of rows without an id, as a reader says them
pool = st.sampled_from(
    ["", "a", "A", "ab", "a\0b", "é", "5", "5.0", 5, 5.5, -1, 2**62, None, b"a", b"5", (b"a\xff",), (b"a\0b",)]
)
wanted = st.sampled_from(
    ["", "a", "A", "a*", "?", "??", "a?*", "[a]", "é", "5", "5.0", 5, 5.0, 5.5, True, None, 2**63, *DERIVED, "000*"]
)
conditions = st.recursive(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(COMPARED) | st.sampled_from(COMPARED).map("fields.{}".format),
            "op": st.sampled_from(["eq", "eq", "ne", "glob", "exists", "gt"]),
            "value": wanted,
        }
    ),
    lambda inner: (
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=5,
)
compared_rows = st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(COMPARED, pool)), min_size=1, max_size=6)


def check_condition(example: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    node, rows = example
    try:
        predicate = Predicate.from_object(node)
    except ValueError:
        return
    connection = store("conditions")
    connection.execute("BEGIN")
    try:
        insert(connection, "events", rows)
        everything = read.read_after(connection, 0, 100)
        where = condition_of(predicate.as_object)
        passed = {seq for seq, _ in read.read_after(connection, 0, 100, upto=2**62, where=where)}
        missed = [frame for seq, frame in everything if predicate(frame) and seq not in passed]
        assert not missed, f"{where} hides {missed}"
    finally:
        connection.execute("ROLLBACK")


# --- events in and out: what was stored is what is read and what was answered ----------------------------------------

columns: dict[str, Any] = {name: (texts if kind is str else numbers) for name, kind in FIELD_COLUMNS.items()}
# `fields` as a Python program may hand them in: not all of it is JSON.
wild = json_values(
    st.none() | st.booleans() | numbers | texts | st.sampled_from([float("nan"), float("inf"), b"x", (1, 2), {1: 2}])
)
inserts = st.fixed_dictionaries(
    {"source": texts, "event_type": texts},
    optional={
        "delivery_id": texts | st.sampled_from(["same", "again"]),
        "owner": texts,
        "repo": texts,
        "received_at": numbers,
        "payload_json": texts,
        "ingest_method": texts,
        "summary": texts,
        "fields": st.dictionaries(names | texts, wild, max_size=5),
        **columns,
    },
)


@cache
def appender() -> Appender:
    return Appender(settings_at("appended"))


def check_append(arguments: dict[str, Any]) -> None:
    store("appended").execute("DELETE FROM events")
    before = read.last_seq(store("appended"))
    try:
        result = appender().append(EventInsert(**arguments))
    except ValueError:
        assert read.last_seq(store("appended")) == before, "refused and written all the same"
        return
    rows = read.read_after(store("appended"), before, 5)
    assert len(rows) == result.inserted
    if result.inserted:
        ((_, frame),) = rows
        check_frame(frame)
        assert result.event.as_frame() == frame, "the answer and the store differ"


# --- 0.2.0's store ---------------------------------------------------------------------------------------------------

OLD_COLUMNS = [name for name in COLUMNS if name not in ("summary", "fields_json")]
OLD_TYPES = {name: "INTEGER" for name, kind in FIELD_COLUMNS.items() if kind is int} | {"received_at": "INTEGER"}
OLD_SCHEMA = "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, {}, UNIQUE (delivery_id))".format(
    ", ".join(f"{name} {OLD_TYPES.get(name, 'TEXT')}{' NOT NULL' if name in NEEDED else ''}" for name in OLD_COLUMNS)
)
OLD_IDS = "CREATE UNIQUE INDEX ids ON events (event_id) WHERE event_id IS NOT NULL"
old_rows = st.lists(
    st.fixed_dictionaries({}, optional={**dict.fromkeys(OLD_COLUMNS, sql_values), "event_id": ulids | sql_values}),
    max_size=4,
)


def check_import(rows: list[dict[str, Any]]) -> None:
    settings = settings_at("imported")
    shutil.rmtree(settings.state_dir, ignore_errors=True)
    os.makedirs(settings.state_dir, mode=0o700)
    path = os.path.join(settings.state_dir, "github.db")
    # Text and blob of the same bytes are two keys to SQLite.
    both = "SELECT typeof(delivery_id) || hex(delivery_id), CAST(event_id AS BLOB) FROM events ORDER BY seq"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute(OLD_SCHEMA)
        old.execute(OLD_IDS)
        insert(old, "events", rows)
        given = old.execute(both).fetchall()
    report = import_v020(settings)
    assert report is not None
    assert import_v020(settings) is None
    with contextlib.closing(open_writer(settings)) as new:
        taken = new.execute(both).fetchall()
        assert report.imported == len(taken) <= len(given) == report.imported + report.skipped
        order = [delivery for delivery, _ in given]
        places = [order.index(delivery) for delivery, _ in taken]
        assert places == sorted(places)
        kept = dict(taken)
        for delivery, event_id in given:
            if event_id is not None and is_ulid(event_id.decode("utf-8", "replace")):
                assert kept[delivery] == event_id, "an event_id was not kept"
        for _, frame in read.read_after(new, 0, 100):
            check_frame(frame)
        assert ULID_MIN.encode() in kept.values() or read.cursor_of(new, ULID_MIN) == 0


TARGETS = [
    Target("rows", "rows a foreign program inserted", foreign_rows, check_rows),
    Target("conditions", "predicates as SQL conditions", st.tuples(conditions, compared_rows), check_condition),
    Target("append", "events a producer hands in", inserts, check_append),
    Target("import", "rows of 0.2.0's store", old_rows, check_import),
]
