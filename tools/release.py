"""May this tag be released? It must name the version in the source and a dated entry of the changelog."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path


def faults(tag: str, source: str, changelog: str) -> Iterator[str]:
    """What speaks against the tag, from the package's __init__.py and the changelog."""
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        yield "the source names no version"
        return
    version = match[1]
    if tag != f"v{version}":
        yield f"the tag is {tag}, the source says {version}"
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        yield f"CHANGELOG.md has no dated entry for {version}"


def main() -> int:
    """Judge the tag that is named."""
    tag = sys.argv[1]
    source = Path("src/waitbus/__init__.py").read_text(encoding="utf-8")
    found = list(faults(tag, source, Path("CHANGELOG.md").read_text(encoding="utf-8")))
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"{tag}: {'not to be released' if found else 'names this version'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
