"""What is in a release, file by file, against the tree it should come from: nothing more, nothing else, one time.

Standard library only and without the build backend: what judges a build does not trust what built it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tools import sbom
from tools.epoch import CARRIED, source_epoch

MADE = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", sbom.INSIDE}
LIMIT = 250_000  # bytes, of the wheel
SUMS = "SHA256SUMS"
SHOWN = 20  # faults; a release of another commit has hundreds


def package_files(root: Path) -> dict[str, bytes]:
    """What the wheel takes from the tree, by its name there."""
    source = root / "src"
    files = (path for path in (source / sbom.PROJECT).rglob("*") if path.is_file())
    return {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def wheel_faults(wheel: Path, root: Path, epoch: int) -> Iterator[str]:
    """The wheel holds the package, six files about it, and a RECORD that names them all."""
    version = wheel.name.split("-")[1]
    info = f"{sbom.PROJECT}-{version}.dist-info"
    moment = datetime.fromtimestamp(epoch - epoch % 2, UTC).timetuple()[:6]  # ZIP counts in steps of two seconds
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
        held = {entry.filename: archive.read(entry) for entry in entries}
    if len(held) != len(entries):
        yield f"{wheel.name}: a name stands in it twice"
    wanted = package_files(root)
    yield from (f"{wheel.name}: does not hold {name}" for name in sorted(set(wanted) - set(held)))
    for entry in entries:
        name = entry.filename
        if name in wanted:
            if held[name] != wanted[name]:
                yield f"{wheel.name}: {name} is not the tree's"
        elif name.removeprefix(f"{info}/") not in MADE or not name.startswith(f"{info}/"):
            yield f"{wheel.name}: {name} does not belong in it"
        if entry.date_time != moment:
            yield f"{wheel.name}: {name} does not carry the commit's time but {entry.date_time}"
        if entry.external_attr >> 16 not in (0o100644, 0o100755):
            yield f"{wheel.name}: {name} is not a plain file that all may read"
    yield from (f"{wheel.name}: {fault}" for fault in _record_faults(held, info))
    if held.get(f"{info}/{sbom.INSIDE}") != sbom.render(sbom.of_package(version, epoch)):
        yield f"{wheel.name}: its bill of materials is not what the tree says"
    if (size := wheel.stat().st_size) > LIMIT:
        yield f"{wheel.name}: {size} bytes, more than {LIMIT}"


def _record_faults(held: dict[str, bytes], info: str) -> Iterator[str]:
    """RECORD names every file once, with its digest and its size."""
    name = f"{info}/RECORD"
    rows = list(csv.reader(io.StringIO(held.get(name, b"").decode())))
    if sorted(row[0] for row in rows) != sorted(held):
        yield "RECORD does not name exactly the files that are there"
        return
    for path, digest, size in rows:
        packed = base64.urlsafe_b64encode(hashlib.sha256(held[path]).digest()).rstrip(b"=").decode()
        right = ("", "") if path == name else (f"sha256={packed}", str(len(held[path])))
        if (digest, size) != right:
            yield f"RECORD is wrong about {path}"


def sdist_faults(sdist: Path, root: Path, epoch: int) -> Iterator[str]:
    """The sdist holds files of the tree as they are there, the commit's time and what an index reads."""
    top = sdist.name.removesuffix(".tar.gz")
    seen: set[str] = set()
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.removeprefix(f"{top}/")
            body = archive.extractfile(member) if member.isreg() else None
            if body is None or name in seen or name == member.name:
                yield f"{sdist.name}: {member.name} is not a plain file under {top}, once"
                continue
            seen.add(name)
            if (member.mtime, member.uid, member.gid, member.uname, member.gname) != (epoch, 0, 0, "", ""):
                yield f"{sdist.name}: {name} does not carry the commit's time, or has an owner"
            content = body.read()
            if name == CARRIED:
                if content != f"{epoch}\n".encode():
                    yield f"{sdist.name}: {CARRIED} is not the commit's time"
            elif name != "PKG-INFO" and not _is(root / name, content):
                yield f"{sdist.name}: {name} is not the tree's"
    yield from (f"{sdist.name}: does not hold {name}" for name in sorted({CARRIED, "PKG-INFO"} - seen))


def _is(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def beside_faults(folder: Path, wheel: Path, root: Path, epoch: int) -> Iterator[str]:
    """The bills of materials are what the wheel and the lock say; SHA256SUMS names everything."""
    version = wheel.name.split("-")[1]
    lock = tomllib.loads((root / "uv.lock").read_text(encoding="utf-8"))
    bills = {
        f"{sbom.PROJECT}-{version}.cdx.json": sbom.of_wheel(wheel, epoch),
        f"{sbom.PROJECT}-{version}-mcp.cdx.json": sbom.of_extra("mcp", lock, version, epoch),
    }
    for name, document in bills.items():
        if not _is(folder / name, sbom.render(document)):
            yield f"{name}: is not what the wheel and the lock say"
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    if not _is(folder / SUMS, "".join(lines).encode()):
        yield f"{SUMS}: does not name exactly the files beside it with their digests"


def faults(folder: Path, root: Path, epoch: int) -> list[str]:
    """All that is wrong with a folder as `make build` fills it."""
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if (len(wheels), len(sdists)) != (1, 1):
        return [f"{folder}: must hold one wheel and one sdist, holds {len(wheels)} and {len(sdists)}"]
    return [
        *wheel_faults(wheels[0], root, epoch),
        *sdist_faults(sdists[0], root, epoch),
        *beside_faults(folder, wheels[0], root, epoch),
    ]


def main() -> int:
    """Judge the folder that is named, against the tree this runs in."""
    folder = Path(sys.argv[1])
    found = faults(folder, Path(), source_epoch(Path(), strict=True))
    for fault in found[:SHOWN]:
        print(fault, file=sys.stderr)
    print(f"{folder}: {f'{len(found)} faults' if found else 'holds what the tree holds, and nothing else'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
