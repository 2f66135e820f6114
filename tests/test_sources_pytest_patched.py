"""Tests that patch, fake, freeze or close: what is told of their run, and its time, are true all the same."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.pytest_runs import FAIL, ON, Project
from waitbus.settings import Settings
from waitbus.store.clock import real_ns
from waitbus.ulid import ulid_ms

PATCHES = {
    "clocks": """
        for name in ("time", "monotonic", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: 5.0)
            monkeypatch.setattr(time, name + "_ns", lambda: 5)
        monkeypatch.setattr(time, "sleep", no)""",
    "functions": """
        for name in ("open", "stat", "lstat", "mkdir", "urandom", "getuid", "geteuid"):
            monkeypatch.setattr(os, name, no)
        monkeypatch.setattr(builtins, "open", no)""",
    "process": """
        monkeypatch.setattr(os, "getpid", lambda: 42)
        monkeypatch.setattr(os, "fork", no)""",
    "outcomes": """
        for name in ("geteuid", "mkdir"):
            monkeypatch.setattr(os, name, lambda *args: pytest.fail("not from a test"))""",
    "network": """
        monkeypatch.setattr(socket, "socket", no)
        monkeypatch.setattr(_socket, "socket", lambda *args: pytest.fail("not from a test"))""",
    "database": """
        real = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(":memory:", isolation_level=None))""",
    "json": """
        monkeypatch.setattr(json, "dumps", no)
        monkeypatch.setattr(json.JSONEncoder, "encode", no)""",
    "modules": """
        for name in list(sys.modules):
            if name.startswith("waitbus"): monkeypatch.delitem(sys.modules, name)""",
    "environment": """
        os.environ.clear()
        os.environ.update(HOME="/nowhere", WAITBUS_STATE_DIR="/nowhere", WAITBUS_DB="/nowhere/x.db")""",
    "directory": """
        os.mkdir("gone"); os.chdir("gone"); os.rmdir(os.getcwd())""",
    "streams": """
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None""",
    "descriptors": """
        os.closerange(0, 100)""",
    "mocks": """
        from unittest.mock import MagicMock
        for name in ("open", "mkdir", "geteuid", "urandom"): monkeypatch.setattr(os, name, MagicMock())
        monkeypatch.setattr(time, "time_ns", MagicMock())""",
}


@pytest.mark.parametrize("patch", PATCHES)
def test_what_a_test_patches_is_not_in_the_way(project: Project, patch: str) -> None:
    body = f"""
import _socket, builtins, json, os, socket, sqlite3, sys, time, pytest
def no(*args, **options): raise OSError("not from a test")
class Test:
    def test_hostile(self, monkeypatch):{PATCHES[patch]}
        assert 0
"""
    with closing(sqlite3.connect(":memory:")) as clock:
        before = real_ns(clock)
        _, output = project.run(*ON, files={"test_a.py": body})
        after = real_ns(clock)
    assert [f["status"] for f in project.fields()] == ["in_progress", "completed"], output
    first, end = project.events()
    assert first["fields"]["failed"] == 1
    assert first["event_id"] < end["event_id"]
    for event in (first, end):
        assert before // 10**6 - 1 <= ulid_ms(event["event_id"]) <= after // 10**6 + 1
        assert before - 10**6 <= event["received_at"] <= after + 10**6


FREEZERS = {
    "time-machine": ("import time_machine", "time_machine.travel('1985-10-26 01:24:00Z', tick=False)"),
    "freezegun": ("import freezegun", "freezegun.freeze_time('1985-10-26 01:24:00')"),
}


@pytest.mark.parametrize("scope", ["function", "conftest"])
@pytest.mark.parametrize("freezer", FREEZERS)
def test_frozen_clocks_change_no_time_and_stop_no_wait(
    project: Project, settings: Settings, freezer: str, scope: str
) -> None:
    module, frozen = FREEZERS[freezer]
    fixture = f"""
import pytest
{module}
@pytest.fixture(autouse=True, scope="{scope}")
def frozen():
    with {frozen}: yield
"""
    files = {"conftest.py": f"{module}\n{frozen}.start()\n" if scope == "conftest" else fixture, "test_a.py": FAIL}
    with closing(sqlite3.connect(":memory:")) as clock:
        before = real_ns(clock)
        project.run(*ON, files=files)
        after = real_ns(clock)
    events = project.events()
    assert [event["fields"]["status"] for event in events] == ["in_progress", "completed"]
    for event in events:
        assert before // 10**6 - 1 <= ulid_ms(event["event_id"]) <= after // 10**6 + 1
        assert before - 10**6 <= event["received_at"] <= after + 10**6
        assert 0 <= event["fields"]["duration_s"] <= (after - before) / 10**9
    # The store is held for good: a wait that goes by a frozen clock would never end.
    with closing(sqlite3.connect(settings.db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, output = project.run(*ON)
    assert code == 1
    assert output.count("waitbus could not be told") == 1
    assert len(project.events()) == 2


def test_a_fork_that_runs_on_and_ends_says_nothing(project: Project) -> None:
    body = """
import os, sys
def test_raises():
    if not os.fork(): raise ValueError("in the child")
    os.wait()
def test_exits():
    if not os.fork(): sys.exit(3)
    os.wait()
"""
    project.run(*ON, files={"test_a.py": body})
    assert [(f["conclusion"], f["passed"]) for f in project.fields()] == [("success", 2)]


def test_warnings_as_errors_find_nothing_left_open(project: Project) -> None:
    project.write({"test_a.py": FAIL, "test_b.py": "import gc\ndef test_b(): gc.collect()\n"})
    child = project.spawn(*ON, "-W", "error", PYTHONDEVMODE="1")
    output = child.communicate()[0]
    assert child.returncode == 1, output
    assert "1 failed, 1 passed in" in output
    assert "Warning" not in output
