"""Pruning: the oldest go, by age, size and count, in steps that let producers through."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from waitbus.event import EventInsert
from waitbus.settings import Settings
from waitbus.store import prune
from waitbus.store.append import Appender
from waitbus.store.errors import StoreBusy, StoreError
from waitbus.store.open import open_reader, open_writer
from waitbus.store.prune import Policy, Pruner, policy_of, prune_all

NOW = 1_800_000_000_000_000_000
DAY = 86_400_000_000_000


@pytest.fixture
def conn(settings: Settings) -> Iterator[sqlite3.Connection]:
    made = open_writer(settings, timeout=0)
    yield made
    made.close()


def fill(settings: Settings, ages_days: Sequence[float], chars: int = 10) -> None:
    appender = Appender(settings)
    appender.append_many(
        EventInsert(source="s", event_type="t", received_at=int(NOW - age * DAY), payload_json='"' + "x" * chars + '"')
        for age in ages_days
    )
    appender.close()


def left(conn: sqlite3.Connection) -> list[int]:
    return [row[0] for row in conn.execute("SELECT seq FROM events ORDER BY seq")]


def used(conn: sqlite3.Connection) -> int:
    count, free, size = (
        conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((count - free) * size)


def run(conn: sqlite3.Connection, policy: Policy | Pruner, now_ns: int = NOW) -> int:
    """As the hub does it: step by step. The number of steps."""
    pruner = policy if isinstance(policy, Pruner) else Pruner(policy)
    steps = 1
    while pruner.step(conn, now_ns=now_ns).more:
        steps += 1
        assert steps < 10_000
    return steps


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small stretches, so that a few rows are many."""
    monkeypatch.setattr(prune, "_LOOKED_AT", 3)
    monkeypatch.setattr(prune, "_STRETCH", 9)
    monkeypatch.setattr(prune, "_DELETED", 7)


def test_by_age(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40, 35, 31, 29, 1, 0])
    run(conn, Policy(max_age_s=30 * 86_400))
    assert left(conn) == [4, 5, 6]


@pytest.mark.usefixtures("small")
def test_a_row_of_the_future_does_not_hold_up_those_behind_it(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40, -999, 40, 40, -999, 1])
    run(conn, Policy(max_age_s=30 * 86_400))
    assert left(conn) == [2, 5, 6]


def test_what_is_just_as_old_as_the_limit_stays(settings: Settings, conn: sqlite3.Connection) -> None:
    """Age is deleted past the limit, and half a second is one."""
    fill(settings, [0, 0, 0])
    for seq, age_ns in enumerate((500_000_001, 500_000_000, 499_999_999), 1):
        conn.execute("UPDATE events SET received_at = ? WHERE seq = ?", (NOW - age_ns, seq))
    assert prune_all(conn, Policy(max_age_s=0.5), now_ns=NOW, dry_run=True).deleted == 1
    run(conn, Policy(max_age_s=0.5))
    assert left(conn) == [2, 3]


def test_old_rows_behind_young_ones_are_found(settings: Settings, conn: sqlite3.Connection) -> None:
    """A back-fill appends what is old."""
    fill(settings, [1] * 600 + [90] * 50 + [0])
    policy = Policy(max_age_s=30 * 86_400)
    assert prune_all(conn, policy, now_ns=NOW, dry_run=True).deleted == 50
    assert prune_all(conn, policy, now_ns=NOW).deleted == 50
    assert left(conn) == [*range(1, 601), 651]


@pytest.mark.usefixtures("small")
@given(
    ages=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 40.0, 90.0, -5.0]), max_size=60),
    later=st.lists(st.sampled_from([0.0, 1.0, 1.5, 40.0]), max_size=20),
    max_rows=st.none() | st.integers(1, 60),
)
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dry_run_says_what_is_then_deleted_wherever_the_old_rows_stand(
    settings: Settings, conn: sqlite3.Connection, ages: list[float], later: list[float], max_rows: int | None
) -> None:
    conn.execute("DELETE FROM events")
    policy = Policy(max_age_s=86_400, max_rows=max_rows)
    pruner = Pruner(policy)
    for batch in (ages, later):  # the second look of one pruner is as good as another's first
        fill(settings, batch)
        expected = conn.execute("SELECT seq FROM events WHERE received_at >= ? ORDER BY seq", (NOW - DAY,)).fetchall()
        dry = prune_all(conn, policy, now_ns=NOW, dry_run=True).deleted
        before = len(left(conn))
        run(conn, pruner)
        assert left(conn) == [seq for (seq,) in expected][-max_rows if max_rows else 0 :]
        assert before - len(left(conn)) == dry


@pytest.mark.usefixtures("small")
def test_what_gets_old_later_goes_later_and_what_is_young_is_not_read_again(
    settings: Settings, conn: sqlite3.Connection
) -> None:
    fill(settings, [0.5, 5, 0.1, *[0] * 40, 3, *[0] * 5])
    pruner = Pruner(Policy(max_age_s=10 * 86_400))
    run(conn, pruner)
    read: list[str] = []
    conn.set_trace_callback(read.append)
    run(conn, pruner)
    assert len([text for text in read if "FROM events" in text]) == 1, read  # whether any row came since
    conn.set_trace_callback(None)
    for days, gone in ((4, 0), (6, 1), (8, 2), (9.7, 3)):
        run(conn, pruner, int(NOW + days * DAY))
        assert len(left(conn)) == 49 - gone
    assert left(conn)[:3] == [3, 4, 5]
    fill(settings, [70])
    run(conn, pruner, NOW + DAY)
    assert left(conn)[-1] == 49
    run(conn, pruner, NOW + 99 * DAY)
    assert left(conn) == []
    assert len(pruner._stretches) == 1  # what is empty is forgotten


def test_a_full_look_at_many_rows_is_made_of_short_steps(
    settings: Settings, conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, [0] * 2000)
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) * prune._STEP_S / 2)
    other = open_writer(settings)
    other.execute("BEGIN IMMEDIATE")  # no step needs the lock
    assert run(conn, Policy(max_age_s=86_400)) == 3
    other.close()


def test_a_row_that_another_process_deleted_is_no_trouble(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40, 40, 2])
    pruner = Pruner(Policy(max_age_s=50 * 86_400))
    run(conn, pruner)
    conn.execute("DELETE FROM events WHERE seq < 3")
    run(conn, pruner, NOW + 20 * DAY)
    assert left(conn) == [3]


def test_a_time_that_is_no_number_is_no_age(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40, 40])
    conn.execute("UPDATE events SET received_at = 'long ago' WHERE seq = 1")
    run(conn, Policy(max_age_s=86_400))
    assert left(conn) == [1]


@pytest.mark.usefixtures("small")
def test_by_count(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [0] * 50)
    conn.execute("DELETE FROM events WHERE seq % 5 = 0")  # gaps are no rows
    run(conn, Policy(max_rows=30))
    assert left(conn) == [seq for seq in range(1, 51) if seq % 5][10:]
    run(conn, Policy(max_rows=30))
    assert len(left(conn)) == 30


def test_by_size_and_no_more_than_that(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [0] * 60, chars=50_000)
    run(conn, Policy(max_bytes=1 << 20))
    assert used(conn) <= 1 << 20
    assert 15 <= len(left(conn)) <= 21  # not a window's worth too many
    assert left(conn)[-1] == 60
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert os.path.getsize(settings.db_path) <= 1 << 20  # given back to the disk


def test_whichever_comes_first(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40] * 5 + [0] * 20)
    run(conn, Policy(max_age_s=30 * 86_400, max_bytes=1 << 30, max_rows=10))
    assert left(conn) == list(range(16, 26))


@pytest.mark.parametrize("policy", [Policy(max_age_s=3600), Policy(max_rows=1), Policy(max_bytes=1)])
def test_rows_that_somebody_has_yet_to_read_stay(settings: Settings, conn: sqlite3.Connection, policy: Policy) -> None:
    fill(settings, [9, 8, 7, 6])
    pruner = Pruner(policy)
    for _ in range(5):
        pruner.step(conn, now_ns=NOW, upto=2)
    assert left(conn) == [3, 4]
    run(conn, pruner)
    assert len(left(conn)) <= 1


def test_nothing_to_do_takes_no_lock(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [1, 0])
    other = open_writer(settings)
    other.execute("BEGIN IMMEDIATE")
    for policy in (Policy(), Policy(max_age_s=30 * 86_400, max_bytes=1 << 30, max_rows=2)):
        step = Pruner(policy).step(conn, now_ns=NOW)
        assert (step.deleted, step.more) == (0, False)
    other.execute("COMMIT")
    other.close()


def test_a_busy_store_is_left_for_later(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40, 40])
    other = open_writer(settings)
    other.execute("BEGIN IMMEDIATE")
    pruner = Pruner(Policy(max_age_s=1))
    step = pruner.step(conn, now_ns=NOW)
    assert (step.deleted, step.more) == (0, True)
    with pytest.raises(StoreBusy):  # never a report that leaves out what was to be deleted
        prune_all(conn, Policy(max_age_s=1), now_ns=NOW, timeout=0.02)
    other.execute("COMMIT")
    other.close()
    run(conn, pruner)
    assert left(conn) == []


def test_a_step_is_bounded_in_time(
    settings: Settings, conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, [40] * 100)
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) * prune._STEP_S / 10)
    step = Pruner(Policy(max_age_s=86_400)).step(conn, now_ns=NOW)
    assert 5 < step.deleted < 20
    assert step.more
    assert not conn.in_transaction
    run(conn, Policy(max_age_s=86_400))
    assert left(conn) == []


def test_a_number_is_never_given_again(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40, 40, 40])
    run(conn, Policy(max_age_s=1))
    fill(settings, [0])
    assert left(conn) == [4]


def test_retention_is_off_with_one_setting(settings: Settings) -> None:
    assert policy_of(settings).max_age_s == 30 * 86_400
    assert policy_of(settings).max_bytes == 1 << 30
    settings.retention = False
    policy = policy_of(settings)
    assert (policy.max_age_s, policy.max_bytes, policy.max_rows) == (0, 0, None)


def test_all_at_once_with_a_report(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40] * 1500 + [0] * 10, chars=2000)
    heard: list[int] = []
    dry = prune_all(conn, Policy(max_age_s=86_400), now_ns=NOW, dry_run=True)
    assert (dry.rows_before, dry.deleted, dry.dry_run) == (1510, 1500, True)
    assert len(left(conn)) == 1510
    report = prune_all(conn, Policy(max_age_s=86_400), now_ns=NOW, vacuum=True, progress=heard.append)
    assert (report.rows_before, report.deleted, report.dry_run) == (1510, 1500, False)
    assert heard[-1] == 1500
    assert heard == sorted(heard)
    assert report.bytes_after < report.bytes_before // 10
    assert os.path.getsize(settings.db_path) == report.bytes_after
    assert left(conn) == list(range(1501, 1511))


def test_a_dry_run_estimates_by_size(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [0] * 100, chars=8000)
    report = prune_all(conn, Policy(max_bytes=used(conn) // 2), now_ns=NOW, dry_run=True)
    assert 40 <= report.deleted <= 60
    assert prune_all(conn, Policy(max_bytes=1 << 30, max_rows=90), now_ns=NOW, dry_run=True).deleted == 10


def test_a_file_that_fails_is_a_store_error(settings: Settings, conn: sqlite3.Connection) -> None:
    conn.execute("ALTER TABLE events RENAME TO gone")
    with pytest.raises(StoreError, match="no such table"):
        Pruner(Policy(max_age_s=1)).step(conn, now_ns=NOW)
    with pytest.raises(StoreError, match="no such table"):
        prune_all(conn, Policy(max_age_s=1), now_ns=NOW)


def test_readers_in_the_middle_are_not_disturbed(settings: Settings, conn: sqlite3.Connection) -> None:
    fill(settings, [40] * 20)
    reader = open_reader(settings)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (20,)
    run(conn, Policy(max_age_s=1))
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (20,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (0,)
    reader.close()
