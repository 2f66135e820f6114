"""An installation against its RECORD: what was changed, what is missing, what was added since an installer wrote it.

It finds damage and clumsy tampering. Whoever can change these files can change this one, too, and bytecode beside a
source is not looked into: a verdict that must hold comes from another installation, or from `verify-release`.
"""

from __future__ import annotations

import hashlib
import os

from waitbus.verify import record
from waitbus.verify.report import MISMATCH, NO_INPUT, VERIFIED, Unusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


class Integrity:
    """What an installation has that its RECORD has not, and the other way round; paths relative to `root`."""

    __slots__ = ("changed", "foreign", "missing", "record", "root", "rows")

    def __init__(self, root: str, record_path: str) -> None:
        self.root = root
        self.record = record_path
        self.rows: dict[str, record.Row] = {}
        self.changed: list[str] = []
        self.missing: list[str] = []
        self.foreign: list[str] = []

    @property
    def exit_code(self) -> int:
        """`MISMATCH` when anything differs."""
        return MISMATCH if self.changed or self.missing or self.foreign else VERIFIED

    def faults(self) -> list[str]:
        """Each difference in words."""
        words = (("was changed", self.changed), ("is missing", self.missing), ("was added", self.foreign))
        return [f"{path!r} {what}" for what, paths in words for path in paths]


def record_beside(package: str, version: str) -> str | None:
    """The RECORD of the package directory `package`, where an installer put one; None in a source tree."""
    root, name = os.path.split(os.path.abspath(package))
    path = os.path.join(root, f"{name}-{version}.dist-info", "RECORD")
    return path if os.path.isfile(path) else None


def compare(record_path: str, packages: tuple[str, ...]) -> Integrity:
    """Compare what RECORD lists with the disk; in `packages`, and beside RECORD, nothing else may lie.

    `packages` are directories relative to the one that holds `.dist-info`. Raises `Unusable` when RECORD is none.
    """
    info = os.path.dirname(os.path.abspath(record_path))
    result = Integrity(os.path.dirname(info), os.path.abspath(record_path))
    try:
        with open(record_path, "rb") as file:
            rows, faults = record.parse(file.read(record.MAX_BYTES + 1))
    except OSError as error:
        raise Unusable(NO_INPUT, f"cannot read {record_path}: {error.strerror}") from None
    result.changed += [os.path.relpath(record_path, result.root)] if faults else []
    for row in rows:
        state = _state(os.path.join(result.root, row.path), row)
        if state is not None:
            getattr(result, state).append(row.path)
    result.rows = {row.path: row for row in rows}
    listed = {os.path.normpath(row.path) for row in rows}
    for directory in (*packages, os.path.basename(info)):
        result.foreign += sorted(_foreign(result.root, directory, listed))
    return result


def _state(path: str, row: record.Row) -> str | None:
    """None when the file is as RECORD says, else the list of `Integrity` that it belongs to."""
    if row.algorithm not in ("", *record.ALGORITHMS):
        return "changed"
    digest = hashlib.new(row.algorithm) if row.algorithm else None
    size = 0
    try:
        with open(path, "rb") as file:
            while digest is not None and (chunk := file.read(_CHUNK)):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        # Bytecode comes and goes.
        return None if path.endswith(".pyc") else "missing"
    except OSError:
        return "changed"
    if digest is None:
        return None
    # The same text as in RECORD, from a digest that was made in pieces.
    same = record.encoded(digest.digest()) == row.digest and row.size in (None, size)
    return None if same else "changed"


def _foreign(root: str, directory: str, listed: set[str]) -> Iterator[str]:
    for folder, folders, files in os.walk(os.path.join(root, directory)):
        here = os.path.relpath(folder, root)
        for name in (*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))):
            path = os.path.normpath(os.path.join(here, name))
            if path not in listed and not _is_bytecode(path, listed):
                yield path


def _is_bytecode(path: str, listed: set[str]) -> bool:
    """Whether `path` is what Python makes of a listed source: ``__pycache__/NAME.TAG.pyc`` beside ``NAME.py``."""
    folder, name = os.path.split(path)
    parent, cache = os.path.split(folder)
    stem = name.partition(".")[0]
    return name.endswith(".pyc") and cache == "__pycache__" and os.path.join(parent, f"{stem}.py") in listed
