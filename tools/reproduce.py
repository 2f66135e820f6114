"""Build one commit again and again, each time with something about the builder changed: the bytes must not care.

Each cell of the matrix differs from the first in what its name says, and always in the folder and in the times of the
files. A cell that cannot be had here is named with the reason, never counted.
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
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.pythons import SUPPORTED, ask, candidates, find

OTHER_USER = 65534  # nobody, on every system that has one


@dataclass(frozen=True)
class Cell:
    """One way to build: the interpreter and what surrounds it."""

    name: str
    python: str = sys.executable
    umask: int = 0o022
    user: int | None = None
    environ: dict[str, str] = field(default_factory=dict)
    start: str = "archive"  # or "clone", where git tells the time, or "sdist", which carries it


@dataclass(frozen=True)
class Built:
    """What a cell made: the wheel's and the sdist's digest and where they lie."""

    cell: Cell
    wheel: str
    sdist: str
    folder: Path


class CannotBuildError(Exception):
    """A build that failed, with what it said."""


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
        if cell.start == "clone":
            tree = home / "clone"
            _git(self.repository, "clone", "--quiet", "--no-hardlinks", "--no-checkout", ".", str(tree))
            _git(tree, "checkout", "--quiet", "--detach", self.commit)
            return tree
        tree = home / cell.name  # of another length each time, with spaces
        tree.mkdir()
        packed = self.archive
        if cell.start == "sdist":
            assert first is not None
            (packed,) = first.folder.glob("*.tar.gz")
        options = ["-m", "--no-same-permissions", "--no-same-owner", "--directory", str(tree)]
        options += ["--strip-components=1"] if cell.start == "sdist" else []
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
            _give(home, cell.user)
        command = [cell.python, "-m", "tools.build", str(out)]
        done = subprocess.run(
            command,
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
        return Built(cell, _digest(wheel), _digest(sdist), out)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def _give(home: Path, user: int) -> None:
    """Make a tree another user's, and let that user reach it."""
    for path in [home, *home.rglob("*")]:
        os.chown(path, user, user)


def _for_other_user() -> str | None:
    """An interpreter that another user can run, too: one in somebody's home is not."""
    for minor in SUPPORTED:
        for path in candidates(minor, None):
            try:
                done = subprocess.run(
                    [path, "-I", "-c", "import sys; print(sys.executable)"],
                    user=OTHER_USER,
                    group=OTHER_USER,
                    extra_groups=[],
                    cwd="/",
                    env={"PATH": os.environ["PATH"]},
                    capture_output=True,
                    text=True,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError):
                continue
            if (found := ask(done.stdout.strip())) and found.minor == minor:
                return found.path
    return None


def matrix(uv: str | None = None) -> tuple[list[Cell], list[str]]:
    """The cells that can be had here, the first one to compare with, and what cannot be had and why."""
    cells = [
        Cell("this user, umask 022, UTC", environ={"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"}),
        Cell("umask 077", umask=0o077),
        Cell("time zone 14 hours ahead", environ={"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8"}),
        Cell("time zone 11 hours behind", environ={"TZ": "XXX+11", "PYTHONHASHSEED": "4711"}),
        Cell("a git clone, no time given", start="clone"),
        Cell("from the sdist, no time given", start="sdist"),
        Cell("from the sdist, umask 077", start="sdist", umask=0o077),
    ]
    absent = []
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    for minor in SUPPORTED:
        if minor == this:
            continue
        if found := find(minor, uv):
            cells.append(Cell(f"Python {found.version}", python=found.path))
        else:
            absent.append(f"Python {minor}: not found here")
    if os.geteuid() != 0:
        absent.append("another user: only root can become one")
    elif python := _for_other_user():
        cells.append(Cell("another user, umask 027", python=python, umask=0o027, user=OTHER_USER))
    else:
        absent.append("another user: no interpreter here can be run by one")
    return cells, absent


def difference(one: Path, two: Path) -> str:
    """What differs between two archives: diffoscope's words when it is there, else the first files that do."""
    if tool := shutil.which("diffoscope"):
        done = subprocess.run([tool, "--text=-", str(one), str(two)], check=False, capture_output=True, text=True)
        return done.stdout.strip()
    if one.suffix != ".whl":
        return "the bytes differ; diffoscope (Debian: diffoscope-minimal) would show where"
    members = []
    for path in (one, two):
        with zipfile.ZipFile(path) as archive:
            members.append(
                {entry.filename: (entry.CRC, entry.date_time, entry.external_attr) for entry in archive.infolist()}
            )
    names = sorted(name for name in {*members[0], *members[1]} if members[0].get(name) != members[1].get(name))
    return "these differ: " + ", ".join(names[:10]) if names else "the same files, compressed by another zlib"


def run(bench: Bench, cells: list[Cell], say: Callable[[str], None]) -> bool:
    """Build every cell and say each one's digests; whether all are the first one's."""
    first: Built | None = None
    equal = True
    for cell in cells:
        built = bench.build(cell, first)
        first = first or built
        same = (built.wheel, built.sdist) == (first.wheel, first.sdist)
        say(f"{'equal ' if same else 'DIFFER'}  wheel {built.wheel}  sdist {built.sdist}  {cell.name}")
        if not same:
            equal = False
            for pattern in ("*.whl", "*.tar.gz"):
                (one,), (two,) = first.folder.glob(pattern), built.folder.glob(pattern)
                if _digest(one) != _digest(two):
                    say(difference(one, two))
    return equal


def main() -> int:
    """Build HEAD, or the commit that is named, in every cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("commit", nargs="?", default="HEAD")
    parser.add_argument("--uv", help="the uv whose interpreters are looked at, too")
    options = parser.parse_args()
    os.umask(0o022)  # another user must be able to read what is laid for all
    cells, absent = matrix(options.uv)
    with tempfile.TemporaryDirectory(prefix="waitbus-reproduce-") as name:
        Path(name).chmod(0o755)
        try:
            bench = Bench(Path.cwd(), options.commit, Path(name))
            print(f"commit {bench.commit}, SOURCE_DATE_EPOCH={bench.epoch}", flush=True)
            equal = run(bench, cells, lambda line: print(line, flush=True))
        except (CannotBuildError, subprocess.CalledProcessError) as error:
            print(f"cannot build: {error}", file=sys.stderr)
            return 1
    for reason in absent:
        print(f"absent  {reason}")
    print(f"{len(cells)} builds, {'the same bytes every time' if equal else 'NOT the same bytes'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
