"""Every way of tampering with a wheel or sdist turns its own check red, and nothing of an artifact is trusted."""

from __future__ import annotations

import gzip
import json
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import (
    INFO,
    RECORD,
    SDIST,
    VERSION,
    WHEEL,
    Change,
    Files,
    entry,
    member,
    row,
    tampered,
    tar_members,
    tarred,
    wheel_files,
    zipped,
)
from tests.test_house import build, copy_tree
from waitbus.cli.main import main
from waitbus.verify import archive

Verify = Callable[[Path], tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(copy_tree(tmp_path_factory.mktemp("built") / "tree"))


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    def run(path: Path, *flags: str) -> tuple[int, dict[str, Any]]:
        code = main(["verify-release", str(path), "--no-signatures", "--json", *flags])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else {"error": said.err}

    return run


def failed(report: dict[str, Any]) -> dict[str, str]:
    return {check["check"]: check["detail"] for check in report["checks"] if check["state"] == "FAILED"}


def test_what_the_backend_builds_passes(built: tuple[Path, Path], verify: Verify) -> None:
    for path, kind in zip(built, ("wheel", "sdist"), strict=True):
        code, report = verify(path)
        assert (code, report["verdict"], failed(report)) == (0, "verified", {})
        assert (report["kind"], report["version"], report["exit_code"]) == (kind, VERSION, 0)


# What a wheel's RECORD is for: whoever changes a file and not the list is found out.


def replace_in(name: str, old: bytes, new: bytes) -> Change:
    def change(files: Files) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return change


def setting(name: str, body: bytes) -> Change:
    return lambda files: files.update({name: body})


INIT = "waitbus/__init__.py"
INIT_ROW = f"{INIT},sha256=".encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace_in(INIT, b"waitbus", b"waitbug"), "is not what RECORD says"),
        (lambda files: files.pop("waitbus/wire.py"), "stands in RECORD and is missing"),
        (setting("waitbus/extra.py", b"import this\n"), "does not stand in RECORD"),
        (lambda files: files.update({RECORD: files[RECORD] + row(INIT, files[INIT]).encode()}), "twice"),
        (replace_in(RECORD, INIT_ROW, f"{INIT},md5=".encode()), "has no sha256"),
        (lambda files: files.update({RECORD: files[RECORD] + b"waitbus/x.py,sha256=\n"}), "is none"),
        (lambda files: files.update({RECORD: files[RECORD] + b"\xff"}), "cannot be read"),
        (replace_in(RECORD, f"{RECORD},,".encode(), row(RECORD, b"").strip().encode()), "a hash of itself"),
        (lambda files: files.pop(RECORD), "there is no"),
        (lambda files: files.update({INIT: files[INIT] + b"\n"}), "is not what RECORD says"),
    ],
)
def test_a_wheel_that_differs_from_its_record(
    built: tuple[Path, Path], verify: Verify, tmp_path: Path, change: Change, words: str
) -> None:
    code, report = verify(tampered(built[0], tmp_path, change))
    assert code == 76
    assert words in failed(report)["record"]


def test_a_size_that_lies_is_found(built: tuple[Path, Path], verify: Verify, tmp_path: Path) -> None:
    def change(files: Files) -> None:
        right = row(INIT, files[INIT]).strip().encode()
        assert right in files[RECORD]
        files[RECORD] = files[RECORD].replace(right, right.rpartition(b",")[0] + b",1")

    code, report = verify(tampered(built[0], tmp_path, change))
    assert (code, set(failed(report))) == (76, {"record"})


# And whoever lays RECORD anew is found out by what a wheel of ours is.


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (setting("evil.pth", b"import os\n"), "contents", "runs when Python starts"),
        (setting("waitbus/fast.so", b"\x7fELF"), "contents", "compiled"),
        (setting("waitbus/__pycache__/wire.cpython-311.pyc", b""), "contents", "compiled"),
        (setting("requests/__init__.py", b""), "contents", "outside the package"),
        (setting(f"waitbus-{VERSION}.data/scripts/sh", b"#!/bin/sh\n"), "contents", "outside the package"),
        (setting(f"{INFO}/direct_url.json", b"{}"), "contents", "no metadata of ours"),
        (replace_in(f"{INFO}/METADATA", f"Version: {VERSION}".encode(), b"Version: 9.9.9"), "metadata", "'9.9.9'"),
        (replace_in(f"{INFO}/METADATA", b"Name: waitbus", b"Name: waitbuss"), "metadata", "'waitbuss'"),
        (replace_in(f"{INFO}/METADATA", b"Name:", b"Version: 1\nName:"), "metadata", "'1'"),
        (replace_in(f"{INFO}/METADATA", b"Name:", b"Requires-Dist: requests\nName:"), "metadata", "needs 'requests'"),
        (replace_in(f"{INFO}/METADATA", b"Name:", b'Requires-Dist: x; a == "extra =="\nName:'), "metadata", ""),
        (replace_in(f"{INFO}/WHEEL", b"true", b"false"), "metadata", "Root-Is-Purelib 'false'"),
        (replace_in(f"{INFO}/WHEEL", b"Tag:", b"Tag: py2-none-any\nTag:"), "metadata", "'py2-none-any'"),
        (lambda files: files.pop(f"{INFO}/METADATA"), "metadata", "there is no"),
        (lambda files: files.pop(f"{INFO}/sboms/waitbus.cdx.json"), "sbom", "there is no"),
        (setting(f"{INFO}/sboms/waitbus.cdx.json", b"[]"), "sbom", "no JSON object"),
        (setting(f"{INFO}/sboms/waitbus.cdx.json", b"[" * 100_000), "sbom", "no JSON object"),
        (replace_in(f"{INFO}/sboms/waitbus.cdx.json", b'"1.6"', b'"1.5"'), "sbom", "no CycloneDX 1.6"),
        (replace_in(f"{INFO}/sboms/waitbus.cdx.json", b'"name": "waitbus"', b'"name": "other"'), "sbom", "other"),
    ],
)
def test_a_wheel_that_is_none_of_ours(
    built: tuple[Path, Path], verify: Verify, tmp_path: Path, change: Change, check: str, words: str
) -> None:
    code, report = verify(tampered(built[0], tmp_path, change, careful=True))
    if words:
        assert code == 76
        assert words in failed(report)[check]
        assert "record" not in failed(report)


def test_a_wheel_of_another_version_under_our_name(built: tuple[Path, Path], verify: Verify, tmp_path: Path) -> None:
    renamed = tmp_path / "waitbus-9.9.9-py3-none-any.whl"
    renamed.write_bytes(built[0].read_bytes())
    code, report = verify(renamed)
    assert (code, set(failed(report))) == (76, {"contents", "record", "metadata", "sbom"})


# The archive itself: what one unpacker sees and another does not.


def symlink() -> zipfile.ZipInfo:
    return entry("waitbus/link.py", stat.S_IFLNK | 0o777)


def packed_by(method: int) -> zipfile.ZipInfo:
    info = entry("waitbus/x.py")
    info.compress_type = method
    return info


def with_extra() -> zipfile.ZipInfo:
    info = entry("waitbus/x.py")
    info.extra = struct.pack("<HH4s", 0x7777, 4, b"evil")
    return info


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (INIT, "is there twice"),
        ("waitbus/WIRE.py", "is there twice, once as 'waitbus/wire.py'"),
        ("../evil.py", "no path inside"),
        ("/etc/evil", "no path inside"),
        ("waitbus/./evil.py", "no path inside"),
        ("waitbus//evil.py", "no path inside"),
        ("waitbus\\..\\..\\evil.py", "no path inside"),
        ("C:/evil.py", "no path inside"),
        ("waitbus/\x1b[2Jevil.py", "no path inside"),
        ("waitbus/empty/", "not a plain file"),
        (symlink(), "not a plain file"),
        (packed_by(zipfile.ZIP_BZIP2), "method 12"),
        (with_extra(), "more than its content"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_is_not_exactly_its_files(
    built: tuple[Path, Path], verify: Verify, tmp_path: Path, extra: str | zipfile.ZipInfo, words: str
) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(zipped([*wheel_files(built[0]).items(), (extra, b"")]))
    code, report = verify(path)
    assert code == 76
    assert words in failed(report)["archive"]


def end_of(data: bytes) -> tuple[int, int]:
    """Where the directory of a ZIP archive begins, and where its end record does."""
    at = len(data) - 22
    return struct.unpack_from("<I", data, at + 16)[0], at


def with_gap(data: bytes) -> bytes:
    """A byte between the last file and the directory, the directory's place put right."""
    start, at = end_of(data)
    return data[:start] + b"!" + data[start:at] + data[at : at + 16] + struct.pack("<I", start + 1) + data[at + 20 :]


def with_flag(data: bytes, flag: int) -> bytes:
    """The first file's flags changed in the directory."""
    start, _ = end_of(data)
    return data[: start + 8] + struct.pack("<H", flag) + data[start + 10 :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"#!/bin/sh\n" + data, "its directory"),
        (lambda data: data + b"\n", "its directory"),
        (lambda data: data[:-2] + b"\x02\x00hi", "its directory"),
        (with_gap, "belong to no file"),
        (lambda data: with_flag(data, 1), "is encrypted"),
        (lambda data: data[:60] + bytes([data[60] ^ 0xFF]) + data[61:], "cannot be read"),
    ],
)
def test_bytes_that_belong_to_no_file(
    built: tuple[Path, Path], verify: Verify, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(change(built[0].read_bytes()))
    code, report = verify(path)
    assert code == 76
    assert words in failed(report)["archive"]


def test_a_bomb_is_not_unpacked(built: tuple[Path, Path], verify: Verify, tmp_path: Path) -> None:
    zeros = bytes(archive.MAX_UNPACKED)
    path = tampered(built[0], tmp_path, setting("waitbus/zeros.py", zeros), careful=True)
    assert path.stat().st_size < archive.MAX_PACKED
    code, report = verify(path)
    assert code == 76
    assert "unpacks to more than 32 MiB" in failed(report)["archive"]
    path = tmp_path / SDIST
    path.write_bytes(gzip.compress(zeros + b"0", 9))
    code, report = verify(path)
    assert (code, failed(report)["archive"]) == (76, "it unpacks to more than 32 MiB")


def test_many_files_are_not_read(verify: Verify, tmp_path: Path) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(zipped((f"waitbus/{number}.py", b"") for number in range(archive.MAX_ENTRIES + 1)))
    assert "more than 5000" in failed(verify(path)[1])["archive"]
    path = tmp_path / SDIST
    path.write_bytes(gzip.compress(tarred(member(f"x/{number}") for number in range(archive.MAX_ENTRIES + 1)), 1))
    assert "more than 5000" in failed(verify(path)[1])["archive"]


# The sdist.


@pytest.mark.parametrize(
    ("extra", "check", "words"),
    [
        (member("evil.py"), "contents", "lies outside"),
        (member(f"waitbus-{VERSION}/../../evil.py"), "archive", "no path inside"),
        (member("/etc/evil"), "archive", "no path inside"),
        (member(f"waitbus-{VERSION}/link", kind=tarfile.SYMTYPE, link="/etc/passwd"), "archive", "not a plain file"),
        (member(f"waitbus-{VERSION}/link", kind=tarfile.LNKTYPE, link="x"), "archive", "not a plain file"),
        (member(f"waitbus-{VERSION}/fifo", kind=tarfile.FIFOTYPE), "archive", "not a plain file"),
        (member(f"waitbus-{VERSION}/device", kind=tarfile.CHRTYPE), "archive", "not a plain file"),
        (member(f"waitbus-{VERSION}/PKG-INFO", b"Name: waitbus\n"), "archive", "is there twice"),
        (member(f"waitbus-{VERSION}/pkg-info"), "archive", "is there twice"),
        (member(f"waitbus-{VERSION}/src/waitbus/fast.so"), "contents", "is compiled"),
    ],
)
def test_an_sdist_with_what_does_not_belong_there(
    built: tuple[Path, Path],
    verify: Verify,
    tmp_path: Path,
    extra: tuple[tarfile.TarInfo, bytes],
    check: str,
    words: str,
) -> None:
    path = tmp_path / SDIST
    path.write_bytes(gzip.compress(tarred([*tar_members(built[1]), extra]), 1))
    code, report = verify(path)
    assert code == 76
    assert words in failed(report)[check]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: gzip.compress(raw) + b"tail", "behind the gzip stream"),
        (lambda raw: gzip.compress(raw) + gzip.compress(b"second"), "behind the gzip stream"),
        (lambda raw: gzip.compress(raw.rstrip(b"\0") + bytes(10240) + b"tail"), "behind its end"),
        (lambda raw: gzip.compress(raw)[:-100], "its end is missing"),
        (lambda raw: gzip.compress(raw[: len(raw) // 2 + 1]), "cannot be read to its end"),
    ],
)
def test_an_sdist_that_is_not_whole(
    built: tuple[Path, Path], verify: Verify, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    path = tmp_path / SDIST
    path.write_bytes(change(gzip.decompress(built[1].read_bytes())))
    code, report = verify(path)
    assert code == 76
    assert words in failed(report)["archive"]


def test_an_sdist_of_another_version(built: tuple[Path, Path], verify: Verify, tmp_path: Path) -> None:
    renamed = tmp_path / "waitbus-9.9.9.tar.gz"
    renamed.write_bytes(built[1].read_bytes())
    code, report = verify(renamed)
    assert (code, set(failed(report))) == (76, {"contents", "metadata"})


# No wheel and no sdist at all.


@pytest.mark.parametrize("name", [WHEEL, SDIST])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04", b"\x1f\x8b", gzip.compress(b"no tar" * 200, mtime=0)]
)
def test_bytes_of_no_kind_are_65(verify: Verify, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    code, report = verify(path)
    assert code == 65
    assert str(path) in report["error"]


def test_a_download_that_was_cut_is_65(built: tuple[Path, Path], verify: Verify, tmp_path: Path) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(built[0].read_bytes()[:-1])
    assert verify(path)[0] == 65


def test_what_is_no_file_of_ours_is_65_and_what_is_not_there_66(verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / f"a-{WHEEL}").mkdir()
    os.mkfifo(tmp_path / f"b-{WHEEL}")
    (tmp_path / f"c-{WHEEL}").write_bytes(bytes(archive.MAX_PACKED + 1))
    for name, words in (
        ("notes.txt", "neither a wheel"),
        (f"a-{WHEEL}", "is not a file"),
        (f"b-{WHEEL}", "is not a file"),
        (f"c-{WHEEL}", "larger than 8 MiB"),
    ):
        code, report = verify(tmp_path / name)
        assert (code, words in report["error"]) == (65, True), report
    code, report = verify(tmp_path / WHEEL)
    assert code == 66
    assert "No such file" in report["error"]


def test_a_name_that_is_not_ours_is_not_taken_for_ours(
    built: tuple[Path, Path], verify: Verify, tmp_path: Path
) -> None:
    for name in (f"waitbuss-{VERSION}-py3-none-any.whl", f"waitbus-{VERSION}-cp311-none-any.whl", "waitbus-x.tar.gz"):
        path = tmp_path / name
        path.write_bytes(built[name.endswith(".gz")].read_bytes())
        code, report = verify(path)
        assert (code, list(failed(report))) == (76, ["name"])
