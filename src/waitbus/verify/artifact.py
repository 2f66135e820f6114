"""One wheel or sdist against everything that can be known of it without a signature.

The bytes are read once and every check looks at the same ones, however the file changes meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import stat

from waitbus.verify import archive, record, statements
from waitbus.verify.report import NO_DATA, NO_INPUT, Unusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from waitbus.verify.report import Report

WHEEL, SDIST = "wheel", "sdist"
SBOM = f"sboms/{statements.PROJECT}.cdx.json"
# What may stand in `.dist-info` beside licences and bills of materials.
_INFO = ("METADATA", "RECORD", "WHEEL", "entry_points.txt")
_INFO_DIRS = ("licenses/", "sboms/")
# What runs without being read: no release has any.
_COMPILED = (".pyc", ".pyo", ".pyd", ".so", ".dylib", ".dll", ".exe", ".pth")


class Artifact:
    """A file that claims to be a release of waitbus: its path, its bytes, their hash, what its name says."""

    __slots__ = ("data", "kind", "name", "path", "sha256", "version")

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.name = os.path.basename(self.path)
        self.kind = WHEEL if self.name.endswith(".whl") else SDIST if self.name.endswith(".tar.gz") else ""
        self.data = read_file(path, archive.MAX_PACKED)
        if not self.kind:
            raise Unusable(NO_DATA, f"{path} is neither a wheel (.whl) nor an sdist (.tar.gz)")
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.version = statements.version_in_name(self.name)

    def unchanged(self) -> bool:
        """Whether the file still holds the bytes that were read."""
        try:
            return read_file(self.path, archive.MAX_PACKED) == self.data
        except Unusable:
            return False


def read_file(path: str, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes. Raises `Unusable`."""
    try:
        # A FIFO must not hold us up: it is opened without waiting, and refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise Unusable(NO_INPUT, f"cannot read {path}: {reason}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unusable(NO_DATA, f"{path} is not a file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise Unusable(NO_DATA, f"{path} is larger than {limit >> 20} MiB: no release of waitbus is")
    return data


def check(artifact: Artifact, report: Report, expected: str | None = None) -> None:
    """Check the archive, its RECORD, its metadata and the bill of materials in it; `expected` is the version asked for.

    Raises `Unusable` when the bytes are no archive of the kind that the name says.
    """
    version = artifact.version
    if version is None:
        report.failed("name", f"{artifact.name} is not the name of a wheel or sdist of {statements.PROJECT}")
    elif expected is not None and version != expected:
        report.failed("name", f"{artifact.name} is version {version}, not {expected}")
    else:
        report.ok("name", f"{artifact.kind} of {statements.PROJECT} {version}")
    read = archive.read_wheel if artifact.kind == WHEEL else archive.read_sdist
    try:
        contents = read(artifact.data)
    except Unusable as error:
        raise Unusable(error.code, f"{artifact.path}: {error}") from None
    size = sum(map(len, contents.files.values()))
    report.conclude("archive", contents.faults, f"{len(contents.files)} files, {size:,} bytes, and nothing else")
    if version is None:
        return
    if artifact.kind == WHEEL:
        _check_wheel(contents.files, version, report)
    else:
        _check_sdist(contents.files, version, report)


def _check_wheel(files: dict[str, bytes], version: str, report: Report) -> None:
    info = f"{statements.PROJECT}-{version}.dist-info/"
    report.conclude("contents", list(_foreign(files, info)), "the package and its metadata alone, nothing compiled")
    if f"{info}RECORD" in files:
        faults = list(record.wheel_faults(files, f"{info}RECORD"))
        report.conclude("record", faults, f"{len(files)} files, each listed with the right sha256 and size")
    else:
        report.failed("record", f"there is no {info}RECORD")
    faults = _missing(files, f"{info}METADATA", f"{info}WHEEL")
    if not faults:
        faults = [
            *statements.metadata_faults(files[f"{info}METADATA"], version),
            *statements.wheel_faults(files[f"{info}WHEEL"]),
        ]
    report.conclude("metadata", faults, f"version {version}, pure Python, needs nothing")
    faults = _missing(files, info + SBOM) or list(statements.sbom_faults(files[info + SBOM], version))
    report.conclude("sbom", faults, f"CycloneDX, of version {version}, in {info}sboms")


def _check_sdist(files: dict[str, bytes], version: str, report: Report) -> None:
    top = f"{statements.PROJECT}-{version}/"
    faults = [f"{name!r} lies outside {top}" for name in files if not name.startswith(top)]
    faults += [f"{name!r} is compiled" for name in files if name.endswith(_COMPILED)]
    report.conclude("contents", faults, f"{len(files)} files, all in {top}, nothing compiled")
    faults = _missing(files, f"{top}PKG-INFO", f"{top}pyproject.toml")
    if not faults:
        faults = list(statements.metadata_faults(files[f"{top}PKG-INFO"], version))
    report.conclude("metadata", faults, f"version {version}, needs nothing")


def _missing(files: dict[str, bytes], *names: str) -> list[str]:
    return [f"there is no {name}" for name in names if name not in files]


def _foreign(files: dict[str, bytes], info: str) -> Iterator[str]:
    """Files that no wheel of ours has, whatever its RECORD says of them."""
    for name in files:
        inside = name.removeprefix(info)
        if name.endswith(_COMPILED):
            yield f"{name!r} is compiled, or runs when Python starts"
        elif inside != name:
            if inside not in _INFO and not inside.startswith(_INFO_DIRS):
                yield f"{name!r} is no metadata of ours"
        elif not name.startswith(f"{statements.PROJECT}/"):
            yield f"{name!r} lies outside the package"


def check_sums(artifact: Artifact, path: str, report: Report) -> None:
    """Check the file's hash against a SHA256SUMS. Raises `Unusable` when that cannot be read."""
    faults = list(statements.sums_faults(read_file(path, statements.MAX_BYTES), artifact.name, artifact.sha256))
    report.conclude("sums", faults, f"{os.path.basename(path)} says {artifact.sha256}")


def check_sbom(artifact: Artifact, path: str, report: Report) -> None:
    """Check that a bill of materials is that of these bytes. Raises `Unusable` when it cannot be read."""
    data = read_file(path, statements.MAX_BYTES)
    faults = list(statements.sbom_faults(data, artifact.version or "", artifact.sha256))
    report.conclude("sbom file", faults, f"{os.path.basename(path)} names this version and this sha256")
