"""Checks the locks: one index, a SHA-256 for every file, no package that nothing requires, and exports that agree.

uv itself says whether a lock is in step with what it locks (`uv lock --check`); it accepts a package that nothing
needs, and looks at no hash.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import sbom

INDEX = {"registry": "https://pypi.org/simple"}
OURSELVES = {"editable": "."}
FILES = "https://files.pythonhosted.org/"
# Each lock, with its script if it belongs to one.
LOCKS = {"uv.lock": None, **{f"packaging/{name}.py.lock": f"packaging/{name}.py" for name in ("previous", "publisher")}}
# The exports of uv.lock for people without uv, with the arguments that make them.
_PINS = ("--format=requirements.txt", "--no-annotate", "--only-group")
EXPORTS = {
    "packaging/bootstrap.txt": (*_PINS, "bootstrap"),
    "packaging/build.txt": (*_PINS, "build"),
    "packaging/pylock.mcp.toml": ("--format=pylock.toml", "--no-default-groups", "--extra=mcp"),
}
ACCEPTED = "packaging/osv-scanner.toml"  # known vulnerabilities that cannot reach us
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def lock_faults(name: str, text: str) -> Iterator[str]:
    """Check that every package but ours comes from the index, has a SHA-256 for every file, and is required."""
    try:
        lock = tomllib.loads(text)
        packages: list[dict[str, Any]] = lock["package"]
        needed = sbom.closure(lock, _roots(lock))
    except (tomllib.TOMLDecodeError, KeyError) as error:
        yield f"{name}: cannot be read: {error!r}"
        return
    for package in packages:
        if package["name"] == sbom.PROJECT and package["source"] == OURSELVES:
            continue
        where = f"{name}: {package['name']}"
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
        if (package["name"], package.get("version")) not in needed:
            yield f"{where}: nothing needs it"
        if package["source"] != INDEX:
            yield f"{where}: comes from {package['source']}, not from the index"
        if not files:
            yield f"{where}: has no file"
        for file in files:
            if not _HASH.fullmatch(file.get("hash", "")):
                yield f"{where}: a file has no SHA-256: {file.get('url', file)}"
            if not file.get("url", "").startswith(FILES):
                yield f"{where}: a file lies elsewhere: {file.get('url', file)}"


def _roots(lock: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Return what is required: by the script, or by our own package, its extras and its groups."""
    asked = list(lock.get("manifest", {}).get("requirements", ()))
    for ours in (package for package in lock["package"] if package["source"] == OURSELVES):
        parts = (*ours.get("optional-dependencies", {}).values(), *ours.get("dev-dependencies", {}).values())
        asked += [need for needs in (ours.get("dependencies", ()), *parts) for need in needs]
    return ((need["name"], tuple(need.get("extra", need.get("extras", ())))) for need in asked)


def backend_faults(pyproject: dict[str, Any]) -> Iterator[str]:
    """Check that the build system, its locked group and the bill of materials name the same version of the backend."""
    pin = ["==".join(sbom.BACKEND)]
    asked = {
        "[build-system] requires": pyproject["build-system"]["requires"],
        "dependency-groups.build": pyproject["dependency-groups"]["build"],
    }
    yield from (f"pyproject.toml: {place} is {said}, not {pin}" for place, said in asked.items() if said != pin)


def export(uv: str, root: Path, name: str) -> str:
    """Return an export as uv makes it from the lock alone."""
    fixed = ("--frozen", "--offline", "--quiet", "--no-header", "--no-emit-project")
    command = [uv, "export", *fixed, *EXPORTS[name]]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def faults(root: Path, uv: str) -> list[str]:
    """Return everything that is wrong with the locks of this checkout."""
    found = [fault for name in LOCKS for fault in lock_faults(name, (root / name).read_text(encoding="utf-8"))]
    found += backend_faults(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")))
    kinds = (".py", ".txt", ".toml", ".lock")
    there = {f"packaging/{path.name}" for path in (root / "packaging").iterdir() if path.suffix in kinds}
    scripts = {script for script in LOCKS.values() if script}
    found += [f"{name}: nothing uses it" for name in sorted(there - {*LOCKS, *EXPORTS, *scripts, ACCEPTED})]
    for name in () if found else EXPORTS:
        if (root / name).read_text(encoding="utf-8") != export(uv, root, name):
            found.append(f"{name}: is not what uv.lock says: run make lock")
    return found


def locked(root: Path) -> set[tuple[str, str]]:
    """Return every (name, version) that this checkout may install to build, test or audit.

    What the scripts in packaging/ lock is not among them: those are run as what they were, to compare with.
    """
    lock = tomllib.loads((root / "uv.lock").read_text(encoding="utf-8"))
    return {(package["name"], package["version"]) for package in lock["package"] if package["name"] != sbom.PROJECT}


def main() -> int:
    """Write the exports with the uv named on the command line."""
    for name in EXPORTS:
        Path(name).write_text(export(sys.argv[1], Path(), name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
