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

    # What people have in their ~/.bashrc, sane or not.
    ODD = (
        "IFS=$'\\n'",
        "IFS=",
        "IFS=aeiost-=",
        "set -u",
        "set -e",
        "set -f",
        "set -eu -o pipefail; shopt -s inherit_errexit 2>/dev/null || true",
        "set -o posix",
        "shopt -s nullglob",
        "shopt -s failglob",
        "shopt -s nocasematch extglob",
        "LC_ALL=C; LANG=",
        "COMP_WORDBREAKS=' '",
        "alias local='echo no' complete='echo no' compgen='echo no' read='echo no' return='echo no'",
        "alias waitbus='waitbus'",
    )

    @pytest.mark.parametrize("setting", ODD)
    def test_nothing_of_the_shell_disturbs_it(self, setting: str, script: Path) -> None:
        for name in ("wait", "--format", "json", "*"):  # for a pattern to find
            (script.parent / name).touch()
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update({"TERM": "dumb", "PS1": "", "HISTFILE": "", "HOME": str(script.parent)})
            os.chdir(script.parent)
            os.execvp("bash", ["bash", "--norc", "-i"])
        try:
            setup = f"{setting}\nsource {script}\nwaitbus() {{ printf 'R''AN'; printf '<%s>' \"$@\"; echo; }}\n"
            os.write(terminal, f"bind 'set enable-bracketed-paste off'\n{setup}".encode())
            for line, wanted in (
                ("waitbus wa\t", "RAN<wait>"),
                ("waitbus tail --fo\t", "RAN<tail><--format>"),
                ("waitbus tail --format js\t", "RAN<tail><--format><json>"),
                ("waitbus tail --format=js\t", "RAN<tail><--format=json>"),
                ("waitbus serve h\t", "RAN<serve><hub>"),
                ("waitbus run -- printen\t", "RAN<run><--><printenv>"),
            ):
                os.write(terminal, f"{line}\n".encode())
                assert shown(terminal, f"{wanted}\r\n"), line
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)


def shown(terminal: int, wanted: str) -> bool:
    """Whether a terminal shows it before its program is silent for too long, or gone."""
    seen = ""
    while wanted not in seen:
        if not select.select([terminal], [], [], PATIENCE)[0]:
            return False
        try:
            seen += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            return False
    return True


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

    def test_nothing_of_the_shell_disturbs_it(self, script: Path) -> None:
        script.write_text(f"set -g IFS aeiost-; set -gx LC_ALL C\n{script.read_text()}")
        assert self.complete(script, "waitbus tail --fo") == ["--format"]


@needs("zsh")
class TestZsh:
    def complete(self, script: Path, line: str, wanted: str, setting: str = ":") -> bool:
        """Whether an interactive zsh runs `wanted` when `line`, a tab and return are typed."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update({"TERM": "dumb", "HOME": str(script.parent), "ZDOTDIR": str(script.parent)})
            os.execvp("zsh", ["zsh", "-f", "-i"])
        try:
            setup = f"{setting}; autoload -Uz compinit; compinit -D -u; source {script}\n"
            os.write(terminal, f"{setup}waitbus() {{ print -r R''AN: $@ }}; print REA''DY\n".encode())
            if not shown(terminal, "READY\r\n"):
                return False
            os.write(terminal, f"{line}\t\n".encode())
            return shown(terminal, f"RAN: {wanted}\r\n")
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)

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

    @pytest.mark.parametrize(
        "setting",
        [
            "IFS=aeiost-",
            "setopt ksharrays",
            "setopt nounset",
            "setopt shwordsplit shglob",
            "setopt noglob errexit",
            "LC_ALL=C",
        ],
    )
    def test_nothing_of_the_shell_disturbs_it(self, setting: str, script: Path) -> None:
        assert self.complete(script, "waitbus tail --format c", "tail --format cloudevents", setting)
