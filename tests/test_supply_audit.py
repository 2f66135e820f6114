"""The audit itself: what fails, breaks, is silent or is skipped is never printed as a pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import audit, osv, workflows
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
    assert audit.first(Result("fine"), Result("", ("x",))).faults == ("x",)
    assert audit.first(Result("fine"), Result("")).text == "fine"


def test_every_check_has_its_own_name_and_the_gates_are_among_them(tmp_path: Path) -> None:
    names = [found.name for found in audit.Audit("uv", tmp_path).checks()]
    assert len(names) == len(set(names)) >= 20


def test_a_vulnerable_lock_and_a_bad_workflow_turn_the_audit_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = audit.Audit("uv", tmp_path)

    def vulnerable(pairs: set[tuple[str, str]], timeout: float) -> dict[str, object]:
        queries = [{"package": {"ecosystem": "PyPI", "name": name}, "version": version} for name, version in pairs]
        return {"queries": queries, "results": [{"vulns": [{"id": "PYSEC-0"}]}] * len(queries), "records": {}}

    monkeypatch.setattr(osv, "ask", vulnerable)
    monkeypatch.setattr(workflows, "read", lambda root: {"ci.yml": "permissions: write-all\njobs:\n  x:\n"})
    code, lines = ended(capsys, check(found.osv), check(found.our_rules))
    assert code == 1
    assert [line for line in lines if line.startswith("RED")][1:]


def test_a_silent_server_is_a_skip_with_the_reason_and_red_when_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(osv, "API", "https://127.0.0.1:1/v1")
    found = audit.Audit("uv", tmp_path)
    code, lines = ended(capsys, check(passing), check(found.osv))
    assert code == 0
    assert "did not answer" in lines[1]
    assert ended(capsys, check(passing), check(found.osv), strict=True)[0] == 1
