"""The build backend: flit_core, with the bill of materials in the wheel and the commit's time on every byte.

flit_core places no file in ``.dist-info/sboms`` (PEP 770), so its wheel builder gets one more file before it writes
RECORD; its choice of the sdist's files is packed here, because the sdist must carry the commit's time. pip, uv and
every other front end reach this file through ``backend-path``.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from contextlib import contextmanager
from gzip import GzipFile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flit_core import buildapi
from flit_core import sdist as flit_sdist
from flit_core import wheel as flit_wheel

from tools import sbom
from tools.epoch import CARRIED, source_epoch

if TYPE_CHECKING:
    from collections.abc import Iterator

PYPROJECT = Path("pyproject.toml")  # PEP 517: a hook runs at the root of the source tree

prepare_metadata_for_build_wheel = buildapi.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = buildapi.prepare_metadata_for_build_editable
get_requires_for_build_wheel = buildapi.get_requires_for_build_wheel
get_requires_for_build_editable = buildapi.get_requires_for_build_editable
get_requires_for_build_sdist = buildapi.get_requires_for_build_sdist
build_editable = buildapi.build_editable


@contextmanager
def _dated() -> Iterator[int]:
    """Set the epoch for flit_core in the environment, and restore the caller's environment afterwards."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    epoch = source_epoch(Path())
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    try:
        yield epoch
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]


class _WheelBuilder(flit_wheel.WheelBuilder):  # type: ignore[misc] # flit_core comes without annotations
    """flit_core's builder, which also adds the bill of materials."""

    epoch = 0

    def write_metadata(self) -> None:
        super().write_metadata()
        document = sbom.of_package(self.metadata.version, self.epoch)
        with self._write_to_zip(f"{self.dist_info}/{sbom.INSIDE}") as file:
            file.write(sbom.render(document).decode())


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """PEP 517: build the wheel into the folder and return its name."""
    content = io.BytesIO()
    with _dated() as epoch:
        builder = _WheelBuilder.from_ini_path(PYPROJECT, content)
        builder.epoch = epoch
        builder.build()
    name: str = builder.wheel_filename
    (Path(wheel_directory) / name).write_bytes(content.getvalue())
    return name


def _pack(builder: flit_sdist.SdistBuilder, epoch: int, content: io.BytesIO) -> None:
    """Return the sdist: sorted names, one time for all files, no owner, two modes."""
    metadata = io.StringIO()
    builder.metadata.write_metadata_file(metadata)
    made = {"PKG-INFO": metadata.getvalue(), CARRIED: f"{epoch}\n"}
    chosen = set(builder.apply_includes_excludes(builder.select_files())) - set(made)
    with (
        GzipFile(filename="", mode="wb", fileobj=content, mtime=epoch) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(chosen | set(made)):
            path = Path(name)
            if name not in made and not stat.S_ISREG(path.lstat().st_mode):
                raise OSError(f"{name} is not a plain file, so it is not packed: remove it")
            body = made[name].encode() if name in made else path.read_bytes()
            member = tarfile.TarInfo(f"{builder.dir_name}/{path.as_posix()}")
            member.size, member.mtime = len(body), epoch
            member.mode = 0o755 if name not in made and path.stat().st_mode & stat.S_IXUSR else 0o644
            archive.addfile(member, io.BytesIO(body))


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """PEP 517: build the sdist into the folder and return its name."""
    content = io.BytesIO()
    builder = flit_sdist.SdistBuilder.from_ini_path(PYPROJECT)
    with _dated() as epoch:
        _pack(builder, epoch, content)
    name = f"{builder.dir_name}.tar.gz"
    (Path(sdist_directory) / name).write_bytes(content.getvalue())
    return name
