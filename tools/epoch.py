"""The one time that every file of a release carries: the commit's, however the source came here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# In an sdist, a file with the commit's time. The times of its files say it, too, but not every front end keeps them.
CARRIED = "SOURCE_DATE_EPOCH"


def commit_time(root: Path) -> int | None:
    """When HEAD was committed, in seconds; None where git or the repository is not there, or is not ours to ask."""
    if not (root / ".git").exists():  # git would look further up, into a repository that is not this one
        return None
    command = ["git", "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def source_epoch(root: Path, *, strict: bool = False) -> int:
    """The time all files get: what the caller says, else the commit's, from git, an sdist or a tag's archive.

    A tag's archive has it only as the time of its files. Someone who installs a checkout that git will not speak about
    (another user's, for one) gets that, too; with `strict`, as a release wants it, this is a LookupError.
    """
    if (given := os.environ.get("SOURCE_DATE_EPOCH")) is not None:
        return int(given)
    if (committed := commit_time(root)) is not None:
        return committed
    if strict and (root / ".git").exists():
        raise LookupError("git does not say when this commit was made: run as its owner, or set SOURCE_DATE_EPOCH")
    if (carried := root / CARRIED).exists():
        return int(carried.read_text(encoding="ascii"))
    return int((root / "pyproject.toml").stat().st_mtime)
