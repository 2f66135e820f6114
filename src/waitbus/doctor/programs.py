"""The programs that waitbus runs on: Python, itself, SQLite."""

from __future__ import annotations

import os
import sqlite3
import sys

import waitbus
from waitbus.doctor.findings import BAD, OK, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_PYTHON = (3, 11)
# Generated columns came with 3.31; upsert and window functions before it.
OLDEST_SQLITE = (3, 31, 0)
_NEWER = "install it for a newer Python, such as: python3.13 -m pip install waitbus"


def look() -> Iterator[Finding]:
    """The versions, and where they lie."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield Finding(OK, "python", f"{version}, {sys.executable}")
    else:
        yield Finding(BAD, "python", f"{version}, {sys.executable}: waitbus needs {_dotted(OLDEST_PYTHON)}; {_NEWER}")
    yield Finding(OK, "waitbus", f"{waitbus.__version__}, {os.path.dirname(os.path.abspath(waitbus.__file__))}")
    if sqlite3.sqlite_version_info >= OLDEST_SQLITE:
        yield Finding(OK, "sqlite", sqlite3.sqlite_version)
    else:
        text = f"{sqlite3.sqlite_version}, which comes with Python: waitbus needs {_dotted(OLDEST_SQLITE)}; {_NEWER}"
        yield Finding(BAD, "sqlite", text)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
