"""Starting a command: found, run and refused as `execvp` does it. The judge is env(1), which is `execvp` alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, HubProcess
from waitbus.client.emit import emit
from waitbus.event import EventInsert
from waitbus.host.process import CannotRun, exit_code, start

ENV = shutil.which("env") or "env"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with what a PATH may lead to."""
    files = {
        "bin/plain": ('echo "$0: $1 $#"\n', 0o755),  # no `#!`
        "bin/empty": ("", 0o755),
        "bin/real": ("#!/bin/sh\necho real $1\n", 0o755),
        "bin/orphan": ("#!/no/such/interpreter\n", 0o755),
        "bin/data": ("echo data\n", 0o644),
        "first/data": ("echo data\n", 0o644),
        "first/real": ("#!/bin/sh\necho first\n", 0o644),
        "first/plain/file": ("", 0o644),  # `plain` is a directory here
        "first/only/file": ("", 0o644),
        "here": ("echo here $1\n", 0o755),
    }
    for name, (text, mode) in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(command: str, word: str = "a b") -> tuple[int, bytes]:
    """Run a command with one word: its exit code, or what `CannotRun` says it should be, and its output."""
    reader, writer = os.pipe()
    with open(reader, "rb") as ours:
        try:
            actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
            pid = start([command, word], os.environb, actions=actions)
        except CannotRun as error:
            return error.code, b""
        finally:
            os.close(writer)
        output = ours.read()
    return exit_code(os.waitpid(pid, 0)[1]), output


PATHS = ["bin", "first:bin", "./bin", "nowhere:bin", "here:bin", "", ":bin", "bin:", "::", "/", "first"]
NAMES = ["plain", "empty", "real", "orphan", "data", "only", "here", "nothing", "x" * 300]
PLACES = [*[f"bin/{name}" for name in NAMES], "./here", "bin", "bin/", "./nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_what_path_leads_to_is_what_execvp_finds(path: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)
    for name in NAMES:
        judge = subprocess.run([ENV, name, "a b"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        code, output = ran(name)
        assert code == judge.returncode, name
        assert output.replace(b"./here", b"here") == judge.stdout.replace(b"./here", b"here"), name


def test_what_has_a_slash_is_what_execvp_runs(folder: Path) -> None:
    for place in PLACES:
        judge = subprocess.run([ENV, place, "a b"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert ran(place) == (judge.returncode, judge.stdout), place


def test_a_way_through_a_file_leads_nowhere(folder: Path) -> None:
    assert ran("here/on")[0] == 127  # as sh has it; env says 126


def test_without_a_path_the_systems_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    assert ran("echo") == (0, b"a b\n")
    assert ran("no-such-command")[0] == 127


def test_names_and_words_are_bytes(folder: Path) -> None:
    name = os.fsdecode(b"bin/\xff\xc3")
    (folder / name).write_text('printf %s "$1"\n')
    (folder / name).chmod(0o755)
    assert ran(f"./{name}", os.fsdecode(b"\xfe")) == (0, b"\xfe")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("bin/orphan", "the interpreter in its #! line does not exist"),
        ("bin/nothing", "there is no such command"),
        ("nothing", "there is no such command"),
        ("bin/data", "Permission denied"),
    ],
)
def test_the_reason_says_what_is_missing(command: str, reason: str, folder: Path) -> None:
    with pytest.raises(CannotRun, match=f"cannot run {command}: {reason}"):
        start([command], os.environb)


@pytest.mark.parametrize("words", [["run"], ["on", "--since", "start", "--timeout", "60"]])
def test_a_script_without_its_first_line_is_run_by_sh(
    words: list[str], folder: Path, hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit(EventInsert(source="a", event_type="b"))
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    command = [sys.executable, "-m", "waitbus", *words, "--", "plain", "x  y"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}/bin/plain: x  y 1\n", "")
