"""What is said about a file: its own name, a list of checksums, and METADATA and entry points of an installation.

Each is read strictly and within limits, and compared with what is at hand; a doubtful one is a fault.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = "waitbus"
MAX_BYTES = 1 << 20
# All that waitbus asks an installer for: a test holds it to pyproject.toml.
NEEDS = ('mcp>=2,<3 ; extra == "mcp"',)

_VERSION = r"([0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?)"
_NAMED = re.compile(rf"waitbus-{_VERSION}(?:-py3-none-any\.whl|\.tar\.gz|(?:-mcp)?\.cdx\.json)", re.ASCII)
_UNNAMED = ("SHA256SUMS", "pylock.mcp.toml")
_ENTRY = re.compile(r"(?:\[[\w.-]+\]|waitbus[\w-]*=waitbus(?:\.\w+)+(?::\w+)?)?", re.ASCII)
_SUM = re.compile(r"([0-9a-f]{64}) [ *](\S.*)", re.ASCII)


def version_in_name(name: str) -> str | None:
    """The version that the name of a release's file says; "" when such a file's name says none, None for any other."""
    match = _NAMED.fullmatch(name)
    return match[1] if match else "" if name in _UNNAMED else None


def metadata_faults(metadata: bytes, entry_points: bytes, version: str) -> Iterator[str]:
    """Where METADATA and entry_points.txt differ from what waitbus `version` asks of an installer: nothing."""
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
    """Why a SHA256SUMS does not vouch for the file `name` with the hash `sha256` (hexadecimal)."""
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
