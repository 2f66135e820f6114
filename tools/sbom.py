"""Bills of materials in CycloneDX 1.6 JSON: the same input gives the same bytes.

Nothing here asks the clock or a random generator: the timestamp is the commit's, the serial number a digest of the
content. Standard library only, because the build backend needs it; uv.lock is read only for the extra's bill.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROJECT = "waitbus"
INSIDE = "sboms/waitbus.cdx.json"  # PEP 770, under .dist-info
HOME = "https://github.com/waitbus/waitbus"
BACKEND = ("flit_core", "4.2.0")  # tests hold it to [build-system].requires

Json = dict[str, Any]

SUPPLIER = {"name": "waitbus contributors", "url": [HOME]}
_VCS = [{"type": "vcs", "url": HOME}]


def purl(name: str, version: str) -> str:
    """A package URL for PyPI; the name in its normal form."""
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"


def render(document: Json) -> bytes:
    """Its one form as bytes; the serial number is added here, from everything else."""
    body = json.dumps(document, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    serial = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{HOME}#sbom-{digest}')}"
    return json.dumps({**document, "serialNumber": serial}, sort_keys=True, indent=1).encode() + b"\n"


def _document(subject: Json, components: list[Json], needs: dict[str, list[str]], epoch: int) -> Json:
    """The frame of every bill: its subject, its parts, who needs whom, and that nothing is left out."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "tools/sbom.py", "externalReferences": _VCS}]},
            "supplier": SUPPLIER,
            "component": subject,
        },
        "components": sorted(components, key=lambda component: str(component["bom-ref"])),
        "dependencies": [{"ref": ref, "dependsOn": sorted(refs)} for ref, refs in sorted(needs.items())],
        "compositions": [{"aggregate": "complete", "dependencies": [subject["bom-ref"]]}],
    }


def _subject(version: str) -> Json:
    """What the bill is about."""
    ref = purl(PROJECT, version)
    return {
        "type": "application",
        "bom-ref": ref,
        "purl": ref,
        "name": PROJECT,
        "version": version,
        "licenses": [{"license": {"id": "MIT", "acknowledgement": "declared"}}],
        "supplier": SUPPLIER,
        "externalReferences": _VCS,
    }


def _backend() -> Json:
    """The one thing that took part in the build and is not in the wheel."""
    ref = purl(*BACKEND)
    name, version = BACKEND
    return {
        "type": "library",
        "bom-ref": ref,
        "purl": ref,
        "name": name,
        "version": version,
        "scope": "excluded",
    }


def of_package(version: str, epoch: int) -> Json:
    """The bill inside the wheel: what is needed at run time (nothing) and what built it."""
    subject = _subject(version)
    backend = _backend()
    return _document(subject, [backend], {subject["bom-ref"]: [], backend["bom-ref"]: []}, epoch)


def of_wheel(wheel: Path, epoch: int) -> Json:
    """The bill beside the wheel: the same, plus the wheel's own digest and every file in it with its own."""
    version = wheel.name.split("-")[1]
    document = of_package(version, epoch)
    document["metadata"]["component"]["hashes"] = [_sha256(wheel.read_bytes())]
    with zipfile.ZipFile(wheel) as archive:
        document["components"] += [
            {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [_sha256(archive.read(name))]}
            for name in sorted(archive.namelist())
        ]
    return document


def _sha256(content: bytes) -> Json:
    return {"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}


def _locked(package: Json) -> Json:
    """One package of uv.lock with every file that may be installed for it, each with its digest."""
    ref = purl(package["name"], package["version"])
    files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
    return {
        "type": "library",
        "bom-ref": ref,
        "purl": ref,
        "name": package["name"],
        "version": package["version"],
        "externalReferences": [
            {
                "type": "distribution",
                "url": file["url"],
                "hashes": [{"alg": "SHA-256", "content": file["hash"].removeprefix("sha256:")}],
            }
            for file in sorted(files, key=lambda file: str(file["url"]))
        ],
    }


Reached = dict[tuple[str, str], tuple[Json, set[str]]]


def closure(lock: Json, roots: Iterable[tuple[str, tuple[str, ...]]]) -> Reached:
    """What these (name, extras) reach in a lock, on any platform and any Python.

    Keyed by name and version; each package comes with the extras that were asked of it.
    """
    packages: dict[str, list[Json]] = {}
    for package in lock["package"]:
        packages.setdefault(package["name"], []).append(package)
    reached: Reached = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    todo = list(roots)
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for package in packages[name]:
            reached.setdefault((name, package["version"]), (package, set()))[1].update(extras)
            todo += _named(_needs(package, extras))
    return dict(sorted(reached.items()))


def _needs(package: Json, extras: Iterable[str]) -> list[Json]:
    optional = package.get("optional-dependencies", {})
    return [*package.get("dependencies", ()), *(need for extra in sorted(extras) for need in optional.get(extra, ()))]


def _named(needs: Iterable[Json]) -> list[tuple[str, tuple[str, ...]]]:
    return [(need["name"], tuple(need.get("extra", ()))) for need in needs]


def extra_closure(extra: str, lock: Json) -> tuple[list[Json], Reached]:
    """What an extra of ours asks for, and all that this reaches."""
    (ours,) = (package for package in lock["package"] if package["name"] == PROJECT)
    asked: list[Json] = ours["optional-dependencies"][extra]
    return asked, closure(lock, _named(asked))


def of_extra(extra: str, lock: Json, version: str, epoch: int) -> Json:
    """The bill of ``waitbus[extra]`` as uv.lock resolves it: the versions our tests ran with, not a promise."""
    subject = _subject(version)
    asked, reached = extra_closure(extra, lock)
    refs: dict[str, list[str]] = {}
    for name, locked in reached:
        refs.setdefault(name, []).append(purl(name, locked))

    def meant(needs: Iterable[Json]) -> list[str]:
        return sorted({ref for need in needs for ref in refs.get(need["name"], ())})

    needs = {purl(*key): meant(_needs(package, extras)) for key, (package, extras) in reached.items()}
    needs[subject["bom-ref"]] = meant(asked)
    return _document(subject, [_locked(package) for package, _ in reached.values()], needs, epoch)
