"""Every command of ours that a page or a help text shows is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.test_docs import text_of
from tests.test_house import ROOT, in_checkout
from waitbus.cli import main as cli
from waitbus.cli.parser import make_parser

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "llms.txt")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
OPERATORS = frozenset({"|", "||", "&&", ";", "&", ">", "<", ">>", "2>&1", "(", ")"})


def commands_in(line: str) -> Iterator[list[str]]:
    """The words of each `waitbus …` in a line of shell, without `waitbus` itself."""
    line = line.replace("$(git rev-parse HEAD)", "0123456789abcdef0123456789abcdef01234567").removeprefix("$ ").strip()
    # An example in a help text may follow a label, and be followed by what it does, set apart by blanks.
    shown = re.split(r" {3,}", re.sub(r"^\w+ {3,}", "", line), maxsplit=1)[0]
    lexer = shlex.shlex(shown, posix=True, punctuation_chars="|&;<>")
    lexer.commenters, lexer.whitespace_split = "#", True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in OPERATORS:
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words[:1] == ["waitbus"]:
                yield words[1:]
            words = []
        else:
            words.append(word)


def understood(words: list[str]) -> None:
    """Parse a command. Raises ``SystemExit`` or `WaitbusError` when it is not understood."""
    if not words or words[0] in ("--help", "--version", "VERB"):
        return
    verb, *rest = cli._renamed(words)
    assert verb in cli.VERBS, words
    if "--help" not in rest:
        make_parser(verb, cli.VERBS[verb], cli.module_of(verb)).parse_args(rest)


def test_a_command_that_is_not_understood_is_found() -> None:
    assert list(commands_in("$ X=1 waitbus tail --json | jq '.a | .b'; waitbus emit - # waitbus x")) == [
        ["tail", "--json"],
        ["emit", "-"],
    ]
    for words in (["tail", "--nonsense"], ["wait", "--sha", "xyz"]):
        with pytest.raises(SystemExit):
            understood(words)


@in_checkout
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page: str) -> None:
    text = text_of(page)
    lines = []
    for block in re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        lines += block.replace("\\\n", " ").splitlines()
    for line in lines:
        for words in commands_in(line):
            understood(words)
    # In a sentence: a whole command, if it has more than a verb and names to fill in.
    for shown in re.findall(r"`(waitbus [a-z][^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        for words in commands_in(shown.replace("\\|", "|")):
            assert cli._renamed(words)[0] in {*cli.VERBS, *cli._NOT_HERE, "VERB", "--help"}, shown
            if "--" in shown and not re.search(r"\b[A-Z]{3,}\b|\.\.\.|…", shown):
                understood(words)


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_the_examples_of_a_help_text(verb: str) -> None:
    text = make_parser(verb, cli.VERBS[verb], cli.module_of(verb)).epilog if verb else cli.EXAMPLES
    lines = [line.strip() for line in str(text).partition("xamples:\n")[2].splitlines() if "waitbus" in line]
    found = [words for line in lines for words in commands_in(line)]
    assert found, verb
    for words in found:
        understood(words)


def anchors_of(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@in_checkout
@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors_of(str(found.relative_to(ROOT))), target
