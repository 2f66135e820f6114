"""The repository holds text that a reader sees as it is, and no secret; each rule turns red when broken."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path

import pytest

from tools import tree

ROOT = Path(__file__).resolve().parent.parent
RANDOM = base64.b64encode(hashlib.sha512(b"waitbus").digest()).decode()  # looks like chance, and is not


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git: only what is tracked counts")
def test_this_tree_is_clean() -> None:
    assert tree.faults(ROOT) == {"shape": [], "deception": [], "secret": []}
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


def test_a_name_in_another_alphabet_is_red_in_code_only() -> None:
    text = "\u0430\u0431 = 1  # \u2265 1 \u00b5s, na\u00efve\n"
    assert list(tree.deception_faults("x.py", text))
    assert list(tree.deception_faults("x.md", text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
        "-----BEGIN " + "PRIVATE KEY-----",
        "token: ghp_" + "a1B2" * 9,
        "AKIA" + "ABCDEFGH12345678",
        "pypi-" + "AgEIcHlwaS5vcmc" * 5,
        "https://user:" + "hunter22" + "@example.org/",
        "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTYifQ" + ".c2lnbmF0dXJlLW9mLWl0",
        f'key = "{RANDOM}"',
        f"export KEY={RANDOM}",
        'password = "' + "x7Kq9!vR2m_Zt4" + '"',
    ],
)
def test_what_looks_like_a_secret_is_red_and_not_repeated(text: str) -> None:
    faults = list(tree.secret_faults("settings.py", f"a = 1\n{text}\n"))
    assert faults
    assert all(fault.startswith("settings.py:2: ") and RANDOM not in fault for fault in faults)


@pytest.mark.parametrize(
    "text",
    [
        f"uses: actions/checkout@{hashlib.sha1(b'').hexdigest()} # v7",
        f'hash = "sha256:{hashlib.sha256(b"").hexdigest()}"',
        "def test_a_build_is_the_same_bytes_whatever_the_umask_and_the_file_times() -> None:",
        'token = "WAITBUS_STATE_DIR"',
        'password = "correct-horse-battery-staple"',
        "https://example.org:8443/path@2x",
        'monkeypatch.setenv("SECRET", "0123456789abcdef0123456789abcdef01234567")',
    ],
)
def test_public_text_is_no_secret(text: str) -> None:
    assert list(tree.secret_faults("notes.md", text)) == []
