"""Exit codes stand in one file, which the page for users lists, and every word that packages say has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import waitbus
from tests.test_house import ROOT, in_checkout
from waitbus import __main__ as entry
from waitbus.cli import exitcodes
from waitbus.client import rules
from waitbus.host import process
from waitbus.verify import report

CODES = {name: value for name, value in vars(exitcodes).items() if type(value) is int}
OF_SHELL = {process.NOT_RUNNABLE, process.NOT_FOUND, process.SIGNALLED}
CLI = Path(waitbus.__file__).parent / "cli"


def test_each_code_has_one_name() -> None:
    assert sorted(CODES.values()) == sorted({*CODES.values()})
    assert OF_SHELL.isdisjoint(CODES.values())
    assert (entry._SOFTWARE, entry._INTERRUPTED) == (exitcodes.SOFTWARE, exitcodes.INTERRUPTED)


@pytest.mark.parametrize("path", sorted(CLI.rglob("*.py")), ids=lambda path: path.stem)
def test_no_other_file_of_the_command_line_writes_one_as_a_number(path: Path) -> None:
    if path.stem == "exitcodes":
        return
    plain = {value for value in CODES.values() if value > exitcodes.USAGE} | OF_SHELL
    constants = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert [node.lineno for node in constants if type(node.value) is int and node.value in plain] == []


def test_every_word_has_a_code() -> None:
    assert set(exitcodes.OF_WAIT) == {rules.MATCHED, rules.FAILED, rules.TIMED_OUT}
    verdicts = {"verified", "failed", "not authenticated", "incomplete"}
    assert set(exitcodes.OF_VERIFICATION) == verdicts | {report.NO_DATA, report.NO_INPUT}


@in_checkout
def test_the_page_for_users_lists_them() -> None:
    table = (ROOT / "docs" / "cli.md").read_text().partition("## Exit codes")[2].partition("## ")[0]
    listed = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(",")}
    assert listed == {*CODES.values(), process.NOT_RUNNABLE, process.NOT_FOUND}
