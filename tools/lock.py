"""What uv.lock and the requirement files must be: one index, a hash for every file, one version of the backend."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import sbom

INDEX = {"registry": "https://pypi.org/simple"}
FILES = "https://files.pythonhosted.org/"
FOLDER = Path("packaging")
_REQUIREMENT = re.compile(r"([\w.-]+)==(\S+)(?: *; [^#]+?)?((?: *--hash=sha256:[0-9a-f]{64})+)")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def lock_faults(text: str) -> Iterator[str]:
    """Everything but ourselves comes from the one index, every file of it with its SHA-256."""
    try:
        packages: list[dict[str, Any]] = tomllib.loads(text)["package"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        yield f"uv.lock: cannot be read: {error}"
        return
    for package in packages:
        name = package["name"]
        if name == sbom.PROJECT:
            if package["source"] != {"editable": "."}:
                yield f"uv.lock: {name} is not this checkout"
            continue
        if package["source"] != INDEX:
            yield f"uv.lock: {name} comes from {package['source']}, not from the index"
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        if not files:
            yield f"uv.lock: {name} has no file"
        for file in files:
            if not _HASH.fullmatch(file.get("hash", "")):
                yield f"uv.lock: {name}: a file has no SHA-256: {file.get('url', file)}"
            if not file.get("url", "").startswith(FILES):
                yield f"uv.lock: {name}: a file lies elsewhere: {file.get('url', file)}"


def requirements(text: str) -> Iterator[tuple[str, str, bool]]:
    """Each requirement of a compiled file: name, version, and whether it is pinned by hash and nothing else."""
    for line in text.replace("\\\n", "").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _REQUIREMENT.fullmatch(line.strip())
        yield (match[1], match[2], True) if match else (line.split()[0], "", False)


def requirement_faults(wanted: str, compiled: str, name: str) -> Iterator[str]:
    """The compiled file pins what the short one asks for, all of it by hash."""
    found = list(requirements(compiled))
    yield from (f"{name}.txt: {package} is not pinned by hash" for package, _, good in found if not good)
    pinned = {f"{normal(package)}=={version}" for package, version, _ in found}
    asked = {line for line in wanted.splitlines() if line and not line.startswith("#")}
    yield from (f"{name}.txt: does not pin {line}" for line in sorted(asked) if normal(line) not in map(normal, pinned))
    if not asked:
        yield f"{name}.in: asks for nothing"


def backend_faults(pyproject: dict[str, Any], lock: dict[str, Any], build: str) -> Iterator[str]:
    """pyproject.toml, the lock, packaging/build.txt and the bill of materials name one version of the backend."""
    name, version = sbom.BACKEND
    pin = f"{name}=={version}"
    if pyproject["build-system"]["requires"] != [pin]:
        yield f"pyproject.toml: [build-system] asks for {pyproject['build-system']['requires']}, not just {pin}"
    locked = [package["version"] for package in lock["package"] if package["name"] == name.replace("_", "-")]
    if locked != [version]:
        yield f"uv.lock: has {name} {locked}, not {version}"
    if [entry[:2] for entry in requirements(build)] != [(name.replace("_", "-"), version)]:
        yield f"packaging/build.txt: does not pin just {pin}"


def faults(root: Path) -> list[str]:
    """All that is wrong with what this checkout locks."""
    text = (root / "uv.lock").read_text(encoding="utf-8")
    found = list(lock_faults(text))
    for path in sorted((root / FOLDER).glob("*.in")):
        compiled = path.with_suffix(".txt").read_text(encoding="utf-8")
        found += requirement_faults(path.read_text(encoding="utf-8"), compiled, f"packaging/{path.stem}")
    if not found:
        pyproject = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        build = (root / FOLDER / "build.txt").read_text(encoding="utf-8")
        found += backend_faults(pyproject, tomllib.loads(text), build)
    return found


def locked(root: Path) -> set[tuple[str, str]]:
    """Every (name, version) that this checkout may install to build, test or audit, names in their normal form.

    The release before this one is not among them: it is run as what it was, to read its store.
    """
    lock = tomllib.loads((root / "uv.lock").read_text(encoding="utf-8"))
    pairs = {(package["name"], package["version"]) for package in lock["package"] if package["name"] != sbom.PROJECT}
    for name in ("bootstrap", "build"):
        text = (root / FOLDER / f"{name}.txt").read_text(encoding="utf-8")
        pairs |= {(normal(package), version) for package, version, _ in requirements(text)}
    return pairs


def normal(name: str) -> str:
    """A project's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
