"""What may lie in the repository: text that a reader sees as it is, no secret, nothing that runs and cannot be read."""

from __future__ import annotations

import io
import math
import re
import stat
import subprocess
import tokenize
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Characters that a reader does not see, or that turn the order of what is read.
_HIDDEN = {"Cf", "Cc", "Co", "Cn", "Zl", "Zp"}
_PLAIN_CONTROLS = {"\n", "\t"}

# What keys and tokens look like, where their makers gave them a form. Written so that no line here matches itself.
_FORMS = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-{5}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    "a PyPI token": r"\bpypi-[A-Za-z0-9_-]{60,}",
    "an AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}",
    "a Google key": r"\bAIza[A-Za-z0-9_-]{35}\b",
    "an npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "an Anthropic or OpenAI key": r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{40,}",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{15,}",
    "a password in a URL": r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"{}$<>]+:[^\s/:@'\"{}$<>]{3,}@",
}
_FORM = re.compile("|".join(f"(?P<f{number}>{form})" for number, form in enumerate(_FORMS.values())))
# A value that stands behind a telling name, or a long word of mixed signs: both only when they look like chance.
_NAMED = re.compile(
    r"(?i)(?:password|passwd|secret|token|api_?key|credential)\w*[\"']?\s*[:=]\s*[\"']([^\"'\s]{12,})[\"']"
)
_WORD = re.compile(r"[\"'`=:\s]([A-Za-z0-9+/_-]{40,}={0,2})(?=[\"'`\s,;)]|$)")
_CHANCE = 4.5  # bits a sign; prose and names stay under 4.2, base64 of random bytes is over 4.8 at this length
_HASH_FILES = {"uv.lock", "packaging/bootstrap.txt", "packaging/build.txt", "packaging/previous.txt"}


def tracked(root: Path) -> dict[str, Path]:
    """The files that git knows, and that are there."""
    said = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    names = [name for name in said.decode().split("\0") if name]
    return {name: root / name for name in names if (root / name).exists() or (root / name).is_symlink()}


def shape_faults(name: str, path: Path) -> Iterator[str]:
    """A plain file of readable text; executable only when it says what runs it."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        yield f"{name}: is not a plain file"
        return
    content = path.read_bytes()
    try:
        content.decode()
        text = b"\0" not in content
    except UnicodeDecodeError:
        text = False
    if not text:
        yield f"{name}: is binary"
    elif mode & stat.S_IXUSR and not content.startswith(b"#!"):
        yield f"{name}: may be executed and does not say by what"


def deception_faults(name: str, text: str) -> Iterator[str]:
    """No character that hides or turns text, no word of two alphabets, no Python name beyond ASCII."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.isascii() and line.isprintable():
            continue
        for sign in line:
            if unicodedata.category(sign) in _HIDDEN and sign not in _PLAIN_CONTROLS:
                yield f"{name}:{number}: holds {unicodedata.name(sign, f'U+{ord(sign):04X}')}: write it as an escape"
        for word in re.findall(r"[^\W\d_]+", line):
            if len({alphabet(sign) for sign in word} - {""}) > 1:
                yield f"{name}:{number}: {word!a} mixes alphabets"
    if name.endswith(".py") and not text.isascii():
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and not token.string.isascii():
                yield f"{name}:{token.start[0]}: the name {token.string!a} is not ASCII"


def alphabet(letter: str) -> str:
    """The alphabet of a letter, by its Unicode name; "" for the sign of micro, which stands before units."""
    return "" if letter == "\N{MICRO SIGN}" else unicodedata.name(letter, "?").split(" ")[0]


def entropy(text: str) -> float:
    """Bits of information in one sign of this text, by its own frequencies."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())


def secret_faults(name: str, text: str) -> Iterator[str]:
    """Nothing that has the form of a key, nothing that looks like chance where a secret would stand.

    Only where it stands is said, not what.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if match := _FORM.search(line):
            kind = list(_FORMS)[int((match.lastgroup or "f0")[1:])]
            yield f"{name}:{number}: looks like {kind}"
        elif name not in _HASH_FILES and any(_is_chance(value) for value in _values(line)):
            yield f"{name}:{number}: holds what looks like a random secret"


def _values(line: str) -> list[str]:
    return [*_WORD.findall(line), *(value for value in _NAMED.findall(line) if len(set(value)) > 11)]


def _is_chance(value: str) -> bool:
    """Random, and not the hex of a commit or a digest, which is public."""
    if re.fullmatch(r"[0-9a-fA-F-]+", value):
        return False
    bare = len(value) >= 40
    return entropy(value) >= (_CHANCE if bare else 3.5) and bool(re.search(r"\d", value))


def faults(root: Path) -> dict[str, list[str]]:
    """All that is wrong with the tree, by kind: shape, deception, secret."""
    found: dict[str, list[str]] = {"shape": [], "deception": [], "secret": []}
    for name, path in tracked(root).items():
        shape = list(shape_faults(name, path))
        found["shape"] += shape
        if not shape:
            text = path.read_text(encoding="utf-8")
            found["deception"] += deception_faults(name, text)
            found["secret"] += secret_faults(name, text)
    return found
