"""The standard streams in every state they can be in: no exit code changes, nothing is lost, no traceback is shown."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess, Peer
from waitbus.cli.main import VERBS, module_of
from waitbus.client.emit import emit, emit_many
from waitbus.event import EventInsert
from waitbus.settings import Settings

WAITBUS = [sys.executable, "-m", "waitbus"]
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
SHA = "0123456789abcdef"

# One use of each verb, and its exit code. Where a verb has a verdict it is one that is not 0, if it has a quick one.
USES: dict[str, tuple[list[str], int]] = {
    "wait": (["wait", "--sha", SHA, "--print", "--timeout", "60"], 1),
    "on": (["on", "--since", "start", "--timeout", "60", "--", "false"], 1),
    "emit": (["emit", "--source", "a", "--event-type", "b"], 0),
    "run": (["run", "--", "false"], 1),
    "tail": (["tail", "--since", "start", "--count", "1"], 0),
    "replay": (["replay"], 0),
    "events": (["events"], 0),
    "status": (["status"], 0),
    "stats": (["stats"], 0),
    "doctor": (["doctor", "--json"], 0),
    "init": (["init"], 0),
    "serve": (["serve", "hub"], 2),
    "prune": (["prune", "--dry-run"], 0),
    "completion": (["completion", "bash"], 0),
    "demo": (["demo", "--nonsense"], 2),
    "help": (["help", "ci"], 0),
    "verify-release": (["verify-release", "/nowhere/at.whl"], 66),
    "source": (["source", "verify", "nothing"], 66),
}
OTHERS: dict[str, tuple[list[str], int]] = {
    "the overview": (["--help"], 0),
    "help of a verb": (["wait", "--help"], 0),
    "no such verb": (["nothing"], 2),
    "a wrong flag": (["wait", "--nonsense"], 2),
    "a time-out": (["wait", "--timeout", "0"], 124),
    "a setting": (["tail", "--since", "soon"], 2),
}
# What is printed is all that these are for, so that losing it is a failure.
PRINTING = {
    "the overview",
    "help of a verb",
    *[verb for verb in VERBS if getattr(module_of(verb), "ONLY_PRINTS", False)],
}


def started(script: str, words: list[str], **options: object) -> subprocess.Popen[bytes]:
    """waitbus, run by a shell that first does to its streams what `script` says."""
    command = ["sh", "-c", f'exec "$0" "$@" {script}', *WAITBUS, *words]
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def failed_run(settings: Settings) -> None:
    columns: dict[str, Any] = {
        "head_sha": SHA,
        "status": "completed",
        "conclusion": "failure",
        "workflow_name": "w",
        "run_id": 1,
    }
    emit(EventInsert(source="github", event_type="workflow_run", **columns))


def test_every_verb_is_in_the_table() -> None:
    assert USES.keys() == VERBS.keys()
    assert {verb for verb in VERBS if verb in PRINTING} == {"tail", "replay", "events", "stats", "completion", "help"}


@needs_full
@pytest.mark.parametrize("name", [*USES, *OTHERS])
def test_no_exit_code_depends_on_who_reads(name: str, failed_run: None, hub: HubProcess) -> None:
    words, code = {**USES, **OTHERS}[name]
    reader, left = os.pipe()
    os.close(reader)
    children = {
        "left": (started("", words, stdout=left, stderr=left), code),
        "full": (started(">/dev/full", words), 2 if name in PRINTING else code),
        "mute": (started("2>/dev/full", words, stdout=subprocess.PIPE), code),
        "closed": (started("<&- >&- 2>&-", words), code),
    }
    os.close(left)
    for state, (child, wanted) in children.items():
        out, err = child.communicate(timeout=PATIENCE)
        assert child.returncode == wanted, (state, out, err)
        assert b"Traceback" not in (err or b"")
        assert b"Exception ignored" not in (err or b"")


def test_a_reader_that_leaves_ends_what_only_prints(hub: HubProcess, settings: Settings) -> None:
    emit_many([EventInsert(source="a", event_type="b", fields={"n": n}) for n in range(3000)])
    for words in (["replay"], ["tail", "--since", "start"], ["events", "--limit", "0", "SELECT * FROM events"]):
        child = started("", words, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert child.wait(PATIENCE) == 0
        child.stdout = None
        assert child.communicate()[1] == b""


def test_a_pipe_that_does_not_block_loses_nothing(cli: Cli, settings: Settings) -> None:
    emit_many([EventInsert(source="a", event_type="b", fields={"n": n}) for n in range(1000)])
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # less than is written at once
    child = started("", ["replay", "--json"], stdout=writer)
    os.close(writer)
    with open(reader, "rb") as ours:
        assert [json.loads(line)["fields"]["n"] for line in ours] == list(range(1000))
    assert (child.wait(PATIENCE), child.communicate()[1]) == (0, b"")


class TestInput:
    @pytest.mark.parametrize("words", [["emit", "-"], ["emit"], ["emit", "--payload-json", "-"], ["events", "-"]])
    @pytest.mark.parametrize("script", ["<&-", "0>/dev/null"])
    def test_what_cannot_be_read_is_one_line(self, words: list[str], script: str, cli: Cli) -> None:
        child = started(script, words, stdout=subprocess.PIPE)
        out, err = child.communicate(timeout=PATIENCE)
        assert (child.returncode, out, err.count(b"\n")) == (2, b"", 1)
        assert b"standard input" in err

    def test_a_pipe_that_does_not_block_is_waited_for(self, hub: HubProcess, peer: Callable[..., Peer]) -> None:
        listener = peer({"proto": 1})
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        child = started("", ["emit", "-"], stdin=reader)
        os.close(reader)
        for number in range(3):
            os.write(writer, b'{"source":"a","event_type":"b","fields":{"n":%d}}\n' % number)
            assert listener.event()["fields"]["n"] == number  # by now it has found nothing more to read
        os.close(writer)
        assert child.communicate(timeout=PATIENCE)[1] == b"waitbus: 3 written, 0 there already, 0 bad\n"
        assert child.returncode == 0

    def test_a_payload_may_take_its_time(self, cli: Cli, settings: Settings) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        child = started("", ["emit", "--source", "a", "--event-type", "b", "--payload-json", "-"], stdin=reader)
        os.close(reader)
        with open(writer, "wb") as ours:
            ours.write(b"\xef\xbb\xbf" + '[1, "\u00fc"]'.encode())
        assert (child.wait(PATIENCE), child.communicate()[1]) == (0, b"")
        done = cli("events", "SELECT payload_json FROM events", "--json")
        assert json.loads(done.stdout)["payload_json"] == '[1, "\u00fc"]'

    def test_without_words_lines_are_read_from_what_is_no_terminal(self, cli: Cli, settings: Settings) -> None:
        done = cli("emit", stdin='{"source":"a","event_type":"b"}\n')
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "waitbus: 1 written, 0 there already, 0 bad\n"
        ours, theirs = os.openpty()
        child = started("", ["emit"], stdin=theirs)
        os.close(theirs)
        assert b"emit needs --source and --event-type" in child.communicate(timeout=PATIENCE)[1]
        assert child.returncode == 2
        os.close(ours)

    def test_sql_is_utf_8(self, cli: Cli, settings: Settings) -> None:
        emit(EventInsert(source="a", event_type="b", summary="gr\u00fcn"))
        sql = "SELECT count(*) AS n FROM events WHERE summary = 'gr\u00fcn'".encode()
        for locale in LOCALES.values():
            child = started(
                "", ["events", "-", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env(locale)
            )
            assert child.communicate(sql, timeout=PATIENCE) == (b'{"n":1}\n', b"")


def env(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    return {**kept, **more}


PLAIN = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LOCALES = {
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "C, and another encoding of the streams": {**PLAIN, "PYTHONIOENCODING": "utf-16"},
}


@pytest.fixture(scope="session")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which text is ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed here")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE.ISO-8859-1")], capture_output=True
    )
    if made.returncode > 1 or not any(folder.iterdir()):
        pytest.skip("localedef has no sources of locales here")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1"}


@pytest.fixture(params=[*LOCALES, "ISO-8859-1"])
def locale(request: pytest.FixtureRequest, settings: Settings) -> dict[str, str]:
    """The environment of a private bus, in one of the locales."""
    if request.param in LOCALES:
        return env(LOCALES[request.param])
    found: dict[str, str] = request.getfixturevalue("latin_1")
    return env(found)


TEXT = "gr\u00fcn \u2713"


class TestLocales:
    def run(self, environ: dict[str, str], *words: str | bytes) -> bytes:
        raw = [os.fsencode(word) for word in words]
        done = subprocess.run([*WAITBUS, *raw], env=environ, capture_output=True, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    def test_text_comes_back_as_it_was_given(self, locale: dict[str, str], hub: HubProcess) -> None:
        given = ["emit", "--source", "a", "--event-type", "b", "--summary", TEXT, "--field", f"x={TEXT}"]
        assert json.loads(self.run(locale, *given, "--json"))["event"]["summary"] == TEXT
        since = ["--since", "start", "--match", f'x="{TEXT}"', "--timeout", "60"]
        uses: list[list[str]] = [
            ["replay", "--json"],
            ["replay", "--format", "cloudevents"],
            ["tail", "--json", "--count", "1", *since],
            ["wait", "--print", *since],
            ["events", "--json"],
            ["events", "--format", "csv", f"SELECT summary FROM events WHERE summary = '{TEXT}'"],
            ["events", "--format", "tsv"],
        ]
        for words in uses:
            out = self.run(locale, *words).decode()
            assert TEXT in out, words
            if "--json" in words or "--print" in words:
                assert TEXT in json.dumps(json.loads(out), ensure_ascii=False)

    def test_text_for_people_is_in_their_encoding(self, latin_1: dict[str, str], settings: Settings) -> None:
        emit(EventInsert(source="a", event_type="b", summary=TEXT))
        assert self.run(env(latin_1), "replay").rstrip().endswith(b"gr\xfcn \\u2713")

    def test_words_in_the_encoding_of_the_locale_are_text(self, latin_1: dict[str, str], settings: Settings) -> None:
        words: list[str | bytes] = ["emit", "--source", "a", "--event-type", "b", "--json", "--summary", b"gr\xfcn"]
        assert json.loads(self.run(env(latin_1), *words))["event"]["summary"] == "gr\u00fcn"

    @pytest.mark.parametrize("flag", ["--summary", "--field", "--msg-to"])
    def test_words_in_no_encoding_are_refused(self, flag: str, settings: Settings) -> None:
        words: list[str | bytes] = [*WAITBUS, "emit", "--source", "a", "--event-type", "b", flag, b"x=\xff"]
        done = subprocess.run(words, env=env(LOCALES["UTF-8"]), capture_output=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
        assert b"write it in UTF-8" in done.stderr

    def test_a_file_has_its_own_name(self, locale: dict[str, str], bus_dir: Path, settings: Settings) -> None:
        path = os.fsencode(bus_dir) + b"/\xff\xc3\xbc"
        with open(path, "wb") as file:
            file.write(b"{}")
        self.run(locale, "emit", "--source", "a", "--event-type", "b", "--payload-json", b"@" + path)

    def test_a_command_has_its_own_words_and_is_told_as_text(self, locale: dict[str, str], settings: Settings) -> None:
        words: list[str | bytes] = ["run", "--name", TEXT, "--", "printf", "%s", TEXT, b"\xfc"]
        assert self.run(locale, *words) == TEXT.encode() + b"\xfc"
        fields = json.loads(self.run(locale, "replay", "--json", "--last", "1"))["fields"]
        assert fields["name"] == TEXT
        assert fields["argv"][2] == TEXT

    def test_an_event_reaches_a_command_in_utf_8(self, locale: dict[str, str], hub: HubProcess) -> None:
        emit(EventInsert(source="a", event_type="b", summary=TEXT, fields={"x": TEXT}))
        show = 'printf "%s|%s|" "$WAITBUS_SUMMARY" "$WAITBUS_FIELD_X"; cat "$WAITBUS_EVENT_FILE"'
        out = self.run(locale, "on", "--since", "start", "--timeout", "60", "--", "sh", "-c", show)
        summary, field, event = out.split(b"|", 2)
        assert (summary.decode(), field.decode(), json.loads(event)["summary"]) == (TEXT, TEXT, TEXT)
