"""The pytest source against real pytest runs in child processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import PATIENCE, ROOT, HubProcess, Peer
from waitbus.settings import Settings
from waitbus.sources.pytest_session import MAX_NODEIDS, Tally, clean, conclusion_of, label_of, reason_of
from waitbus.store.open import open_reader, open_writer
from waitbus.store.read import read_after

PASS = "def test_good(): pass\n"
FAIL = "def test_bad(): assert 1 == 2, 'one is not two'\n"
# What pytest sees of an installed waitbus, wherever the package itself comes from.
ENTRY_POINT = {
    "lib/waitbus_entry-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: waitbus-entry\nVersion: 0\n",
    "lib/waitbus_entry-0.dist-info/entry_points.txt": "[pytest11]\nwaitbus = waitbus.sources.pytest_plugin\n",
}


class Project:
    """A directory with tests, run by a pytest of its own that sees no plugin but the ones a test names."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.children: list[subprocess.Popen[str]] = []
        self.write({"pytest.ini": "[pytest]\n"})

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def spawn(self, *options: str, autoload: bool = False, **environ: str) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PY_"))}
        env["PYTHONPATH"] = f"{self.root / 'lib'}{os.pathsep}{ROOT / 'src'}"
        if not autoload:
            env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        child = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=self.root,
            env={**env, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.children.append(child)
        return child

    def run(
        self, *options: str, files: dict[str, str] | None = None, autoload: bool = False, **environ: str
    ) -> tuple[int, str]:
        """Exit code and everything printed."""
        self.write(files or {})
        child = self.spawn(*options, autoload=autoload, **environ)
        output = child.communicate(timeout=PATIENCE)[0]
        return child.returncode, output

    def events(self) -> list[dict[str, Any]]:
        """What the store holds, in order; nothing when there is no store."""
        if not os.path.exists(self.settings.db_path):
            return []
        reader = open_reader(self.settings)
        try:
            return [frame for _, frame in read_after(reader, 0, 1000)]
        finally:
            reader.close()

    def fields(self) -> list[dict[str, Any]]:
        return [event["fields"] for event in self.events()]


@pytest.fixture
def project(bus_dir: Path, settings: Settings) -> Iterator[Project]:
    made = Project(bus_dir / "shop", settings)
    yield made
    for child in made.children:
        if child.poll() is None:
            child.kill()
        child.communicate()


ON = ("-p", "waitbus.pytest")
STRICT_ON = "[pytest]\naddopts = --strict-config\nwaitbus = true\n"


# --- what a run says ---


def test_a_failing_run_tells_its_first_failure_and_its_end(project: Project) -> None:
    code, output = project.run(
        *ON, files={"test_a.py": PASS + FAIL + FAIL.replace("bad", "worse") + PASS.replace("good", "fine")}
    )
    assert code == 1, output
    assert "waitbus" not in output
    first, end = project.events()
    assert (first["owner"], first["repo"], first["event_type"]) == ("local", "shop", "pytest_session")
    session, moment = first["delivery_id"].split(":")
    assert moment == "first-failure"
    assert end["delivery_id"] == f"{session}:end"
    assert first["summary"] == "pytest shop: first failure: test_a.py::test_bad - AssertionError: one is not two"
    assert first["fields"] | {"duration_s": 0} == {
        "source": "pytest",
        "event_type": "pytest_session",
        "owner": "local",
        "repo": "shop",
        "ingest_method": "plugin",
        "status": "in_progress",
        "conclusion": "failure",
        "passed": 1,
        "failed": 1,
        "errors": 0,
        "skipped": 0,
        "xfailed": 0,
        "xpassed": 0,
        "duration_s": 0,
        "nodeids_failed": ["test_a.py::test_bad"],
        "exit_status": None,
        "rootdir": str(project.root),
    }
    assert end["fields"] == first["fields"] | {
        "status": "completed",
        "passed": 2,
        "failed": 2,
        "duration_s": end["fields"]["duration_s"],
        "nodeids_failed": ["test_a.py::test_bad", "test_a.py::test_worse"],
        "exit_status": 1,
    }
    assert end["fields"]["duration_s"] >= first["fields"]["duration_s"]
    assert end["summary"].startswith("pytest shop: 2 failed, 2 passed in ")


def test_every_outcome_counts_as_pytest_counts_it(project: Project) -> None:
    code, output = project.run(
        *ON,
        files={
            "test_a.py": """
import pytest
def test_good(): pass
def test_skipped(): pytest.skip()
@pytest.mark.xfail
def test_expected(): assert 0
@pytest.mark.xfail
def test_unexpected(): pass
@pytest.fixture
def broken(): raise OSError("no disk")
@pytest.fixture
def sticky():
    yield
    raise OSError("no way out")
def test_setup(broken): pass
def test_both(sticky): assert 0
""",
            "test_skipped_file.py": "import pytest\npytest.skip(allow_module_level=True)\n",
        },
    )
    assert "1 failed, 1 passed, 2 skipped, 1 xfailed, 1 xpassed, 2 errors in " in output
    first, end = project.fields()
    counts = ("failed", "passed", "skipped", "xfailed", "xpassed", "errors")
    assert [end[name] for name in counts] == [1, 1, 2, 1, 1, 2]
    assert first["nodeids_failed"] == ["test_a.py::test_setup"]
    assert end["nodeids_failed"] == ["test_a.py::test_setup", "test_a.py::test_both"]
    assert code == end["exit_status"] == 1


@pytest.mark.skipif(not hasattr(pytest, "Subtests"), reason="this pytest has no sub-tests")
def test_passed_subtests_are_no_tests_of_their_own(project: Project) -> None:
    body = "def test_a(subtests):\n    for n in range(4):\n        with subtests.test(n=n): assert n != {}\n"
    project.run(*ON, files={"test_a.py": body.format(9)})
    assert project.fields()[-1]["passed"] == 1


@pytest.mark.parametrize(
    ("body", "options", "code", "conclusion"),
    [
        (PASS, (), 0, "success"),
        (PASS, ("-k", "nothing"), 5, "neutral"),
        (PASS, ("no_such_file.py",), 4, "startup_failure"),
        ("import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGINT)\n", (), 2, "cancelled"),
        ("import pytest\ndef test_a(): pytest.exit('enough', returncode=7)\n", (), 7, "failure"),
    ],
    ids=["success", "none-collected", "usage", "interrupted", "exit-7"],
)
def test_a_run_without_a_failed_test_is_told_once(
    project: Project, body: str, options: tuple[str, ...], code: int, conclusion: str
) -> None:
    exit_code, output = project.run(*ON, *options, files={"test_a.py": body})
    assert exit_code == code, output
    (end,) = project.fields()
    assert (end["status"], end["conclusion"], end["exit_status"]) == ("completed", conclusion, code)
    assert end["nodeids_failed"] == []


def test_an_interrupt_after_a_failure_leaves_a_failure(project: Project) -> None:
    interrupt = "import os, signal\ndef test_z(): os.kill(os.getpid(), signal.SIGINT)\n"
    assert project.run(*ON, files={"test_a.py": FAIL, "test_b.py": interrupt})[0] == 2
    assert [(f["status"], f["conclusion"], f["exit_status"]) for f in project.fields()] == [
        ("in_progress", "failure", None),
        ("completed", "failure", 2),
    ]


def test_a_module_that_cannot_be_imported_is_an_error(project: Project) -> None:
    assert project.run(*ON, files={"test_a.py": "import no_such_module\n", "test_b.py": PASS})[0] == 2
    first, end = project.events()
    assert first["summary"].endswith("test_a.py - ModuleNotFoundError: No module named 'no_such_module'")
    assert [f["conclusion"] for f in project.fields()] == ["failure", "failure"]
    assert (end["fields"]["errors"], end["fields"]["passed"]) == (1, 0)
    assert end["fields"]["nodeids_failed"] == ["test_a.py"]


def test_an_internal_error_is_a_failure(project: Project) -> None:
    conftest = "def pytest_runtest_protocol(): raise RuntimeError('a broken plugin')\n"
    assert project.run(*ON, files={"conftest.py": conftest, "test_a.py": PASS})[0] == 3
    (end,) = project.fields()
    assert (end["conclusion"], end["exit_status"]) == ("failure", 3)


def test_stopping_at_the_first_failure_tells_both(project: Project) -> None:
    assert project.run(*ON, "-x", files={"test_a.py": FAIL + PASS})[0] == 1
    first, end = project.fields()
    assert (first["status"], end["status"]) == ("in_progress", "completed")
    assert (end["failed"], end["passed"]) == (1, 0)


def test_the_status_another_plugin_sets_counts(project: Project) -> None:
    conftest = "def pytest_sessionfinish(session): session.exitstatus = 9\n"
    assert project.run(*ON, files={"conftest.py": conftest, "test_a.py": PASS})[0] == 9
    assert [(f["conclusion"], f["exit_status"]) for f in project.fields()] == [("failure", 9)]


def test_many_failures_stay_one_small_event(project: Project) -> None:
    body = "import pytest\n@pytest.mark.parametrize('n', range(300))\ndef test_a(n): assert 0\n"
    project.run(*ON, "-q", "--tb=no", files={"test_a.py": body})
    end = project.fields()[-1]
    assert end["failed"] == 300
    assert len(end["nodeids_failed"]) == MAX_NODEIDS


# --- when it says it ---


def test_the_first_failure_is_heard_while_the_run_goes_on(
    project: Project, hub: HubProcess, peer: Callable[..., Peer]
) -> None:
    listener = peer({"proto": 1, "match": {"key": "fields.conclusion", "op": "eq", "value": "failure"}})
    os.mkfifo(project.root / "gate")
    project.write({"test_a.py": FAIL + "def test_waits():\n    with open('gate') as gate: gate.read()\n"})
    run = project.spawn(*ON)
    first = listener.event()
    assert run.poll() is None
    assert first["fields"]["status"] == "in_progress"
    (project.root / "gate").write_text("")
    end = listener.event()
    assert (end["fields"]["status"], end["fields"]["passed"]) == ("completed", 1)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == 1


def test_only_the_controller_of_xdist_speaks(project: Project) -> None:
    pytest.importorskip("xdist")
    files = {"test_a.py": PASS + FAIL, "test_b.py": PASS + FAIL, "test_c.py": "import no_such_module\n"}
    code, output = project.run(*ON, "-p", "xdist", "-n2", files=files)
    assert code == 1, output
    first, end = project.fields()
    assert first["status"] == "in_progress"
    assert (end["passed"], end["failed"], end["errors"], end["exit_status"]) == (2, 2, 1, 1)
    assert sorted(end["nodeids_failed"]) == ["test_a.py::test_bad", "test_b.py::test_bad", "test_c.py"]


def test_a_fork_that_runs_on_says_nothing(project: Project) -> None:
    body = "import os\ndef test_fork():\n    child = os.fork()\n    if child: os.waitpid(child, 0)\n"
    project.run(*ON, files={"test_a.py": body + FAIL})
    assert [f["status"] for f in project.fields()] == ["in_progress", "completed"]


# --- how it is turned on ---


@pytest.mark.parametrize("options", [(*ON, "--waitbus"), ("--waitbus",)], ids=["plugin-too", "option"])
def test_an_installed_plugin_is_loaded_once(project: Project, options: tuple[str, ...]) -> None:
    files = ENTRY_POINT | {"test_a.py": FAIL, "pytest.ini": STRICT_ON}
    code, output = project.run("-p", "no:xdist", *options, files=files, autoload=True)
    assert code == 1, output
    assert [f["status"] for f in project.fields()] == ["in_progress", "completed"]


@pytest.mark.parametrize(
    ("options", "ini", "entry_point"),
    [
        (("-p", "waitbus"), "waitbus = true", True),
        (("-p", "waitbus", *ON), "", True),
        ((*ON, "-p", "waitbus"), "", True),
        ((*ON, "--waitbus"), "waitbus = true", False),
    ],
    ids=["ini", "before", "after", "path-only"],
)
def test_it_is_turned_on_once(project: Project, options: tuple[str, ...], ini: str, entry_point: bool) -> None:
    files = {"test_a.py": PASS, "pytest.ini": f"[pytest]\naddopts = --strict-config\n{ini}\n"}
    code, output = project.run(*options, files=files | (ENTRY_POINT if entry_point else {}))
    assert code == 0, output
    assert [f["status"] for f in project.fields()] == ["completed"]


def test_a_conftest_may_turn_it_on(project: Project) -> None:
    files = {"conftest.py": "pytest_plugins = ['waitbus.pytest']\n", "test_a.py": PASS}
    assert project.run(files=files)[0] == 0
    assert project.run("-p", "waitbus", files=ENTRY_POINT)[0] == 0
    assert len(project.events()) == 2


def test_off_it_loads_nothing_and_says_nothing(project: Project) -> None:
    body = """
import sys
def test_loaded():
    ours = {name for name in sys.modules if name.partition(".")[0] == "waitbus"}
    assert ours == {"waitbus", "waitbus.sources", "waitbus.sources.pytest_plugin"}
"""
    code, output = project.run("-p", "waitbus", files=ENTRY_POINT | {"test_a.py": body})
    assert code == 0, output
    assert not project.events()


@pytest.mark.parametrize("blocked", [("-p", "waitbus", "-p", "no:waitbus"), (*ON, "-p", "no:waitbus")])
def test_a_blocked_plugin_says_nothing(project: Project, blocked: tuple[str, ...]) -> None:
    files = ENTRY_POINT | {"test_a.py": FAIL, "pytest.ini": "[pytest]\nwaitbus = true\n"}
    assert project.run(*blocked, files=files)[0] == 1
    assert not project.events()


@pytest.mark.parametrize("mode", ["--collect-only", "--fixtures", "--setup-plan"])
def test_a_run_of_no_test_says_nothing(project: Project, mode: str) -> None:
    project.run(*ON, mode, files={"test_a.py": FAIL})
    assert not project.events()


# --- what goes wrong ---


def _garbage(settings: Settings) -> str:
    Path(settings.db_path).write_bytes(b"this is no database" * 100)
    return "waitbus.db"


def _read_only(settings: Settings) -> str:
    """A file SQLite may not write, for root neither: its header asks for a later version to write it."""
    connection = sqlite3.connect(settings.db_path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with open(settings.db_path, "r+b") as file:
        file.seek(18)
        file.write(b"\3")
    return "waitbus.db"


def _open_to_all(settings: Settings) -> str:
    os.chmod(settings.state_dir, 0o777)
    return settings.state_dir


def _bad_config(settings: Settings) -> str:
    Path(settings.config_path).write_text("[store]\nno_such_key = 1\n")
    return "no_such_key"


@pytest.mark.parametrize("breaking", [_garbage, _read_only, _open_to_all, _bad_config])
def test_a_broken_store_is_one_line_and_no_failure(
    project: Project, settings: Settings, breaking: Callable[[Settings], str]
) -> None:
    os.makedirs(settings.state_dir, 0o700)
    named = breaking(settings)
    code, output = project.run(*ON, "-q", files={"test_a.py": PASS})
    assert code == 0, output
    added = [line for line in output.splitlines() if "waitbus could not be told" in line]
    assert len(added) == 1, output
    assert named in added[0]
    assert "1 passed in" in output
    assert "Traceback" not in output


def test_a_store_somebody_else_holds_is_left(project: Project, settings: Settings) -> None:
    open_writer(settings).close()
    other = sqlite3.connect(settings.db_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    code, output = project.run(*ON, files={"test_b.py": FAIL})
    other.close()
    assert code == 1
    assert output.count("waitbus could not be told") == 1
    assert not project.events()


def test_what_a_test_patches_is_not_in_the_way(project: Project) -> None:
    body = """
import builtins, os, socket, sqlite3, sys, time
def test_hostile(monkeypatch):
    def no(*args, **options): raise OSError("not from a test")
    for name in list(sys.modules):
        if name.startswith("waitbus"): monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("WAITBUS_STATE_DIR", "/nowhere")
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(sqlite3, "connect", no)
    monkeypatch.setattr(socket, "socket", no)
    monkeypatch.setattr(builtins, "open", no)
    monkeypatch.setattr(os, "open", no)
    assert 0
"""
    code, output = project.run(*ON, files={"test_a.py": body})
    assert code == 1
    assert "waitbus could not" not in output
    first, end = project.events()
    assert first["fields"]["failed"] == 1
    assert 0 < first["received_at"] <= end["received_at"]
    assert first["event_id"] < end["event_id"]


def test_warnings_as_errors_find_nothing_left_open(project: Project) -> None:
    project.write({"test_a.py": FAIL, "test_b.py": "import gc\ndef test_b(): gc.collect()\n"})
    code, output = project.run(*ON, "-W", "error", PYTHONDEVMODE="1")
    assert code == 1, output
    assert "1 failed, 1 passed in" in output
    assert "Warning" not in output


def test_nothing_is_started_for_it(project: Project, settings: Settings) -> None:
    project.run(*ON, files={"test_a.py": FAIL}, WAITBUS_AUTOSTART="1")
    assert len(project.events()) == 2
    assert not os.path.exists(settings.broadcast_socket)
    assert not os.path.exists(settings.hub_lock)


def test_a_terminal_that_is_turned_off_is_no_matter(project: Project, settings: Settings) -> None:
    os.makedirs(settings.state_dir, 0o700)
    _garbage(settings)
    assert project.run(*ON, "-p", "no:terminal", files={"test_a.py": FAIL}) == (1, "")


# --- the parts ---


@pytest.mark.parametrize(
    ("path", "label"),
    [("/home/me/my project", "my-project"), ("/", "local"), ("/x/ünï", "-n-"), ("/srv/a_b.c-d", "a_b.c-d")],
)
def test_the_label_can_be_named_in_a_filter(path: str, label: str) -> None:
    assert label_of(path) == label


def test_a_name_the_store_would_refuse_is_cleaned() -> None:
    assert clean("test_\udcff.py::test_a[\0\n]", 200) == "test_?.py::test_a[??]"
    assert clean("x" * 300, 200) == "x" * 199 + "…"


def test_the_reason_is_one_line_whatever_the_report() -> None:
    crash = SimpleNamespace(reprcrash=SimpleNamespace(message="\n ValueError: two\nlines"))
    assert reason_of(crash) == "ValueError: two"
    assert reason_of("E   a\nE   the last   word\n\n") == "the last word"
    assert reason_of(("file.py", 3, "Skipped")) == "('file.py', 3, 'Skipped')"
    assert reason_of(None) == ""


def test_a_rerun_is_no_outcome() -> None:
    tally = Tally()
    report: Any = SimpleNamespace(outcome="rerun", when="call", nodeid="a", longrepr="")
    assert not tally.count(report)
    assert tally.words() == "no tests ran"


def test_a_status_nobody_knows_is_a_failure() -> None:
    assert [conclusion_of(status, 0) for status in (0, 1, 2, 3, 4, 5, 77)] == [
        "success",
        "failure",
        "cancelled",
        "failure",
        "startup_failure",
        "neutral",
        "failure",
    ]
    assert {conclusion_of(status, 1) for status in range(6)} == {"failure"}
