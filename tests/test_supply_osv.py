"""The gate on known vulnerabilities: a bad version stops, silence stops, nothing is accepted for good."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from tools import lock, osv

DATA = Path(__file__).parent / "supply"
RECORDED: dict[str, Any] = json.loads((DATA / "osv-jinja2.json").read_text(encoding="utf-8"))
VULN = "GHSA-q2x7-8rv6-6q7h"
TODAY = dt.datetime.now(dt.UTC).date()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that locks what the recorded answer is about."""
    (tmp_path / "packaging").mkdir()
    (tmp_path / lock.ACCEPTED).write_text("# nothing\n")
    (tmp_path / "uv.lock").write_bytes((DATA / "uv-jinja2.lock").read_bytes())
    assert lock.locked(tmp_path) == {("jinja2", "3.1.4"), ("markupsafe", "3.0.2")}
    return tmp_path


def judge(root: Path, answer: object) -> list[str]:
    path = root / "answer.json"
    path.write_text(answer if isinstance(answer, str) else json.dumps(answer))
    return list(osv.faults(root, path))


def answer(*vulnerabilities: dict[str, Any], **changes: str) -> dict[str, Any]:
    """What osv-scanner --format=json --all-packages says about the same lock."""
    markupsafe = {"name": "MarkupSafe", "version": "3.0.2", "ecosystem": "PyPI", **changes}
    jinja2 = {"name": "jinja2", "version": "3.1.4", "ecosystem": "PyPI"}
    packages = [{"package": jinja2, "vulnerabilities": [*vulnerabilities]}, {"package": markupsafe}]
    return {"results": [{"source": {"path": "uv.lock", "type": "lockfile"}, "packages": packages}]}


def test_a_whole_clean_answer_is_green(checkout: Path) -> None:
    assert judge(checkout, answer()) == []


def test_a_vulnerable_version_is_red(checkout: Path) -> None:
    assert judge(checkout, answer(RECORDED)) == [f"jinja2 3.1.4: {VULN}"]


@pytest.mark.parametrize(
    "garbled",
    ["", "null", "[]", "{}", "<html>502</html>", {"results": None}, {"results": [{"packages": [{}]}]}],
)
def test_an_answer_that_is_none_passes_nothing(checkout: Path, garbled: object) -> None:
    (fault,) = judge(checkout, garbled)
    assert "not osv-scanner's JSON" in fault


@pytest.mark.parametrize("empty", [{"results": []}, {"results": [{"packages": []}]}])
def test_a_scanner_that_saw_nothing_passes_nothing(checkout: Path, empty: object) -> None:
    assert len(judge(checkout, empty)) == 2


@pytest.mark.parametrize(("key", "value"), [("version", "3.0.1"), ("ecosystem", "npm"), ("name", "markupsafer")])
def test_a_scanner_that_saw_something_else_passes_nothing(checkout: Path, key: str, value: str) -> None:
    assert judge(checkout, answer(**{key: value})) == ["markupsafe 3.0.2: the scanner said nothing of it"]


def test_no_answer_passes_nothing(checkout: Path) -> None:
    assert list(osv.faults(checkout, checkout / "missing"))


def accept(**changes: str) -> str:
    until = (TODAY + dt.timedelta(days=90)).isoformat()
    entry = {"id": f'"{VULN}"', "ignoreUntil": until, "reason": '"no template of a stranger"', **changes}
    return "[[IgnoredVulns]]\n" + "".join(f"{key} = {value}\n" for key, value in entry.items() if value)


def test_what_a_person_accepts_has_a_reason_and_a_day(checkout: Path) -> None:
    assert list(osv.accepted_faults(accept(), TODAY)) == []
    assert list(osv.accepted_faults(accept(ignoreUntil=f"{TODAY}T10:00:00Z"), TODAY)) == []
    (checkout / lock.ACCEPTED).write_text(accept(reason=""))
    assert judge(checkout, answer())


@pytest.mark.parametrize(
    "text",
    [
        accept(reason='" "'),
        accept(ignoreUntil=""),
        accept(ignoreUntil='"for ever"'),
        accept(ignoreUntil=str(TODAY - dt.timedelta(days=1))),
        accept(ignoreUntil="9999-12-31"),
        accept(id='"MAL-2026-1"'),
        accept(id=""),
        accept(more="1"),
        '[[PackageOverrides]]\nname = "jinja2"\nignore = true\n',
        "GoVersionOverride = '1'\n",
    ],
)
def test_what_nobody_may_accept_is_red(text: str) -> None:
    assert list(osv.accepted_faults(text, TODAY))


def test_this_checkout_accepts_nothing_that_nobody_may() -> None:
    text = (Path(__file__).resolve().parent.parent / lock.ACCEPTED).read_text(encoding="utf-8")
    assert list(osv.accepted_faults(text, TODAY)) == []
