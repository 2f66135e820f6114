"""Clocks: whatever a test does to those of its process, events are stamped with the real time and waits end."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, NoReturn

import freezegun
import pytest
import time_machine

from tests.conftest import PATIENCE
from waitbus.event import EventInsert
from waitbus.settings import Settings
from waitbus.store.append import Appender
from waitbus.store.clock import elapsed, real_ns
from waitbus.store.errors import StoreError
from waitbus.store.open import open_reader, open_writer
from waitbus.store.read import read_after
from waitbus.ulid import ulid_ms


def message(**more: Any) -> EventInsert:
    return EventInsert(source="agent", event_type="agent_message", **more)


@contextmanager
def monkeypatched() -> Iterator[None]:
    """What a test does by hand: every clock stands still, and to sleep is an error."""

    def no_sleep(seconds: float) -> NoReturn:
        raise AssertionError(f"sleep({seconds}) in a test")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("time", "monotonic", "perf_counter"):
            patch.setattr(time, name, lambda: 499224240.0)
            patch.setattr(time, f"{name}_ns", lambda: 499224240_000_000_000)
        patch.setattr(time, "sleep", no_sleep)
        yield


def frozen() -> AbstractContextManager[object]:
    return freezegun.freeze_time("1985-10-26 01:24:00")


def travelled() -> AbstractContextManager[object]:
    return time_machine.travel("1985-10-26 01:24:00Z", tick=False)


def far_ahead() -> AbstractContextManager[object]:
    return time_machine.travel("2099-01-01 00:00:00Z")


anywhen = pytest.mark.parametrize("patched", [monkeypatched, frozen, travelled, far_ahead])


@anywhen
def test_events_written_under_patched_clocks_carry_the_real_time(
    settings: Settings, patched: Callable[[], AbstractContextManager[object]]
) -> None:
    with closing(Appender(settings)) as appender:
        before = time.time_ns()
        with patched():
            assert dt.datetime.now(dt.UTC).year in (1985, 2099) or patched is monkeypatched
            appender.append(message())
            appender.append_many([message(), message()])
            appender.append(message(received_at=5))
        after = time.time_ns()
    with closing(open_reader(settings)) as reader:
        frames = [frame for _, frame in read_after(reader, 0, 10)]
    assert all(before // 10**6 <= ulid_ms(frame["event_id"]) <= after // 10**6 for frame in frames)
    assert all(before - 10**6 <= frame["received_at"] <= after for frame in frames[:3])
    assert [frame["received_at"] for frame in frames[3:]] == [5]


@anywhen
def test_a_wait_for_the_store_ends_under_patched_clocks(
    settings: Settings, patched: Callable[[], AbstractContextManager[object]]
) -> None:
    open_writer(settings).close()
    with closing(sqlite3.connect(settings.db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(Appender(settings, timeout=0.05)) as appender, patched():
            began = elapsed()
            with pytest.raises(StoreError, match="busy"):
                appender.append(message())
            assert elapsed() - began >= 0.04  # it did wait


@anywhen
def test_a_wait_to_make_the_store_ends_under_patched_clocks(
    settings: Settings, patched: Callable[[], AbstractContextManager[object]]
) -> None:
    os.makedirs(settings.state_dir, 0o700)
    os.close(os.open(settings.db_path, os.O_CREAT, 0o600))
    with closing(sqlite3.connect(settings.db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with patched(), pytest.raises(StoreError, match="busy"):
            open_writer(settings, timeout=0.05)


def test_a_clock_that_was_patched_before_we_were_imported(settings: Settings) -> None:
    script = """
import freezegun
freezegun.freeze_time("1985-10-26").start()
import waitbus
print(waitbus.emit(waitbus.EventInsert(source="agent", event_type="agent_message")).event.received_at)
"""
    before = time.time_ns()
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert not found.stderr
    assert before - 10**6 <= int(found.stdout) <= time.time_ns()


def test_the_finer_clock_is_taken_while_it_agrees() -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        now = time.time_ns()
        assert real_ns(conn, own_ns=lambda: now + 123) == now + 123
        assert real_ns(conn, own_ns=lambda: now - 2 * 10**9) % 10**6 == 0
        assert abs(real_ns(conn, own_ns=lambda: 0) - now) < PATIENCE * 10**9
