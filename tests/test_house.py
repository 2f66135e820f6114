"""The promises of the house itself: what is shipped, what is pinned, and what never falls."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

import waitbus

ROOT = Path(__file__).resolve().parent.parent
EPOCH = 1_700_000_000

in_checkout = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(),
    reason="needs git and a checkout: this is about files that are not shipped",
)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def clean_environment() -> dict[str, str]:
    """Ours without what coverage adds: in a measured child it would load modules of its own."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}


def copy_tree(to: Path) -> Path:
    """What a build reads, and no more."""
    to.mkdir()
    (to / "tools").mkdir()
    backend = [f"tools/{name}.py" for name in ("__init__", "backend", "beside", "build", "epoch", "sbom")]
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", *backend):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, to / name)
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def build(tree: Path, *, umask: int = 0o022, epoch: int | None = EPOCH) -> tuple[Path, Path]:
    """Build the wheel and the sdist of a tree with the pinned backend, offline, into its dist folder."""
    code = (
        f"import os; os.umask({umask:#o}); os.makedirs('dist')\n"
        "from tools import backend\n"
        "print(backend.build_wheel('dist'), backend.build_sdist('dist'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env={**clean_environment(), **({} if epoch is None else {"SOURCE_DATE_EPOCH": str(epoch)})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    wheel, sdist = done.stdout.split()
    return tree / "dist" / wheel, tree / "dist" / sdist


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(copy_tree(tmp_path_factory.mktemp("built") / "tree"))


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    wheel, _ = built
    info = f"waitbus-{waitbus.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"waitbus", info}
    assert {"waitbus/__init__.py", "waitbus/py.typed", f"{info}/licenses/LICENSE"} <= set(names)
    source = ROOT / "src"
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    assert {name for name in names if name.startswith("waitbus/")} == wanted


def test_the_wheel_is_at_most_420_kilobytes(built: tuple[Path, Path]) -> None:
    assert built[0].stat().st_size <= 420_000


def test_the_wheel_needs_nothing_at_run_time(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        text = archive.read(f"waitbus-{waitbus.__version__}.dist-info/METADATA").decode()
    metadata = Parser().parsestr(text)
    needed = metadata.get_all("Requires-Dist") or []
    assert [need for need in needed if "extra ==" not in need] == []
    assert metadata["Version"] == waitbus.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert project()["project"]["dependencies"] == []


def test_the_readme_is_what_the_index_shows() -> None:
    declared = project()["project"].get("readme") == "README.md"
    assert declared is (ROOT / "README.md").exists()


def test_the_wheel_registers_the_command_and_the_pytest_plugin(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        text = archive.read(f"waitbus-{waitbus.__version__}.dist-info/entry_points.txt").decode()
    entries = ConfigParser()
    entries.read_string(text)
    assert {section: dict(entries[section]) for section in entries.sections()} == {
        "console_scripts": {"waitbus": "waitbus.__main__:main"},
        "pytest11": {
            "waitbus": "waitbus.sources.pytest_plugin",
            "waitbus-options": "waitbus.sources.pytest_options",
        },
    }


def test_a_build_is_the_same_bytes_whatever_the_umask_and_the_file_times(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    other = copy_tree(tmp_path / "elsewhere")
    for path in other.rglob("*"):
        path.chmod(0o700 if path.stat().st_mode & 0o100 else 0o600)
        os.utime(path, (1, 1_000_000))
    again = build(other, umask=0o077)
    assert [digest(path) for path in again] == [digest(path) for path in built]


def test_a_build_from_the_sdist_is_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"waitbus-{waitbus.__version__}"
    for path in unpacked.rglob("*"):
        os.utime(path, (1, 1_000_000))  # not every front end keeps the times: the sdist says its own
    again = build(unpacked, epoch=None)
    assert [digest(path) for path in again] == [digest(path) for path in built]


def test_the_backend_is_pinned_exactly_and_locked() -> None:
    table = project()
    assert len(table["build-system"]["requires"]) == 1
    pin = table["build-system"]["requires"][0]
    assert re.fullmatch(r"flit_core==\d+\.\d+\.\d+", pin)
    assert table["dependency-groups"]["build"] == [pin]
    assert {"include-group": "build"} in table["dependency-groups"]["test"]


def test_nothing_younger_than_a_week_is_locked() -> None:
    assert project()["tool"]["uv"]["exclude-newer"] == "7 days"


def test_importing_waitbus_loads_none_of_its_rooms_and_nothing_heavy() -> None:
    # -S: site-packages may hold .pth files that load what they like before we look.
    source = Path(waitbus.__file__).parent.parent
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import waitbus; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "waitbus" in loaded
    assert {name for name in loaded if name.startswith("waitbus.")} == set()
    assert loaded & {"asyncio", "sqlite3", "json", "socket", "argparse", "subprocess", "threading"} == set()


@in_checkout
def test_the_coverage_floor_never_fell() -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("a shallow clone: the earlier floors are not here to compare with")
    now = project()["tool"]["coverage"]["report"]["fail_under"]
    history = git("log", "-p", "--format=", "--unified=0", "--", "pyproject.toml")
    floors = [float(value) for value in re.findall(r"^\+fail_under = ([\d.]+)", history, re.MULTILINE)]
    assert floors, "the floor has no history: was the key renamed?"
    assert now >= max(floors)


@in_checkout
def test_an_interpreter_counts_only_when_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.pythons import find

    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    for folder, script in {"shim": "exit 127", "real": f'exec "{sys.executable}" "$@"'}.items():
        path = tmp_path / folder / f"python{minor}"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "shim"))
    assert find(minor) is None
    monkeypatch.setenv("PATH", f"{tmp_path / 'shim'}:{tmp_path / 'real'}")
    found = find(minor)
    assert found is not None
    assert found.minor == minor
    assert Path(found.path) == Path(sys.executable)
