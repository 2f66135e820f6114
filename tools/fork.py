"""Give the repository another name: `python3 -m tools.fork OWNER/NAME` changes every file that holds the name.

The name is one line, `__repository__` in src/waitbus/__init__.py. Code reads it from there. Files that cannot (the
project's metadata, workflows, code owners, commands in the docs) repeat it, and a test compares them with that line.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HOME = "src/waitbus/__init__.py"
_LINE = re.compile(r'^__repository__ = "([\w.-]+/[\w.-]+)"', re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[\w.-]+", re.ASCII)
# The forms in which files hold the name; the group is the name.
_SAID = re.compile(
    r"--repo ([\w.-]+/[\w.-]+)"
    r'|GITHUB_REPOSITORY" = ([\w.-]+/[\w.-]+)'
    r"|--signer-workflow ([\w.-]+/[\w.-]+)/"
    r"|--certificate-github-workflow-repository ([\w.-]+/[\w.-]+)"
    r'|(?:pypi --repository |HOME = "|Homepage = ")https://github\.com/([\w.-]+/[\w.-]+)'
    r"|https://github\.com/([\w.-]+/[\w.-]+)/(?:issues\b|blob/|\.github/)"
)
_OWNERS = ".github/CODEOWNERS"


def name_of(root: Path) -> str:
    """Return the repository's name, from the line that defines it."""
    found = _LINE.search((root / HOME).read_text(encoding="utf-8"))
    if found is None:
        raise LookupError(f"{HOME} has no line __repository__")
    return found[1]


def files_of(root: Path) -> list[Path]:
    """Return the tracked files without tests and binaries."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name and not name.startswith("tests/") and name != "uv.lock"]
    return [root / name for name in names if (root / name).is_file() and not (root / name).is_symlink()]


def others(root: Path) -> dict[str, set[str]]:
    """Return the files that name another repository than the defining line, each with the names it holds."""
    name = name_of(root)
    owner = name.partition("/")[0]
    found: dict[str, set[str]] = {}
    for path in files_of(root):
        text = path.read_text(encoding="utf-8", errors="replace")
        said = {next(filter(None, match.groups())) for match in _SAID.finditer(text)} - {name}
        if path == root / _OWNERS:
            said |= {f"@{other}" for other in re.findall(r"@([\w-]+)/", text) if other != owner}
        if said:
            found[str(path.relative_to(root))] = said
    return found


def rename(root: Path, to: str) -> list[str]:
    """Replace the present name by `to` everywhere. Returns the files that changed."""
    old = name_of(root)
    # Not where it is part of a path, such as …/waitbus/waitbus.db.
    whole = re.compile(rf"(?:(?<=github\.com/)|(?<![\w./-])){re.escape(old)}(?![\w-])(?!\.\w)")
    changed = []
    for path in files_of(root):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        new = whole.sub(to, text)
        if path == root / _OWNERS:
            new = new.replace(f"@{old.partition('/')[0]}/", f"@{to.partition('/')[0]}/")
        if new != text:
            path.write_text(new, encoding="utf-8", errors="surrogateescape")
            changed.append(str(path.relative_to(root)))
    return changed


def main(words: list[str]) -> int:
    """Rename, and print the files that changed. 2 for anything but OWNER/NAME."""
    if len(words) != 1 or not _NAME.fullmatch(words[0]):
        sys.stderr.write("name the repository: make fork TO=OWNER/NAME\n")
        return 2
    root = Path(__file__).resolve().parent.parent
    for name in rename(root, words[0]):
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
