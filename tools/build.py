"""Build the sdist and the wheel so that anyone who builds the same commit gets the same bytes.

Run from the root of a checkout, or of an unpacked sdist, with the locked build backend installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from flit_core import buildapi


def source_epoch(root: Path) -> int:
    """The commit's time, or in an unpacked sdist the time its files carry, which is the same."""
    if not (root / ".git").exists():  # git would look further up, into a repository that is not ours
        return int((root / "pyproject.toml").stat().st_mtime)
    command = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Build both and print each one's SHA-256, size and path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the two files go")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SOURCE_DATE_EPOCH", str(source_epoch(Path.cwd())))
    for build in (buildapi.build_sdist, buildapi.build_wheel):
        path = folder / build(str(folder))
        content = path.read_bytes()
        print(f"{hashlib.sha256(content).hexdigest()}  {len(content):>7}  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
