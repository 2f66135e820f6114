"""Build one commit again and again, each time with something about the builder changed: the bytes must not care.

Each cell of the matrix differs from the first in what its name says, and always in the folder and in the times of the
files. Each is printed: the same bytes, others, or not run and why; with --strict the last counts as a failure, too.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.pythons import SUPPORTED, find

OTHER_USER = 65534  # nobody, on every system that has one
SAME, DIFFERS, NOT_RUN = "same", "DIFFERS", "not run"


@dataclass(frozen=True)
class Cell:
    """One way to build: the interpreter and what surrounds it; or, with `absent`, why it cannot be had here."""

    name: str
    python: str = sys.executable
    umask: int = 0o022
    user: int | None = None
    environ: dict[str, str] = field(default_factory=dict)
    start: str = "archive"  # or "clone", where git tells the time, or "sdist", which carries it
    absent: str = ""


@dataclass(frozen=True)
class Built:
    """What a cell made: the folder, and in words the digests of wheel and sdist."""

    folder: Path
    digests: str


class CannotBuildError(Exception):
    """A build that failed, with what it said."""


FIRST = Cell("this user, umask 022, UTC", environ={"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"})


def matrix(uv: str | None = None) -> Iterator[Cell]:
    """All the cells, the first one to compare with."""
    yield FIRST
    yield Cell("umask 077", umask=0o077)
    yield Cell("time zone 14 hours ahead", environ={"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8"})
    yield Cell("time zone 11 hours behind", environ={"TZ": "XXX+11", "PYTHONHASHSEED": "4711"})
    yield Cell("a git clone, no time given", start="clone")
    yield Cell("from the sdist, no time given", start="sdist")
    yield Cell("from the sdist, umask 077", start="sdist", umask=0o077)
    for minor in SUPPORTED:
        if minor != f"{sys.version_info.major}.{sys.version_info.minor}":
            found = find(minor, uv)
            yield Cell(f"Python {minor}", found.path) if found else Cell(f"Python {minor}", absent="not found here")
    # One in somebody's home is not for others to run.
    python = next((found for minor in SUPPORTED if (found := find(minor, user=OTHER_USER))), None)
    if os.geteuid() != 0:
        absent = "only root can become one"
    else:
        absent = "" if python else "no interpreter here can be run by one"
    path = python.path if python else ""
    yield Cell("another user, umask 027", path, umask=0o027, user=OTHER_USER, absent=absent)


class Bench:
    """The commit, unpacked as each cell wants it, and the one backend that all share."""

    def __init__(self, repository: Path, commit: str, folder: Path) -> None:
        self.repository = repository
        self.commit = _git(repository, "rev-parse", f"{commit}^{{commit}}").strip()
        self.epoch = int(_git(repository, "log", "-1", "--format=%ct", self.commit))
        self.folder = folder
        self.backend = folder / "backend"
        spec = importlib.util.find_spec("flit_core")
        if spec is None or spec.origin is None:
            raise CannotBuildError("flit_core is not installed here: run make venv")
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(spec.origin).parent, self.backend / "flit_core", ignore=ignore)
        self.archive = folder / "tree.tar"
        _git(repository, "archive", f"--output={self.archive}", self.commit)

    def source(self, cell: Cell, first: Built | None, home: Path) -> Path:
        """The tree that a cell builds, laid as its umask and its clock would lay it."""
        tree = home / cell.name  # of another length each time, with spaces
        if cell.start == "clone":
            _git(self.repository, "clone", "--quiet", "--no-hardlinks", "--no-checkout", ".", str(tree))
            _git(tree, "checkout", "--quiet", "--detach", self.commit)
            return tree
        tree.mkdir()
        packed = self.archive
        options = ["-m", "--no-same-permissions", "--no-same-owner", "--directory", str(tree)]
        if cell.start == "sdist":
            assert first is not None
            (packed,) = first.folder.glob("*.tar.gz")
            options.append("--strip-components=1")
        subprocess.run(["tar", "--extract", f"--file={packed}", *options], check=True, umask=cell.umask)
        return tree

    def build(self, cell: Cell, first: Built | None = None) -> Built:
        """Build a cell; the folder it built in stays, for a look at a difference."""
        home = Path(tempfile.mkdtemp(prefix="cell-", dir=self.folder))
        tree = self.source(cell, first, home)
        out = home / "out"
        out.mkdir()
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.backend), "HOME": str(home), **cell.environ}
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
        if cell.start == "archive":
            environ["SOURCE_DATE_EPOCH"] = str(self.epoch)
        if cell.user is not None:
            for path in [home, *home.rglob("*")]:
                os.chown(path, cell.user, cell.user)
        done = subprocess.run(
            [cell.python, "-m", "tools.build", str(out)],
            check=False,
            cwd=tree,
            env=environ,
            umask=cell.umask,
            user=cell.user,
            group=cell.user,
            extra_groups=None if cell.user is None else [],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise CannotBuildError(f"{cell.name}: {done.stderr.strip() or done.stdout.strip()}")
        (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
        return Built(out, f"wheel {_digest(wheel)}  sdist {_digest(sdist)}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def difference(one: Path, two: Path) -> str:
    """What differs between two folders, in diffoscope's words."""
    if (tool := shutil.which("diffoscope")) is None:
        return "diffoscope (Debian: diffoscope-minimal) would show where"
    return subprocess.run([tool, "--text=-", str(one), str(two)], check=False, capture_output=True, text=True).stdout


def run(bench: Bench, cells: Iterator[Cell], say: Callable[[str], None]) -> Counter[str]:
    """Build every cell and say how each ended; how often each end was met."""
    first: Built | None = None
    ends: Counter[str] = Counter()
    for cell in cells:
        built = None if cell.absent else bench.build(cell, first)
        first = first or built
        end = NOT_RUN if built is None else SAME if first and built.digests == first.digests else DIFFERS
        ends[end] += 1
        say(f"{end:<8} {cell.name:<30} {built.digests if built else cell.absent}")
        if first and built and end == DIFFERS:
            say(difference(first.folder, built.folder))
    return ends


def main() -> int:
    """Build HEAD, or the commit that is named, in every cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("commit", nargs="?", default="HEAD")
    parser.add_argument("--uv", help="the uv whose interpreters are looked at, too")
    parser.add_argument("--strict", action="store_true", help="every cell must run")
    options = parser.parse_args()
    os.umask(0o022)  # another user must be able to read what is laid for all
    with tempfile.TemporaryDirectory(prefix="waitbus-reproduce-") as name:
        Path(name).chmod(0o755)
        try:
            bench = Bench(Path.cwd(), options.commit, Path(name))
            print(f"commit {bench.commit}, SOURCE_DATE_EPOCH={bench.epoch}", flush=True)
            ends = run(bench, matrix(options.uv), lambda line: print(line, flush=True))
        except (CannotBuildError, subprocess.CalledProcessError) as error:
            print(f"cannot build: {error}", file=sys.stderr)
            return 1
    print(f"{ends[SAME]} {SAME}, {ends[DIFFERS]} differ, {ends[NOT_RUN]} {NOT_RUN}")
    return 1 if ends[DIFFERS] or (options.strict and ends[NOT_RUN]) else 0


if __name__ == "__main__":
    sys.exit(main())
