"""A store that is deleted, moved or replaced under a producer: what is acknowledged is in the file at the path."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waitbus.event import EventInsert
from waitbus.settings import Settings
from waitbus.store import migrate
from waitbus.store.append import Appender
from waitbus.store.open import StoreError, open_reader, open_writer
from waitbus.store.place import Place
from waitbus.store.read import read_after

WRITE = """
import sys
from waitbus.event import EventInsert
from waitbus.settings import load
from waitbus.store.append import Appender
appender = Appender(load())
appender.append(EventInsert(source="s", event_type="t", delivery_id=sys.argv[1]))
appender.close()
"""
READ = """
import json, sqlite3, sys
store = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
rows = [row[0] for row in store.execute("SELECT delivery_id FROM events ORDER BY seq")]
print(json.dumps([rows, [row[0] for row in store.execute("PRAGMA integrity_check")]]))
"""


class Other:
    """Other processes: SQLite shares more than the file between the connections of one."""

    def __init__(self, settings: Settings, bus_dir: Path) -> None:
        self.path = Path(settings.db_path)
        self.backup = bus_dir / "backup"

    def write(self, name: str) -> None:
        subprocess.run([sys.executable, "-c", WRITE, name], check=True)

    def rows(self, path: Path | None = None) -> list[str]:
        """What is stored, having made sure that the file is sound."""
        command = [sys.executable, "-c", READ, str(path or self.path)]
        rows, found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert found == ["ok"]
        return list(rows)

    def save(self) -> None:
        """A directory with a copy of the store as it is now."""
        self.backup.mkdir(mode=0o700)
        copy = self.backup / self.path.name
        with contextlib.closing(sqlite3.connect(self.path)) as store:
            store.execute("VACUUM INTO ?", (str(copy),))
        copy.chmod(0o600)

    def remove(self, *endings: str) -> None:
        for ending in endings:
            Path(f"{self.path}{ending}").unlink()


def delete_all(other: Other) -> None:
    other.remove("", "-wal", "-shm")


def delete_the_file_alone(other: Other) -> None:
    other.remove("")


def delete_the_directory(other: Other) -> None:
    shutil.rmtree(other.path.parent)


def move_the_directory(other: Other) -> None:
    other.path.parent.rename(other.path.parent.with_name("away"))


def move_the_file(other: Other) -> None:
    other.path.rename(other.path.with_name("away.db"))


def swap_the_directory(other: Other) -> None:
    move_the_directory(other)
    other.backup.rename(other.path.parent)


def restore_a_copy(other: Other) -> None:
    (other.backup / other.path.name).rename(other.path)
    other.remove("-wal", "-shm")


NEW = (delete_all, delete_the_file_alone, delete_the_directory, move_the_directory, move_the_file)
OLDER = (swap_the_directory, restore_a_copy)


@pytest.fixture
def other(settings: Settings, bus_dir: Path) -> Other:
    return Other(settings, bus_dir)


@pytest.fixture
def appender(settings: Settings) -> Iterator[Appender]:
    made = Appender(settings)
    yield made
    made.close()


def event(name: str | None) -> EventInsert:
    return EventInsert(source="s", event_type="t", delivery_id=name)


@pytest.mark.parametrize("others_first", [False, True])
@pytest.mark.parametrize("replace", [*NEW, *OLDER])
def test_a_long_lived_producer_writes_to_the_file_that_is_there_now(
    appender: Appender, other: Other, replace: Callable[[Other], None], others_first: bool
) -> None:
    appender.append(event("saved"))
    other.save()
    appender.append(event("lost with the old file"))
    replace(other)
    expected = ["saved"] if replace in OLDER else []
    if others_first:
        other.write("other")
        expected.append("other")
    result = appender.append(event("new"))
    assert (result.inserted, result.event.delivery_id) == (True, "new")
    assert appender.append_many([event("1"), event("2")]).inserted == 2
    expected += ["new", "1", "2"]
    assert other.rows() == expected
    other.write("last")
    appender.close()  # with which the old file's log must not come back, nor the new one's go
    assert other.rows() == [*expected, "last"]


def test_a_copy_put_in_its_place_does_not_get_the_log_of_the_old_file(appender: Appender, other: Other) -> None:
    appender.append(event("saved"))
    other.save()
    appender.append_many(event(f"old {number}") for number in range(200))
    (other.backup / other.path.name).rename(other.path)
    appender.append(event("new"))
    assert other.rows() == ["saved", "new"]
    assert Path(f"{other.path}-wal.old").exists()


@pytest.mark.parametrize("ending", ["-wal", "-shm", "both"])
def test_a_log_that_is_deleted_alone_costs_nothing_when_its_producer_is_the_first_to_write(
    appender: Appender, other: Other, ending: str
) -> None:
    appender.append(event("a"))
    other.remove(*(["-wal", "-shm"] if ending == "both" else [ending]))
    assert appender.append(event("b")).inserted
    assert other.rows() == ["a", "b"]
    other.write("c")
    appender.close()
    assert other.rows() == ["a", "b", "c"]


@pytest.mark.parametrize("closing", ["before", "after an append"])
def test_a_log_that_is_deleted_alone_does_not_take_what_others_write_then(
    appender: Appender, other: Other, closing: str
) -> None:
    """What stood in the deleted log alone is lost, as with any program that uses SQLite."""
    appender.append(event("a"))
    conn = appender._conn
    assert conn is not None
    conn.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    appender.append(event("in the log"))
    other.remove("-wal", "-shm")
    other.write("b")
    expected = ["a", "b"]
    if closing == "after an append":
        assert appender.append(event("c")).inserted
        expected.append("c")
    appender.close()
    assert other.rows() == expected


def test_locks_that_are_deleted_alone_leave_one_log(appender: Appender, other: Other) -> None:
    appender.append(event("a"))
    other.remove("-shm")
    other.write("b")
    assert appender.append(event("c")).inserted
    other.write("d")
    appender.close()
    assert other.rows() == ["a", "b", "c", "d"]


def test_two_producers_of_one_process_leave_a_deleted_log_together(
    appender: Appender, other: Other, settings: Settings
) -> None:
    """SQLite keeps one index for both: it goes with the last connection to the file."""
    second = Appender(settings)
    second.append(event("a"))
    appender.append(event("b"))
    other.remove("-wal", "-shm")
    assert appender.append(event("c")).inserted
    assert second.append(event("d")).inserted
    other.write("e")
    assert other.rows() == ["a", "b", "c", "d", "e"]
    second.close()
    appender.close()
    assert other.rows() == ["a", "b", "c", "d", "e"]


def test_a_deleted_log_is_not_left_while_another_connection_of_the_process_has_it(
    appender: Appender, other: Other, settings: Settings
) -> None:
    appender.append(event("a"))
    conn = open_reader(settings)
    other.remove("-wal", "-shm")
    with pytest.raises(StoreError, match="deleted while this process has the store open"):
        appender.append(event("b"))
    conn.close()
    assert appender.append(event("c")).inserted
    assert "c" in other.rows()


# In the middle of an append.


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done between the next commit and the look whether it is in place."""

    def between(act: Callable[[], object]) -> None:
        holds = Place.holds
        pending = [act]

        def and_then(place: Place) -> bool:
            if pending:
                pending.pop()()
            return holds(place)

        monkeypatch.setattr(Place, "holds", and_then)

    return between


@pytest.mark.parametrize("delivery_id", ["key", None])
def test_what_was_committed_to_the_old_file_is_written_again(
    appender: Appender, other: Other, between: Callable[[Callable[[], object]], None], delivery_id: str | None
) -> None:
    rings: list[int] = []
    appender.append(event("old"))
    between(lambda: delete_all(other))
    result = appender.append(event(delivery_id), after_commit=lambda: rings.append(1))
    assert result.inserted
    assert other.rows() == [result.event.delivery_id]
    assert rings == [1]


def test_a_batch_that_was_committed_to_the_old_file_is_written_again(
    appender: Appender, other: Other, between: Callable[[Callable[[], object]], None], settings: Settings
) -> None:
    appender.append(event("1"))
    between(lambda: delete_all(other))
    result = appender.append_many(event(str(number)) for number in range(3))
    assert other.rows() == ["0", "1", "2"]
    assert (result.inserted, result.duplicates) == (3, 0)
    with contextlib.closing(open_reader(settings)) as conn:
        assert read_after(conn, 2, 1)[0][1]["event_id"] == result.last_event_id


def test_what_the_new_file_has_already_is_not_written_twice(
    appender: Appender, other: Other, between: Callable[[Callable[[], object]], None]
) -> None:
    """The copy was made after the commit."""

    def swap() -> None:
        other.save()
        swap_the_directory(other)

    appender.append(event("old"))
    between(swap)
    result = appender.append(event("new"))
    assert (result.inserted, result.event.delivery_id) == (True, "new")
    assert other.rows() == ["old", "new"]


def test_a_failure_of_the_old_file_is_not_one_of_the_store(appender: Appender, other: Other) -> None:
    appender.append(event("old"))
    conn = appender._conn
    assert conn is not None
    other.path.rename(other.path.with_name("away.db"))
    conn.execute("DROP TABLE events")
    assert appender.append(event("new")).inserted
    assert other.rows() == ["new"]


def test_a_store_that_is_replaced_again_and_again_is_given_up(
    appender: Appender, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    appender.append(event("old"))
    monkeypatch.setattr(Place, "holds", lambda _place: False)
    with pytest.raises(StoreError, match="replaced again and again"):
        appender.append(event("new"))
    monkeypatch.setattr(Place, "take", lambda _place: False)
    with pytest.raises(StoreError, match="replaced again and again"):
        appender.append(event("new"))


def test_threads_and_forks_follow_to_the_new_file(appender: Appender, other: Other) -> None:
    appender.append(event("old"))
    delete_all(other)
    threads = [threading.Thread(target=appender.append, args=(event(str(number)),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.remove("", "-wal", "-shm")
    child = os.fork()
    if child == 0:
        os._exit(0 if appender.append(event("child")).inserted else 1)
    assert os.waitpid(child, 0)[1] == 0
    appender.append(event("parent"))
    assert other.rows() == ["child", "parent"]


# Opening.


def test_a_file_that_is_replaced_while_it_is_opened_is_opened_again(
    settings: Settings, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_writer(settings).close()
    other.write("old")
    other.save()
    take = Place.take
    pending = [lambda: (other.backup / other.path.name).rename(other.path)]

    def replaced(place: Place) -> bool:
        if pending:
            pending.pop()()
        return take(place)

    monkeypatch.setattr(Place, "take", replaced)
    with contextlib.closing(open_writer(settings)) as conn:
        assert conn.place.stands()
        assert conn.place.holds()


def test_a_file_that_goes_while_it_is_made_is_made_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    make = migrate.migrate
    pending = [lambda: os.unlink(settings.db_path)]

    def taken_away(conn: sqlite3.Connection, path: str, *, timeout: float) -> None:
        if pending:
            pending.pop()()
        make(conn, path, timeout=timeout)

    monkeypatch.setattr(migrate, "migrate", taken_away)
    with contextlib.closing(open_writer(settings)) as conn:
        assert conn.place.stands()


def test_a_reader_of_a_file_that_goes_while_it_is_opened_reads_the_one_that_is_there(
    settings: Settings, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_writer(settings).close()
    other.write("kept")
    other.save()
    check = migrate.check
    pending = [lambda: (other.backup / other.path.name).rename(other.path)]

    def taken_away(conn: sqlite3.Connection, path: str) -> int:
        if pending:
            pending.pop()()
            raise StoreError("whatever a file that went may bring")
        return check(conn, path)

    monkeypatch.setattr(migrate, "check", taken_away)
    with contextlib.closing(open_reader(settings)) as conn:
        assert len(read_after(conn, 0, 9)) == 1


def test_a_link_to_the_file_has_its_log_beside_the_file(settings: Settings, other: Other, bus_dir: Path) -> None:
    real = bus_dir / "real"
    real.mkdir(mode=0o700)
    os.close(os.open(real / "there.db", os.O_CREAT | os.O_WRONLY, 0o600))
    other.path.parent.mkdir(mode=0o700)
    other.path.symlink_to(real / "there.db")
    appender = Appender(settings)
    appender.append(event("a"))
    (real / "there.db-wal").unlink()
    (real / "there.db-shm").unlink()
    appender.append(event("b"))
    conn = appender._conn
    assert conn is not None
    assert conn.place.log_bytes == (real / "there.db-wal").stat().st_size > 0
    other.path.unlink()
    appender.append(event("c"))
    appender.close()
    assert other.rows() == ["c"]
    assert other.rows(real / "there.db")[:2] == ["a", "b"]
    assert not (real / "there.db-wal.old").exists()  # the file itself is where it was
