"""RECORD, a wheel's list of files with their hashes and sizes, as the binary distribution format defines it."""

from __future__ import annotations

import base64
import csv
from typing import NamedTuple

# The algorithms that an installer may use. Our own wheels only use sha256.
ALGORITHMS = ("sha256", "sha384", "sha512")
MAX_BYTES = 2 << 20


class Row(NamedTuple):
    """One line: a path with ``/``, the algorithm and text of its hash ("" if there is none), and its size in bytes."""

    path: str
    algorithm: str
    digest: str
    size: int | None


def parse(data: bytes) -> tuple[list[Row], list[str]]:
    """Parse a RECORD. Returns its rows, and a message for each invalid line."""
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
            faults.append(f"line {number} of RECORD is invalid: a path, a hash and a size are needed")
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
    """Encode a digest as RECORD does: base64 with ``-`` and ``_``, without padding."""
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
