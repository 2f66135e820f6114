"""The repository's name is one line: everything else that holds it is derived from it, or compared with it here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_house import ROOT, in_checkout
from tools import fork
from waitbus import __repository__

pytestmark = in_checkout

# Where the name is repeated, for whoever changes it by hand.
REPEATED = {
    ".github/CODEOWNERS",
    ".github/policy.toml",
    ".github/workflows/build.yml",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
    "tools/sbom.py",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tracked files as they are now, under git."""
    root = tmp_path / "clone"
    for path in fork.files_of(ROOT):
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for command in (["init", "-q"], ["add", "-A", "-f"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def test_every_file_names_the_same_repository() -> None:
    assert fork.name_of(ROOT) == __repository__
    assert fork.others(ROOT) == {}, "make fork TO=OWNER/NAME changes these"


def test_each_file_that_repeats_the_name_is_found_when_the_one_line_changes(clone: Path) -> None:
    home = clone / fork.HOME
    home.write_text(home.read_text().replace(f'"{__repository__}"', '"ann/bus"'))
    assert set(fork.others(clone)) == REPEATED


def test_a_fork_is_one_command(clone: Path) -> None:
    assert {*fork.rename(clone, "ann/bus")} == {*REPEATED, fork.HOME}
    assert fork.name_of(clone) == "ann/bus"
    assert fork.others(clone) == {}
    owner = __repository__.partition("/")[0]
    for path in fork.files_of(clone):
        text = path.read_text(errors="replace")
        assert f"github.com/{__repository__}" not in text, path
        assert f"@{owner}/" not in text, path
    # Another name later: what was written by the first is found by the second.
    fork.rename(clone, __repository__)
    assert all((clone / name).read_bytes() == (ROOT / name).read_bytes() for name in REPEATED)


@pytest.mark.parametrize("words", [[], ["ann"], ["ann/bus/x"], ["a b/c"], ["--help"], ["ann/bus", "more"]])
def test_anything_but_a_name_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fork.main(words) == 2
    assert "make fork TO=OWNER/NAME" in capsys.readouterr().err
