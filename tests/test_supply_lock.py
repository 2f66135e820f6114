"""What is locked comes from one index, by hash, under licences that are allowed; each rule turns red when broken."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import licences, lock, sbom

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".bootstrap" / "bin" / "uv"
LOCK = (ROOT / "uv.lock").read_text(encoding="utf-8")
SMALL = (ROOT / "tests" / "supply" / "uv-jinja2.lock").read_text(encoding="utf-8")
DIGEST = "5e00000000000000000000000000000000000000000000000000000000000001"


in_checkout = pytest.mark.skipif(shutil.which("uv", path=UV.parent) is None, reason="needs the uv that make fetches")


@in_checkout
def test_this_checkout_locks_as_it_should() -> None:
    assert lock.faults(ROOT, str(UV)) == []
    assert list(lock.lock_faults("uv.lock", SMALL)) == []
    assert len(lock.locked(ROOT)) > 50


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (f', hash = "sha256:{DIGEST}"', "", "no SHA-256"),
        (f"sha256:{DIGEST}", f"md5:{DIGEST[:32]}", "no SHA-256"),
        (f"sha256:{DIGEST}", f"sha256:{DIGEST[:-1]}", "no SHA-256"),
        ("https://files.pythonhosted.org/", "https://elsewhere.example/", "lies elsewhere"),
        ("https://files.pythonhosted.org/", "http://files.pythonhosted.org/", "lies elsewhere"),
        ('{ registry = "https://pypi.org/simple" }', '{ git = "https://pypi.org/simple?rev=1" }', "comes from"),
        ('{ registry = "https://pypi.org/simple" }', '{ url = "https://files.pythonhosted.org/a.whl" }', "comes from"),
        ('{ registry = "https://pypi.org/simple" }', '{ registry = "https://mirror.example/simple" }', "comes from"),
        ('{ editable = "." }', '{ editable = ".." }', "comes from"),
        ('    { name = "markupsafe" },\n', "", "markupsafe: nothing needs it"),
        ('    { name = "jinja2" },\n', "", "jinja2: nothing needs it"),
        ('name = "markupsafe"\nversion = "3.0.2"', 'name = "evil"\nversion = "1"', "cannot be read"),
        ("version = 1\n", "version = \n", "cannot be read"),
    ],
)
def test_a_lock_without_hashes_or_from_elsewhere_is_red(old: str, new: str, word: str) -> None:
    assert old in SMALL
    faults = list(lock.lock_faults("uv.lock", SMALL.replace(old, new, 1)))
    assert [fault for fault in faults if word in fault], faults


def test_a_package_without_any_file_is_red() -> None:
    bare = '[[package]]\nname = "x"\nversion = "1"\nsource = { registry = "https://pypi.org/simple" }\n'
    assert [fault for fault in lock.lock_faults("uv.lock", bare) if "no file" in fault]


def test_a_package_more_in_any_lock_is_red() -> None:
    """uv itself says that such a lock is in step."""
    evil = (
        '\n[[package]]\nname = "evil"\nversion = "1"\nsource = { registry = "https://pypi.org/simple" }\n'
        f'sdist = {{ url = "https://files.pythonhosted.org/evil-1.tar.gz", hash = "sha256:{DIGEST}" }}\n'
    )
    for name in lock.LOCKS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert list(lock.lock_faults(name, text)) == []
        assert list(lock.lock_faults(name, text + evil)) == [f"{name}: evil: nothing needs it"]


def test_a_backend_of_two_versions_is_red() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert list(lock.backend_faults(pyproject)) == []
    assert list(lock.backend_faults({**pyproject, "build-system": {"requires": ["flit_core>=4"]}}))
    assert list(lock.backend_faults({**pyproject, "build-system": {"requires": ["flit_core==4.2.0", "evil==1"]}}))
    assert list(lock.backend_faults({**pyproject, "dependency-groups": {"build": ["flit_core==4.2.1"]}}))


HASHED = f"evil==1 \\\n    --hash=sha256:{DIGEST}\n"


@in_checkout
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bootstrap.txt", lambda text: text + HASHED),
        ("build.txt", lambda text: text + HASHED),
        ("build.txt", lambda text: text + "--index-url https://mirror.example/simple\n"),
        ("build.txt", lambda text: re.sub("sha256:[0-9a-f]{64}", f"sha256:{DIGEST}", text)),  # not the lock's
        ("build.txt", lambda text: text.replace("4.2.0", "4.2.1")),
        ("build.txt", lambda text: ""),
        ("pylock.mcp.toml", lambda text: re.sub('sha256 = "[0-9a-f]{64}"', f'sha256 = "{DIGEST}"', text, count=1)),
        ("pylock.mcp.toml", lambda text: text + '\n[[packages]]\nname = "evil"\nversion = "1"\n'),
        ("evil.txt", lambda text: HASHED),
    ],
)
def test_an_export_that_is_not_what_the_lock_says_is_red(
    tmp_path: Path, name: str, change: Callable[[str], str]
) -> None:
    shutil.copytree(ROOT / "packaging", tmp_path / "packaging")
    for file in ("uv.lock", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    path = tmp_path / "packaging" / name
    path.write_text(change(path.read_text() if path.exists() else ""))
    (fault,) = lock.faults(tmp_path, str(UV))
    assert fault.startswith(f"packaging/{name}: ")


def test_a_licence_is_read_where_it_is_said() -> None:
    def say(expression: str = "", old: str = "", *classifiers: str) -> str:
        fields = {"License-Expression": expression, "License": old}
        said = {name: [value] if value else [] for name, value in fields.items()}
        return licences.spoken("x", {**said, "Classifier": [f"License :: OSI Approved :: {c}" for c in classifiers]})

    assert say("MIT OR Apache-2.0", "GPL") == "MIT OR Apache-2.0"
    assert say("", "MIT License") == "MIT"
    assert say("", "", "MIT License", "Apache Software License") == "MIT AND Apache-2.0"
    assert say("", "see file", "GNU General Public License v3 (GPLv3)").startswith("LicenseRef-")
    assert say() == licences.spoken("x", None) == ""


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("MIT AND BSD-3-Clause", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("AGPL-3.0-or-later", False),
        ("MPL-2.0", False),
        ("MIT WITH something", False),
        ("(GPL-3.0-only) OR MIT", False),
        ("", False),
    ],
)
def test_a_licence_is_allowed_or_not(expression: str, good: bool) -> None:
    assert licences.allowed(expression, licences.OFFERED) is good


def test_a_package_of_unknown_licence_is_red_and_a_user_is_offered_less() -> None:
    table = tomllib.loads(LOCK)
    said = {
        package["name"]: {"License-Expression": ["MIT"], "License": [], "Classifier": []}
        for package in table["package"]
    }
    assert list(licences.faults(table, said)) == []
    _, reached = sbom.extra_closure("mcp", table)
    (offered, *_), tool = (name for name, _ in reached if name not in licences.REVIEWED), "pytest"
    copyleft = {"License-Expression": ["MPL-2.0"], "License": [], "Classifier": []}
    assert list(licences.faults(table, {**said, tool: copyleft})) == []
    assert len(list(licences.faults(table, {**said, offered: copyleft}))) == 1
    assert len(list(licences.faults(table, {name: spoken for name, spoken in said.items() if name != tool}))) == 1
