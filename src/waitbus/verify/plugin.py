"""Verifies an installed plugin: its files by its RECORD, its RECORD by the wheel, the wheel by its publisher.

The plugin is found by its entry point and never imported.
"""

from __future__ import annotations

import io
import os
import re
import zipfile

from waitbus.verify import installed, record, signatures
from waitbus.verify.artifact import read_file
from waitbus.verify.report import NO_DATA, NO_INPUT, Unusable, few

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import Distribution

    from waitbus.verify.report import Report

GROUP = "waitbus.sources.v1"
_MAX_WHEEL = 256 << 20
_MAX_ENTRIES = 5000
_UNDER_DATA = re.compile(r"^[^/]+\.data/(?:purelib|platlib)/")
_DATA = re.compile(r"[^/]+\.data/")
# Files that an installer adds: its own metadata, and bytecode.
_INSTALLERS = re.compile(
    r"^[^/]+\.dist-info/(?:INSTALLER|REQUESTED|direct_url\.json|uv_\w+\.json)$|/__pycache__/[^/]+\.pyc$"
)


def check(
    name: str, report: Report, *, wheel: str | None, repository: str | None, announce: Callable[[str], object]
) -> str:
    """Check the plugin that offers the source `name`. Returns its name and version. Raises `Unusable` if none does."""
    distribution = _distribution_of(name)
    rows = _check_installed(distribution, report)
    tool = signatures.find_tool("pypi-attestations")
    if wheel is None:
        how = "pip download --no-deps the version installed, and give --wheel FILE"
        report.unchecked("wheel", "there is nothing to compare with", how)
        report.unchecked("publisher", "there is no wheel to ask about", how)
    else:
        if rows is not None:
            text = f"what is installed came out of {os.path.basename(wheel)}"
            report.conclude("wheel", list(_wheel_faults(wheel, rows)), text)
        if repository is None:
            report.unchecked("publisher", "you did not say whom you expect", "give --repository https://github.com/...")
        elif tool is None:
            how = signatures.TOOLS["pypi-attestations"][1]
            report.unchecked("publisher", "pypi-attestations is not on PATH", how)
        else:
            command = [tool, *signatures.pypi_arguments(os.path.abspath(wheel), repository)]
            found = signatures.run_tool("pypi-attestations", command, f"PyPI had it from {repository}", announce)
            found.name = "publisher"
            report.checks.append(found)
    return f"{distribution.metadata['Name']} {distribution.version}"


def _distribution_of(name: str) -> Distribution:
    from importlib.metadata import entry_points

    found = {point.dist.name: point.dist for point in entry_points(group=GROUP, name=name) if point.dist is not None}
    if len(found) > 1:
        raise Unusable(NO_DATA, f"{few(sorted(found))} all offer a source {name}: uninstall all but one")
    for distribution in found.values():
        return distribution
    raise Unusable(
        NO_INPUT, f"no plugin here offers a source {name}; waitbus's own are checked by waitbus doctor --integrity"
    )


def _check_installed(distribution: Distribution, report: Report) -> dict[str, record.Row] | None:
    """Compare the installed files with RECORD. Returns the rows of RECORD, or None if there is no RECORD."""
    files = distribution.files or ()
    paths = [str(file.locate()) for file in files if file.name == "RECORD"]
    if not paths or not os.path.isfile(paths[0]):
        report.unchecked("installed", "its installer left no RECORD", "install it from a wheel")
        return None
    tops = {file.parts[0] for file in files if len(file.parts) == 2 and file.name == "__init__.py"}
    found = installed.compare(paths[0], tuple(sorted(tops)))
    report.conclude("installed", found.faults(), f"{len(found.rows)} files are as they were installed")
    return found.rows


def _wheel_faults(path: str, rows: dict[str, record.Row]) -> Iterator[str]:
    """Yield each difference between the RECORD in a wheel and the rows of an installation's RECORD."""
    wanted, faults = record.parse(_record_of(path))
    yield from faults
    named = {_UNDER_DATA.sub("", row.path): row for row in wanted}
    for where, row in named.items():
        if where.endswith(".dist-info/RECORD") or _DATA.match(where):  # itself; scripts, which an installer rewrites
            continue
        if where not in rows:
            yield f"{where!r} of the wheel is not installed"
        elif not row.algorithm or rows[where][1:3] != row[1:3]:
            yield f"{where!r} is another one in the wheel"
    for path in rows:
        if path not in named and not path.startswith("../") and not _INSTALLERS.search(path):
            yield f"{path!r} is not in the wheel"


def _record_of(path: str) -> bytes:
    data = read_file(path, _MAX_WHEEL)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [entry for entry in archive.infolist() if entry.filename.endswith(".dist-info/RECORD")]
            if len(found) == 1 and found[0].file_size <= record.MAX_BYTES and len(archive.infolist()) <= _MAX_ENTRIES:
                return archive.read(found[0])
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Unusable(NO_DATA, f"{path} is no wheel ({error}): download it again") from None
    raise Unusable(NO_DATA, f"{path} is no wheel: it has not one RECORD")
