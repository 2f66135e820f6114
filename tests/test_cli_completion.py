"""Completion, asked as a person asks it: in a real bash, zsh and fish."""

from __future__ import annotations

import argparse
import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE
from waitbus.cli.main import VERBS
from waitbus.cli.parser import make_parser
from waitbus.cli.verbs.completion import SCRIPTS, flags_of


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed here")


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The script of the shell that the test's class is named after."""
    shell = request.cls.__name__.removeprefix("Test").lower()
    path = tmp_path / f"waitbus.{shell}"
    path.write_text(SCRIPTS[shell]() + "\n")
    return path


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_verb_and_flag_is_in_every_script(shell: str) -> None:
    text = SCRIPTS[shell]()
    for verb in VERBS:
        assert verb in text
        flags, _ = flags_of(verb)
        assert flags
        for flag in flags:
            for name in flag.names:
                assert (name if shell != "fish" else f" {name.lstrip('-')} ") in text, (verb, name)


def test_what_is_hidden_in_help_is_hidden_here() -> None:
    module = __import__("waitbus.cli.verbs.init", fromlist=["configure"])
    hidden = [action for action in make_parser("init", "x", module)._actions if action.help == argparse.SUPPRESS]
    assert [action.option_strings for action in hidden] == [["--store-only"]]
    assert all("--store-only" not in flag.names for flag in flags_of("init")[0])


def test_the_verb_prints_the_script() -> None:
    done = subprocess.run([sys.executable, "-m", "waitbus", "completion", "bash"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, SCRIPTS["bash"]() + "\n")


@needs("bash")
class TestBash:
    def complete(self, script: Path, *words: str) -> list[str]:
        code = (
            'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _waitbus; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-euc", code, "bash", str(script), *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    def test_verbs(self, script: Path) -> None:
        assert self.complete(script, "waitbus", "sta") == ["status", "stats"]
        assert set(VERBS) <= set(self.complete(script, "waitbus", ""))

    def test_flags_and_values(self, script: Path) -> None:
        assert self.complete(script, "waitbus", "tail", "--fo") == ["--format"]
        assert self.complete(script, "waitbus", "tail", "--format", "") == ["text", "json", "cloudevents"]
        assert self.complete(script, "waitbus", "tail", "--format", "=", "j") == ["json"]
        assert self.complete(script, "waitbus", "tail", "--source", "") == []  # the shell's own takes over
        assert "hub" in self.complete(script, "waitbus", "serve", "")

    def test_commands(self, script: Path) -> None:
        assert "bash" in self.complete(script, "waitbus", "run", "--name", "x", "--", "bas")
        assert self.complete(script, "waitbus", "run", "--", "ls", "--na") == []
        assert self.complete(script, "waitbus", "run", "--na") == ["--name"]


@needs("fish")
class TestFish:
    def complete(self, script: Path, line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"', "--", str(script), line],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "HOME": str(script.parent)},
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [found.partition("\t")[0] for found in done.stdout.splitlines()]

    def test_verbs(self, script: Path) -> None:
        assert self.complete(script, "waitbus sta") == ["stats", "status"]

    def test_flags_and_values(self, script: Path) -> None:
        assert self.complete(script, "waitbus tail --fo") == ["--format"]
        assert sorted(self.complete(script, "waitbus tail --format ")) == ["cloudevents", "json", "text"]
        assert self.complete(script, "waitbus serve ") == ["hub"]

    def test_commands(self, script: Path) -> None:
        assert "bash" in self.complete(script, "waitbus run --name x -- bas")


@needs("zsh")
class TestZsh:
    def complete(self, script: Path, line: str, wanted: str) -> bool:
        """Whether an interactive zsh runs `wanted` when `line`, a tab and return are typed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update({"TERM": "dumb", "HOME": str(script.parent), "ZDOTDIR": str(script.parent)})
            os.execvp("zsh", ["zsh", "-f", "-i"])
        try:
            setup = f"autoload -Uz compinit; compinit -D -u; source {script}; waitbus() {{ print -r R''AN: $@ }}\n"
            os.write(terminal, f"{setup}print REA''DY\n".encode())
            if not self.shown(terminal, "READY\r\n"):
                return False
            os.write(terminal, f"{line}\t\n".encode())
            return self.shown(terminal, f"RAN: {wanted}\r\n")
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)

    def shown(self, terminal: int, wanted: str) -> bool:
        seen = ""
        while wanted not in seen:
            if not select.select([terminal], [], [], PATIENCE)[0]:
                return False
            try:
                data = os.read(terminal, 4096)
            except OSError:
                return False
            seen += data.decode(errors="replace")
        return True

    @pytest.mark.parametrize(
        ("line", "wanted"),
        [
            ("waitbus comp", "completion"),
            ("waitbus tail --fo", "tail --format"),
            ("waitbus tail --format c", "tail --format cloudevents"),
            ("waitbus serve h", "serve hub"),
            ("waitbus run --no", "run --no-argv"),
            ("waitbus run --name x -- bashb", "run --name x -- bashbug"),
        ],
    )
    def test_a_tab(self, line: str, wanted: str, script: Path) -> None:
        assert self.complete(script, line, wanted)
