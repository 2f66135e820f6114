"""What lies beside the wheel and the sdist of a release: bills of materials, a lock for the extra, the list of sums."""

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
    """The file's SHA-256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def beside(wheel: Path, root: Path, epoch: int) -> dict[str, bytes]:
    """All but the list of sums, by name, as this wheel and the lock of `root` give it."""
    version = wheel.name.split("-")[1]
    lock = tomllib.loads((root / LOCK).read_text(encoding="utf-8"))
    # PEP 751; the wheel is taken from where the lock lies.
    ours = f'wheels = [{{ path = "{wheel.name}", hashes = {{ sha256 = "{digest(wheel)}" }} }}]\n'
    pylock = (root / "packaging" / PYLOCK).read_text(encoding="utf-8")
    return {
        f"{sbom.PROJECT}-{version}.cdx.json": sbom.render(sbom.of_wheel(wheel, epoch)),
        f"{sbom.PROJECT}-{version}-mcp.cdx.json": sbom.render(sbom.of_extra("mcp", lock, version, epoch)),
        PYLOCK: f'{pylock}\n[[packages]]\nname = "{sbom.PROJECT}"\nversion = "{version}"\n{ours}'.encode(),
    }


def sums(paths: Iterable[Path]) -> bytes:
    """SHA256SUMS of these files, as sha256sum reads it."""
    return "".join(f"{digest(path)}  {path.name}\n" for path in sorted(paths)).encode()
