"""A damaged store: who reads it says so and what to do, and never answers as if nothing were there."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess
from waitbus.cli.main import main
from waitbus.event import EventInsert
from waitbus.settings import Settings
from waitbus.store.append import Appender
from waitbus.store.errors import StoreDamaged, damaged
from waitbus.store.open import open_reader, open_writer
from waitbus.store.read import cursor_of
from waitbus.store.stats import look_up_newest, troubles
from waitbus.ulid import ulid_at

ROWS = 600
Damage = Callable[[Path], None]


class Pages:
    """The pages of a store, to be overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with contextlib.closing(sqlite3.connect(path)) as store:
            self.roots = dict(store.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0"))
            self.bytes: int = store.execute("PRAGMA page_size").fetchone()[0]
            self.count: int = store.execute("PRAGMA page_count").fetchone()[0]

    def write(self, page: int, content: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek((page - 1) * self.bytes)
            file.write(content.ljust(self.bytes, content[-1:]))


def index_of_ids(path: Path) -> None:
    pages = Pages(path)
    pages.write(pages.roots["events_event_id"], b"\xff")


def zeroed_index_of_ids(path: Path) -> None:
    pages = Pages(path)
    pages.write(pages.roots["events_event_id"], b"\0")


def root_of_the_table(path: Path) -> None:
    pages = Pages(path)
    pages.write(pages.roots["events"], b"\0")


def middle(path: Path) -> None:
    pages = Pages(path)
    for page in range(pages.count // 3, pages.count // 2):
        pages.write(page, b"\0")


def schema(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 400)


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def log_of_another_store(path: Path) -> None:
    log = Path(f"{path}-wal")
    with contextlib.closing(sqlite3.connect(path.parent / "another.db", isolation_level=None)) as another:
        another.execute("PRAGMA journal_mode = WAL")
        with contextlib.closing(sqlite3.connect(path)) as store:
            tables = store.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
            script = [sql for (sql,) in tables]
            pragmas = {
                name: store.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            }
            rows = store.execute("SELECT * FROM schema_migrations").fetchall()
        for sql in script:
            another.execute(sql)
        for name, value in pragmas.items():
            another.execute(f"PRAGMA {name} = {value}")
        for number, slug, applied_at_ns, sha256 in rows:
            another.execute(
                "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)", (number, slug, applied_at_ns + 1, sha256)
            )
        shutil.copy(path.parent / "another.db-wal", log)
    log.chmod(0o600)


DAMAGES: list[Damage] = [
    index_of_ids,
    zeroed_index_of_ids,
    root_of_the_table,
    middle,
    schema,
    half,
    log_of_another_store,
]


@pytest.fixture
def path(settings: Settings) -> Path:
    appender = Appender(settings)
    appender.append_many(EventInsert(source="s", event_type="t", msg_body="x" * 50) for _ in range(ROWS))
    appender.close()
    return Path(settings.db_path)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "words",
    [
        ["replay"],
        ["replay", "1h", "--last", "1"],
        ["replay", "--match", "msg_body=y"],
        ["events", "SELECT max(source) FROM events INDEXED BY events_event_id WHERE event_id > ''"],
        ["prune", "--dry-run"],
        ["status"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_who_reads_it_says_so(path: Path, damage: Damage, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    damage(path)
    code = main(words)
    out, err = capsys.readouterr()
    if words[0] in ("status", "doctor"):
        assert code == 1
        assert f"mv {path}" in out
    else:
        assert code == 2
        assert err.count("\n") == 1
        assert f"mv {path}" in err


@pytest.mark.parametrize("damage", [index_of_ids, zeroed_index_of_ids, schema, half, log_of_another_store])
def test_who_writes_to_it_says_so_and_changes_nothing(path: Path, settings: Settings, damage: Damage) -> None:
    damage(path)
    before = path.read_bytes()
    appender = Appender(settings)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=f"mv {path}"):
            appender.append(EventInsert(source="s", event_type="t"))
        with pytest.raises(StoreDamaged, match=f"mv {path}"):
            appender.append_many([EventInsert(source="s", event_type="t")])
    appender.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("since", ["start", "1h"])
def test_a_wait_says_so(path: Path, settings: Settings, unstarted_hub: HubProcess, cli: Cli, since: str) -> None:
    index_of_ids(path)
    unstarted_hub.start()
    done = cli("wait", "--since", since, "--match", "msg_body=y", "--timeout", f"{PATIENCE}s")
    assert done.returncode == 2
    assert "damaged or not an SQLite database" in done.stderr


def test_an_index_that_has_lost_its_entries_is_not_taken_for_an_empty_store(path: Path, settings: Settings) -> None:
    """SQLite finds nothing wrong with such a page."""
    pages = Pages(path)
    size = pages.bytes.to_bytes(2, "big")
    pages.write(pages.roots["events_event_id"], b"\x0a\0\0\0\0" + size + b"\0")
    with contextlib.closing(open_reader(settings)) as conn:
        with pytest.raises(StoreDamaged, match="newest event is not found by its event_id"):
            cursor_of(conn, ulid_at(0)[:-1] + "1")
        with pytest.raises(StoreDamaged, match="newest event is not found by its event_id"):
            look_up_newest(conn)
        found = troubles(conn)
        assert found is not None
        assert len(found) > 1
        assert all("\n" not in line for line in found)


def test_a_sound_store_is_said_to_be_one(path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(open_reader(settings)) as conn:
        look_up_newest(conn)
        assert troubles(conn, timeout=PATIENCE) == []
        assert troubles(conn, timeout=-1.0) is None
    main(["doctor"])
    assert f"{path} is sound" in capsys.readouterr().out
    with contextlib.closing(open_writer(settings)) as store:
        store.execute("DELETE FROM events")
        look_up_newest(store)
        store.execute(
            "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, ingest_method, "
            "payload_json) VALUES ('mine', 's', 't', 'o', 'r', 1, 'm', '{}')"
        )
        look_up_newest(store)  # it has no id of its own


def test_the_log_of_this_store_is_no_trouble(path: Path, settings: Settings) -> None:
    """Neither before nor after it was taken back into the file, nor in a copy of the store."""
    appender = Appender(settings)
    for _ in range(3):
        appender.append(EventInsert(source="s", event_type="t"))
        open_reader(settings).close()
        with contextlib.closing(open_writer(settings)) as conn:
            conn.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        open_reader(settings).close()
    appender.close()


def test_what_sqlite_does_not_notice_is_said_as_what_it_does() -> None:
    assert "/a/b is damaged or not an SQLite database (why): move it away (mv /a/b /a/b.bad)" in str(
        damaged("/a/b", "why")
    )
