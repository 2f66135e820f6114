"""The condition in SQL: whatever a row holds, it never excludes what the predicate wants."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from waitbus.event import FIELD_COLUMNS
from waitbus.predicate import Predicate
from waitbus.settings import Settings
from waitbus.store.open import open_writer
from waitbus.store.prefilter import condition_of
from waitbus.store.read import read_after

NEEDED = ("delivery_id", "source", "event_type", "owner", "repo", "received_at", "ingest_method", "payload_json")
COLUMNS = (*NEEDED, *FIELD_COLUMNS, "event_id", "summary", "fields_json")
ULID = "01M87EV5HJ539KK8DAB8WXDA8N"


@pytest.fixture
def conn(settings: Settings) -> Iterator[sqlite3.Connection]:
    made = open_writer(settings)
    made.execute("PRAGMA synchronous = OFF")
    yield made
    made.close()


def insert(conn: sqlite3.Connection, **row: Any) -> int:
    """As a foreign program does it; bytes in a tuple are put there as text, valid or not."""
    row = {**{name: f"<{name}>" for name in NEEDED}, "received_at": 1_800_000_000_000_000_000, **row}
    marks = ["CAST(? AS TEXT)" if isinstance(value, tuple) else "?" for value in row.values()]
    values = [value[0] if isinstance(value, tuple) else value for value in row.values()]
    done = conn.execute(f"INSERT INTO events ({', '.join(row)}) VALUES ({', '.join(marks)})", values)
    assert done.lastrowid is not None
    return done.lastrowid


def wanted(conn: sqlite3.Connection, node: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The rows that a predicate wants: out of all, and out of what its condition lets through."""
    predicate = Predicate.from_object(node)
    where = condition_of(predicate.as_object)
    asked = read_after(conn, 0, 1000, upto=1 << 62, where=where)
    return (
        [seq for seq, frame in read_after(conn, 0, 1000) if predicate(frame)],
        [seq for seq, frame in asked if predicate(frame)],
    )


def eq(key: str, value: object) -> dict[str, Any]:
    return {"key": key, "op": "eq", "value": value}


def glob(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "op": "glob", "value": value}


@pytest.mark.parametrize(
    ("row", "node"),
    [
        ({"source": b"docker"}, eq("source", "docker")),
        ({"source": b"docker"}, glob("source", "d*")),
        ({"head_sha": b"abc"}, eq("head_sha", "abc")),
        ({"source": (b"caf\xff",)}, eq("source", "caf\ufffd")),
        ({"source": (b"caf\xff",)}, glob("source", "caf\ufffd*")),
        ({"source": (b"caf\xc3\xa9",)}, eq("source", "café")),
        ({"source": (b"\xff\xff",)}, glob("source", "??")),
        ({"msg_body": (b"a\0b",)}, glob("msg_body", "a?b")),
        ({"msg_body": "x" * 300 + "end"}, glob("msg_body", "*end")),
        ({"run_id": 5.5}, eq("run_id", 5)),
        ({"summary": None, "source": "docker"}, glob("summary", "docker*")),
        ({"fields_json": '{"event_id": "mine", "delivery_id": "own"}'}, eq("fields.event_id", "mine")),
        ({"fields_json": '{"event_id": "mine", "delivery_id": "own"}'}, eq("fields.delivery_id", "own")),
        ({"received_at": "late"}, eq("received_at", 0)),
        ({"source": "a"}, {"any": [eq("source", "b"), {"key": "source", "op": "exists"}]}),
        ({"source": "a"}, {"any": [{"key": "source", "op": "ne", "value": "b"}, eq("source", "b")]}),
        ({"source": "a"}, {"all": [eq("source", "a"), {"not": eq("event_type", "t")}]}),
    ],
)
def test_what_a_reader_makes_of_a_row_is_what_counts(
    conn: sqlite3.Connection, row: dict[str, Any], node: dict[str, Any]
) -> None:
    insert(conn, delivery_id="other", source="other")
    seq = insert(conn, **row)
    everything, passed = wanted(conn, node)
    assert seq in everything
    assert passed == everything


@pytest.mark.parametrize("stored", [None, b"01M87EV5HJ539KK8DAB8WXDA8N", "no ulid", 7, (b"\xff",), ULID])
def test_the_id_that_readers_see_finds_its_row_whoever_made_it(conn: sqlite3.Connection, stored: object) -> None:
    for number in range(3):
        insert(conn, delivery_id=f"before {number}")
    seq = insert(conn, event_id=stored)
    shown = {found: frame["event_id"] for found, frame in read_after(conn, 0, 9)}[seq]
    assert wanted(conn, eq("event_id", shown)) == ([seq], [seq])
    assert wanted(conn, {"any": [eq("event_id", shown), eq("source", "nobody")]}) == ([seq], [seq])
    assert wanted(conn, glob("event_id", f"*{shown[-3:]}")) == ([seq], [seq])


def test_an_id_that_no_event_can_have_finds_nothing_and_asks_for_nothing(conn: sqlite3.Connection) -> None:
    insert(conn)
    for odd in ("", "\ud800", "a\0b", ULID.lower()):
        assert wanted(conn, eq("event_id", odd)) == ([], [])
        assert read_after(conn, 0, 9, upto=9, where=condition_of(eq("event_id", odd))) == []


def test_a_branch_that_only_the_predicate_can_judge_opens_the_whole_alternative() -> None:
    plain, odd = eq("source", "a"), {"key": "source", "op": "exists"}
    assert condition_of({"any": [plain, odd]}) is None
    assert condition_of({"any": [plain, plain]}) is not None
    assert condition_of({"all": [plain, odd]}) is not None


# Whatever is stored, and whatever is asked.

words = st.sampled_from(["", "a", "ab", "a*", "é", "\ufffd", "5", "docker", "a\0b", "x" * 300])
raw = st.sampled_from([b"", b"a", b"ab", b"\xff", b"a\xff", b"a\0b", b"\xc3\xa9", b"5"]) | st.binary(max_size=3)
stored_values = words | raw | st.tuples(raw) | st.sampled_from([5, -1, 5.5, 1e300, float("inf"), (1 << 63) - 1])
rows = st.fixed_dictionaries(
    {},
    optional={
        **{name: stored_values for name in (*NEEDED, "summary") if name not in ("delivery_id", "payload_json")},
        **{name: stored_values | st.none() for name in FIELD_COLUMNS},
        "event_id": stored_values | st.none() | st.just(ULID),
        "fields_json": st.sampled_from(['{"event_id": "a", "source": "b", "run_id": 9, "x": 1}', "[1]", "{", b"{}"]),
    },
)
patterns = st.sampled_from(["*", "?", "a*", "*b", "a?", "[a]*", "*\ufffd", "?" * 5, "*" * 70, "docker*"])
keys = [*FIELD_COLUMNS, "source", "event_type", "owner", "repo", "ingest_method", "delivery_id", "event_id", "summary"]
keys += [f"fields.{name}" for name in ("event_id", "delivery_id", "owner", "run_id", "status")] + ["received_at", "x"]


def leaves(frames: list[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Comparisons with what the frames hold, and with other values."""

    def values(key: str) -> st.SearchStrategy[Any]:
        path = key.split(".")
        found = [frame["fields"].get(path[-1], frame.get(path[-1])) for frame in frames]
        return st.sampled_from(found) | words | st.sampled_from([5, 5.0, True, None, 1 << 63, 0])

    def equalities(key: str) -> st.SearchStrategy[dict[str, Any]]:
        return values(key).map(lambda value: eq(key, value))

    chosen = st.sampled_from(keys)
    return (
        chosen.flatmap(equalities)
        | st.builds(glob, chosen, patterns)
        | chosen.map(lambda key: {"key": key, "op": "exists"})
        | st.builds(lambda key, value: {"key": key, "op": "ne", "value": value}, chosen, words)
    )


@given(data=st.data(), stored=st.lists(rows, min_size=1, max_size=5))
@hypothesis_settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_condition_never_excludes_what_its_predicate_wants(
    conn: sqlite3.Connection, data: st.DataObject, stored: list[dict[str, Any]]
) -> None:
    conn.execute("BEGIN")
    try:
        for number, row in enumerate(stored):
            try:
                insert(conn, **{"delivery_id": str(number), **row})
            except sqlite3.IntegrityError:  # one id twice
                continue
        frames = [frame for _, frame in read_after(conn, 0, 9)]
        if not frames:
            return
        trees = st.recursive(
            leaves(frames),
            lambda inner: (
                st.lists(inner, min_size=1, max_size=3).map(lambda nodes: {"all": nodes})
                | st.lists(inner, min_size=1, max_size=3).map(lambda nodes: {"any": nodes})
                | inner.map(lambda node: {"not": node})
            ),
            max_leaves=6,
        )
        for node in data.draw(st.lists(trees, min_size=4, max_size=8)):
            everything, passed = wanted(conn, node)
            assert passed == everything, node
    finally:
        conn.execute("ROLLBACK")
