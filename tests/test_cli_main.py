"""The front door: what every verb shares. Help, errors of one line, old names, and how a verb ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import waitbus
from tests.conftest import PATIENCE, Cli
from waitbus.cli.main import VERBS, main
from waitbus.client.emit import emit_many
from waitbus.event import EventInsert
from waitbus.settings import Settings

SOURCE = str(Path(waitbus.__file__).parent.parent)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of a verb run in this process."""
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


class TestHelp:
    @pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
    def test_the_overview_names_every_verb_and_shows_examples(
        self, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, out, err = said(capsys, *words)
        assert (code, err) == (0, "")
        for verb, summary in VERBS.items():
            assert any(line.split() == [verb, *summary.split()] for line in out.splitlines()), verb
        assert out.partition("examples:\n")[2].count("\n  waitbus ") == 2
        assert len(out.splitlines()) < 40

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_says_what_it_does_with_examples(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = said(capsys, verb, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: waitbus {verb}")
        assert f"waitbus {verb}" in out.partition("xamples:\n")[2]
        assert said(capsys, "help", verb) == (0, out, "")

    def test_the_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert said(capsys, "--version") == (0, f"waitbus {waitbus.__version__}\n", "")
        assert said(capsys, "-V") == (0, f"waitbus {waitbus.__version__}\n", "")


class TestErrors:
    def test_an_unknown_verb_is_one_line_with_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = said(capsys, "replya", "1h")
        assert (code, out) == (2, "")
        assert err == "waitbus: there is no verb 'replya'; did you mean replay? see waitbus --help\n"

    def test_an_unknown_verb_like_no_other(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert said(capsys, "\x1b[31mzzz")[2] == "waitbus: there is no verb '[31mzzz'; see waitbus --help\n"

    @pytest.mark.parametrize(
        ("words", "hint"),
        [
            (("tail", "--sorce", "x"), "did you mean --source?"),
            (("tail", "--count"), "expected one argument"),
            (("tail", "--count", "0"), "write 1 or more"),
            (("tail", "--match", "conclusion=True"), "write conclusion=true"),
            (("replay", "--format", "xml"), "choose from"),
            (("serve", "hubb"), "choose from"),
            (("completion",), "required: shell"),
            (("prune", "--max-size", "big"), "write 1048576, 500MB or 1GiB"),
        ],
    )
    def test_a_usage_error_is_one_line_that_names_the_next_step(
        self, words: tuple[str, ...], hint: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, out, err = said(capsys, *words)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert hint in err
        assert err.startswith(f"waitbus {words[0]}: ")
        assert err.endswith(f"see waitbus {words[0]} --help\n")

    def test_flags_are_not_to_be_shortened(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert said(capsys, "replay", "--las", "1")[0] == 2

    def test_a_setting_that_cannot_be_read_is_one_line(
        self, settings: Settings, bus_dir: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (bus_dir / "config.toml").write_text("[hub]\nidle_exit = 'soon'\n")
        code, out, err = said(capsys, "status")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "idle_exit" in err


class TestOldNames:
    def test_names_of_0_2_0_are_known_and_hidden(self, capsys: pytest.CaptureFixture[str]) -> None:
        for words, verb in (
            (("broadcast", "serve"), "serve"),
            (("read-events", "list"), "replay"),
            (("read-events", "watch"), "tail"),
            (("db-prune",), "prune"),
            (("migrate",), "init"),
        ):
            code, out, _ = said(capsys, *words, "--help")
            assert code == 0
            assert out.startswith(f"usage: waitbus {verb}"), words
        overview = said(capsys)[1]
        assert "broadcast" not in overview
        assert "read-events" not in overview

    def test_half_a_name_says_the_other_half(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert (
            said(capsys, "read-events")[2] == "waitbus: waitbus read-events takes list or watch; see waitbus --help\n"
        )
        assert said(capsys, "broadcast", "x")[0] == 2

    def test_the_listener_is_not_here_yet(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = said(capsys, "listener", "serve")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1

    def test_db_prune_deletes_nothing_unless_told(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        for number in range(3):
            assert main(["emit", "--source", "a", "--event-type", "b", "--run-id", str(number)]) == 0
        capsys.readouterr()
        assert '"dry_run":true' in said(capsys, "db-prune", "--max-rows", "1", "--json")[1]
        assert '"deleted":2,"dry_run":false' in said(capsys, "db-prune", "--max-rows", "1", "--no-dry-run", "--json")[1]
        assert '"rows_before":1' in said(capsys, "db-prune", "--json")[1]

    def test_migrate_makes_the_store_and_no_config(
        self, settings: Settings, bus_dir: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert "would be made" in said(capsys, "migrate", "--status")[1]
        assert not Path(settings.db_path).exists()
        assert said(capsys, "migrate")[0] == 0
        assert Path(settings.db_path).exists()
        assert not (bus_dir / "config.toml").exists()


# Runs the command line as its entry point does, and raises `{error}` where the module {module} is first looked for.
MISHAP = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Mishap(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            {error}
sys.meta_path.insert(0, Mishap())
from waitbus.__main__ import main
sys.exit(main())
"""


def mishap(module: str, error: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    program = MISHAP.format(module=module, error=error)
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environ},
    )


class TestFaults:
    """Whatever goes wrong, no exit code of ours is taken for a verdict, and nothing is said in more than a line."""

    @pytest.mark.parametrize("verb", VERBS)
    def test_an_error_that_nobody_expected_is_70_in_every_verb(self, verb: str, settings: Settings) -> None:
        done = mishap(f"waitbus.cli.verbs.{verb.replace('-', '_')}", "raise KeyError('a\\x1b\\n' * 100)", verb, "x")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1)
        assert done.stderr.startswith("waitbus: unexpected error: KeyError: ")
        assert "please report it at https://" in done.stderr
        assert "\x1b" not in done.stderr

    @pytest.mark.parametrize(
        "error",
        [
            "def deeper(): deeper()\n            deeper()",
            "raise MemoryError",
            "raise OSError(5, 'Input/output error')",
            "raise ImportError('no such thing')",
            "raise AssertionError",
            "import asyncio; raise asyncio.CancelledError",
            "raise UnicodeEncodeError('ascii', 'x', 0, 1, 'no')",
        ],
    )
    # Before there is a verb, in the middle of one, and where an error of another kind is about to be told.
    @pytest.mark.parametrize("module", ["waitbus.cli.verbs.wait", "waitbus.client.wait", "waitbus.ui.output"])
    def test_of_every_kind_wherever_it_comes_from(self, module: str, error: str, settings: Settings) -> None:
        done = mishap(module, error, "wait", "--timeout", "0")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1), done.stderr

    @pytest.mark.parametrize(
        "error", ["OSError(24, 'Too many open files')", "OSError(23, 'Too many open files in system')"]
    )
    @pytest.mark.parametrize("module", ["waitbus.cli.verbs.wait", "waitbus.client.wait", "waitbus.ui.output"])
    def test_too_few_descriptors_are_the_readers_to_mend(self, module: str, error: str, settings: Settings) -> None:
        done = mishap(module, f"raise {error}", "wait", "--timeout", "0")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "ulimit -n" in done.stderr

    @pytest.mark.parametrize("module", ["waitbus.cli", "waitbus.cli.main", "waitbus.ui.streams", "waitbus.event"])
    def test_a_broken_installation_is_70(self, module: str, settings: Settings) -> None:
        done = mishap(module, "raise ModuleNotFoundError('No module named x')", "wait")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1)
        assert "install it again" in done.stderr

    def test_the_traceback_is_there_for_those_who_ask(self, settings: Settings) -> None:
        done = mishap("waitbus.cli.verbs.tail", "raise KeyError(1)", "tail", WAITBUS_DEBUG="1")
        assert done.returncode == 70
        assert done.stderr.startswith("Traceback (most recent call last):")
        assert done.stderr.splitlines()[-1].startswith("waitbus: unexpected error: KeyError: 1")

    @pytest.mark.parametrize(
        "module", ["waitbus.cli.main", "waitbus.event", "waitbus.ui.streams", "waitbus.cli.verbs.tail", "waitbus.wire"]
    )
    def test_ctrl_c_is_130_while_anything_is_loaded(self, module: str, settings: Settings) -> None:
        done = mishap(module, "os.kill(os.getpid(), signal.SIGINT)", "tail", "--timeout", "0")
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

    def test_ctrl_c_is_130_while_output_is_stuck(self, cli: Cli, settings: Settings) -> None:
        emit_many([EventInsert(source="a", event_type="b", fields={"x": "y" * 1000}) for _ in range(200)])
        reader, writer = os.pipe()
        child = subprocess.Popen([sys.executable, "-m", "waitbus", "replay", "--json"], stdout=writer)
        os.close(writer)
        with open(reader, "rb", buffering=0) as ours:
            assert ours.read(1) == b"{"
            child.send_signal(signal.SIGINT)
            assert child.wait(PATIENCE) == 130


class TestTheEnd:
    def test_without_a_standard_output_a_verb_still_does_its_work(self, cli: Cli) -> None:
        command = f"{sys.executable} -m waitbus emit --source a --event-type b >&-"
        done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, b"")
        assert cli("replay", "--json").stdout.count("\n") == 1

    def test_what_the_encoding_cannot_say_is_an_escape(self, cli: Cli) -> None:
        cli("emit", "--source", "a", "--event-type", "b", "--summary", "Größe ∞")
        done = cli("replay", PYTHONIOENCODING="ascii")
        assert done.stdout.rstrip().endswith("Gr\\xf6\\xdfe \\u221e")


def loaded_by(*words: str, **environ: str) -> set[str]:
    """The modules that a verb has loaded when it ends, in a process without site-packages."""
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from waitbus.cli.main import main\n"
        f"code = main({list(words)!r}); print(code, *sys.modules, file=sys.stderr)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env={**clean, **environ}, capture_output=True, text=True
    )
    code_word, *modules = done.stderr.splitlines()[-1].split()
    assert code_word in ("0", "124"), done.stderr
    return set(modules)


HEAVY = {"asyncio", "typing", "dataclasses", "pathlib", "subprocess", "logging", "tempfile", "shutil", "inspect", "ssl"}


class TestStartUp:
    def test_emit_loads_no_more_than_it_needs(self, settings: Settings) -> None:
        main(["init"])
        loaded = loaded_by("emit", "--source", "a", "--event-type", "b", "--field", "x=1")
        assert loaded & (HEAVY | {"locale", "hashlib", "tomllib"}) == set()
        assert "waitbus.predicate" not in loaded
        ours = {name.removeprefix("waitbus.") for name in loaded if name.startswith(("waitbus.cli.", "waitbus.ui."))}
        assert ours == {
            "cli.exitcodes",
            "cli.main",
            "cli.parser",
            "cli.verbs",
            "cli.verbs.emit",
            "ui.streams",
            "ui.strict_json",
        }

    @pytest.mark.parametrize("verb", ["tail", "wait"])
    def test_a_verb_that_waits_does_without_the_store(self, verb: str, hub: object, settings: Settings) -> None:
        # What argparse brings is Python's to say.
        floor = "import argparse, json, socket, sys; argparse.ArgumentParser().add_argument('x'); print(*sys.modules)"
        brought = subprocess.run([sys.executable, "-I", "-S", "-c", floor], capture_output=True, text=True, check=True)
        main(["emit", "--source", "a", "--event-type", "b"])
        more = ["--count", "1"] if verb == "tail" else []
        loaded = loaded_by(verb, "--since", "start", "--timeout", "60", *more) - set(brought.stdout.split())
        assert loaded & (HEAVY | {"sqlite3", "locale"}) == set()
