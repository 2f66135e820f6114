"""Claims about files: a file's own name, a list of checksums, and an installation's METADATA and entry points.

Each is parsed strictly and within limits and compared with the actual file. Anything doubtful is a fault.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = "waitbus"
MAX_BYTES = 1 << 20
# Everything that waitbus requires from an installer. A test compares it with pyproject.toml.
NEEDS = ('mcp>=2,<3 ; extra == "mcp"',)

_VERSION = r"([0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?)"
_NAMED = re.compile(rf"waitbus-{_VERSION}(?:-py3-none-any\.whl|\.tar\.gz|(?:-mcp)?\.cdx\.json)", re.ASCII)
_UNNAMED = ("SHA256SUMS", "pylock.mcp.toml")
_ENTRY = re.compile(r"(?:\[[\w.-]+\]|waitbus[\w-]*=waitbus(?:\.\w+)+(?::\w+)?)?", re.ASCII)
_SUM = re.compile(r"([0-9a-f]{64}) [ *](\S.*)", re.ASCII)


def version_in_name(name: str) -> str | None:
    """Return the version in the name of a release's file, "" if that name has none, and None for any other name."""
    match = _NAMED.fullmatch(name)
    return match[1] if match else "" if name in _UNNAMED else None


def metadata_faults(metadata: bytes, entry_points: bytes, version: str) -> Iterator[str]:
    """Yield each difference between METADATA and entry_points.txt and what those of waitbus `version` should say."""
    from email.parser import BytesHeaderParser

    headers = BytesHeaderParser().parsebytes(metadata[:MAX_BYTES])
    wanted = {"Name": [PROJECT], "Version": [version], "Requires-Dist": [*NEEDS]}
    for field, values in wanted.items():
        if (said := [str(value) for value in headers.get_all(field) or []]) != values:
            yield f"METADATA says {field} {', '.join(map(repr, said)) or 'nowhere'}, not {', '.join(map(repr, values))}"
    for line in entry_points[:MAX_BYTES].decode("utf-8", "replace").splitlines():
        if not _ENTRY.fullmatch(line):
            yield f"entry_points.txt offers {line!r}"


def sums_faults(data: bytes, name: str, sha256: str) -> Iterator[str]:
    """Yield the reasons why a SHA256SUMS does not vouch for the file `name` with the hash `sha256` (in hex)."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        yield "the list is not text"
        return
    named = []
    for number, line in enumerate(lines, 1):
        match = _SUM.fullmatch(line)
        if match is None:
            yield f"line {number} is not a checksum: 64 hexadecimal digits, two spaces and a name are needed"
        elif match[2].removeprefix("./") == name:
            named.append(match[1])
    if len(named) != 1:
        yield f"the list has {'more than one checksum' if named else 'no checksum'} for {name}"
    elif named[0] != sha256:
        yield f"{name} should have {named[0]}, but has {sha256}"
