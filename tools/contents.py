"""What is in a release, file by file, against the tree it should come from: nothing more, nothing else, one time.

Standard library only and without the build backend: what judges a build does not trust what built it. METADATA, the
entry points and RECORD are written here again, from what the source says, and compared byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools import sbom
from tools.beside import SUMS, beside, sums
from tools.epoch import CARRIED, source_epoch

LIMIT = 420_000  # bytes, of the wheel
SHOWN = 20  # faults; a release of another commit has hundreds
WHEEL = b"Wheel-Version: 1.0\nGenerator: flit %s\nRoot-Is-Purelib: true\nTag: py3-none-any\n" % sbom.BACKEND[1].encode()


def project(root: Path) -> dict[str, Any]:
    """What pyproject.toml says of the project, with the version that the package names."""
    table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = (root / "src" / sbom.PROJECT / "__init__.py").read_text(encoding="utf-8")
    return {**table, "version": re.findall(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)[0]}


def metadata(said: dict[str, Any], root: Path) -> bytes:
    """METADATA, or PKG-INFO, as the source says it."""
    extras = said["optional-dependencies"]
    needs = [*said["dependencies"], *(f'{need} ; extra == "{extra}"' for extra in extras for need in extras[extra])]
    fields = {
        "Metadata-Version": ["2.5"],
        "Name": [said["name"]],
        "Version": [said["version"]],
        "Summary": [said["description"]],
        "Keywords": [",".join(said["keywords"])],
        "Author": [author["name"] for author in said["authors"]],
        "Requires-Python": [said["requires-python"]],
        "Description-Content-Type": ["text/markdown"],
        "License-Expression": [said["license"]],
        "Classifier": said["classifiers"],
        "License-File": said["license-files"],
        "Requires-Dist": needs,
        "Project-URL": [f"{name}, {url}" for name, url in sorted(said["urls"].items())],
        "Provides-Extra": list(extras),
        "Import-Name": [said["name"]],
    }
    head = "".join(f"{field}: {value}\n" for field, values in fields.items() for value in values)
    return f"{head}\n{(root / said['readme']).read_text(encoding='utf-8')}\n".encode()


def entry_points(said: dict[str, Any]) -> bytes:
    """entry_points.txt as the source says it."""
    groups = {"console_scripts": said["scripts"], **said["entry-points"]}
    lines = (
        [f"[{group}]", *(f"{n}={target}" for n, target in sorted(groups[group].items())), ""]
        for group in sorted(groups)
    )
    return "".join(f"{line}\n" for group in lines for line in group).encode()


def wheel_files(root: Path, epoch: int) -> dict[str, bytes]:
    """All that the wheel holds but for RECORD, by its name there."""
    said = project(root)
    source = root / "src"
    paths = (path for path in (source / sbom.PROJECT).rglob("*") if path.is_file() and path.suffix != ".pyc")
    made = {
        "METADATA": metadata(said, root),
        "WHEEL": WHEEL,
        "entry_points.txt": entry_points(said),
        "licenses/LICENSE": (root / "LICENSE").read_bytes(),
        sbom.INSIDE: sbom.render(sbom.of_package(said["version"], epoch)),
    }
    files = {
        path.relative_to(source).as_posix(): path.read_bytes() for path in paths if path.parent.name != "__pycache__"
    }
    return {**files, **{f"{sbom.PROJECT}-{said['version']}.dist-info/{name}": body for name, body in made.items()}}


def record(files: dict[str, bytes], name: str) -> bytes:
    """RECORD, under its name, as it lists these files in their order."""

    def line(path: str, body: bytes) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        return f"{path},sha256={digest},{len(body)}\r\n"

    return ("".join(line(path, body) for path, body in files.items() if path != name) + f"{name},,\r\n").encode()


def differences(where: str, held: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> Iterator[str]:
    """Names that only one has, and other content."""
    for path in sorted({*wanted, *held}):
        if path not in held or path not in wanted:
            yield f"{where}: {path} {'does not belong in it' if path in held else 'is not in it'}"
        elif held[path] != wanted[path]:
            yield f"{where}: {path} is not what the tree says"


def wheel_faults(wheel: Path, root: Path, epoch: int) -> Iterator[str]:
    """The wheel holds the package, what is said of it, and a RECORD that names all that; one time, plain files."""
    moment = datetime.fromtimestamp(epoch - epoch % 2, UTC).timetuple()[:6]  # ZIP counts in steps of two seconds
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
        held = {entry.filename: archive.read(entry) for entry in entries}
    if len(held) != len(entries):
        yield f"{wheel.name}: a name stands in it twice"
    wanted = wheel_files(root, epoch)
    name = next(path for path in wanted if path.endswith("/METADATA")).replace("METADATA", "RECORD")
    wanted[name] = record({path: body for path, body in held.items() if path in wanted}, name)
    yield from differences(wheel.name, held, wanted)
    for entry in entries:
        if entry.date_time != moment:
            yield f"{wheel.name}: {entry.filename} does not carry the commit's time but {entry.date_time}"
        if entry.external_attr >> 16 not in (0o100644, 0o100755):
            yield f"{wheel.name}: {entry.filename} is not a plain file that all may read"
    if (size := wheel.stat().st_size) > LIMIT:
        yield f"{wheel.name}: {size} bytes, more than {LIMIT}"


def sdist_faults(sdist: Path, root: Path, epoch: int) -> Iterator[str]:
    """The sdist holds files of the tree as they are there, the commit's time and what an index reads."""
    top = sdist.name.removesuffix(".tar.gz")
    made = {CARRIED: f"{epoch}\n".encode(), "PKG-INFO": metadata(project(root), root)}
    held: dict[str, bytes] = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.removeprefix(f"{top}/")
            body = archive.extractfile(member) if member.isreg() else None
            if body is None or name in held or name == member.name:
                yield f"{sdist.name}: {member.name} is not a plain file under {top}, once"
                continue
            held[name] = body.read()
            if (member.mtime, member.uid, member.gid, member.uname, member.gname) != (epoch, 0, 0, "", ""):
                yield f"{sdist.name}: {name} does not carry the commit's time, or has an owner"
    tree = {name: (root / name).read_bytes() for name in held if name not in made and (root / name).is_file()}
    yield from differences(sdist.name, held, {**tree, **made})


def faults(folder: Path, root: Path, epoch: int) -> list[str]:
    """All that is wrong with a folder as `make build` fills it."""
    version = project(root)["version"]
    wheel, sdist = (folder / name for name in (f"waitbus-{version}-py3-none-any.whl", f"waitbus-{version}.tar.gz"))
    held = {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}
    if not {wheel.name, sdist.name} <= held.keys():
        return [f"{folder}: holds no {wheel.name} and {sdist.name}"]
    wanted = beside(wheel, root, epoch)
    wanted[SUMS] = sums(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    wanted |= {path.name: held[path.name] for path in (wheel, sdist)}
    beside_it = differences(str(folder), held, wanted)
    return [*wheel_faults(wheel, root, epoch), *sdist_faults(sdist, root, epoch), *beside_it]


def main() -> int:
    """Judge the folder that is named, against the tree this runs in."""
    folder = Path(sys.argv[1])
    found = faults(folder, Path(), source_epoch(Path(), strict=True))
    print("\n".join(found[:SHOWN]) or f"{folder} holds what the tree holds", file=sys.stderr if found else None)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
