"""The pytest source against real pytest runs: what it says, when, and how it is turned on.

What goes wrong stands in test_sources_pytest_trouble.py and test_sources_pytest_patched.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.conftest import PATIENCE, HubProcess, Peer
from tests.pytest_runs import ENTRY_POINT, FAIL, ON, PASS, Project, last_line
from waitbus.sources.pytest_tally import (
    MAX_NODEIDS,
    as_exit_status,
    clean,
    conclusion_of,
    label_of,
    reason_of,
    reason_of_error,
)

# What else is installed here, and would take longer to load than the run.
NO_OTHERS = ("-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "no:timeout", "-p", "no:time_machine")
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
        "session_id": session,
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


EVERY_OUTCOME = {
    "test_a.py": """
import pytest, unittest
def test_good(): pass
def test_skipped(): pytest.skip()
@pytest.mark.xfail
def test_expected(): assert 0
@pytest.mark.xfail
def test_unexpected(): pass
@pytest.mark.xfail(strict=True)
def test_strict(): pass
@pytest.fixture
def broken(): raise OSError("no disk")
@pytest.fixture
def sticky():
    yield
    raise OSError("no way out")
def test_setup(broken): pass
def test_both(sticky): assert 0
def test_teardown(sticky): pass
def test_flaky(): assert 0
class TestCase(unittest.TestCase):
    def test_subs(self):
        for n in range(4):
            with self.subTest(n=n): assert n != 2
""",
    "test_skipped_file.py": "import pytest\npytest.skip(allow_module_level=True)\n",
    "test_unimportable.py": "import no_such_module\n",
    # What pytest-rerunfailures does: a category of its own.
    "conftest.py": """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if item.name == "test_flaky" and report.when == "call": report.outcome = "rerun"
def pytest_report_teststatus(report):
    if report.outcome == "rerun": return "rerun", "R", "RERUN"
""",
}


@pytest.mark.parametrize("terminal", [(), ("-p", "no:terminal")], ids=["terminal", "no-terminal"])
def test_every_outcome_counts_as_in_the_last_line_of_pytest(project: Project, terminal: tuple[str, ...]) -> None:
    code, output = project.run(*ON, *terminal, "--continue-on-collection-errors", files=EVERY_OUTCOME)
    first, end = project.fields()
    counts = {name: end[name] for name in ("failed", "passed", "skipped", "xfailed", "xpassed", "errors")}
    said = {"failed": 3, "passed": 3, "skipped": 2, "xfailed": 1, "xpassed": 1, "errors": 4}
    assert counts == said
    if not terminal:
        assert last_line(output) == said | {"rerun": 1}
    assert first["nodeids_failed"] == ["test_unimportable.py"]
    assert end["nodeids_failed"] == [
        "test_unimportable.py",
        *(f"test_a.py::{name}" for name in ("test_strict", "test_setup", "test_both", "test_teardown")),
        "test_a.py::TestCase::test_subs",
    ]
    assert code == end["exit_status"] == 1


@pytest.mark.skipif(not hasattr(pytest, "Subtests"), reason="this pytest has no sub-tests")
def test_passed_subtests_are_not_tests_of_their_own(project: Project) -> None:
    body = "def test_a(subtests):\n    for n in range(4):\n        with subtests.test(n=n): assert n != {}\n"
    _, output = project.run(*ON, files={"test_a.py": body.format(9)})
    assert project.fields()[-1]["passed"] == last_line(output)["passed"] == 1


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


def test_stopping_at_the_first_failure_tells_both(project: Project) -> None:
    _, output = project.run(*ON, "-x", files={"test_a.py": FAIL + PASS})
    first, end = project.fields()
    assert last_line(output) == {"failed": 1}
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


def test_with_xdist_the_controller_speaks_also_of_a_worker_that_died(project: Project) -> None:
    pytest.importorskip("xdist")
    files = {
        "test_a.py": PASS + FAIL,
        "test_b.py": PASS + "import os\ndef test_dies(): os._exit(1)\n",
        "test_c.py": "import no_such_module\n",
    }
    code, output = project.run(*ON, "-p", "xdist", "-n2", files=files)
    assert code == 1, output
    first, end = project.fields()
    assert first["status"] == "in_progress"
    assert (end["passed"], end["failed"], end["errors"], end["exit_status"]) == (2, 2, 1, 1)
    assert last_line(output) == {"passed": 2, "failed": 2, "errors": 1}
    assert sorted(end["nodeids_failed"]) == ["test_a.py::test_bad", "test_b.py::test_dies", "test_c.py"]


def test_a_fork_that_runs_on_says_nothing(project: Project) -> None:
    body = "import os\ndef test_fork():\n    child = os.fork()\n    if child: os.waitpid(child, 0)\n"
    project.run(*ON, files={"test_a.py": body + FAIL})
    assert [f["status"] for f in project.fields()] == ["in_progress", "completed"]


# --- how it is turned on ---


@pytest.mark.parametrize("options", [(*ON, "--waitbus"), ("--waitbus",)], ids=["plugin-too", "option"])
def test_an_installed_plugin_is_loaded_once(project: Project, options: tuple[str, ...]) -> None:
    files = ENTRY_POINT | {"test_a.py": FAIL, "pytest.ini": STRICT_ON}
    code, output = project.run(*NO_OTHERS, *options, files=files, autoload=True)
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
    assert ours == {"waitbus", "waitbus.sources", "waitbus.sources.pytest_plugin", "waitbus.sources.pytest_options"}
"""
    code, output = project.run("-p", "waitbus", files=ENTRY_POINT | {"test_a.py": body})
    assert code == 0, output
    assert not project.events()


@pytest.mark.parametrize(
    ("options", "autoload"),
    [(("-p", "no:waitbus"), True), (("-p", "waitbus", "-p", "no:waitbus"), True), ((*ON, "-p", "no:waitbus"), False)],
    ids=["alone", "after", "path-only"],
)
def test_a_blocked_plugin_says_nothing_and_is_no_error(
    project: Project, options: tuple[str, ...], autoload: bool
) -> None:
    """Whatever asks for it all the same, and however strict pytest is about what it does not know."""
    ini = "[pytest]\nwaitbus = true\naddopts = --strict-config\nfilterwarnings = error\n"
    files = (ENTRY_POINT if autoload else {}) | {"test_a.py": PASS, "pytest.ini": ini}
    code, output = project.run(*options, *NO_OTHERS, files=files, autoload=autoload, PYTEST_ADDOPTS="--waitbus")
    assert code == 0, output
    assert not project.events()


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


def test_of_a_wrong_option_what_is_wrong_is_said_and_not_the_usage() -> None:
    usage = "usage: pytest [options]\npytest: error: unrecognized arguments: --x\n  inifile: /pytest.ini"
    assert reason_of_error(pytest.UsageError(usage)) == "UsageError: unrecognized arguments: --x"
    assert reason_of_error(pytest.UsageError("file or directory not found: x")).endswith(
        ": file or directory not found: x"
    )
    assert reason_of_error(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_an_exit_status_is_read_as_the_system_would_read_it() -> None:
    assert [as_exit_status(code) for code in (3, None, "no", pytest.ExitCode.USAGE_ERROR)] == [3, 0, 1, 4]


@pytest.mark.parametrize(
    ("status", "conclusion", "without_tests"),
    [
        (0, "success", "neutral"),
        (1, "failure", "failure"),
        (2, "cancelled", "cancelled"),
        (3, "failure", "failure"),
        (4, "failure", "startup_failure"),
        (5, "neutral", "neutral"),
        (77, "failure", "failure"),
        (130, "cancelled", "cancelled"),
    ],
)
def test_a_status_that_nobody_knows_is_a_failure(status: int, conclusion: str, without_tests: str) -> None:
    assert conclusion_of(status, bad=False, ran=True) == conclusion
    assert conclusion_of(status, bad=False, ran=False) == without_tests
    assert conclusion_of(status, bad=True, ran=True) == "failure"
