"""`waitbus demo`, played for real, in every way it can go: each time nothing may be left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, ROOT

WITHOUT_PYTEST = "import sys; sys.modules['pytest'] = None; from waitbus.cli.main import main; sys.exit(main())"


class Theatre:
    """Plays demos in a temporary directory of its own."""

    def __init__(self, root: Path) -> None:
        self.temporary = root / "tmp"
        self.bin = root / "bin"
        self.temporary.mkdir()
        self.bin.mkdir()
        self.children: list[subprocess.Popen[str]] = []

    def start(self, *options: str, code: str = "", **environ: str) -> subprocess.Popen[str]:
        """A demo; with `code`, in an interpreter that runs that, and with no `python3` but the theatre's own."""
        env = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT / "src")}
        start = ["-c", code] if code else ["-m", "waitbus"]
        child = subprocess.Popen(
            [sys.executable, *start, "demo", *options],
            env=env | ({"PATH": str(self.bin)} if code else {}) | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(child)
        return child

    def play(self, *options: str, code: str = "", **environ: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one played to its end."""
        child = self.start(*options, code=code, **environ)
        out, err = child.communicate(timeout=PATIENCE)
        return child.returncode, out, err

    def python3(self, script: str) -> None:
        """Put a `python3` on the PATH; `$PYTHON` in it is this interpreter."""
        path = self.bin / "python3"
        path.write_text(f"#!/bin/sh\nPYTHON={sys.executable}\n{script}\n")
        path.chmod(0o700)

    def left_behind(self) -> list[str]:
        """Files, and on Linux processes, that a demo should have taken with it."""
        files = [str(path) for path in self.temporary.iterdir()]
        processes = [path for path in Path("/proc").glob("[0-9]*/environ") if str(self.temporary) in _read(path)]
        return files + [f"{path}: {_read(path.with_name('cmdline'))}" for path in processes]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # another's, or gone
        return ""


@pytest.fixture
def theatre(bus_dir: Path) -> Iterator[Theatre]:
    made = Theatre(bus_dir)
    yield made
    for child in made.children:
        if child.poll() is None:
            child.kill()
        child.communicate()
    assert made.left_behind() == []


def commands(told: dict[str, Any]) -> list[tuple[str, int]]:
    """Each command's program or verb, and its exit code."""
    every = [entry for step in told["steps"] for entry in step["commands"]]
    return [(entry["command"].removeprefix("waitbus ").split()[0], entry["exit_code"]) for entry in every]


def test_a_person_sees_commands_and_what_came_of_them(theatre: Theatre) -> None:
    code, out, err = theatre.play(WAITBUS_DB="/nowhere/else.db", PYTEST_ADDOPTS="--no-such-option", FORCE_COLOR="1")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    lines = out.splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) < 120
    assert """   $ waitbus wait --source pytest --match 'conclusion="failure"' --timeout 20s --print""" in lines
    assert "   $ pytest -q -p waitbus.pytest" in lines
    assert "     wait:  exit 0, woken" in out
    assert ", before pytest had ended" in out
    assert "test_shop.py::test_a_full_basket - assert 5 == 6" in out
    assert "     wait:  exit 124, timed out" in out
    assert "2 passed in" in out
    assert lines[-2].startswith("Every step did what it says, in ")


def test_a_program_gets_one_object(theatre: Theatre) -> None:
    code, out, err = theatre.play("--json")
    told = json.loads(out)
    assert (code, err, told["ok"], told["error"]) == (0, "", True, None)
    assert [step["name"] for step in told["steps"]] == ["wake", "timeout", "all-of"]
    assert commands(told) == [("wait", 0), ("pytest", 1), ("wait", 124), ("wait", 0), ("pytest", 0), ("emit", 0)]
    wake, _, both = told["steps"]
    assert wake["blocked"]
    assert wake["before_the_end"]
    assert wake["wake_ms"] > 0
    assert both["wake_ms"] > 0
    assert told["tests"] == f"pytest {pytest.__version__}"


def test_without_pytest_unittest_fails_under_run(theatre: Theatre) -> None:
    code, out, err = theatre.play("--json", code=WITHOUT_PYTEST)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["tests"] == "unittest"
    assert commands(told) == [("wait", 0), ("run", 1), ("wait", 124), ("wait", 0), ("run", 0), ("emit", 0)]
    assert "waitbus run --name tests -- python3 -m unittest" in out
    assert not told["steps"][0]["before_the_end"]


def test_the_absence_of_pytest_is_said(theatre: Theatre) -> None:
    theatre.python3("echo 6.2.5; exit 1")  # one that is too old
    code, out, _ = theatre.play(code=WITHOUT_PYTEST)
    assert code == 0
    assert "There is no pytest here" in out


def test_the_pytest_of_another_python_will_do(theatre: Theatre) -> None:
    theatre.python3('exec "$PYTHON" "$@"')
    code, out, err = theatre.play("--json", code=WITHOUT_PYTEST)
    assert (code, err) == (0, "")
    assert json.loads(out)["tests"] == f"pytest {pytest.__version__}"


def test_a_step_that_goes_wrong_ends_it(theatre: Theatre) -> None:
    theatre.python3('"$PYTHON" "$@" && exit 0; echo it broke; exit 7')
    code, out, err = theatre.play(code=WITHOUT_PYTEST)
    assert code == 1
    assert "pytest -q -p waitbus.pytest` ended with exit code 7 instead of 1: it broke" in err
    assert "2. " not in out
    code, out, _ = theatre.play("--json", code=WITHOUT_PYTEST)
    told = json.loads(out)
    assert (code, told["ok"]) == (1, False)
    assert "exit code 7" in told["error"]


def test_a_wait_that_does_not_wake_ends_it(theatre: Theatre) -> None:
    theatre.python3('case "$*" in *pytest*waitbus*) echo no plugin; exit 1;; esac; exec "$PYTHON" "$@"')
    code, _, err = theatre.play(code=WITHOUT_PYTEST)
    assert code == 1
    assert err == "waitbus: the demo went wrong: the wait did not wake; the command it waits for said: no plugin\n"


def test_no_room_for_a_directory_is_one_line(theatre: Theatre) -> None:
    code = f"import tempfile; tempfile.tempdir = '/dev/null'; {WITHOUT_PYTEST}"
    exit_code, out, err = theatre.play(code=code)
    assert (exit_code, out) == (1, "")
    assert err.startswith("waitbus: the demo went wrong: /dev/null")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "exit_code", "lines"),
    [
        (signal.SIGINT, 130, 1),
        (signal.SIGINT, 130, 5),
        (signal.SIGINT, 130, 9),
        (signal.SIGTERM, 143, 9),
        (signal.SIGHUP, 129, 5),
    ],
    ids=str,
)
def test_an_interrupt_takes_everything_along(theatre: Theatre, number: int, exit_code: int, lines: int) -> None:
    child = theatre.start()
    assert child.stdout is not None
    for _ in range(lines):
        child.stdout.readline()
    child.send_signal(number)
    _, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (exit_code, "")


def test_a_reader_that_leaves_is_no_error(theatre: Theatre) -> None:
    child = theatre.start()
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(PATIENCE) == 0
    assert child.stderr.read() == ""
