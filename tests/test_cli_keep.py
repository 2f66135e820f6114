"""`init`, `serve`, `status`, `stats`, `prune`: what keeps the bus."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess
from waitbus.cli.main import main
from waitbus.cli.verbs.init import CONFIG
from waitbus.client.emit import emit, emit_many
from waitbus.event import EventInsert
from waitbus.settings import _CONFIG, Settings, load
from waitbus.ulid import ulid_at

Say = Callable[..., tuple[int, str, str]]
DAY_NS = 86_400 * 10**9


@pytest.fixture
def say(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a verb in this process: exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def fill(count: int, **more: Any) -> None:
    emit_many([EventInsert(source="s", event_type="t", run_id=number, **more) for number in range(count)])


def old_store(settings: Settings) -> None:
    """A store as 0.2.0 leaves it, as far as it is read."""
    os.makedirs(settings.state_dir, mode=0o700)
    with sqlite3.connect(os.path.join(settings.state_dir, "github.db")) as conn:
        conn.execute(
            "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, delivery_id TEXT NOT NULL UNIQUE, source TEXT,"
            " event_type TEXT, owner TEXT, repo TEXT, received_at INTEGER, payload_json TEXT, ingest_method TEXT,"
            " event_id TEXT)"
        )
        for number in (1, 2):
            row = (f"d{number}", "github", "workflow_run", "o", "r", number, "{}", "webhook", ulid_at(number * 10**9))
            conn.execute(
                "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, payload_json,"
                f" ingest_method, event_id) VALUES ({', '.join('?' * len(row))})",
                row,
            )
    conn.close()


class TestInit:
    def test_a_dry_run_makes_nothing(self, say: Say, bus_dir: Path) -> None:
        code, out, err = say("init", "--dry-run")
        assert (code, err) == (0, "")
        assert [line.split()[:2] for line in out.splitlines()] == [
            [what, "would"] for what in ("state", "runtime", "store", "config")
        ]
        assert list(bus_dir.iterdir()) == []

    def test_all_is_made_for_us_alone_and_again_changes_nothing(self, say: Say, settings: Settings) -> None:
        code, out, err = say("init")
        assert (code, err) == (0, "")
        assert out.count(" made ") == 4
        assert "waitbus demo" in out
        for path in (settings.state_dir, settings.runtime_dir, settings.db_path, settings.config_path):
            assert stat.S_IMODE(os.lstat(path).st_mode) & 0o077 == 0
        config = Path(settings.config_path)
        config.write_text("[client]\nautostart = false\n")
        found = json.loads(say("init", "--json")[1])
        assert {what["state"] for what in found.values() if what} == {"there"}
        assert found["import"] is None
        assert config.read_text() == "[client]\nautostart = false\n"

    def test_the_config_it_writes_changes_nothing(self, say: Say, settings: Settings) -> None:
        say("init")
        assert values_of(load()) == values_of(settings)

    def test_the_config_it_writes_names_every_setting_at_its_default(self, settings: Settings) -> None:
        lines = CONFIG.splitlines()
        live = [line.removeprefix("# ") for line in lines if " = " in line and line.startswith("# ")]
        sections = [line for line in lines if line.startswith("[")]
        assert sections == [f"[{name}]" for name in _CONFIG]
        assert [line.partition(" = ")[0] for line in live] == [key for table in _CONFIG.values() for key in table]
        text = "\n".join([line.removeprefix("# ") if " = " in line else line for line in lines])
        Path(settings.config_path).write_text(text)
        assert values_of(load()) == values_of(settings)

    def test_the_events_of_0_2_0_are_taken_over_once(self, say: Say, settings: Settings) -> None:
        old_store(settings)
        code, _, err = say("init")
        assert code == 0
        assert err.startswith("waitbus: 2 events taken over from ")
        assert say("init")[2] == ""
        ids = [json.loads(line)["event_id"] for line in say("replay", "--json")[1].splitlines()]
        assert ids == [ulid_at(10**9), ulid_at(2 * 10**9)]

    def test_a_place_that_is_not_ours_alone_is_refused_by_name(self, say: Say, settings: Settings) -> None:
        os.mkdir(settings.state_dir)
        os.chmod(settings.state_dir, 0o777)
        code, out, err = say("init")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"chmod 700 {settings.state_dir}" in err

    def test_a_file_in_the_way_of_the_config_is_told(
        self, say: Say, bus_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (bus_dir / "file").write_text("")
        monkeypatch.setenv("WAITBUS_CONFIG", str(bus_dir / "file" / "config.toml"))
        code, _, err = say("init")
        assert (code, err.count("\n")) == (2, 1)
        assert "everything works without it" in err


def values_of(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__slots__}


class TestServe:
    def test_it_runs_to_ctrl_c(self, unstarted_hub: HubProcess) -> None:
        assert unstarted_hub.start().stop(signal.SIGINT) == 0
        assert unstarted_hub.stderr == ""

    def test_it_leaves_when_nobody_comes(self, unstarted_hub: HubProcess) -> None:
        unstarted_hub.start("--idle-exit", "1ms")
        assert unstarted_hub.process is not None
        assert unstarted_hub.process.wait(PATIENCE) == 0

    def test_a_second_one_is_refused_in_a_line(self, hub: HubProcess, cli: Cli) -> None:
        done = cli("serve")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert f"pid {hub.pid}" in done.stderr

    def test_a_duration_that_is_none(self, say: Say) -> None:
        assert say("serve", "hub", "--idle-exit", "soon")[0] == 2


class TestStatus:
    def state(self, say: Say) -> tuple[int, dict[str, Any]]:
        code, out, err = say("status", "--json")
        assert err == ""
        return code, json.loads(out)

    def test_a_hub_that_is_well(self, hub: HubProcess, say: Say, settings: Settings) -> None:
        emit(EventInsert(source="s", event_type="t", summary="hello"))
        code, found = self.state(say)
        assert (code, found["healthy"], found["problems"]) == (0, True, [])
        assert found["hub"].items() >= {"running": True, "pid": hub.pid, "socket": settings.broadcast_socket}.items()
        assert found["hub"]["uptime_sec"] >= 0
        assert (found["store"]["events"], found["store"]["last_event"]["summary"]) == (1, "hello")
        assert found["store"]["bytes"] > 0
        code, out, _ = say("status")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == ["hub", "socket", "store", "last"]
        assert f"up, pid {hub.pid}, for " in out
        assert "ago: hello" in out

    def test_no_hub_is_not_well_and_none_is_started(self, say: Say, settings: Settings) -> None:
        code, found = self.state(say)
        assert (code, found["healthy"], found["hub"]["running"]) == (1, False, False)
        assert found["store"] == {"path": settings.db_path, "bytes": 0, "events": 0, "last_event": None}
        assert not os.path.exists(settings.state_dir)
        code, out, _ = say("status")
        assert code == 1
        assert "no hub runs" in out
        assert "no events yet" in out

    def test_a_socket_that_nobody_answers_on(
        self, say: Say, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("waitbus.client.probe.ANSWER_SEC", 0.05)
        os.makedirs(settings.runtime_dir, mode=0o700)
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(settings.broadcast_socket)
            os.chmod(settings.broadcast_socket, 0o600)
            mute.listen()
            code, found = self.state(say)
        assert code == 1
        assert "is it stopped?" in found["hub"]["problem"]

    @pytest.mark.parametrize(
        ("frames", "running", "problem"),
        [
            ([{"kind": "subscribe_ack", "proto": 1}], True, None),  # 0.2.0's daemon says no more
            ([{"kind": "subscribe_rejected", "reason": "version"}], False, "ended the connection"),
            ([], False, "ended the connection"),
            (["no frame"], False, "gave no answer"),
        ],
    )
    def test_another_daemon(
        self, frames: list[Any], running: bool, problem: str | None, say: Say, settings: Settings
    ) -> None:
        os.makedirs(settings.runtime_dir, mode=0o700)
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.bind(settings.broadcast_socket)
            os.chmod(settings.broadcast_socket, 0o600)
            daemon.listen()

            def answer() -> None:
                peer, _ = daemon.accept()
                with peer:
                    peer.recv(65536)
                    for frame in frames:
                        body = json.dumps(frame).encode()
                        peer.sendall(len(body).to_bytes(4, "big") + body)

            other = threading.Thread(target=answer)
            other.start()
            code, found = self.state(say)
            other.join(PATIENCE)
        assert code == (0 if running else 1)
        assert (found["hub"]["running"], found["hub"]["uptime_sec"]) == (running, None)
        assert (problem or "") in found["hub"].get("problem", "")

    def test_a_socket_open_to_others_is_named(self, hub: HubProcess, say: Say, settings: Settings) -> None:
        os.chmod(settings.broadcast_socket, 0o666)
        code, found = self.state(say)
        assert code == 1
        assert "chmod 600" in found["problems"][0]

    def test_a_store_that_is_none(self, say: Say, settings: Settings) -> None:
        os.mkdir(settings.state_dir, mode=0o700)
        Path(settings.db_path).write_text("this is no database, and long enough to be looked at as one" * 100)
        os.chmod(settings.db_path, 0o600)
        code, found = self.state(say)
        assert code == 1
        assert settings.db_path in found["store"]["problem"]
        assert "damaged or not an SQLite database" in say("status")[1]


class TestStats:
    def test_by_source_and_type(self, say: Say, settings: Settings) -> None:
        fill(3)
        emit(EventInsert(source="old", event_type="t", received_at=1))
        found = json.loads(say("stats", "--json")[1])
        assert (found["events"], found["last_hour"], found["last_day"]) == (4, 3, 3)
        assert [(one["source"], one["events"], one["last_hour"]) for one in found["types"]] == [
            ("s", 3, 3),
            ("old", 1, 0),
        ]
        assert found["store"]["path"] == settings.db_path
        head, *rows, _, size = say("stats")[1].splitlines()
        assert head.split() == ["source", "type", "events", "last", "hour", "last", "day", "newest"]
        assert [row.split()[:4] for row in rows] == [
            ["s", "t", "3", "3"],
            ["old", "t", "1", "0"],
            ["all", "4", "3", "3"],
        ]
        assert size.startswith(f"{settings.db_path}: ")

    def test_no_store_yet(self, say: Say) -> None:
        assert say("stats")[0] == 2


class TestPrune:
    def rows(self, say: Say) -> list[int]:
        return [
            json.loads(line)["run_id"]
            for line in say("events", "SELECT run_id FROM events ORDER BY seq", "--json")[1].splitlines()
        ]

    def test_a_dry_run_deletes_nothing(self, say: Say) -> None:
        fill(10)
        code, out, err = say("prune", "--dry-run", "--max-rows", "4")
        assert (code, out.split()[:3]) == (0, ["6", "of", "10"])
        assert "nothing was deleted" in err
        assert len(self.rows(say)) == 10

    def test_by_count_the_oldest_go(self, say: Say) -> None:
        fill(10)
        code, out, err = say("prune", "--max-rows", "4")
        assert (code, err) == (0, "")
        assert out.startswith("6 of 10 events deleted; ")
        assert self.rows(say) == [6, 7, 8, 9]

    def test_by_age(self, say: Say) -> None:
        fill(5, received_at=10**18)
        fill(2)
        found = json.loads(say("prune", "--max-age", "1d", "--json")[1])
        assert (found["rows_before"], found["deleted"], found["dry_run"]) == (7, 5, False)
        assert self.rows(say) == [0, 1]

    def test_by_size_and_the_space_is_given_back(self, say: Say) -> None:
        fill(300, payload_json=json.dumps("x" * 10_000))
        found = json.loads(say("prune", "--max-size", "1MB", "--vacuum", "--json")[1])
        assert found["bytes_before"] > 3_000_000
        assert found["bytes_after"] <= 1_000_000
        assert 190 <= found["deleted"] < 260

    def test_without_flags_the_configured_limits(self, say: Say, settings: Settings) -> None:
        fill(5)
        assert json.loads(say("prune", "--json")[1])["deleted"] == 0
        Path(settings.config_path).write_text("[store]\nmax_rows = 2\n")
        assert json.loads(say("prune", "--json")[1])["deleted"] == 3
        Path(settings.config_path).write_text("[store]\nmax_rows = 1\nretention = false\n")
        assert json.loads(say("prune", "--json")[1])["deleted"] == 0
        assert json.loads(say("prune", "--max-rows", "1", "--json")[1])["deleted"] == 1

    def test_on_a_terminal_it_says_how_far_it_is(self, say: Say) -> None:
        fill(1200)
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "waitbus", "prune", "--max-rows", "100"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=PATIENCE)
        os.close(theirs)
        shown = os.read(ours, 65536)
        os.close(ours)
        assert (done.returncode, done.stdout[:8]) == (0, b"1,100 of")
        assert shown.startswith(b"\rdeleted ")
        assert shown.endswith(b"\rdeleted 1,100\r\x1b[K")

    def test_beside_a_hub(self, hub: HubProcess, say: Say) -> None:
        fill(1000)
        assert json.loads(say("prune", "--max-rows", "10", "--json")[1])["deleted"] == 990
        assert say("status")[0] == 0

    def test_no_store_is_not_made(self, say: Say, settings: Settings) -> None:
        assert say("prune")[0] == 2
        assert not os.path.exists(settings.db_path)
