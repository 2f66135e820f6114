"""Taking over 0.2.0's store: a recorded one offline, and one that the real package makes."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from waitbus.event import EventInsert
from waitbus.private import ensure_private_dir
from waitbus.settings import Settings, SettingsError
from waitbus.store import importer
from waitbus.store.append import Appender
from waitbus.store.importer import import_v020
from waitbus.store.open import StoreError, open_reader, open_writer
from waitbus.store.read import event_with_payload, read_after
from waitbus.ulid import is_ulid

ROOT = Path(__file__).parent.parent
RECORDED = Path(__file__).parent / "data" / "github-0.2.0.sql"


def old_path(settings: Settings) -> Path:
    return Path(settings.state_dir) / "github.db"


def make_old(settings: Settings, more: str = "") -> Path:
    """The recorded store as a file in WAL mode, as 0.2.0 leaves it."""
    ensure_private_dir(settings.state_dir)
    conn = sqlite3.connect(old_path(settings))
    conn.executescript(RECORDED.read_text(encoding="utf-8"))
    conn.executescript(more)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.close()
    return old_path(settings)


def rows(path: Path | str, *names: str) -> list[tuple[Any, ...]]:
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return conn.execute("SELECT {} FROM events ORDER BY seq".format(", ".join(names))).fetchall()
    finally:
        conn.close()


def test_every_column_and_the_order_are_kept(settings: Settings) -> None:
    old = make_old(settings)
    before = old.read_bytes()
    report = import_v020(settings)
    assert report is not None
    assert (report.path, report.imported, report.skipped) == (str(old), 7, 0)
    assert rows(old, *importer._COLUMNS) == rows(settings.db_path, *importer._COLUMNS)
    assert old.read_bytes() == before
    methods = [method for (method,) in rows(old, "ingest_method")]
    assert rows(settings.db_path, "ingest_method") == [("import",)] * 7
    conn = open_reader(settings)
    found = [frame["fields"]["imported_ingest_method"] for _, frame in read_after(conn, 0, 100)]
    assert found == methods
    frames = [frame for _, frame in read_after(conn, 0, 100)]
    assert frames[0]["event_id"] == "01M87G3BKPXA4XDAJA8PPMB9NX"
    assert frames[0]["fields"]["conclusion"] == "failure"
    assert frames[0]["fields"]["head_sha"] == "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"
    assert frames[5]["fields"]["workflow_name"] == "übung.txt"
    assert frames[6]["fields"]["msg_body"] == "it\u2019s ready\nsecond line"
    assert "\n" not in frames[6]["summary"]
    event = event_with_payload(conn, frames[3]["event_id"])
    assert event is not None
    assert event.payload_json == '{"passed": 3, "failed": 1}'
    conn.close()


def test_it_happens_once(settings: Settings) -> None:
    make_old(settings)
    assert import_v020(settings) is not None
    assert import_v020(settings) is None
    conn = open_writer(settings)
    conn.execute("DELETE FROM events")
    conn.close()
    assert import_v020(settings) is None  # what was pruned does not come back
    assert rows(settings.db_path, "seq") == []


def test_without_an_old_store_nothing_is_made(settings: Settings) -> None:
    assert import_v020(settings) is None
    assert not os.path.exists(settings.db_path)


def test_what_is_there_already_is_skipped(settings: Settings) -> None:
    make_old(settings)
    appender = Appender(settings)
    appender.append(EventInsert(source="s", event_type="t", delivery_id="sample-3"))
    appender.close()
    report = import_v020(settings)
    assert report is not None
    assert (report.imported, report.skipped) == (6, 1)
    assert rows(settings.db_path, "source")[0] == ("s",)
    assert len(rows(settings.db_path, "seq")) == 7


def test_more_than_one_chunk_with_progress(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "CHUNK", 3)
    make_old(settings)
    heard: list[int] = []
    report = import_v020(settings, progress=heard.append)
    assert report is not None
    assert report.imported == 7
    assert heard == [3, 6, 7]


def test_an_import_that_was_stopped_goes_on(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "CHUNK", 3)
    make_old(settings)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_v020(settings, progress=stop)
    assert len(rows(settings.db_path, "seq")) == 3
    report = import_v020(settings)
    assert report is not None
    assert report.imported == 4
    assert rows(settings.db_path, "event_id") == rows(old_path(settings), "event_id")
    assert import_v020(settings) is None


def test_two_at_once_share_the_work(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "CHUNK", 1)
    make_old(settings)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                import_v020(settings)
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert rows(settings.db_path, "event_id") == rows(old_path(settings), "event_id")


def test_rows_that_a_foreign_program_left_in_it(settings: Settings) -> None:
    make_old(
        settings,
        "UPDATE events SET event_id = NULL WHERE seq = 2;"
        "UPDATE events SET status = x'ff00', msg_body = CAST(x'c328' AS TEXT), run_id = 'many' WHERE seq = 3;",
    )
    report = import_v020(settings)
    assert report is not None
    assert report.imported == 7
    same = ("quote(status)", "quote(CAST(msg_body AS BLOB))", "run_id", "typeof(msg_body)")
    assert rows(settings.db_path, *same) == rows(old_path(settings), *same)
    conn = open_reader(settings)
    assert [is_ulid(frame["event_id"]) for _, frame in read_after(conn, 0, 100)] == [True] * 7
    conn.close()


def test_an_older_store_without_the_newer_columns(settings: Settings) -> None:
    make_old(settings, "DROP INDEX idx_event_id; ALTER TABLE events DROP COLUMN event_id;")
    report = import_v020(settings)
    assert report is not None
    assert report.imported == 7
    conn = open_reader(settings)
    assert len({frame["event_id"] for _, frame in read_after(conn, 0, 100)}) == 7
    conn.close()


def test_files_that_are_no_store(settings: Settings) -> None:
    ensure_private_dir(settings.state_dir)
    old = old_path(settings)
    old.write_bytes(b"")
    assert import_v020(settings) is None
    old.write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError, match=r"github\.db is damaged or not an SQLite database"):
        import_v020(settings)
    old.unlink()
    conn = sqlite3.connect(old)
    conn.execute("CREATE TABLE events (a, b)")
    conn.close()
    with pytest.raises(StoreError, match=r"github\.db is not a store of waitbus 0\.2\.0"):
        import_v020(settings)
    old.unlink()
    old.mkdir()
    with pytest.raises(StoreError, match=r"github\.db"):
        import_v020(settings)


def test_the_old_store_as_the_store_itself(settings: Settings) -> None:
    settings.db_path = str(make_old(settings))
    assert import_v020(settings) is None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user, which takes root")
def test_an_old_store_of_another_user_is_refused(settings: Settings) -> None:
    os.chown(make_old(settings), 65534, 65534)
    with pytest.raises(SettingsError, match=r"github\.db belongs to user 65534"):
        import_v020(settings)


# The real package, in an environment of its own.


@pytest.fixture(scope="session")
def previous_python() -> Path:
    """The interpreter of an environment with waitbus 0.2.0, laid once for all runs."""
    ready = ROOT / ".venvs" / "0.2.0" / ".ready"
    if not (ROOT / "Makefile").exists() or shutil.which("make") is None:
        pytest.skip("no Makefile or no make to lay 0.2.0 with")
    ready.parent.parent.mkdir(exist_ok=True)
    with (ROOT / ".venvs" / "0.2.0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the suite may run in several processes
        if not ready.exists():
            done = subprocess.run(
                ["make", "-C", str(ROOT), str(ready.relative_to(ROOT))], capture_output=True, text=True, timeout=280
            )
            if done.returncode:
                pytest.skip("cannot lay waitbus 0.2.0: " + (done.stderr.strip().splitlines() or ["?"])[-1])
    return ready.parent / "bin" / "python"


WITH_0_2_0 = """
from waitbus import emit
from waitbus._types import EventInsert
for n in range(5):
    emit(EventInsert(delivery_id=f"d{n}", source="pytest", event_type="pytest_session", owner="o", repo="r",
        received_at=1_763_337_600_000_000_000 + n, payload_json="{}", ingest_method="manual", conclusion="failure"))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_store_that_0_2_0_itself_made(settings: Settings, bus_dir: Path, previous_python: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(bus_dir),
        "XDG_STATE_HOME": str(bus_dir / "old"),
        "XDG_RUNTIME_DIR": str(bus_dir / "old-run"),
    }
    (bus_dir / "old-run").mkdir(0o700)
    subprocess.run([str(previous_python.parent / "waitbus"), "init"], env=environ, check=True, capture_output=True)
    subprocess.run([str(previous_python), "-c", WITH_0_2_0], env=environ, check=True, capture_output=True)
    made = bus_dir / "old" / "waitbus" / "github.db"
    ensure_private_dir(settings.state_dir)
    for path in made.parent.glob("github.db*"):
        shutil.copy(path, settings.state_dir)
    report = import_v020(settings)
    assert report is not None
    assert (report.imported, report.skipped) == (5, 0)
    assert rows(settings.db_path, *importer._COLUMNS) == rows(made, *importer._COLUMNS)
    recorded = sqlite3.connect(":memory:")
    recorded.executescript(RECORDED.read_text(encoding="utf-8"))
    real = sqlite3.connect(f"file:{made}?mode=ro", uri=True)
    table = "SELECT name, type, pk FROM pragma_table_info('events')"
    assert real.execute(table).fetchall() == recorded.execute(table).fetchall()  # the recording is still true
    recorded.close()
    real.close()
