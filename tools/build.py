"""Build the sdist and the wheel so that anyone who builds the same commit gets the same bytes.

Run from the root of a checkout, or of an unpacked sdist, with the locked build backend installed. In a checkout the
bills of materials, the extra's lock and SHA256SUMS, which covers every file, are laid beside them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tools import backend
from tools.beside import LOCK, SUMS, beside, digest, sums
from tools.epoch import source_epoch


def build(folder: Path) -> list[Path]:
    """Build into the folder. Returns the sdist, the wheel and the other files of the release."""
    folder.mkdir(parents=True, exist_ok=True)
    epoch = source_epoch(Path(), strict=True)
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    paths = [folder / backend.build_sdist(str(folder)), folder / backend.build_wheel(str(folder))]
    if Path(LOCK).exists():
        for name, content in beside(paths[1], Path(), epoch).items():
            paths.append(folder / name)
            paths[-1].write_bytes(content)
        (folder / SUMS).write_bytes(sums(paths))
        paths.append(folder / SUMS)
    return paths


def main() -> int:
    """Build and print each file's SHA-256, size and path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the files go")
    for path in build(parser.parse_args().folder):
        print(f"{digest(path)}  {path.stat().st_size:>7}  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
