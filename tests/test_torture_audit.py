"""The judge of ``make torture`` itself: it must see a loss, a repeat and a disorder, and allow what is promised."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from tests.torture.audit import Ledger, Truth, account, without_promised_repeats, wronged
from tests.torture.stores import Stores
from waitbus.ulid import encode_ulid

STORE = list("abcdef")


@pytest.mark.parametrize(
    ("received", "lost", "repeated", "disordered"),
    [
        ("abcdef", 0, 0, 0),
        ("abdef", 1, 0, 0),
        ("", 6, 0, 0),
        ("abcabcdef", 0, 3, 0),
        ("abdcef", 0, 0, 1),
        ("abxcdef", 0, 1, 0),
        ("fabcde", 0, 0, 1),
    ],
)
def test_an_account_says_what_was_wrong(received: str, lost: int, repeated: int, disordered: int) -> None:
    found = account(STORE, list(received))
    assert (found.expected, found.lost, found.repeated, found.disordered) == (6, lost, repeated, disordered)
    assert found.good is (received == "abcdef")


def test_a_bookmark_may_repeat_the_last_event_before_a_kill_and_no_other() -> None:
    assert without_promised_repeats(list("abbcdef"), [0, 2, 7]) == (STORE, 1)
    assert without_promised_repeats(list("ababcdef"), [2]) == (list("ababcdef"), 0)
    assert without_promised_repeats(list("abbcdef"), [3]) == (list("abbcdef"), 0)


def test_a_ledger_adds_up_what_a_producer_was_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert Ledger(log).answered == 0
    log.write_text("0 1 1 7\n1 20 20 8\n21 5 2 9\n")
    ledger = Ledger(log)
    assert (ledger.answered, ledger.inserted, ledger.gaps) == (26, 23, 0)
    assert ledger.begun[-1] == (21, 5, 9)
    log.write_text("0 1 1 7\n2 1 1 8\n")
    assert Ledger(log).gaps == 1


def commit(path: Path, *deliveries: str) -> list[str]:
    """Rows in a store of the least shape; their event_ids."""
    ids = [encode_ulid(int(name.partition("-")[2])) for name in deliveries]
    with contextlib.closing(sqlite3.connect(path)) as store, store:
        store.execute("CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, event_id, received_at, delivery_id)")
        rows = zip(ids, deliveries, strict=True)
        store.executemany("INSERT INTO events (event_id, received_at, delivery_id) VALUES (?, 5, ?)", rows)
    return ids


def test_a_row_of_a_file_that_was_taken_away_may_be_missing_only_where_it_had_not_come_yet(tmp_path: Path) -> None:
    path = tmp_path / "waitbus.db"
    stores = Stores(str(path), tmp_path / "kept")
    a, b, c = commit(path, "p0-0", "p0-1", "p0-2")
    stores.remove({"slow": 1, "quick": 3})
    d, e = commit(path, "p0-3", "p0-4")
    truth = Truth(stores.generations)
    assert truth.expected("live") == [a, b, c, d, e]
    assert truth.unsound == 0
    assert truth.spared("slow", [a]) == {b, c}
    assert truth.spared("quick", [a, b, c, d]) == set()
    assert account(truth.expected("live"), [a, d, e], truth.spared("slow", [a, d, e])).good
    assert account(truth.expected("live"), [a, d], truth.spared("slow", [a, d])).lost == 1


def test_what_was_acknowledged_after_a_replacement_must_be_in_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "waitbus.db"
    stores = Stores(str(path), tmp_path / "kept")
    commit(path, "p0-0", "p0-1")
    stores.back_up()
    commit(path, "p0-2")
    stores.restore({})
    gone = stores.generations[0].end_ns
    log = tmp_path / "log"
    log.write_text(f"0 3 3 {gone - 1}\n")
    assert wronged(Truth(stores.generations), "p0", Ledger(log)) == []
    log.write_text(f"0 2 2 {gone - 1}\n2 1 1 {gone + 1}\n")
    assert "answered for are not in the store" in wronged(Truth(stores.generations), "p0", Ledger(log))[0]
