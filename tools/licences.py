"""Finds the licences of the locked packages and checks that they are allowed.

A package that is installed says it itself. What says it in no clear word, or is for another platform or another Python,
was looked up by a person and stands here; a package that is neither is a fault.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tools import sbom

# Licences allowed in what users install, and further ones for development tools (file-based copyleft).
OFFERED = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0", "Unlicense"}
USED = OFFERED | {"MPL-2.0"}

# Other names of some licences.
_WORDS = {
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "psfl": "PSF-2.0",
}
_KNOWN = {**_WORDS, **{identifier.lower(): identifier for identifier in USED}}

# Licences that were looked up in the packages themselves.
REVIEWED = {
    "async-timeout": "Apache-2.0",  # Python 3.10 and older
    "colorama": "BSD-3-Clause",  # Windows
    "docutils": "BSD-2-Clause",  # the modules are public domain, BSD or PSF; one Emacs file beside them is GPL
    "fastjsonschema": "BSD-3-Clause",
    "httpx2-jsfetch": "BSD-3-Clause",  # Emscripten
    "isoduration": "ISC",
    "pyyaml-ft": "MIT",  # free-threaded Python 3.13
    "pywin32": "PSF-2.0",  # Windows
    "validate-pyproject": "MPL-2.0 AND MIT AND BSD-3-Clause",
}

Said = Mapping[str, list[str]]  # fields of a package's metadata, each with all its values


def spoken(name: str, said: Said | None) -> str:
    """Return the licence as an SPDX expression, or "" if the metadata does not say it clearly."""
    if name in REVIEWED or said is None:
        return REVIEWED.get(name, "")
    if expression := said["License-Expression"]:
        return expression[0]
    if word := _KNOWN.get("".join(said["License"]).strip().lower()):
        return word
    named = [line.rsplit(" :: ", 1)[1] for line in said["Classifier"] if line.startswith("License :: OSI Approved :: ")]
    return " AND ".join(_KNOWN.get(word.lower(), f"LicenseRef-{word.split()[0]}") for word in named)


def allowed(expression: str, licences: set[str]) -> bool:
    """Whether one may take something under this expression: of OR one side is enough, of AND it takes both.

    Brackets and exceptions are not read, since none of ours has any: look at one that does.
    """
    choices = [] if "(" in expression else expression.split(" OR ")
    return any(set(choice.split(" AND ")) <= licences for choice in choices)


def installed() -> dict[str, Said]:
    """Return the metadata of the packages in this environment, by their names in a lock."""
    fields = ("License-Expression", "License", "Classifier")
    return {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): {
            field: found.metadata.get_all(field) or [] for field in fields
        }
        for found in metadata.distributions()
    }


def faults(lock: dict[str, Any], said: Mapping[str, Said]) -> Iterator[str]:
    """Return locked packages whose licence is unknown or not allowed. What users install may have fewer licences."""
    offered = {name for name, _ in sbom.extra_closure("mcp", lock)[1]}
    for package in lock["package"]:
        name = package["name"]
        expression = spoken(name, said.get(name))
        if name != sbom.PROJECT and not allowed(expression, OFFERED if name in offered else USED):
            what = (
                f"{expression} is not allowed here" if expression else "no clear licence: name it in tools/licences.py"
            )
            yield f"{name} {package['version']}: {what}"


def check(root: Path) -> list[str]:
    """Return what is wrong with the licences of the locked packages, by the metadata in this environment."""
    return list(faults(tomllib.loads((root / "uv.lock").read_text(encoding="utf-8")), installed()))
