"""One file of a release: its bytes, which are read once, and what its name claims about them."""

from __future__ import annotations

import hashlib
import os
import stat

from waitbus.verify import statements
from waitbus.verify.report import NO_DATA, NO_INPUT, Unusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.verify.report import Report

MAX_BYTES = 8 << 20  # ten times what a release needs


class Artifact:
    """A file that claims to be part of a waitbus release: its path, name, SHA-256 in hex, and expected version.

    `version` is the version that the user asked for; it is needed if the file's name has none. Raises `Unusable` if
    the file is missing or too large, or its name is not one of a release.
    """

    def __init__(self, path: str, version: str | None = None) -> None:
        self.path = os.path.abspath(path)
        self.name = os.path.basename(self.path)
        self.sha256 = digest(path)
        named = statements.version_in_name(self.name)
        if named is None:
            names = "waitbus-VERSION-py3-none-any.whl, waitbus-VERSION.tar.gz or what lies beside them"
            raise Unusable(NO_DATA, f"{path} is not named as a file of a release is: {names}")
        self.asked = version
        self.version = named or version or ""

    def check_name(self, report: Report) -> None:
        """Report which version the name claims, and whether that is the one asked for."""
        if not self.version:
            report.unchecked("name", "it says no version", "give --version", asked=False)
            return
        other = self.asked and self.asked != self.version
        faults = [f"{self.name} is version {self.version}, not {self.asked}"] if other else []
        report.conclude("name", faults, f"of {statements.PROJECT} {self.version}, it says")

    def check_sums(self, path: str, report: Report) -> None:
        """Check the file's hash against a SHA256SUMS file. Raises `Unusable` if that cannot be read."""
        faults = list(statements.sums_faults(read_file(path, statements.MAX_BYTES), self.name, self.sha256))
        report.conclude("sums", faults, f"{os.path.basename(path)} says {self.sha256}", proof=True)

    def unchanged(self) -> bool:
        """Whether the file still holds the bytes that were read."""
        try:
            return digest(self.path) == self.sha256
        except Unusable:
            return False


def digest(path: str) -> str:
    """Return the SHA-256 of a regular file, in hex. Raises `Unusable`."""
    return hashlib.sha256(read_file(path, MAX_BYTES)).hexdigest()


def read_file(path: str, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes. Raises `Unusable`."""
    try:
        # Opened without blocking, so that a FIFO cannot hang this process. It is refused below.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise Unusable(NO_INPUT, f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unusable(NO_DATA, f"{path} is not a file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise Unusable(NO_DATA, f"{path} is larger than {limit >> 20} MiB, and no such file should be")
    return data
