"""Opening the store: made once, migrated once, and refused with one clear line in every state it cannot be used in."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from waitbus.event import NATURAL_FIELDS, EventInsert, WaitbusError
from waitbus.private import ensure_private_dir
from waitbus.settings import Settings, SettingsError, load
from waitbus.store import migrate
from waitbus.store.append import Appender
from waitbus.store.open import StoreDamaged, StoreError, explain, open_reader, open_writer
from waitbus.store.read import last_seq, read_after
from waitbus.store.stats import counts, stats, troubles

EVENT = EventInsert(source="agent", event_type="agent_message", summary="hello")
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system or changes an owner, which takes root")


def make_store(settings: Settings, events: int = 1) -> Path:
    appender = Appender(settings)
    for _ in range(events):
        appender.append(EVENT)
    appender.close()
    return Path(settings.db_path)


def count(settings: Settings) -> int:
    conn = open_reader(settings)
    try:
        return len(read_after(conn, 0, 1_000_000))
    finally:
        conn.close()


def refuses(settings: Settings, match: str, kind: type[WaitbusError] = StoreError) -> None:
    """Opening for writing, and if it is not about the directory for reading too, fails with one such line."""
    for opener in (open_writer, open_reader) if kind is StoreError else (open_writer,):
        with pytest.raises(kind, match=match) as caught:
            opener(settings).close()
        assert "\n" not in str(caught.value)


def test_the_checksums_are_those_of_the_files() -> None:
    names = sorted(path.name for path in (Path(migrate.__file__).parent / "migrations").glob("*.sql"))
    assert names == [f"{number:04d}_{slug}.sql" for number, slug, _ in migrate.MIGRATIONS]
    for number, slug, sha256 in migrate.MIGRATIONS:
        assert hashlib.sha256(migrate.script(number, slug).encode()).hexdigest() == sha256


def test_a_new_store_has_the_promised_form(settings: Settings) -> None:
    conn = open_writer(settings)
    pragma = {
        name: conn.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "auto_vacuum", "application_id", "user_version", "synchronous")
    }
    assert pragma == {
        "journal_mode": "wal",
        "auto_vacuum": 2,
        "application_id": migrate.APPLICATION_ID,
        "user_version": migrate.VERSION,
        "synchronous": 1,
    }
    computed = {row[1]: row[6] == 2 for row in conn.execute("PRAGMA table_xinfo(events)")}
    assert all(computed[name] for name in NATURAL_FIELDS)
    stored = [name for name, virtual in computed.items() if not virtual]
    assert stored[0] == "seq"
    assert stored[-1] == "payload_json"
    conn.close()
    for path in (settings.db_path, settings.state_dir):
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0


def test_a_store_of_an_earlier_schema_is_migrated_and_keeps_its_events(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(migrate, "MIGRATIONS", migrate.MIGRATIONS[:1])
        earlier.setattr(migrate, "VERSION", 1)
        with closing(Appender(settings)) as appender:
            appender.append(EventInsert(source="s", event_type="t", fields={"run_attempt": 3, "labels": {"a": 1}}))
    with pytest.raises(StoreError, match="schema 1, older than ours: run waitbus init"):
        open_reader(settings)
    with closing(open_writer(settings)) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (migrate.VERSION,)
        assert conn.execute("SELECT run_attempt, labels FROM events").fetchall() == [(3, '{"a":1}')]
        assert len(read_after(conn, 0, 10)) == 1


def test_a_small_cache_for_who_stays_in_memory(settings: Settings) -> None:
    conn = open_writer(settings, cache_kib=256)
    assert conn.execute("PRAGMA cache_size").fetchone() == (-256,)
    conn.close()


def test_durability_over_a_power_loss_syncs_each_commit(settings: Settings) -> None:
    settings.durability = "power-loss"
    conn = open_writer(settings)
    assert conn.execute("PRAGMA synchronous").fetchone() == (2,)
    conn.close()


def test_many_processes_make_it_once(settings: Settings) -> None:
    started_reader, started_writer = os.pipe()
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                os.close(started_writer)
                os.read(started_reader, 1)  # all at once: when the parent closes its end
                open_writer(settings).close()
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        children.append(child)
    os.close(started_reader)
    os.close(started_writer)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    conn = open_reader(settings)
    assert conn.execute("SELECT count(*) FROM schema_migrations").fetchone() == (len(migrate.MIGRATIONS),)
    conn.close()


def test_an_empty_file_is_a_new_store(settings: Settings) -> None:
    ensure_private_dir(settings.state_dir)
    Path(settings.db_path).touch(0o600)
    with pytest.raises(StoreError, match="no events yet"):
        open_reader(settings)
    make_store(settings)
    assert count(settings) == 1


def test_a_reader_makes_nothing_and_cannot_write(settings: Settings) -> None:
    with pytest.raises(StoreError, match="no events yet"):
        open_reader(settings)
    assert not os.path.exists(settings.state_dir)
    make_store(settings)
    conn = open_reader(settings)
    with pytest.raises(sqlite3.OperationalError):
        conn.execute("DELETE FROM events")
    conn.close()


@pytest.mark.parametrize("name", ["100%.db", "a?b#c.db", "é ü.db", "x y&z.db"])
def test_any_name_of_a_file(settings: Settings, bus_dir: Path, name: str) -> None:
    settings.db_path = str(bus_dir / name)
    make_store(settings)
    assert count(settings) == 1
    assert name in os.listdir(bus_dir)


# Files that are not ours to use.


def test_a_newer_schema_is_left_alone(settings: Settings) -> None:
    path = make_store(settings)
    with sqlite3.connect(path) as conn:
        conn.execute(f"PRAGMA user_version = {migrate.VERSION + 1}")
    conn.close()
    before = path.read_bytes()
    refuses(settings, rf"has schema {migrate.VERSION + 1}.*update waitbus")
    assert path.read_bytes() == before


def test_a_store_of_another_build_is_left_alone(settings: Settings) -> None:
    path = make_store(settings)
    with sqlite3.connect(path) as conn:
        conn.execute("UPDATE schema_migrations SET sha256 = 'x'")
    conn.close()
    refuses(settings, "another build of waitbus")


def test_a_store_of_0_2_0_under_our_name(settings: Settings) -> None:
    ensure_private_dir(settings.state_dir)
    conn = sqlite3.connect(settings.db_path)
    conn.executescript((Path(__file__).parent / "data" / "github-0.2.0.sql").read_text(encoding="utf-8"))
    conn.close()
    before = Path(settings.db_path).read_bytes()
    refuses(settings, r"is a store of waitbus 0\.2\.0: run mv .*github\.db")
    assert Path(settings.db_path).read_bytes() == before
    old = os.path.join(settings.state_dir, "github.db")
    os.rename(settings.db_path, old)
    settings.db_path = old
    refuses(settings, "unset WAITBUS_DB")


def test_another_programs_database(settings: Settings) -> None:
    ensure_private_dir(settings.state_dir)
    with sqlite3.connect(settings.db_path) as conn:
        conn.execute("CREATE TABLE events (x)")
    conn.close()
    refuses(settings, "another program's database")


@pytest.mark.parametrize("content", [b"not a database " * 500, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 4096])
def test_what_is_no_database(settings: Settings, content: bytes) -> None:
    ensure_private_dir(settings.state_dir)
    path = Path(settings.db_path)
    path.write_bytes(content)
    path.chmod(0o600)
    refuses(settings, "damaged or not an SQLite database.*move it away")
    assert path.read_bytes() == content


def test_damage_within_the_file_is_one_line_wherever_it_shows(settings: Settings) -> None:
    path = make_store(settings, events=600)
    content = bytearray(path.read_bytes())
    sound = 20 * 4096  # the schema and the first rows
    content[sound:] = b"\xff" * (len(content) - sound)
    path.write_bytes(content)
    conn = open_reader(settings)
    with pytest.raises(StoreDamaged, match="damaged or not an SQLite database"):
        read_after(conn, 0, 1000)
    assert troubles(conn)
    conn.close()
    appender = Appender(settings)
    with pytest.raises(StoreDamaged, match="damaged or not an SQLite database"):
        appender.append(EVENT)
    appender.close()


def test_a_directory_in_its_place(settings: Settings) -> None:
    ensure_private_dir(settings.db_path)
    refuses(settings, r"is not a file but a directory: move it away: mv ")


def test_a_pipe_in_its_place_does_not_hang(settings: Settings) -> None:
    ensure_private_dir(settings.state_dir)
    os.mkfifo(settings.db_path)
    refuses(settings, "special file")


def test_the_file_of_another_place(settings: Settings, bus_dir: Path) -> None:
    settings.db_path = str(bus_dir / "missing" / "x.db")
    with pytest.raises(StoreError, match="missing: No such file"):
        open_writer(settings)
    (bus_dir / "open").mkdir()
    (bus_dir / "open").chmod(0o777)
    settings.db_path = str(bus_dir / "open" / "x.db")
    refuses(settings, "can be written by other users", SettingsError)
    (bus_dir / "open").chmod(0o755)
    make_store(settings)
    os.chmod(settings.db_path, 0o666)
    refuses(settings, r"can be written by other users: run chmod 600", SettingsError)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read_where_they_can_reach_it(
    settings: Settings, bus_dir: Path, suffix: str, mode: int
) -> None:
    place = bus_dir / "open"
    place.mkdir()
    place.chmod(0o755)
    settings.db_path = str(place / "x.db")
    with closing(open_writer(settings)):  # so that its log and index are there
        file = settings.db_path + suffix
        assert os.stat(file).st_mode & 0o777 == 0o600
        os.chmod(file, mode)
        refuses(settings, rf"{file} can be read by other users \(mode {mode:04o}\): run chmod 600", SettingsError)
        with pytest.raises(SettingsError, match="can be read by other users"):
            open_reader(settings)
        place.chmod(0o700)  # where nobody gets, the mode of a file says nothing
        open_reader(settings).close()


def test_a_link_to_a_file_that_others_can_read(settings: Settings, bus_dir: Path) -> None:
    (bus_dir / "open").mkdir()
    (bus_dir / "open").chmod(0o755)
    ensure_private_dir(settings.state_dir)
    (bus_dir / "open" / "x.db").touch(0o644)
    os.symlink(bus_dir / "open" / "x.db", settings.db_path)
    refuses(settings, "can be read by other users", SettingsError)


@pytest.mark.parametrize("mode", [0o777, 0o750])
def test_a_state_directory_open_to_others(settings: Settings, mode: int) -> None:
    ensure_private_dir(settings.state_dir)
    os.chmod(settings.state_dir, mode)
    refuses(settings, f"{settings.state_dir} is open to other users", SettingsError)
    assert not os.path.exists(settings.db_path)


def test_a_state_directory_that_is_a_link(settings: Settings, bus_dir: Path) -> None:
    (bus_dir / "real").mkdir(0o700)
    os.symlink(bus_dir / "real", settings.state_dir)
    refuses(settings, "symbolic link", SettingsError)


@as_root
@pytest.mark.root
def test_a_state_directory_or_file_of_another_user(settings: Settings) -> None:
    make_store(settings)
    os.chown(settings.db_path, NOBODY, NOBODY)
    refuses(settings, f"{settings.db_path} belongs to user {NOBODY}", SettingsError)
    os.chown(settings.state_dir, NOBODY, NOBODY)
    refuses(settings, f"{settings.state_dir} belongs to user {NOBODY}", SettingsError)


# A file that cannot be written.


@contextmanager
def unprivileged(path: Path) -> Iterator[None]:
    """As a user whom file modes stop: root gives `path` to nobody and becomes nobody."""
    if os.geteuid() != 0:
        yield
        return
    for found in (path, *path.rglob("*")):
        os.chown(found, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_file(settings: Settings, bus_dir: Path) -> None:
    make_store(settings)
    with unprivileged(bus_dir):
        os.chmod(settings.db_path, 0o400)
        appender = Appender(settings)
        with pytest.raises(StoreError, match=r"cannot (be written|open)"):
            appender.append(EVENT)
        appender.close()
        assert count(settings) == 1


def test_a_read_only_directory(settings: Settings, bus_dir: Path) -> None:
    ensure_private_dir(settings.state_dir)
    with unprivileged(bus_dir):
        os.chmod(settings.state_dir, 0o500)
        with pytest.raises(StoreError, match=r"cannot open.*Permission denied"):
            open_writer(settings)
        os.chmod(settings.state_dir, 0o700)
        make_store(settings)
        os.chmod(settings.state_dir, 0o500)
        appender = Appender(settings)
        with pytest.raises(StoreError, match=r"cannot (be written|open)"):
            appender.append(EVENT)
        appender.close()
        os.chmod(settings.state_dir, 0o700)
        assert count(settings) == 1


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of its own at `path`, of so many bytes."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "waitbus-test", str(path)])
    if done.returncode:
        pytest.skip("cannot mount a file system here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@as_root
@pytest.mark.root
@pytest.mark.skipif(shutil.which("mount") is None or sys.platform != "linux", reason="needs Linux's mount")
def test_a_full_disk(settings: Settings) -> None:
    ensure_private_dir(settings.state_dir)
    with small_disk(Path(settings.state_dir), "2m"):
        appender = Appender(settings)
        kept: list[str] = []
        big = EventInsert(source="agent", event_type="agent_message", payload_json='"' + "x" * 20_000 + '"')
        with pytest.raises(StoreError, match=r"no space left to write .*: free some"):
            kept.extend(appender.append(big).event.event_id for _ in range(10_000))
        with pytest.raises(StoreError, match="no space left"):
            appender.append_many([big] * 2000)
        conn = open_reader(settings)
        assert [frame["event_id"] for _, frame in read_after(conn, 0, 10_000)] == kept  # nothing lost, nothing half
        conn.close()
        subprocess.run(["mount", "-o", "remount,size=8m", settings.state_dir], check=True)
        kept.append(appender.append(EVENT).event.event_id)
        appender.close()
        conn = open_reader(settings)
        assert [frame["event_id"] for _, frame in read_after(conn, 0, 10_000)] == kept
        assert troubles(conn) == []
        conn.close()


@as_root
@pytest.mark.root
@pytest.mark.skipif(shutil.which("mount") is None or sys.platform != "linux", reason="needs Linux's mount")
def test_a_disk_that_is_full_before_the_store_is_made(settings: Settings) -> None:
    ensure_private_dir(settings.state_dir)
    with small_disk(Path(settings.state_dir), "64k"):
        Path(settings.state_dir, "ballast").write_bytes(b"x" * 60_000)
        with pytest.raises(StoreError, match=r"no space left|the disk failed"):
            open_writer(settings)
        os.unlink(os.path.join(settings.state_dir, "ballast"))
        subprocess.run(["mount", "-o", "remount,size=4m", settings.state_dir], check=True)
        make_store(settings)
        assert count(settings) == 1


@as_root
@pytest.mark.root
@pytest.mark.skipif(shutil.which("mount") is None or sys.platform != "linux", reason="needs Linux's mount")
def test_a_read_only_disk(settings: Settings) -> None:
    ensure_private_dir(settings.state_dir)
    with small_disk(Path(settings.state_dir), "4m"):
        make_store(settings)
        subprocess.run(["mount", "-o", "remount,ro", settings.state_dir], check=True)
        with pytest.raises(StoreError, match=r"cannot (be written|open)"):
            Appender(settings).append(EVENT)
        subprocess.run(["mount", "-o", "remount,rw", settings.state_dir], check=True)
        make_store(settings)
        assert count(settings) == 2


FILL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from waitbus.event import EventInsert, WaitbusError
from waitbus.settings import load
from waitbus.store.append import Appender
appender = Appender(load())
try:
    while True:
        print(appender.append(EventInsert(source="agent", event_type="agent_message")).event.event_id, flush=True)
except WaitbusError as error:
    print(error, file=sys.stderr)
"""


def test_a_file_that_may_not_grow_loses_nothing_that_was_acknowledged(settings: Settings) -> None:
    """Room that runs out, for everybody who may not mount: the limit on a file's size."""
    make_store(settings)
    done = subprocess.run([sys.executable, "-c", FILL], capture_output=True, text=True, timeout=30)
    assert settings.db_path in done.stderr
    assert "check its space" in done.stderr or "no space left" in done.stderr
    assert done.stderr.count("\n") == 1
    kept = done.stdout.split()
    assert len(kept) > 10
    conn = open_reader(settings)
    assert [frame["event_id"] for _, frame in read_after(conn, 1, 100_000)] == kept
    assert troubles(conn) == []
    conn.close()
    make_store(settings)
    assert count(settings) == len(kept) + 2


KILLED = """
import os, signal
from waitbus.event import EventInsert
from waitbus.settings import load
from waitbus.store.append import Appender
appender = Appender(load())
for number in range(40):
    result = appender.append(EventInsert(source="agent", event_type="agent_message"))
    print(result.event.event_id, flush=True)
conn = appender._conn
conn.execute("BEGIN IMMEDIATE")
conn.execute("DELETE FROM events")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_commit_survives_a_kill_and_what_was_not_committed_does_not(settings: Settings) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=30)
    assert done.returncode == -signal.SIGKILL
    conn = open_reader(settings)
    assert [frame["event_id"] for _, frame in read_after(conn, 0, 1000)] == done.stdout.split()
    conn.close()


# Words for errors, and figures.


def test_every_error_of_sqlite_becomes_one_line(settings: Settings) -> None:
    for code in ("FULL", "READONLY", "CORRUPT", "NOTADB", "BUSY", "LOCKED", "CANTOPEN", "IOERR", "PERM", "TOOBIG"):
        error = sqlite3.OperationalError("cause")
        error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
        said = str(explain(error, "/x/y z.db"))
        assert "/x/y z.db" in said
        assert "\n" not in said
        assert "{" not in said
    assert str(explain(sqlite3.OperationalError("cause"), "/x.db")) == "the store /x.db failed: cause"
    conn = open_writer(settings)
    assert settings.db_path in str(explain(sqlite3.OperationalError("cause"), conn))
    conn.close()
    assert "the store" in str(explain(sqlite3.OperationalError("cause"), conn))


def test_facts_and_counts(settings: Settings) -> None:
    make_store(settings, events=3)
    appender = Appender(settings)
    appender.append(EventInsert(source="fs", event_type="fs_change", received_at=5))
    conn = open_reader(settings)
    found = stats(conn, settings.db_path)
    assert (found["rows"], found["first_seq"], found["last_seq"], found["oldest_received_at"]) == (4, 1, 4, 5)
    assert found["journal_mode"] == "wal"
    assert found["schema"] == migrate.VERSION
    assert found["bytes"] > 0
    assert found["wal_bytes"] > 0
    assert [(row["source"], row["events"]) for row in counts(conn)] == [("agent", 3), ("fs", 1)]
    assert [row["source"] for row in counts(conn, since_ns=6)] == ["agent"]
    assert troubles(conn) == []
    conn.close()
    appender.close()


def test_facts_of_what_a_foreign_program_wrote(settings: Settings) -> None:
    conn = open_writer(settings)
    conn.execute(
        "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, ingest_method, payload_json)"
        " VALUES ('a', CAST(x'ff' AS TEXT), x'00', 'o', 'r', 'yesterday', 'm', '{}')"
    )
    assert stats(conn, settings.db_path)["oldest_received_at"] is None
    assert counts(conn) == [{"source": "\ufffd", "event_type": "\0", "events": 1, "newest_received_at": None}]
    assert last_seq(conn) == 1
    conn.close()
    with pytest.raises(sqlite3.ProgrammingError):
        conn.execute("SELECT 1")


def test_facts_of_a_store_that_fails(settings: Settings) -> None:
    conn = open_writer(settings)
    conn.execute("ALTER TABLE events RENAME TO gone")
    with pytest.raises(StoreError, match="no such table"):
        stats(conn, settings.db_path)
    with pytest.raises(StoreError, match="no such table"):
        counts(conn)
    conn.close()


def test_settings_of_the_environment_are_found_by_children(settings: Settings) -> None:
    assert load().db_path == settings.db_path


# On a disk that cannot be written.

READ_ONLY = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
shift
for words in "$@"; do echo "== $words"; {python} -m waitbus $words 2>&1 || echo "exit code $?"; done
"""


def can_mount() -> bool:
    """Whether this process may have a view of the file system of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--mount", "sh", "-c", "mount --bind /tmp /tmp"]
    return subprocess.run(command, capture_output=True).returncode == 0


def on_a_read_only_disk(settings: Settings, *verbs: str) -> dict[str, str]:
    """What verbs print, the state directory being read-only."""
    script = READ_ONLY.replace("{python}", sys.executable)
    command = ["unshare", "--mount", "sh", "-c", script, "sh", settings.state_dir, *verbs]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [part.partition("\n") for part in done.stdout.split("== ")[1:]]
    return {words: text for words, _, text in found}


@pytest.mark.skipif(not can_mount(), reason="mounts a file system, which takes root")
class TestReadOnlyDisk:
    VERBS = ("replay --json", "events --json", "stats --json", "status --json", "doctor --json", "prune --dry-run")

    @pytest.mark.parametrize("with_log", [False, True])
    def test_a_store_is_read_as_it_is_there(self, settings: Settings, with_log: bool) -> None:
        """Without a log, of which SQLite needs one, and with one that a producer left when it was killed."""
        make_store(settings, events=2)
        if with_log:
            kill = "import os; from waitbus import *; emit(EventInsert(source='s', event_type='t')); os._exit(0)"
            subprocess.run([sys.executable, "-c", kill], check=True)
        assert os.path.exists(settings.db_path + "-wal") is with_log
        said = on_a_read_only_disk(settings, *self.VERBS)
        for words in self.VERBS[:2]:
            assert said[words].count("event_id") == 2 + with_log
        assert f'"rows":{2 + with_log}' in said["stats --json"]
        assert '"journal_mode":"wal"' in said["stats --json"]
        assert f'"events":{2 + with_log}' in said["status --json"]
        assert '"check":"store","state":"ok"' in said["doctor --json"]
        assert '"check":"journal"' not in said["doctor --json"]
        assert f"0 of {2 + with_log} events" in said["prune --dry-run"]

    def test_a_log_that_cannot_be_read_is_not_left_out(self, settings: Settings) -> None:
        appender = Appender(settings)
        appender.append(EVENT)
        Path(settings.db_path + "-shm").unlink()
        said = on_a_read_only_disk(settings, "replay", "status")
        assert "read-only disk, and part of it is still in its log" in said["replay"]
        assert "exit code 2" in said["replay"]
        assert "part of it is still in its log" in said["status"]
        appender.close()

    def test_a_writer_is_told(self, settings: Settings) -> None:
        make_store(settings)
        said = on_a_read_only_disk(settings, "emit --source a --event-type b")
        assert next(iter(said.values())).endswith("that you may write there\nexit code 2\n")


@as_root
def test_a_store_in_a_directory_that_is_not_to_be_written_is_read_as_it_is(settings: Settings) -> None:
    """Root may write everywhere: another user looks."""
    path = make_store(settings, events=2)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chown(path.parent.parent, NOBODY, NOBODY)
            os.chown(path, NOBODY, NOBODY)
            os.chown(path.parent, NOBODY, NOBODY)
            path.parent.chmod(0o500)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            code = 0 if count(settings) == 2 else 2
            path.parent.chmod(0o700)
            open_writer(settings).close()
            code += 0 if count(settings) == 2 else 4
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_store_that_can_change_is_never_read_as_one_that_cannot(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_store(settings)
    reader = open_reader(settings)
    assert not reader.is_frozen
    reader.close()
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(migrate, "check", fail)
    with pytest.raises(StoreError, match="cannot open"):
        open_reader(settings)
    assert path.exists()
