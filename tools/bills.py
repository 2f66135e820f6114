"""Hold bills of materials to the official schema, through the validator of CycloneDX's own library."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from jsonschema import Draft7Validator

from tools import sbom

# The library reads each address by a full grammar, a tenth of a second long, and there are hundreds. Ours accepts less:
# what passes here is an IRI reference, too.
_ADDRESS = re.compile(r"https?://[a-z0-9.-]+/[A-Za-z0-9._/+~%-]*(?:#[A-Za-z0-9_-]+)?", re.ASCII)


def _is_address(value: object) -> bool:
    return not isinstance(value, str) or _ADDRESS.fullmatch(value) is not None


Draft7Validator.FORMAT_CHECKER.checkers["iri-reference"] = (_is_address, ())


def schema_faults(name: str, content: bytes) -> Iterator[str]:
    """Where a document breaks the schema of CycloneDX 1.6; a property that it does not know breaks it, too."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode())
    if error is not None:
        yield f"{name}: {str(error.data)[:300]}"


def faults(folder: Path) -> list[str]:
    """All bills of a built release: those beside the wheel and the one in it."""
    found: list[str] = []
    bills = sorted(folder.glob("*.cdx.json"))
    if len(bills) != 2:
        found.append(f"{folder}: two bills must lie beside the wheel, not {len(bills)}")
    for path in bills:
        found += schema_faults(path.name, path.read_bytes())
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            inside = [name for name in archive.namelist() if name.endswith(f".dist-info/{sbom.INSIDE}")]
            if len(inside) != 1:
                found.append(f"{wheel.name}: one bill must be in it, not {len(inside)}")
            for name in inside:
                found += schema_faults(name, archive.read(name))
    return found
