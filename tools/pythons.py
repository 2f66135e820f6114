"""Find the Python interpreters this machine already has. Nothing is ever downloaded.

A name on PATH proves little: a version manager's shim may have nothing behind it. So each candidate is run,
and only one that answers, is a final CPython release and has ``sqlite3`` counts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")

_ASK = """
import json, platform, sqlite3, sys
print(json.dumps([
    sys.executable, platform.python_version(), platform.python_implementation(),
    sys.version_info.releaselevel, "t" in getattr(sys, "abiflags", ""),
]))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter that ran and said who it is."""

    path: str
    version: str

    @property
    def minor(self) -> str:
        """The release series, as in ``3.12``."""
        return ".".join(self.version.split(".")[:2])


def ask(path: str) -> Python | None:
    """Run one candidate; None unless it is a final CPython release with sqlite3 and the GIL."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        executable, version, implementation, level, free_threaded = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if implementation != "CPython" or level != "final" or free_threaded:
        return None
    return Python(executable, version)


def _output(*command: str) -> str:
    """What a helper program prints, or nothing when it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _newest_first(folder: Path) -> list[Path]:
    """The folder's entries by version number, newest first."""

    def numbers(entry: Path) -> list[int]:
        return [int(part) for part in entry.name.replace("-", ".").split(".") if part.isdigit()]

    return sorted(folder.glob("*"), key=numbers, reverse=True)


def candidates(minor: str, uv: str | None) -> Iterator[str]:
    """Paths that may be this series: PATH first, then pyenv's versions, then uv's."""
    name = f"python{minor}"
    for folder in os.get_exec_path():
        if found := shutil.which(name, path=folder):
            yield found
    roots = []
    if pyenv := _output("pyenv", "root"):
        roots.append(Path(pyenv) / "versions")
    if uv and (managed := _output(uv, "python", "dir")):
        roots.append(Path(managed))
    for root in roots:
        for version in _newest_first(root):
            if (path := version / "bin" / name).exists():
                yield str(path)


def find(minor: str, uv: str | None = None) -> Python | None:
    """The first interpreter of this series that really runs."""
    for path in candidates(minor, uv):
        python = ask(path)
        if python and python.minor == minor:
            return python
    return None
