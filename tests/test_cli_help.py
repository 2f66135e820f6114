"""`waitbus help`: the installed tool is its own reference, and what it says is so."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Cli
from waitbus import verdict
from waitbus.cli import exitcodes
from waitbus.cli.main import VERBS, main, module_of
from waitbus.cli.parser import make_parser
from waitbus.event import ALWAYS_FIELDS, FIELD_COLUMNS, FRAME_KEYS, NATURAL_FIELDS
from waitbus.ui.fields import CONCLUSION_WORDS, EVERY_EVENT, SOURCES, SourceFields, markdown
from waitbus.ui.topics import TOPICS, text_of

if TYPE_CHECKING:
    from tests.pytest_runs import Project

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 100


def commands_of(text: str) -> list[list[str]]:
    """The words of every waitbus command in a text; a comment stands after three spaces."""
    lines = text.replace("\\\n", " ").replace("$(git rev-parse HEAD)", "0" * 40).splitlines()
    commands = [line.strip() for line in lines if line.strip().startswith("waitbus ") and not line.endswith(":")]
    return [shlex.split(re.split(r" {3,}(?=\S)", command)[0])[1:] for command in commands]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_fits_on_a_terminal_and_its_commands_are_understood(
    topic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", topic]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (text_of(topic), "")
    assert max(map(len, out.splitlines())) <= COLUMNS
    assert len(out.splitlines()) <= 80
    assert out.isascii() or "…" in out
    for verb, *words in commands_of(out):
        make_parser(verb, VERBS[verb], module_of(verb)).parse_args(words)


def test_there_are_commands_to_be_understood() -> None:
    assert sum(len(commands_of(text_of(topic))) for topic in TOPICS) >= 15


@pytest.mark.parametrize(
    ("word", "hint"),
    [("predicate", "did you mean predicates?"), ("filter", "did you mean predicates?"), ("wiat", "did you mean wait?")],
)
def test_an_unknown_topic_names_those_there_are(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", word]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"waitbus: there is no topic or verb {word!r}; {hint} topics are {', '.join(TOPICS)}\n"


def test_exit_codes_are_those_of_the_table() -> None:
    said = {int(code) for code in re.findall(r"(?m)(?:^|; )\s*(?:on: )?(\d+)\b", text_of("exit-codes"))}
    names = [name for name in vars(exitcodes) if name.isupper() and isinstance(getattr(exitcodes, name), int)]
    assert {getattr(exitcodes, name) for name in names} <= said | {126, 127}
    assert said <= {getattr(exitcodes, name) for name in names} | {126, 127}


# --- the table of fields ----------------------------------------------------------------------------------------------


def names_of(source: SourceFields) -> set[str]:
    return {name for names, _, _ in source.fields for name in names.split(", ")}


def of(name: str) -> SourceFields:
    return next(source for source in SOURCES if source.name == name)


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the documentation is not shipped")
def test_the_page_of_the_documentation_is_the_table() -> None:
    page = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    assert page == markdown(), (
        "write it again: python -c 'from waitbus.ui.fields import *; print(markdown(), end=\"\")'"
    )


def test_what_every_event_has() -> None:
    names = {name for names, _, _ in EVERY_EVENT for name in names.split(", ")}
    assert names == {*FRAME_KEYS, *ALWAYS_FIELDS} - {"fields"}


def test_the_words_of_a_conclusion() -> None:
    meanings = {word: meaning for words, meaning in CONCLUSION_WORDS for word in words.split()}
    assert set(meanings) == verdict.CONCLUSIONS
    for word, meaning in meanings.items():
        ends = {"success": "ends 0", "failure": "ends 1", "pending": "goes on"}[verdict.verdict(word)]
        assert meaning.endswith(ends)


def test_columns_and_natural_names_are_explained_where_a_source_here_uses_them() -> None:
    told = {name for source in SOURCES for name in names_of(source)} | {"status", "conclusion"}
    of_others = {name for name in FIELD_COLUMNS if name.startswith("alert_")} | {"parent_run_id"}
    assert set(FIELD_COLUMNS) - of_others <= told
    docker = {
        "container_id",
        "container_name",
        "image",
        "action",
        "labels",
        "compose_project",
        "compose_service",
        "oom",
    }
    assert set(NATURAL_FIELDS) - docker - {"change"} <= told


def test_what_a_command_says_is_in_the_table(cli: Cli) -> None:
    assert cli("run", "--", sys.executable, "-c", "print('x')").returncode == 0
    assert cli("run", "--", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").returncode == 137
    events = [json.loads(line) for line in cli("replay", "--json").stdout.splitlines()]
    process = of("process")
    assert {event["event_type"] for event in events} == {name for name, _ in process.event_types}
    carried = {name for event in events for name in event["fields"]}
    assert carried - set(ALWAYS_FIELDS) == names_of(process)
    assert {event["fields"]["conclusion"] for event in events} == {None, "success", "failure"}
    assert {event["fields"]["status"] for event in events} == {"in_progress", "completed"}
    killed = events[-1]["fields"]
    assert (killed["exit_code"], killed["signal"]) == (137, 9)


def test_what_a_pytest_run_says_is_in_the_table(project: Project, cli: Cli) -> None:
    project.write({"test_it.py": "def test_bad():\n    assert 0\n"})
    project.run("-p", "waitbus.pytest")
    events = [json.loads(line) for line in cli("replay", "--json", "--source", "pytest").stdout.splitlines()]
    source = of("pytest")
    assert [event["event_type"] for event in events] == ["pytest_session", "pytest_session"]
    assert {name for event in events for name in event["fields"]} - set(ALWAYS_FIELDS) == names_of(source)
    assert [event["fields"]["status"] for event in events] == ["in_progress", "completed"]
    for event in events:
        assert event["fields"]["conclusion"] in source.conclusions
