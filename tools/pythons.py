"""Find the Python interpreters this machine already has. Nothing is ever downloaded.

A name on PATH proves little: a version manager's shim may have nothing behind it. So each candidate is run,
and only one that answers, is a final CPython release and has ``sqlite3`` counts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")

_ASK = """
import platform, sqlite3, sys
good = platform.python_implementation() == "CPython" and sys.version_info.releaselevel == "final"
print(sys.executable, platform.python_version(), good and "t" not in sys.abiflags, sep="|")
"""


class Python(NamedTuple):
    """An interpreter that ran and reported its version."""

    path: str
    version: str

    @property
    def minor(self) -> str:
        """The release series, for example ``3.12``."""
        return ".".join(self.version.split(".")[:2])


def _output(*command: str, user: int | None = None) -> str:
    """Return what a program prints, or "" if it is missing or fails. `user` runs it as another user."""
    other = {} if user is None else {"user": user, "group": user, "extra_groups": [], "cwd": "/"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=True, stdin=subprocess.DEVNULL, **other)  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return ""
    return str(done.stdout, errors="replace").strip()


def _candidates(minor: str, uv: str | None) -> Iterator[str]:
    """Return paths that may be of this series: from PATH, then pyenv, then uv, each with the newest first."""
    name = f"python{minor}"
    yield from (found for folder in os.get_exec_path() if (found := shutil.which(name, path=folder)))
    pyenv, managed = _output("pyenv", "root"), _output(uv, "python", "dir") if uv else ""
    for root in filter(None, (pyenv and f"{pyenv}/versions", managed)):
        yield from (str(path / "bin" / name) for path in sorted(Path(root).glob("*"), key=_numbers, reverse=True))


def _numbers(path: Path) -> list[int]:
    return [int(part) for part in path.name.replace("-", ".").split(".") if part.isdigit()]


def find(minor: str, uv: str | None = None, user: int | None = None) -> Python | None:
    """Return the first interpreter of this series that really runs, for another user if one is named."""
    for path in _candidates(minor, uv):
        executable, version, good = (_output(path, "-I", "-c", _ASK, user=user) or "||").split("|")
        python = Python(executable, version)
        if good == "True" and python.minor == minor:
            return python
    return None
