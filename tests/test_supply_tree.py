"""The repository holds text that a reader sees as it is; each rule turns red when broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools import tree

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git: only what is tracked counts")
def test_this_tree_is_clean() -> None:
    assert tree.faults(ROOT) == {"shape": [], "deception": []}
    assert len(tree.tracked(ROOT)) > 50


@pytest.mark.parametrize("content", [b"\x7fELF\x02\x01\x01\0", b"\x89PNG\r\n", b"text\0more", b"\xff\xfe"])
def test_a_binary_is_red(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert list(tree.shape_faults("file", path))


def test_a_link_is_red_and_so_is_a_program_that_does_not_say_by_what_it_runs(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    link.symlink_to("/etc/passwd")
    assert list(tree.shape_faults("file", path)) == []
    assert list(tree.shape_faults("link", link))
    path.write_text("echo\n")
    assert list(tree.shape_faults("file", path))


@pytest.mark.parametrize(
    "text",
    [
        "if user != 'admin\u202e\u2066': # check\u2069",  # turns the line around
        "pass\u200bword = 1",
        "x = 1 \ufeff",
        "\u00adhyphen",
        "tag \U000e0041",
        "bell \x07",
        "def p\u0430ssword(): ...",  # a Cyrillic letter
        "the \u0410dmin",
        "\u212aelvin",
    ],
)
def test_text_that_is_not_what_it_looks_like_is_red(text: str) -> None:
    assert list(tree.deception_faults("notes.md", text))


def test_words_of_one_alphabet_and_plain_signs_are_well() -> None:
    assert list(tree.deception_faults("x.md", "\u0430\u0431 = 1  # \u2265 1 \u00b5s, na\u00efve\n")) == []
