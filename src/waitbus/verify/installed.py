"""Compares an installation with its RECORD: which files were changed, removed or added since it was installed.

This finds damage and clumsy tampering. A person who can change these files can change this one as well, and bytecode is
not checked. For a result that can be trusted, run it from another installation or use `verify-release`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from waitbus.verify import record, statements
from waitbus.verify.artifact import read_file
from waitbus.verify.record import Row
from waitbus.verify.report import NO_INPUT, Unusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
_WORDS = {
    "changed": "was changed",
    "missing": "is missing",
    "foreign": "was added",
    "unhashed": "has no hash in RECORD",
}


@dataclass
class Integrity:
    """The differences between an installation and its RECORD. Paths are relative to `root`."""

    root: str
    record: str
    rows: dict[str, Row]
    paths: dict[str, list[str]] = field(default_factory=lambda: {word: [] for word in _WORDS})
    metadata: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Describe each difference in words."""
        found = (f"{path!r} {_WORDS[word]}" for word, paths in self.paths.items() for path in paths)
        return [*self.metadata, *found]

    @property
    def verdict(self) -> str:
        """`verified`, or `failed` if anything differs."""
        return "failed" if self.faults() else "verified"


def record_beside(package: str, version: str) -> str | None:
    """Return the path of the RECORD for the package directory `package`, or None if there is none (a source tree)."""
    root, name = os.path.split(os.path.abspath(package))
    path = os.path.join(root, f"{name}-{version}.dist-info", "RECORD")
    return path if os.path.isfile(path) else None


def check_ourselves(record_path: str, package: str, version: str) -> Integrity:
    """Compare an installation of waitbus `version` with its RECORD, and its METADATA with what that should say."""
    found = compare(record_path, (os.path.basename(package),))
    info = os.path.dirname(found.record)
    try:
        said = [read_file(os.path.join(info, name), statements.MAX_BYTES) for name in ("METADATA", "entry_points.txt")]
        found.metadata += statements.metadata_faults(said[0], said[1], version)
    except Unusable as error:
        found.metadata.append(str(error))
    return found


def compare(record_path: str, packages: tuple[str, ...]) -> Integrity:
    """Compare the files listed in RECORD with the disk. In `packages` and beside RECORD there may be no other file.

    `packages` are relative to the directory that holds `.dist-info`. Raises `Unusable` if RECORD cannot be read.
    """
    info, _ = os.path.split(os.path.abspath(record_path))
    root, own = os.path.dirname(info), os.path.join(os.path.basename(info), "RECORD")
    try:
        with open(record_path, "rb") as file:
            rows, faults = record.parse(file.read(record.MAX_BYTES + 1))
    except OSError as error:
        raise Unusable(NO_INPUT, f"cannot read {record_path}: {error.strerror}") from None
    result = Integrity(root, os.path.join(root, own), {row.path: row for row in rows})
    result.paths["changed"] += [own] if faults else []
    listed = {os.path.normpath(row.path) for row in rows}
    for row in rows:
        # RECORD cannot hash itself, and installers do not hash the bytecode that they compile.
        unhashed = not row.algorithm and row.path != own and not _is_bytecode(row.path, listed)
        if word := "unhashed" if unhashed else _state(os.path.join(root, row.path), row):
            result.paths[word].append(row.path)
    for directory in (*packages, os.path.basename(info)):
        result.paths["foreign"] += sorted(_foreign(root, directory, listed))
    return result


def _state(path: str, row: Row) -> str:
    """Return the key in `Integrity.paths` for a file, or "" if the file is as RECORD says."""
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
        return "" if path.endswith(".pyc") else "missing"  # bytecode may be deleted at any time
    except OSError:
        return "changed"
    same = digest is None or (record.encoded(digest.digest()) == row.digest and row.size in (None, size))
    return "" if same else "changed"


def _foreign(root: str, directory: str, listed: set[str]) -> Iterator[str]:
    for folder, folders, files in os.walk(os.path.join(root, directory)):
        here = os.path.relpath(folder, root)
        for name in (*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))):
            path = os.path.normpath(os.path.join(here, name))
            if path not in listed and not _is_bytecode(path, listed):
                yield path


def _is_bytecode(path: str, listed: set[str]) -> bool:
    """Whether `path` is the bytecode of a listed source: ``__pycache__/NAME.TAG.pyc`` beside ``NAME.py``."""
    folder, name = os.path.split(path)
    parent, cache = os.path.split(folder)
    stem = name.partition(".")[0]
    return name.endswith(".pyc") and cache == "__pycache__" and os.path.join(parent, f"{stem}.py") in listed
