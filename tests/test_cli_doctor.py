"""`waitbus doctor`: each thing that can be wrong gets its line, and an installation is held to its RECORD."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import waitbus
from tests.artifacts import INFO, NEEDS_MORE, record_anew, row
from tests.conftest import PATIENCE, HubProcess
from tests.test_house import build, clean_environment, copy_tree
from waitbus.cli.main import main
from waitbus.event import EventInsert
from waitbus.settings import Settings
from waitbus.store import migrate
from waitbus.store.append import Appender
from waitbus.store.open import open_writer
from waitbus.verify.installed import compare
from waitbus.verify.record import MAX_BYTES, encoded
from waitbus.verify.report import Unusable

WRITES_NO_BYTECODE = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
# What mends a finding that is bad: a command, or the setting or file to change.
MENDS = re.compile(
    r"\b(chmod|chown|kill|mv|rm|sudo|sqlite3|python3.13 -m pip|waitbus (init|serve|prune)|WAITBUS_[A-Z_]+|config\.toml|"
    r"update waitbus)\b"
)
Doctor = Callable[[], tuple[int, dict[str, tuple[str, str]]]]


@pytest.fixture
def doctor(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """The exit code, and state and words of each check; a hub that is missing is no matter."""
    monkeypatch.setenv("WAITBUS_AUTOSTART", "1")

    def run() -> tuple[int, dict[str, tuple[str, str]]]:
        code = main(["doctor", "--json"])
        said = json.loads(capsys.readouterr().out)
        assert said["healthy"] is (code == 0)
        bad = [check["detail"] for check in said["checks"] if check["state"] == "BAD"]
        assert [detail for detail in bad if not MENDS.search(detail)] == []
        return code, {check["check"]: (check["state"], check["detail"]) for check in said["checks"]}

    return run


@pytest.fixture
def store(settings: Settings) -> Settings:
    open_writer(settings).close()
    return settings


class TestDiagnosis:
    def test_a_machine_that_never_had_it_is_well(self, doctor: Doctor, settings: Settings) -> None:
        code, checks = doctor()
        assert code == 0
        assert {name for name, (state, _) in checks.items() if state == "note"} == {
            *("state", "runtime", "broadcast", "doorbell", "hub", "store"),
        }
        assert not os.path.exists(settings.state_dir), "it looks, and makes nothing"
        assert not os.path.exists(settings.runtime_dir)

    def test_a_bus_at_work_is_well(self, hub: HubProcess, doctor: Doctor, settings: Settings) -> None:
        Appender(settings).append(EventInsert(source="s", event_type="t"))
        code, checks = doctor()
        assert code == 0
        assert {state for state, _ in checks.values()} == {"ok"}
        assert checks["hub"][1].startswith(f"up, pid {hub.pid}")
        assert checks["schema"][1].startswith(f"{migrate.VERSION},")
        assert settings.db_path in checks["store"][1]

    def test_as_text_a_line_each(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor"]) == 1  # no hub, and the fixture's settings let nobody start one
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines[:3]] == ["python", "waitbus", "sqlite"]
        assert "BAD   hub         none runs, and clients may not start one: run waitbus serve hub" in lines
        assert {line.split()[0] for line in lines} == {"ok", "note", "BAD"}

    @pytest.mark.parametrize(("name", "mode"), [("state", 0o750), ("runtime", 0o701)])
    def test_a_directory_open_to_others(self, doctor: Doctor, store: Settings, name: str, mode: int) -> None:
        path = getattr(store, f"{name}_dir")
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chmod(path, mode)
        code, checks = doctor()
        assert (code, checks[name]) == (1, ("BAD", checks[name][1]))
        assert f"chmod 700 {path}" in checks[name][1]

    def test_a_socket_open_to_others(self, hub: HubProcess, doctor: Doctor, settings: Settings) -> None:
        os.chmod(settings.doorbell_socket, 0o666)
        code, checks = doctor()
        assert (code, checks["doorbell"][0], checks["broadcast"][0]) == (1, "BAD", "ok")
        assert f"chmod 600 {settings.doorbell_socket}" in checks["doorbell"][1]

    def test_a_file_where_a_socket_should_be(self, doctor: Doctor, settings: Settings) -> None:
        os.makedirs(settings.runtime_dir, mode=0o700)
        Path(settings.broadcast_socket).write_text("")
        code, checks = doctor()
        assert (code, checks["broadcast"][0], checks["hub"][0]) == (1, "BAD", "BAD")

    def test_a_stale_socket_is_no_matter(self, doctor: Doctor, settings: Settings) -> None:
        os.makedirs(settings.runtime_dir, mode=0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(settings.broadcast_socket)
        os.chmod(settings.broadcast_socket, 0o600)
        code, checks = doctor()
        assert (code, checks["hub"][0]) == (0, "note")

    def test_a_hub_that_is_stopped(
        self, hub: HubProcess, doctor: Doctor, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("waitbus.client.probe.ANSWER_SEC", 0.05)
        os.kill(hub.pid, signal.SIGSTOP)
        try:
            code, checks = doctor()
        finally:
            os.kill(hub.pid, signal.SIGCONT)
        assert (code, checks["hub"][0]) == (1, "BAD")
        assert settings.hub_log in checks["hub"][1]

    def test_settings_that_cannot_be_read(self, doctor: Doctor, bus_dir: Path) -> None:
        (bus_dir / "config.toml").write_text("[hub]\nidle_exit = 'soon'\n")
        code, checks = doctor()
        assert (code, list(checks)[-1], checks["settings"][0]) == (1, "settings", "BAD")
        assert "idle_exit" in checks["settings"][1]

    @pytest.mark.parametrize(
        ("sql", "words"),
        [
            ("PRAGMA user_version = 99", "update waitbus"),
            ("PRAGMA application_id = 7", "another program"),
            ("PRAGMA journal_mode = DELETE", "it is delete, not wal"),
        ],
    )
    def test_a_store_that_is_not_right(self, doctor: Doctor, store: Settings, sql: str, words: str) -> None:
        conn = open_writer(store)
        conn.execute(sql)
        conn.close()
        code, checks = doctor()
        assert code == 1
        assert [name for name, (state, text) in checks.items() if state == "BAD" and words in text]

    def test_a_store_that_is_no_database(self, doctor: Doctor, store: Settings) -> None:
        Path(store.db_path).write_bytes(b"not a database at all" * 400)
        code, checks = doctor()
        assert (code, checks["store"][0]) == (1, "BAD")
        assert "mv " in checks["store"][1]

    def test_a_clock_that_went_back(self, doctor: Doctor, store: Settings) -> None:
        Appender(store).append(EventInsert(source="s", event_type="t", received_at=time.time_ns() + 3600 * 10**9))
        code, checks = doctor()
        assert (code, checks["clock"][0]) == (1, "BAD")
        assert "in the future" in checks["clock"][1]

    def test_a_clock_that_was_never_set(self, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        code, checks = doctor()
        assert (code, checks["clock"][0]) == (1, "BAD")

    @pytest.mark.parametrize(
        ("limit", "value", "check"),
        [
            ("programs.OLDEST_PYTHON", (99, 0), "python"),
            ("programs.OLDEST_SQLITE", (99, 0, 0), "sqlite"),
            ("places.LEAST_FREE_BYTES", 1 << 80, "disk"),
        ],
    )
    def test_what_is_too_old_or_too_small(
        self, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, limit: str, value: object, check: str
    ) -> None:
        monkeypatch.setattr(f"waitbus.doctor.{limit}", value)
        code, checks = doctor()
        assert [name for name, (state, _) in checks.items() if state == "BAD"] == [check]
        assert code == 1

    def test_a_disk_that_is_read_only_or_cannot_be_asked(
        self, doctor: Doctor, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class ReadOnly:
            f_bavail = f_frsize = 1 << 20
            f_flag = os.ST_RDONLY

        monkeypatch.setattr(os, "statvfs", lambda path: ReadOnly)
        assert "read-only disk" in doctor()[1]["disk"][1]

        def cannot(path: str) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "statvfs", cannot)
        assert doctor()[1]["disk"] == ("BAD", doctor()[1]["disk"][1])

    def test_a_store_of_0_2_0_that_waits(self, doctor: Doctor, settings: Settings) -> None:
        os.makedirs(settings.state_dir, mode=0o700)
        Path(settings.state_dir, "github.db").write_bytes(b"")
        code, checks = doctor()
        assert (code, checks["0.2.0"][0]) == (0, "note")
        assert "waitbus init" in checks["0.2.0"][1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(copy_tree(tmp_path_factory.mktemp("built") / "tree"))[0]


class Site:
    """A directory that a wheel was laid into as an installer does, and the verb looking at it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.capsys = capsys

    def check(self) -> tuple[int, dict[str, list[str]]]:
        code = main(["doctor", "--integrity", "--json"])
        said = json.loads(self.capsys.readouterr().out)
        assert said["root"] == str(self.path)
        return code, said

    def run(self) -> subprocess.CompletedProcess[str]:
        """The installation itself, on itself; not measured, as it is a copy."""
        environ = {name: value for name, value in clean_environment().items() if name not in WRITES_NO_BYTECODE}
        return subprocess.run(
            [sys.executable, "-P", "-m", "waitbus", "doctor", "--integrity"],
            env={**environ, "PYTHONPATH": str(self.path)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )


@pytest.fixture
def site(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    path = tmp_path / "site"
    with zipfile.ZipFile(built) as archive:
        archive.extractall(path)
    monkeypatch.setattr(waitbus, "__file__", str(path / "waitbus" / "__init__.py"))
    return Site(path, capsys)


class TestIntegrity:
    def test_an_installation_finds_itself_as_it_was_installed(self, site: Site) -> None:
        for _ in range(2):  # the second time with bytecode beside the sources
            done = site.run()
            assert (done.returncode, done.stderr, done.stdout[:3]) == (0, "", "ok ")
        assert list(site.path.rglob("*.pyc"))
        assert site.check()[0] == 0
        (site.path / "waitbus" / "py.typed").write_text("#")
        assert site.run().returncode == 76

    def test_each_difference_is_named(self, site: Site) -> None:
        package = site.path / "waitbus"
        (package / "wire.py").write_bytes((package / "wire.py").read_bytes() + b"\n")
        (package / "py.typed").unlink()
        (package / "extra.py").write_text("")
        (package / "mcp.pth").write_text("")
        (package / "__pycache__").mkdir(exist_ok=True)
        (package / "__pycache__" / "nobody.cpython-311.pyc").write_bytes(b"")
        (package / "__pycache__" / "wire.txt").write_bytes(b"")
        (package / "loose.pyc").write_bytes(b"")
        (package / "elsewhere").symlink_to("/tmp")
        (site.path / INFO / "entry_points2.txt").write_text("")
        (package / "verdict.py").unlink()
        (package / "verdict.py").mkdir()
        code, said = site.check()
        assert code == 76
        assert said["changed"] == ["waitbus/verdict.py", "waitbus/wire.py"]
        assert said["missing"] == ["waitbus/py.typed"]
        assert sorted(said["foreign"]) == [
            f"{INFO}/entry_points2.txt",
            "waitbus/__pycache__/nobody.cpython-311.pyc",
            "waitbus/__pycache__/wire.txt",
            *("waitbus/elsewhere", "waitbus/extra.py", "waitbus/loose.pyc", "waitbus/mcp.pth"),
        ]

    def test_a_record_that_cannot_be_read_vouches_for_nothing(self, site: Site) -> None:
        record = site.path / INFO / "RECORD"
        record.write_bytes(record.read_bytes() + b"waitbus/x.py,sha256=\n")
        code, said = site.check()
        assert (code, said["changed"]) == (76, [f"{INFO}/RECORD"])

    def test_as_text(self, site: Site) -> None:
        (site.path / "waitbus" / "wire.pyi").write_text("")
        assert main(["doctor", "--integrity"]) == 76
        said = site.capsys.readouterr()
        assert said.out == f"foreign  {site.path}/waitbus/wire.pyi\n"
        assert "reinstall it" in said.err

    def test_a_source_tree_has_nothing_to_compare_with(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(waitbus, "__file__", str(tmp_path / "waitbus" / "__init__.py"))
        assert main(["doctor", "--integrity"]) == 78
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert "it is a source tree" in said.err
        assert main(["doctor", "--integrity", "--json"]) == 78
        assert json.loads(capsys.readouterr().out)["verdict"] == "incomplete"

    def test_a_record_that_may_not_be_read(self, site: Site) -> None:
        (site.path / INFO / "RECORD").write_bytes(b"x" * (MAX_BYTES + 1))
        code, said = site.check()
        assert (code, said["changed"]) == (76, [f"{INFO}/RECORD"])
        (site.path / INFO / "RECORD").unlink()
        with pytest.raises(Unusable, match="cannot read"):
            compare(str(site.path / INFO / "RECORD"), ())

    @pytest.mark.parametrize(
        "name", ["waitbus/evil.pyc", "waitbus/__pycache__/evil.cpython-311.pyc", "x.dist-info/RECORD"]
    )
    def test_bytecode_without_a_source_needs_a_hash_and_so_does_another_record(self, site: Site, name: str) -> None:
        (site.path / name).parent.mkdir(exist_ok=True)
        (site.path / name).write_bytes(b"evil")
        with (site.path / INFO / "RECORD").open("a") as record:
            record.write(f"{name},,\n")
        code, said = site.check()
        assert (code, said["unhashed"]) == (76, [name])

    @pytest.mark.parametrize("name", ["waitbus/wire.py", f"{INFO}/METADATA", f"{INFO}/INSTALLER"])
    def test_a_row_without_a_hash_is_no_word_for_its_file(self, site: Site, name: str) -> None:
        record = site.path / INFO / "RECORD"
        (site.path / INFO / "INSTALLER").write_text("hand")
        lines = [line for line in record.read_text().splitlines() if not line.startswith(f"{name},")]
        lines += [] if "INSTALLER" in name else [row(f"{INFO}/INSTALLER", b"hand").strip()]
        record.write_text("\n".join([*lines, f"{name},,"]))
        code, said = site.check()
        assert (code, said["unhashed"]) == (76, [name])
        assert main(["doctor", "--integrity"]) == 76
        assert site.capsys.readouterr().out == f"unhashed  {site.path}/{name}\n"

    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("METADATA", "Requires-Dist: ", f"{NEEDS_MORE}\nRequires-Dist: "),
            ("METADATA", "mcp>=2", "evil-mcp>=2"),
            ("METADATA", "\nVersion: ", "\nVersion: 9"),
            ("entry_points.txt", "[console_scripts]\n", "[console_scripts]\nsudo=evil:main\n"),
        ],
    )  # fmt: skip
    def test_metadata_that_asks_for_more_is_found_though_record_fits(
        self, site: Site, name: str, old: str, new: str
    ) -> None:
        path = site.path / INFO / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        files = {str(file.relative_to(site.path)): file.read_bytes() for file in site.path.rglob("*") if file.is_file()}
        record_anew(files)
        (site.path / INFO / "RECORD").write_bytes(files[f"{INFO}/RECORD"])
        code, said = site.check()
        assert (code, said["changed"], said["foreign"], len(said["metadata"])) == (76, [], [], 1)
        path.unlink()
        assert site.check()[1]["metadata"]

    def test_an_installers_own_additions_count(self, site: Site) -> None:
        """A row without a hash, a script outside the package, another algorithm."""
        record = site.path / INFO / "RECORD"
        (site.path / INFO / "INSTALLER").write_text("hand")
        (site.path.parent / "bin").mkdir()
        (site.path.parent / "bin" / "waitbus").write_text("#!python")
        digest = encoded(hashlib.sha512(b"#!python").digest())
        record.write_bytes(
            record.read_bytes()
            + f"../bin/waitbus,sha512={digest},8\nwaitbus/__pycache__/wire.cpython-39.pyc,,\n".encode()
            + row(f"{INFO}/INSTALLER", b"hand").encode()
        )
        assert site.check()[0] == 0
        (site.path.parent / "bin" / "waitbus").write_text("#!PYTHON")
        assert site.check()[1]["changed"] == ["../bin/waitbus"]
        record.write_bytes(record.read_bytes().replace(b"sha512", b"sha1"))
        assert site.check()[1]["changed"] == ["../bin/waitbus"]
