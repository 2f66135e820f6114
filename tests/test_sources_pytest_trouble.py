"""What goes wrong around a pytest run: the truth is told all the same, and the run does not suffer from it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pytest_runs import ENTRY_POINT, FAIL, ON, PASS, Project
from waitbus.settings import Settings
from waitbus.sources.pytest_session import FIRST_WAIT_S, LAST_WAIT_S
from waitbus.sources.pytest_tally import MAX_NODEIDS
from waitbus.store.open import open_writer


def conftest_of(hook: str, body: str = "raise RuntimeError('boom')", marks: str = "") -> dict[str, str]:
    return {"conftest.py": f"import os, signal, pytest\n{marks}\ndef {hook}:\n    {body}\n"}


# --- hooks that raise ---

# The process ends with the same status as is told: that is asked of every run in this section.
HOOKS = {
    "failure": [
        "pytest_configure(config)",
        "pytest_sessionstart(session)",
        "pytest_report_header(config)",
        "pytest_collection(session)",
        "pytest_make_collect_report(collector)",
        "pytest_collectreport(report)",
        "pytest_collection_modifyitems(items)",
        "pytest_runtestloop(session)",
        "pytest_runtest_protocol(item)",
        "pytest_runtest_makereport(item)",
        "pytest_runtest_logreport(report)",
        "pytest_runtest_logfinish(nodeid)",
        "pytest_report_teststatus(report)",
        "pytest_sessionfinish(session)",
        "pytest_terminal_summary()",
        "pytest_unconfigure(config)",
    ],
    "startup_failure": ["pytest_plugin_registered(plugin)", "pytest_addoption(parser)", "pytest_cmdline_main(config)"],
}


@pytest.mark.parametrize(
    ("hook", "conclusion"), [(hook, conclusion) for conclusion, hooks in HOOKS.items() for hook in hooks]
)
def test_the_end_is_told_whatever_hook_raises(project: Project, hook: str, conclusion: str) -> None:
    code, output = project.run(*ON, files=conftest_of(hook) | {"test_a.py": PASS})
    assert code != 0, output
    (end,) = project.events()
    assert (end["fields"]["status"], end["fields"]["conclusion"]) == ("completed", conclusion), output
    assert end["fields"]["exit_status"] == code
    assert end["summary"].endswith("RuntimeError: boom")


@pytest.mark.parametrize("hook", ["pytest_configure(config)", "pytest_sessionfinish(session)", "pytest_unconfigure()"])
def test_the_end_is_told_when_the_outermost_hook_raises(project: Project, hook: str) -> None:
    last = "hookwrapper=True, " if "configure(config)" not in hook else ""
    body = "yield; raise RuntimeError('boom')" if last else "raise RuntimeError('boom')"
    marks = f"@pytest.hookimpl({last}tryfirst=True)"
    code, output = project.run(*ON, files=conftest_of(hook, body, marks) | {"test_a.py": PASS})
    assert [(f["conclusion"], f["exit_status"]) for f in project.fields()] == [("failure", code)], output


@pytest.mark.parametrize(
    ("body", "conclusions"),
    [
        # before a test ran, after one
        ("raise SystemExit(3)", ("failure", "failure")),
        ("raise KeyboardInterrupt", ("cancelled", "cancelled")),
        ("os.kill(os.getpid(), signal.SIGINT)", ("cancelled", "cancelled")),
        ("pytest.exit('enough', returncode=7)", ("failure", "failure")),
        ("raise pytest.UsageError('bad')", ("startup_failure", "failure")),
    ],
)
def test_the_end_is_told_whatever_pytest_is_left_by(project: Project, body: str, conclusions: tuple[str, str]) -> None:
    before = ("pytest_configure(config)", "pytest_collection_modifyitems(items)")
    after = ("pytest_sessionfinish(session)", "pytest_unconfigure()")
    for hooks, conclusion in zip((before, after), conclusions, strict=True):
        for hook in hooks:
            code, output = project.run(*ON, files=conftest_of(hook, body) | {"test_a.py": PASS})
            end = project.fields()[-1]
            assert (end["status"], end["conclusion"]) == ("completed", conclusion), (hook, output)
            assert end["exit_status"] == (130 if code == -2 else code), hook
    assert len(project.events()) == len(before) + len(after)


def test_a_hook_that_raises_about_an_error_leaves_a_failure(project: Project) -> None:
    about_error = conftest_of("pytest_internalerror(excrepr)")["conftest.py"]
    project.run(*ON, files={"conftest.py": about_error + "def pytest_runtest_protocol(): 1 / 0\n", "test_a.py": PASS})
    interrupt = {"test_a.py": "def test_a(): raise KeyboardInterrupt\n"}
    project.run(*ON, files=conftest_of("pytest_keyboard_interrupt(excinfo)") | interrupt)
    assert [(f["conclusion"], f["exit_status"]) for f in project.fields()] == [("failure", 1)] * 2


def test_a_process_that_is_ended_at_its_end_has_told_its_failure(project: Project) -> None:
    """As people do who cannot get rid of a thread. Success is not told: something might still have gone wrong."""
    project.run(*ON, files=conftest_of("pytest_unconfigure()", "os._exit(1)") | {"test_a.py": FAIL})
    assert [f["status"] for f in project.fields()] == ["in_progress", "completed"]
    project.run(*ON, files={"test_a.py": PASS})
    assert len(project.events()) == 2


def test_a_plugin_may_set_a_status_that_is_not_a_number(project: Project) -> None:
    files = conftest_of("pytest_sessionfinish(session)", "session.exitstatus = 'no'") | {"test_a.py": PASS}
    assert project.run(*ON, files=files)[0] == 1
    assert [(f["conclusion"], f["exit_status"]) for f in project.fields()] == [("failure", 1)]


# --- runs of no test ---


@pytest.mark.parametrize(
    "mode",
    [
        "--cache-show",
        "--fixtures",
        "--fixtures-per-test",
        "--markers",
        "--help",
        "-VV",
        "--collect-only",
        "--setup-plan",
    ],
)
def test_a_run_of_no_test_says_nothing(project: Project, mode: str) -> None:
    """Neither where all is well, nor with a test file or a conftest that is broken."""
    for files in ({"test_a.py": FAIL, "test_b.py": "1 / 0\n"}, {"conftest.py": "1 / 0\n"}):
        project.run(*ON, mode, files=files)
    assert not project.events()


def test_what_never_enters_the_loop_of_tests_says_nothing(project: Project) -> None:
    """A mode that a plugin adds: it has a session and a status, even a bad one, and runs no test."""
    mode = """
from _pytest.main import wrap_session
def pytest_addoption(parser): parser.addoption("--dead-fixtures", action="store_true")
def pytest_cmdline_main(config):
    if config.option.dead_fixtures: return wrap_session(config, look)
def look(config, session):
    session.perform_collect()
    return 11
"""
    assert project.run(*ON, "--dead-fixtures", files={"conftest.py": mode, "test_a.py": FAIL})[0] == 11
    assert not project.events()


@pytest.mark.parametrize(
    ("hook", "body", "options"),
    [
        ("pytest_runtestloop(session)", "return True", ()),
        ("pytest_collection(session)", "pytest.exit('nothing to do', returncode=0)", ()),
        ("pytest_sessionfinish(session)", "session.exitstatus = 0", ("-k", "nothing")),
    ],
)
def test_where_no_test_ran_there_is_no_success(
    project: Project, hook: str, body: str, options: tuple[str, ...]
) -> None:
    assert project.run(*ON, *options, files=conftest_of(hook, body) | {"test_a.py": PASS})[0] == 0
    assert [f["conclusion"] for f in project.fields()] == ["neutral"]


# --- runs that never start ---


@pytest.mark.parametrize(
    ("options", "files", "reason"),
    [
        (("--no-such-flag",), {}, "UsageError: unrecognized arguments: --no-such-flag"),
        ((), {"pytest.ini": "[pytest]\naddopts = --no-such-flag\n"}, "unrecognized arguments: --no-such-flag"),
        ((), {"pytest.ini": "[pytest]\nrequired_plugins = no-such\n"}, "Missing required plugins: no-such"),
        ((), {"conftest.py": "1 / 0\n"}, "ZeroDivisionError: division by zero"),
        ((), {"conftest.py": "def (\n"}, "SyntaxError: invalid syntax"),
        ((), {"conftest.py": "pytest_plugins = ['no_such_plugin']\n"}, "No module named 'no_such_plugin'"),
        (("-p", "no_such_plugin"), {}, "No module named 'no_such_plugin'"),
        ((), {"conftest.py": "raise SystemExit(5)\n"}, "SystemExit: 5"),
    ],
)
def test_a_run_that_cannot_start_is_a_startup_failure(
    project: Project, options: tuple[str, ...], files: dict[str, str], reason: str
) -> None:
    code, output = project.run(*ON, *options, files=files | {"test_a.py": PASS})
    (end,) = project.events()
    assert (end["fields"]["status"], end["fields"]["conclusion"]) == ("completed", "startup_failure"), output
    assert end["fields"]["exit_status"] == code
    assert reason in end["summary"]


@pytest.mark.parametrize(
    ("options", "ini", "addopts", "plugins"),
    [
        (("--waitbus",), "", "", ""),
        ((), "waitbus = true", "", ""),
        ((), "", "--waitbus", ""),
        ((), "", "", "waitbus.pytest"),
    ],
    ids=["option", "ini", "addopts", "environment"],
)
def test_a_startup_failure_is_told_however_it_is_turned_on(
    project: Project, options: tuple[str, ...], ini: str, addopts: str, plugins: str
) -> None:
    files = ENTRY_POINT | {"pytest.ini": f"[pytest]\n{ini}\n"}
    asked = {"PYTEST_ADDOPTS": addopts, "PYTEST_PLUGINS": plugins}
    project.run("-p", "waitbus", *options, "--no-such-flag", files=files, autoload=False, **asked)
    assert [f["conclusion"] for f in project.fields()] == ["startup_failure"]


def test_a_startup_failure_of_a_run_that_is_not_turned_on_is_not_told(project: Project) -> None:
    project.run("-p", "waitbus", "--no-such-flag", files=ENTRY_POINT)
    assert not project.events()


def test_an_interrupt_while_pytest_starts_is_cancelled(project: Project) -> None:
    project.run(*ON, files={"conftest.py": "raise KeyboardInterrupt\n"})
    assert [(f["conclusion"], f["exit_status"]) for f in project.fields()] == [("cancelled", 130)]


# --- the store ---


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
def test_a_broken_store_is_one_line_and_not_a_failure(
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


def test_a_broken_store_is_one_line_without_a_terminal_reporter(project: Project, settings: Settings) -> None:
    os.makedirs(settings.state_dir, 0o700)
    _garbage(settings)
    code, output = project.run(*ON, "-p", "no:terminal", files={"test_a.py": FAIL})
    assert code == 1
    assert [line.partition(":")[0] for line in output.splitlines()] == ["waitbus could not be told"]


def test_a_switch_that_cannot_be_read_is_one_line_and_not_a_failure(project: Project) -> None:
    files = ENTRY_POINT | {"pytest.ini": "[pytest]\nwaitbus = maybe\n", "test_a.py": PASS}
    code, output = project.run("-p", "waitbus", files=files)
    assert code == 0, output
    assert "waitbus could not be told: invalid truth value 'maybe'" in output


def test_what_could_not_be_told_at_once_is_told_after_a_later_test(project: Project, settings: Settings) -> None:
    """The store is free again when the second test ends: by then the run has still much to do."""
    body = """
import sqlite3
def test_bad():
    global other
    other = sqlite3.connect({path!r}, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert 0
def test_frees(): other.close()
def test_sees():
    conn = sqlite3.connect({path!r})
    assert conn.execute("SELECT status FROM events").fetchall() == [("in_progress",)]
    conn.close()
"""
    open_writer(settings).close()
    again = "import waitbus.sources.pytest_session as session\nsession.AGAIN_S = 0\n"
    files = {"conftest.py": again, "test_a.py": body.format(path=settings.db_path)}
    _, output = project.run(*ON, files=files)
    assert "1 failed, 2 passed" in output
    assert [f["status"] for f in project.fields()] == ["in_progress", "completed"]


def test_the_page_names_the_bounds_that_hold() -> None:
    page = (ROOT / "docs" / "sources" / "pytest.md").read_text()
    first, last = round(FIRST_WAIT_S * 1000), round(LAST_WAIT_S * 1000)
    assert f"{first + last} ms: {first} at the first failure, {last} at the end" in page
    assert f"the first {MAX_NODEIDS} that failed" in page
    assert first + last <= 300


def test_nothing_is_started_for_it(project: Project, settings: Settings) -> None:
    project.run(*ON, files={"test_a.py": FAIL}, WAITBUS_AUTOSTART="1")
    assert len(project.events()) == 2
    assert not os.path.exists(settings.broadcast_socket)
    assert not os.path.exists(settings.hub_lock)
