"""RECORD: the list of a wheel's files, each with its hash and size, as the binary distribution format has it.

Only complete lists of sound hashes are taken: every file stands in it once, and it names no file that is not there.
"""

from __future__ import annotations

import base64
import csv
import hashlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What an installer may have used; a wheel of ours has sha256 alone.
ALGORITHMS = ("sha256", "sha384", "sha512")
MAX_BYTES = 2 << 20


class Row:
    """One line: a path with ``/``, the hash's algorithm and its text ("" for none), the size in bytes or None."""

    __slots__ = ("algorithm", "digest", "path", "size")

    def __init__(self, path: str, algorithm: str, digest: str, size: int | None) -> None:
        self.path = path
        self.algorithm = algorithm
        self.digest = digest
        self.size = size


def parse(data: bytes) -> tuple[list[Row], list[str]]:
    """The rows of a RECORD, and what is wrong with its lines."""
    rows: list[Row] = []
    faults: list[str] = []
    seen: set[str] = set()
    if len(data) > MAX_BYTES:
        return rows, [f"RECORD is larger than {MAX_BYTES >> 20} MiB"]
    try:
        lines = list(csv.reader(data.decode("utf-8").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        return rows, [f"RECORD cannot be read: {error}"]
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is None:
            faults.append(f"line {number} of RECORD is none: a path, a hash and a size are needed")
        elif row.path in seen:
            faults.append(f"RECORD names {row.path!r} twice")
        else:
            seen.add(row.path)
            rows.append(row)
    return rows, faults


def _row(line: list[str]) -> Row | None:
    if len(line) != 3:
        return None
    path, digest, size = line
    algorithm, _, text = digest.partition("=")
    sound = path and (not size or (size.isascii() and size.isdigit() and len(size) < 16))
    if not sound or bool(algorithm) is not bool(text):
        return None
    return Row(path, algorithm, text, int(size) if size else None)


def digest_text(algorithm: str, body: bytes) -> str:
    """The hash of `body` as RECORD writes it."""
    return encoded(hashlib.new(algorithm, body).digest())


def encoded(digest: bytes) -> str:
    """A digest as RECORD writes it: base64 with ``-`` and ``_``, without padding."""
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def wheel_faults(files: Mapping[str, bytes], record: str) -> Iterator[str]:
    """Where a wheel's files and the RECORD at the path `record` differ: none means they are the same to the byte."""
    rows, faults = parse(files[record])
    yield from faults
    named = {row.path: row for row in rows}
    for path, row in named.items():
        if path == record:
            if row.algorithm or row.size is not None:
                yield "RECORD gives a hash of itself"
        elif path not in files:
            yield f"{path!r} stands in RECORD and is missing"
        elif row.algorithm != "sha256" or row.size is None:
            yield f"RECORD has no sha256 and size of {path!r}"
        elif row.digest != digest_text("sha256", files[path]) or row.size != len(files[path]):
            yield f"{path!r} is not what RECORD says"
    for path in files:
        if path not in named:
            yield f"{path!r} does not stand in RECORD"
