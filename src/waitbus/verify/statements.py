"""What is said about a file: its own name and metadata, a list of checksums, a bill of materials.

Each is read strictly and within limits, and compared with the bytes at hand; a doubtful one is a fault.
"""

from __future__ import annotations

import json
import re
from email.parser import BytesHeaderParser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PROJECT = "waitbus"
MAX_BYTES = 1 << 20

_VERSION = r"[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?"
_WHEEL_NAME = re.compile(rf"waitbus-({_VERSION})-py3-none-any\.whl", re.ASCII)
_SDIST_NAME = re.compile(rf"waitbus-({_VERSION})\.tar\.gz", re.ASCII)
_SUM = re.compile(r"([0-9a-f]{64}) [ *](\S.*)", re.ASCII)
_SPEC = re.compile(r"1\.([0-9]{1,3})", re.ASCII)
_SPEC_MINOR = 6  # CycloneDX 1.6, or a later 1.x


def version_in_name(name: str) -> str | None:
    """The version that the name of a release's wheel or sdist says; None when it is not such a name."""
    match = _WHEEL_NAME.fullmatch(name) or _SDIST_NAME.fullmatch(name)
    return match[1] if match else None


def metadata_faults(data: bytes, version: str) -> Iterator[str]:
    """Where METADATA or PKG-INFO differs from what waitbus `version` says of itself."""
    if len(data) > MAX_BYTES:
        yield "the metadata is larger than 1 MiB"
        return
    headers = BytesHeaderParser().parsebytes(data)
    for field, wanted in (("Name", PROJECT), ("Version", version)):
        said = headers.get_all(field) or []
        if said != [wanted]:
            yield f"the metadata says {field} {', '.join(map(repr, said)) or 'nowhere'}, not {wanted!r}"
    needs = [str(need) for need in headers.get_all("Requires-Dist") or []]
    if needs := [need for need in needs if "extra ==" not in need.partition(";")[2]]:
        yield f"it needs {needs[0]!r}, and waitbus needs nothing"


def wheel_faults(data: bytes) -> Iterator[str]:
    """Where the file WHEEL asks an installer for something else than to lay down pure Python."""
    headers = BytesHeaderParser().parsebytes(data[:MAX_BYTES])
    for field, wanted in (("Wheel-Version", "1.0"), ("Root-Is-Purelib", "true"), ("Tag", "py3-none-any")):
        if (said := headers.get_all(field) or []) != [wanted]:
            yield f"WHEEL says {field} {', '.join(map(repr, said)) or 'nowhere'}, not {wanted!r}"


def sums_faults(data: bytes, name: str, sha256: str) -> Iterator[str]:
    """Why a SHA256SUMS does not vouch for the file `name` with the hash `sha256` (hexadecimal)."""
    if len(data) > MAX_BYTES:
        yield "the list is larger than 1 MiB"
        return
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        yield "the list is no text"
        return
    named = []
    for number, line in enumerate(lines, 1):
        match = _SUM.fullmatch(line)
        if match is None:
            yield f"line {number} is no checksum: 64 hexadecimal digits, two spaces and a name are needed"
        elif match[2].removeprefix("./") == name:
            named.append(match[1])
    if len(named) != 1:
        yield f"{name} stands there {'twice or more' if named else 'nowhere'}"
    elif named[0] != sha256:
        yield f"{name} should have {named[0]}, and has {sha256}"


def sbom_faults(data: bytes, version: str, sha256: str | None = None) -> Iterator[str]:
    """Why a bill of materials is not that of waitbus `version`; with `sha256`, not that of the file with this hash."""
    try:
        bill = json.loads(data) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        bill = None
    if not isinstance(bill, dict):
        yield "it is no JSON object of at most 1 MiB"
        return
    spec = _SPEC.fullmatch(str(bill.get("specVersion")))
    if bill.get("bomFormat") != "CycloneDX" or spec is None or int(spec[1]) < _SPEC_MINOR:
        yield f"it is no CycloneDX 1.{_SPEC_MINOR} or later"
        return
    component = _object(_object(bill.get("metadata") or {}).get("component") or {})
    said = (component.get("name"), component.get("version"))
    if said != (PROJECT, version):
        yield f"it describes {said[0]} {said[1]}, not {PROJECT} {version}"
    if sha256 is not None and sha256 not in _hashes(component):
        yield f"it does not name the sha256 of this file, {sha256}"


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _hashes(component: dict[str, Any]) -> set[str]:
    """Every SHA-256 that a component or its places of distribution carry, in lower case."""
    places = component.get("externalReferences")
    holders = [component, *map(_object, places if isinstance(places, list) else [])]
    found = set()
    for holder in holders:
        hashes = holder.get("hashes")
        for entry in map(_object, hashes if isinstance(hashes, list) else []):
            if entry.get("alg") == "SHA-256":
                found.add(str(entry.get("content")).lower())
    return found
