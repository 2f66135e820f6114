"""The modification time of every file in a release: that of the commit, wherever the source comes from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# A file in an sdist that holds the commit's time. Not every front end keeps the times of the sdist's files.
CARRIED = "SOURCE_DATE_EPOCH"


def commit_time(root: Path) -> int | None:
    """Return when HEAD was committed, in seconds since the epoch, or None if git cannot tell."""
    if not (root / ".git").exists():  # git would search the parent directories and find another repository
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
