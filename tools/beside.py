"""The other files of a release: bills of materials, a lock for the extra, and the list of checksums."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tools import sbom

LOCK = "uv.lock"
PYLOCK = "pylock.mcp.toml"
SUMS = "SHA256SUMS"


def digest(path: Path) -> str:
    """Return the file's SHA-256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def beside(wheel: Path, root: Path, epoch: int) -> dict[str, bytes]:
    """Return these files by name, except the list of checksums, for this wheel and the lock in `root`."""
    version = wheel.name.split("-")[1]
    lock = tomllib.loads((root / LOCK).read_text(encoding="utf-8"))
    # PEP 751: the path of the wheel is relative to the lock.
    ours = f'wheels = [{{ path = "{wheel.name}", hashes = {{ sha256 = "{digest(wheel)}" }} }}]\n'
    pylock = (root / "packaging" / PYLOCK).read_text(encoding="utf-8")
    return {
        f"{sbom.PROJECT}-{version}.cdx.json": sbom.render(sbom.of_wheel(wheel, epoch)),
        f"{sbom.PROJECT}-{version}-mcp.cdx.json": sbom.render(sbom.of_extra("mcp", lock, version, epoch)),
        PYLOCK: f'{pylock}\n[[packages]]\nname = "{sbom.PROJECT}"\nversion = "{version}"\n{ours}'.encode(),
    }


def sums(paths: Iterable[Path]) -> bytes:
    """Return the SHA256SUMS of these files, in the format of sha256sum."""
    return "".join(f"{digest(path)}  {path.name}\n" for path in sorted(paths)).encode()
