"""Checks what is in the repository: readable text only, no binaries, no characters that deceive a reader."""

from __future__ import annotations

import re
import stat
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

# Characters that are invisible or change the direction of text.
_HIDDEN = {"Cf", "Cc", "Co", "Cn", "Zl", "Zp"}


def tracked(root: Path) -> dict[str, Path]:
    """Return the files that git tracks and that exist."""
    said = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    names = [name for name in said.decode().split("\0") if name]
    return {name: root / name for name in names if (root / name).exists() or (root / name).is_symlink()}


def shape_faults(name: str, path: Path) -> Iterator[str]:
    """Check that a file is regular and holds text, and is executable only if it starts with `#!`."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        yield f"{name}: is not a plain file"
        return
    content = path.read_bytes()
    try:
        readable = b"\0" not in content and content.decode() is not None
    except UnicodeDecodeError:
        readable = False
    if not readable:
        yield f"{name}: is binary"
    elif mode & stat.S_IXUSR and not content.startswith(b"#!"):
        yield f"{name}: may be executed and does not say by what"


def deception_faults(name: str, text: str) -> Iterator[str]:
    """Check for invisible or reordering characters and for words in two alphabets. Ruff keeps Python names ASCII."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.isascii() and line.isprintable():
            continue
        for sign in line:
            if unicodedata.category(sign) in _HIDDEN and sign != "\t":
                yield f"{name}:{number}: holds {unicodedata.name(sign, f'U+{ord(sign):04X}')}: write it as an escape"
        for word in re.findall(r"[^\W\d_]+", line):
            if len({alphabet(sign) for sign in word} - {""}) > 1:
                yield f"{name}:{number}: {word!a} mixes alphabets"


def alphabet(letter: str) -> str:
    """Return the alphabet of a letter by its Unicode name; "" for the micro sign, which is a prefix of units."""
    return "" if letter == "\N{MICRO SIGN}" else unicodedata.name(letter, "?").split(" ")[0]


def faults(root: Path) -> dict[str, list[str]]:
    """Return everything that is wrong with the tree, by kind: shape, deception."""
    found: dict[str, list[str]] = {"shape": [], "deception": []}
    for name, path in tracked(root).items():
        shape = list(shape_faults(name, path))
        found["shape"] += shape
        if not shape:
            found["deception"] += deception_faults(name, path.read_text(encoding="utf-8"))
    return found
