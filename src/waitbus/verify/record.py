"""RECORD: the list of a wheel's files, each with its hash and size, as the binary distribution format has it."""

from __future__ import annotations

import base64
import csv
from typing import NamedTuple

# What an installer may have used; a wheel of ours has sha256 alone.
ALGORITHMS = ("sha256", "sha384", "sha512")
MAX_BYTES = 2 << 20


class Row(NamedTuple):
    """One line: a path with ``/``, the hash's algorithm and its text ("" for none), the size in bytes or None."""

    path: str
    algorithm: str
    digest: str
    size: int | None


def parse(data: bytes) -> tuple[list[Row], list[str]]:
    """The rows of a RECORD, and what is wrong with its lines."""
    rows: dict[str, Row] = {}
    faults: list[str] = []
    if len(data) > MAX_BYTES:
        return [], [f"RECORD is larger than {MAX_BYTES >> 20} MiB"]
    try:
        lines = list(csv.reader(data.decode("utf-8").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        return [], [f"RECORD cannot be read: {error}"]
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None:
            faults.append(f"line {number} of RECORD is none: a path, a hash and a size are needed")
        elif row.path in rows:
            faults.append(f"RECORD names {row.path!r} twice")
        else:
            rows[row.path] = row
    return list(rows.values()), faults


def _row(line: list[str]) -> Row | None:
    if len(line) != 3:
        return None
    path, digest, size = line
    algorithm, _, text = digest.partition("=")
    sound = path and (not size or (size.isascii() and size.isdigit() and len(size) < 16))
    if not sound or bool(algorithm) is not bool(text):
        return None
    return Row(path, algorithm, text, int(size) if size else None)


def encoded(digest: bytes) -> str:
    """A digest as RECORD writes it: base64 with ``-`` and ``_``, without padding."""
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
