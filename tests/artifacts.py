"""Real wheels, and ways to tamper with them. What builds them is the project's own backend."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import waitbus

VERSION = waitbus.__version__
INFO = f"waitbus-{VERSION}.dist-info"
RECORD = f"{INFO}/RECORD"
WHEEL = f"waitbus-{VERSION}-py3-none-any.whl"
SDIST = f"waitbus-{VERSION}.tar.gz"
# A dependency that is an extra's only at a careless glance.
NEEDS_MORE = "Requires-Dist: requests; python_version >= '3' or extra == 'mcp'"

Files = dict[str, bytes]
Change = Callable[[Files], object]


def wheel_files(path: Path) -> Files:
    """The files of a wheel, in its order."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    """A ZIP entry as the backend makes one."""
    info = zipfile.ZipInfo(name, (2023, 11, 14, 22, 13, 20))
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def zipped(files: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """A ZIP archive of these files, names twice and all."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files:
            archive.writestr(entry(name) if isinstance(name, str) else name, body)
    return content.getvalue()


def row(name: str, body: bytes) -> str:
    """A line of RECORD."""
    text = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")
    return f"{name},sha256={text},{len(body)}\n"


def record_anew(files: Files, record: str = RECORD) -> None:
    """Lay RECORD anew, as somebody would who tampers with care."""
    lines = [row(name, body) for name, body in files.items() if name != record]
    files[record] = "".join([*lines, f"{record},,\n"]).encode()


def tampered(wheel: Path, to: Path, change: Change, *, careful: bool = False) -> Path:
    """A copy of `wheel` in the directory `to`, with `change` made to its files; `careful`: and RECORD laid anew."""
    files = wheel_files(wheel)
    change(files)
    if careful:
        record_anew(files)
    path = to / wheel.name
    path.write_bytes(zipped(files.items()))
    return path


def tool(directory: Path, name: str, script: str) -> Path:
    """An executable that notes its words, a line each, in ``NAME.argv``, and goes on with `script`."""
    path = directory / name
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{directory / name}.argv'\n{script}\n")
    path.chmod(0o755)
    return path


def argv(directory: Path, name: str) -> list[str]:
    """The words that `tool` was given."""
    return (directory / f"{name}.argv").read_text().splitlines()
