"""Under which licences the locked packages come, and whether those are allowed.

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
from tools.lock import normal

# What may be offered to a user, and what may moreover be used to develop: copyleft by file, in tools never shipped.
OFFERED = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0", "Unlicense"}
USED = OFFERED | {"MPL-2.0"}

_WORDS = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit": "MIT",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "apache-2.0": "Apache-2.0",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
}

# Read in the packages themselves.
REVIEWED = {
    "async-timeout": "Apache-2.0",  # Python 3.10 and older
    "colorama": "BSD-3-Clause",  # Windows
    "docutils": "BSD-2-Clause",  # the modules are public domain, BSD or PSF; one Emacs file beside them is GPL
    "fastjsonschema": "BSD-3-Clause",
    "httpx2-jsfetch": "BSD-3-Clause",  # Emscripten
    "isoduration": "ISC",
    "pyyaml-ft": "MIT",  # free-threaded Python 3.13
    "pywin32": "PSF-2.0",  # Windows
    "pywin32-ctypes": "BSD-3-Clause",  # Windows
    "validate-pyproject": "MPL-2.0 AND MIT AND BSD-3-Clause",
}


Said = Mapping[str, list[str]]  # fields of a package's metadata, each with all its values


def spoken(name: str, said: Said | None) -> str:
    """The licence as an SPDX expression; empty when nothing clear is said."""
    if name in REVIEWED:
        return REVIEWED[name]
    if said is None:
        return ""
    if expression := said["License-Expression"]:
        return expression[0]
    if said["License"] and (word := _WORDS.get(said["License"][0].strip().lower())):
        return word
    named = [line.rsplit(" :: ", 1)[1] for line in said["Classifier"] if line.startswith("License :: OSI Approved :: ")]
    return " AND ".join(_WORDS.get(word.lower(), f"LicenseRef-{normal(word)}") for word in named)


def allowed(expression: str, licences: set[str]) -> bool:
    """Whether one may take something under this expression: of OR one side is enough, of AND it takes both."""
    if re.search(r"[()]|\bWITH\b", expression):
        return False  # none of ours needs it: look at it
    return any(
        all(part.strip() in licences for part in choice.split(" AND ")) for choice in expression.split(" OR ") if choice
    )


def installed() -> dict[str, Said]:
    """What this environment's packages say about themselves, by name."""
    fields = ("License-Expression", "License", "Classifier")
    return {
        normal(found.metadata["Name"]): {field: found.metadata.get_all(field) or [] for field in fields}
        for found in metadata.distributions()
    }


def faults(lock: dict[str, Any], said: Mapping[str, Said]) -> Iterator[str]:
    """Packages of the lock whose licence is not known or not allowed; of those offered to users, more is asked."""
    _, reached = sbom.extra_closure("mcp", lock)
    offered = {name for name, _ in reached}
    for package in lock["package"]:
        name = package["name"]
        if name == sbom.PROJECT:
            continue
        expression = spoken(name, said.get(name))
        if not expression:
            yield f"{name} {package['version']}: no clear licence: look it up, then name it in tools/licences.py"
        elif not allowed(expression, OFFERED if name in offered else USED):
            yield f"{name} {package['version']}: {expression} is not allowed here"


def check(root: Path) -> tuple[int, list[str]]:
    """How many packages were looked at in this environment, and what is wrong with them."""
    lock = tomllib.loads((root / "uv.lock").read_text(encoding="utf-8"))
    return len(lock["package"]) - 1, list(faults(lock, installed()))
