"""The gate on known vulnerabilities: a bad version stops, silence stops, nothing but a whole clean answer passes."""

from __future__ import annotations

import copy
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from tools import lock, osv

DATA = Path(__file__).parent / "supply"
RECORDED: dict[str, Any] = json.loads((DATA / "osv-jinja2.json").read_text(encoding="utf-8"))
VULN = "GHSA-q2x7-8rv6-6q7h"
WANTED = {("jinja2", "3.1.4"), ("markupsafe", "3.0.2")}


def checkout(folder: Path) -> Path:
    """A checkout that locks what the recorded answer is about."""
    (folder / "packaging").mkdir()
    (folder / "uv.lock").write_bytes((DATA / "uv-jinja2.lock").read_bytes())
    for name in ("bootstrap", "build"):
        (folder / "packaging" / f"{name}.txt").write_text("")
    assert lock.locked(folder) == WANTED
    return folder


def run(folder: Path, option: str, answer: object) -> int:
    path = folder / "answer.json"
    path.write_text(answer if isinstance(answer, str) else json.dumps(answer))
    return osv.main(["judge", option, str(path), "--root", str(folder)])


def scanner(vulns: list[dict[str, Any]]) -> dict[str, Any]:
    """What osv-scanner --format=json --all-packages says about the same lock."""

    def package(name: str, version: str) -> dict[str, Any]:
        return {"package": {"name": name, "version": version, "ecosystem": "PyPI"}}

    packages = [{**package("jinja2", "3.1.4"), "vulnerabilities": vulns}, package("MarkupSafe", "3.0.2")]
    return {"results": [{"source": {"path": "uv.lock", "type": "lockfile"}, "packages": packages}]}


def test_a_vulnerable_version_is_red(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkout(tmp_path), "--api", RECORDED) == osv.VULNERABLE
    assert capsys.readouterr().err == f"jinja2 3.1.4: {VULN}\n"
    assert run(tmp_path, "--scanner", scanner([RECORDED["records"][VULN]])) == osv.VULNERABLE


def test_a_whole_clean_answer_is_green(tmp_path: Path) -> None:
    clean = {**RECORDED, "results": [{}, {}], "records": {}}
    assert run(checkout(tmp_path), "--api", clean) == osv.CLEAN
    assert run(tmp_path, "--scanner", scanner([])) == osv.CLEAN


def test_a_withdrawn_record_is_none_and_an_unknown_one_counts(tmp_path: Path) -> None:
    withdrawn = copy.deepcopy(RECORDED)
    withdrawn["records"][VULN]["withdrawn"] = "2026-01-01T00:00:00Z"
    assert run(checkout(tmp_path), "--api", withdrawn) == osv.CLEAN
    assert run(tmp_path, "--api", {**RECORDED, "records": {}}) == osv.VULNERABLE


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "null",
        "[]",
        "{}",
        "<html>502 Bad Gateway</html>",
        {"code": 3, "message": "Too many queries."},
        {"queries": [], "results": [], "records": {}},
        {**RECORDED, "results": []},
        {**RECORDED, "results": RECORDED["results"][:1]},
        {**RECORDED, "results": [{}, None]},
        {**RECORDED, "results": [{}, {"next_page_token": "more"}]},
        {**RECORDED, "results": [{}, {"vulns": [{"modified": "2026-01-01T00:00:00Z"}]}]},
        {**RECORDED, "queries": RECORDED["queries"][:1], "results": [{}]},
        {**RECORDED, "queries": [RECORDED["queries"][0]] * 2, "results": [{}, {}]},
    ],
)
def test_an_answer_that_is_empty_garbled_or_partial_passes_nothing(tmp_path: Path, answer: object) -> None:
    assert run(checkout(tmp_path), "--api", answer) == osv.UNDECIDED


@pytest.mark.parametrize(
    "answer",
    ["", "{}", {"results": []}, {"results": None}, {"results": [{"packages": []}]}, {"results": [{"packages": [{}]}]}],
)
def test_a_scanner_that_saw_nothing_passes_nothing(tmp_path: Path, answer: object) -> None:
    assert run(checkout(tmp_path), "--scanner", answer) == osv.UNDECIDED


def test_a_scanner_that_saw_another_version_or_ecosystem_passes_nothing(tmp_path: Path) -> None:
    checkout(tmp_path)
    for key, value in (("version", "3.1.6"), ("ecosystem", "npm"), ("name", "jinja3")):
        answer = scanner([])
        answer["results"][0]["packages"][0]["package"][key] = value
        assert run(tmp_path, "--scanner", answer) == osv.UNDECIDED, key


def test_no_file_and_no_lock_pass_nothing(tmp_path: Path) -> None:
    checkout(tmp_path)
    assert osv.main(["judge", "--api", str(tmp_path / "missing"), "--root", str(tmp_path)]) == osv.UNDECIDED
    with pytest.raises(osv.UndecidedError):
        osv.judge({("jinja2", "3.1.4"): set()}, set())


def accept(**changes: str) -> str:
    entry = {"package": '"Jinja2"', "id": f'"{VULN}"', "reason": '"no template of a stranger"', "until": "2026-12-31"}
    return "[[accepted]]\n" + "".join(f"{key} = {value}\n" for key, value in {**entry, **changes}.items())


def test_what_a_person_accepted_passes_until_its_day() -> None:
    found = osv.from_api(RECORDED)
    for day, good in ((dt.date(2026, 12, 31), True), (dt.date(2027, 1, 1), False)):
        verdict = osv.judge(found, WANTED, osv.accepted(accept(), day))
        assert (not verdict.open) is good
        assert bool(verdict.accepted) is good
    other = osv.accepted(accept(package='"markupsafe"'), dt.date(2026, 1, 1))
    assert osv.judge(found, WANTED, other).open


@pytest.mark.parametrize("changes", [{"reason": '" "'}, {"until": '"for ever"'}, {"id": '"MAL-2026-1"'}])
def test_what_nobody_may_accept_passes_nothing(changes: dict[str, str]) -> None:
    with pytest.raises(osv.UndecidedError):
        osv.accepted(accept(**changes), dt.date(2026, 1, 1))


def test_the_question_is_about_every_package_and_a_silent_server_passes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, Any]] = []

    def answer(path: str, body: dict[str, Any] | None, timeout: float) -> dict[str, Any]:
        asked.append((path, body))
        return {"results": RECORDED["results"]} if body else RECORDED["records"][path.rpartition("/")[2]]

    monkeypatch.setattr(osv, "_call", answer)
    assert osv.ask(WANTED) == RECORDED
    assert asked == [("/querybatch", {"queries": RECORDED["queries"]}), (f"/vulns/{VULN}", None)]
    monkeypatch.setattr(osv, "_call", lambda *_: {"message": "busy"})
    with pytest.raises(osv.UndecidedError):
        osv.ask(WANTED)
