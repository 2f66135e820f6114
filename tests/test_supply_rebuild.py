"""packaging/rebuild.sh: what was published is what its source builds, or not, or it cannot be told; one line each."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.beside import digest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "packaging" / "rebuild.sh"

pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
    pytest.mark.skipif(importlib.util.find_spec("cyclonedx") is None, reason="on the main interpreter only: it builds"),
]


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def backend() -> str:
    """The folder whose flit_core the lock put here by hash: offline, it stands for the one that pip would fetch."""
    spec = importlib.util.find_spec("flit_core")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent.parent)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of HEAD, as `make build` lays it."""
    folder = tmp_path_factory.mktemp("published")
    source = folder / "source"
    source.mkdir()
    git("archive", f"--output={folder / 'source.tar'}", "HEAD")
    with tarfile.open(folder / "source.tar") as archive:
        archive.extractall(source, filter="data")
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    environ["SOURCE_DATE_EPOCH"] = git("log", "-1", "--format=%ct").strip()
    dist = folder / "dist"
    command = [sys.executable, "-m", "tools.build", str(dist)]
    subprocess.run(command, cwd=source, env=environ, check=True, capture_output=True)
    return dist


def rebuild(*arguments: str | Path, backend: str | None) -> tuple[int, str]:
    trusted = [] if backend is None else ["--backend", backend]
    done = subprocess.run(
        ["bash", str(SCRIPT), *trusted, *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1, done.stdout
    return done.returncode, done.stdout


def one(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_what_was_published_is_what_its_commit_builds(published: Path, backend: str) -> None:
    code, said = rebuild("--ref", "HEAD", published / "SHA256SUMS", backend=backend)
    assert code == 0, said
    assert "the same bytes from HEAD" in said
    for pattern in ("*.whl", "*.tar.gz"):
        assert digest(one(published, pattern)) in said


def test_the_sdist_alone_builds_the_published_wheel(published: Path, backend: str, tmp_path: Path) -> None:
    with tarfile.open(one(published, "*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    code, said = rebuild("--tree", next(tmp_path.iterdir()), one(published, "*.whl"), backend=backend)
    assert code == 0, said


def test_other_bytes_are_called_so(published: Path, backend: str, tmp_path: Path) -> None:
    wheel = Path(shutil.copy(one(published, "*.whl"), tmp_path))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("waitbus/extra.py", "")
    code, said = rebuild("--ref", "HEAD", wheel, backend=backend)
    assert code == 76
    assert "OTHER BYTES" in said
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {wheel.name}\n")
    assert rebuild("--ref", "HEAD", tmp_path / "SHA256SUMS", backend=backend)[0] == 76


def packed_otherwise(wheel: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel)) as old, zipfile.ZipFile(content, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, old.read(entry), zipfile.ZIP_STORED)
    return content.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"#!/bin/sh\necho evil\n" + data,  # what runs as a script is a wheel all the same
        lambda data: data + b"\n",
        packed_otherwise,
    ],
)
def test_another_container_of_the_same_content_is_other_bytes(
    published: Path, backend: str, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    original = one(published, "*.whl")
    (tmp_path / original.name).write_bytes(change(original.read_bytes()))
    code, said = rebuild("--ref", "HEAD", tmp_path / original.name, backend=backend)
    assert code == 76
    assert "OTHER BYTES" in said


def test_what_cannot_be_told_is_said_with_the_reason(published: Path, tmp_path: Path) -> None:
    wheel = one(published, "*.whl")
    empty = tmp_path / "SHA256SUMS"
    empty.write_text("")
    unnamed = Path(shutil.copy(wheel, tmp_path / "file.whl"))
    for arguments, word in (
        ((tmp_path / "missing.whl",), "cannot be read"),
        ((empty,), "names no wheel"),
        ((unnamed,), "which version"),
        (("--ref", "no-such-tag", wheel), "has no no-such-tag"),
    ):
        code, said = rebuild(*arguments, backend=None)
        assert code == 78, said
        assert word in said
    code, said = rebuild("--ref", "HEAD", wheel, backend=str(tmp_path))
    assert code == 78
    assert "no flit_core" in said
