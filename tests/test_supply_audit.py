"""The audit itself: what fails, breaks, is silent or is skipped is never printed as a pass."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ruamel.yaml", reason="on the main interpreter only")

from tools import audit, workflows
from tools.audit import Check, Result


def check(run: Callable[[], Result], version: Callable[[], str] = lambda: "tool 1.0") -> Check:
    return Check("a check", version, run)


def ended(capsys: pytest.CaptureFixture[str], *checks: Check, strict: bool = False) -> tuple[int, list[str]]:
    code = audit.run(checks, strict=strict)
    return code, capsys.readouterr().out.splitlines()


def passing() -> Result:
    return Result("fine")


def skipping() -> Result:
    return Result("no network", skipped=True)


def failing() -> Result:
    return Result("2 faults", ("one", "two"))


def breaking() -> Result:
    raise KeyError("x")


def test_one_line_for_each_check_with_its_tools_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = ended(capsys, check(passing), check(skipping))
    assert code == 0
    assert [line.split()[0] for line in lines] == ["ok", "skip", "1"]
    assert "tool 1.0" in lines[0]
    assert lines[-1] == "1 passed, 0 failed, 1 skipped"


@pytest.mark.parametrize("bad", [check(failing), check(breaking), check(passing, breaking)])  # type: ignore[arg-type]
def test_what_fails_or_breaks_is_red_and_the_rest_still_runs(capsys: pytest.CaptureFixture[str], bad: Check) -> None:
    code, lines = ended(capsys, bad, check(passing))
    assert code == 1
    assert lines[0].startswith("RED")
    assert lines[-1] == "1 passed, 1 failed, 0 skipped"


def test_a_skipped_check_is_red_when_nothing_may_be_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys, check(passing), check(skipping), strict=True)[0] == 1


def test_an_audit_that_checked_nothing_is_no_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys)[0] == 1
    assert ended(capsys, check(skipping))[0] == 1


def test_a_command_that_fails_in_silence_or_is_missing_is_red(tmp_path: Path) -> None:
    assert audit.command("fine", sys.executable, "-c", "").faults == ()
    assert audit.command("fine", sys.executable, "-c", "import sys; sys.exit(3)").faults == ("said nothing",)
    assert audit.command("fine", sys.executable, "-c", "import sys; sys.exit('no')").faults == ("no",)
    assert audit.command("fine", tmp_path / "missing").faults
    assert audit.command("fine", tmp_path / "missing", unreachable=re.compile("")).faults
    unreachable = [sys.executable, "-c", "import sys; sys.exit('error: dns error')"]
    assert audit.command("fine", *unreachable).faults
    assert audit.command("fine", *unreachable, unreachable=audit.OFFLINE).skipped


def test_every_check_is_among_them(tmp_path: Path) -> None:
    parts = {
        "workflows": ["policy", "zizmor", "zizmor online", "actionlint", "schema", "time-outs"],
        "dependabot": ["schema"],
        "lock": ["in step", "hashes and sources", "licences", "known vulnerabilities"],
        "code": ["bandit: src", "bandit: tools"],
        "tree": ["only readable files", "nothing hidden", "secrets"],
        "release": [
            "builds",
            "contents",
            "built again",
            "wheel",
            "the publisher",
            "pyproject",
            "manners",
            "SBOM schema",
        ],
    }
    names = {f"{part}, {name}" for part, checks in parts.items() for name in checks}
    found = [one.name for one in audit.checks("uv", tmp_path)]
    assert set(found) == {*names, "release, SBOM schema", "shell scripts"}
    assert len(found) == len(set(found))


def test_a_vulnerable_lock_and_a_bad_workflow_turn_the_audit_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = tmp_path / "osv.json"
    answer.write_text(json.dumps({"results": []}))
    found = {one.name: one for one in audit.checks("uv", tmp_path, answer)}
    monkeypatch.setattr(workflows, "workflow_faults", lambda policy, name, path: [f"{name}: another"])
    code, lines = ended(capsys, found["lock, known vulnerabilities"], found["workflows, policy"])
    assert code == 1
    assert [line for line in lines if line.startswith("RED")][1:]


def test_what_was_not_asked_is_a_skip_with_the_reason_and_red_when_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GH_TOKEN", raising=False)
    found = {one.name: one for one in audit.checks("uv", tmp_path)}
    words = {"lock, known vulnerabilities": "osv-scanner", "workflows, zizmor online": "impostor-commit"}
    for name, word in words.items():
        one = Check(name, lambda: "tool 1.0", found[name].run)
        code, lines = ended(capsys, check(passing), one)
        assert code == 0
        assert lines[1].startswith("skip")
        assert word in lines[1]
        assert ended(capsys, check(passing), one, strict=True)[0] == 1


RANDOM = base64.b64encode(hashlib.sha512(b"waitbus").digest()).decode()  # looks like chance, and is not


def test_what_looks_like_a_secret_is_red_and_not_repeated(tmp_path: Path) -> None:
    texts = [
        "-----BEGIN " + "PRIVATE KEY-----",
        "token: ghp_" + "a1B2" * 9,
        "AKIA" + "ABCDEFGH12345678",
        "https://user:" + "hunter22" + "@example.org/",
        f'key = "{RANDOM}"',
        'password = "' + "x7Kq9!vR2m_Zt4" + '"',
    ]
    paths = [tmp_path / f"settings{number}.py" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(f"a = 1\n{text}\n")
    said = "\n".join(audit.secrets(paths).faults)
    assert all(f"{path}:2" in said for path in paths), said
    assert not any(text in said for text in (RANDOM, "hunter22", "x7Kq9"))


def test_public_text_is_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text(
        f"uses: actions/checkout@{hashlib.sha1(b'').hexdigest()} # v7\n"
        f'hash = "sha256:{hashlib.sha256(b"").hexdigest()}"\n'
        "def test_a_build_is_the_same_bytes_whatever_the_umask_and_the_file_times() -> None:\n"
        "https://example.org:8443/path@2x\n"
    )
    assert audit.secrets([path]).faults == ()
