"""What the release's steps do, run as GitHub runs them: other files than those that were compared go no further."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ruamel.yaml", reason="on the main interpreter only")

from tools import workflows
from tools.beside import SUMS, sums
from waitbus import __repository__

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "pylock.mcp.toml",
    "waitbus-1.0-mcp.cdx.json",
    "waitbus-1.0-py3-none-any.whl",
    "waitbus-1.0.cdx.json",
    "waitbus-1.0.tar.gz",
)

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "sha256sum"))), reason="needs bash and sha256sum, as GitHub's Linux has"
)


def shell(workflow: str, job: str, word: str) -> str:
    steps = workflows.read(ROOT / workflows.FOLDER / workflow)["jobs"][job]["steps"]
    return next(str(step["run"]) for step in steps if word in step.get("run", ""))


def run(script: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """GitHub's own shell for a step that names none: it ends at the first failure, and a pipe at its last part."""
    env = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=env, capture_output=True, text=True)


def lay(folder: Path) -> str:
    """A release as an artifact, and the digest of its list."""
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(name)
    return relist(folder)


def relist(folder: Path) -> str:
    (folder / SUMS).write_bytes(sums(folder / name for name in FILES))
    return hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()


def test_two_files_are_published_and_only_those_that_were_compared(tmp_path: Path) -> None:
    script = shell("release.yml", "publish", SUMS)
    assert script == shell("rehearse.yml", "publish", SUMS)
    digest = lay(tmp_path / "release")
    assert run(script, tmp_path, SUMS=digest).returncode == 0
    assert sorted(path.name for path in (tmp_path / "dist").iterdir()) == [FILES[2], FILES[4]]


def other_list(release: Path) -> None:
    (release / FILES[2]).write_text("evil")
    relist(release)


@pytest.mark.parametrize("tamper", [other_list, lambda release: (release / FILES[2]).write_text("evil")])
@pytest.mark.parametrize(
    ("workflow", "job"), [("release.yml", "publish"), ("release.yml", "release"), ("build.yml", "attest")]
)
def test_other_files_go_no_further(tmp_path: Path, workflow: str, job: str, tamper: Callable[[Path], object]) -> None:
    digest = lay(tmp_path / "release")
    tamper(tmp_path / "release")
    done = run(shell(workflow, job, SUMS), tmp_path, SUMS=digest, GITHUB_REF_NAME="v1.0")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    (tmp_path / "release").rename(tmp_path / "gone")
    lay(tmp_path / "release")
    assert run(shell(workflow, job, SUMS), tmp_path, SUMS="", GITHUB_REF_NAME="v1.0").returncode


def test_two_builds_that_differ_or_are_not_what_was_built_are_not_compared_as_equal(tmp_path: Path) -> None:
    script = shell("build.yml", "compare", "diff")
    digest = lay(tmp_path / "one")
    lay(tmp_path / "two")
    assert run(script, tmp_path, ONE=digest, TWO=digest).returncode == 0
    other_list(tmp_path / "two")
    assert run(script, tmp_path, ONE=digest, TWO=digest).returncode  # not what that job built
    other = relist(tmp_path / "two")
    assert run(script, tmp_path, ONE=digest, TWO=other).returncode  # built otherwise
    other_list(tmp_path / "one")
    assert run(script, tmp_path, ONE=digest, TWO=other).returncode
    for folder in ("one", "two"):
        shutil.rmtree(tmp_path / folder)
        (tmp_path / folder).mkdir()
    assert run(script, tmp_path, ONE="", TWO="").returncode


def test_a_bundle_lies_beside_each_file(tmp_path: Path) -> None:
    lay(tmp_path / "release")
    (tmp_path / "bundle").write_text("{}\n")
    assert run(shell("build.yml", "attest", "bundles"), tmp_path, PROVENANCE="bundle").returncode == 0
    assert {path.name for path in (tmp_path / "bundles").iterdir()} == {
        f"{name}.sigstore.json" for name in (*FILES, SUMS)
    }


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("v0.3.0", "--latest"),
        ("v0.3.0.post1", "--latest"),
        ("v0.4.0rc1", "--prerelease"),
        ("v0.4.0a1", "--prerelease"),
        ("v0.4.0b2", "--prerelease"),
        ("v0.4.0.dev1", "--prerelease"),
        ("v0.4.0rc1.post1", "--prerelease"),
    ],
)
def test_what_is_no_final_version_is_a_prerelease(tmp_path: Path, tag: str, kind: str) -> None:
    digest = lay(tmp_path / "release")
    (tmp_path / "bundles").mkdir()
    (tmp_path / "gh").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words\n')
    (tmp_path / "gh").chmod(0o755)
    environ = {"GITHUB_REF_NAME": tag, "GITHUB_REPOSITORY": __repository__, "SUMS": digest}
    done = run(f'PATH="$PWD:$PATH"\n{shell("release.yml", "release", "gh release create")}', tmp_path, **environ)
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:7] == ["release", "create", tag, "--repo", __repository__, "--verify-tag", kind]
    assert [word for word in words if word.startswith("release/")] == sorted(
        f"release/{name}" for name in (*FILES, SUMS)
    )


def test_what_is_called_from_elsewhere_refuses(tmp_path: Path) -> None:
    for job in ("build", "attest"):
        script = shell("build.yml", job, "GITHUB_REPOSITORY")
        assert run(script, tmp_path, GITHUB_REPOSITORY=__repository__).returncode == 0
        assert run(script, tmp_path, GITHUB_REPOSITORY="evil/waitbus").returncode == 1
