"""Our workflows keep their rules, and each rule turns red when its link is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tools import release, workflows

ROOT = Path(__file__).resolve().parent.parent
Mutation = Callable[[str], str]


def texts() -> dict[str, str]:
    return workflows.read(ROOT)


def replacing(old: str, new: str) -> Mutation:
    def change(text: str) -> str:
        assert old in text, f"there is no {old!r} to change any more"
        return text.replace(old, new, 1)

    return change


def red(rule: object, name: str, change: Mutation) -> list[str]:
    """The faults of a changed workflow, by the rule that is responsible; the unchanged one has none."""
    before = texts()
    assert workflows.faults(before, [rule]) == []
    return workflows.faults({**before, name: change(before[name])}, [rule])


def test_all_workflows_keep_all_rules() -> None:
    assert {"audit.yml", "build.yml", "ci.yml", "codeql.yml", "release.yml", "scorecard.yml", "test.yml"} == set(
        texts()
    )
    assert workflows.faults(texts()) == []


def test_no_workflow_at_all_is_a_fault() -> None:
    assert workflows.faults({}) != []


CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"


@pytest.mark.parametrize(
    "use",
    [
        "actions/checkout@v7.0.1",  # a tag can be moved
        "actions/checkout@main # v7.0.1",
        "actions/checkout@3d3c42e # v7.0.1",
        "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1",  # which version that is, nobody can read
        "actions/checkout # v7.0.1",
        "docker://alpine:3.22",
        "some/where/else.yml@v1",
        "../elsewhere.yml",
    ],
)
def test_a_tag_instead_of_a_commit_is_red(use: str) -> None:
    (fault,) = red(workflows.pins, "ci.yml", replacing(CHECKOUT, use))
    assert fault.startswith("ci.yml:")


def test_an_action_cannot_hide_behind_another_way_to_write_it() -> None:
    for line in ('"uses": actions/checkout@v7', "{uses: actions/checkout@v7}", "uses : actions/checkout@v7"):
        assert red(workflows.pins, "ci.yml", replacing(f"uses: {CHECKOUT}", line)), line


def test_an_image_needs_a_digest() -> None:
    step = "      - run: make test"
    assert red(workflows.pins, "test.yml", replacing(step, f"    container:\n      image: python:3.13\n{step}"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("release.yml", replacing("permissions: {}", "permissions: write-all")),
        ("release.yml", replacing("permissions: {}", "permissions:\n  contents: write")),
        ("release.yml", replacing("permissions: {}", "# none")),
        ("test.yml", replacing("    permissions:\n      contents: read # to check out\n", "")),
        ("test.yml", replacing("    permissions:\n      contents: read # to check out", "    permissions: write-all")),
        ("test.yml", replacing("contents: read", "contents: write")),
        ("build.yml", replacing("      contents: read # to check out", "      id-token: write")),
        ("release.yml", replacing("id-token: write # trusted", "contents: write # trusted")),
    ],
)
def test_rights_that_nobody_needs_are_red(name: str, change: Mutation) -> None:
    assert red(workflows.permissions, name, change)


def test_only_the_job_that_runs_none_of_our_code_may_sign() -> None:
    table = workflows.jobs(texts()["build.yml"])
    signing = [name for name, job in table.items() if "id-token" in job.block("permissions")]
    assert signing == ["attest"]
    assert not any("checkout" in line for line in table["attest"].lines)
    assert table["attest"].needs() == {"compare"}
    assert table["compare"].needs() == {"build"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ci.yml", replacing("          persist-credentials: false\n", "")),
        ("ci.yml", replacing("persist-credentials: false", "persist-credentials: true")),
        ("ci.yml", replacing("  pull_request:", "  pull_request_target:")),
        ("release.yml", replacing("print-hash: true", "password: ${{ secrets.PYPI }}")),
    ],
)
def test_credentials_that_stay_or_are_handed_out_are_red(name: str, change: Mutation) -> None:
    assert red(workflows.credentials, name, change)


@pytest.mark.parametrize(
    "change",
    [
        replacing("make audit STRICT=1", "make audit STRICT=1 || true"),
        replacing("make audit STRICT=1", "set +e; make audit STRICT=1"),
        replacing("      - run: make audit", "      - continue-on-error: true\n        run: make audit"),
        replacing("      - run: make audit", "      - if: always()\n        run: make audit"),
        replacing("    timeout-minutes: 20\n", ""),
    ],
)
def test_a_check_that_passes_for_a_wrong_reason_is_red(change: Mutation) -> None:
    assert red(workflows.gates, "audit.yml", change)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("release.yml", replacing("needs: [tag, test, audit, osv, build]", "needs: [tag]")),
        ("release.yml", replacing("      name: pypi\n", "      name: test\n")),
        ("release.yml", replacing("  publish:", "  upload:")),
        ("release.yml", replacing("  push:\n", "  workflow_dispatch:\n  push:\n")),
        ("release.yml", replacing("    name: publish on PyPI\n", "    name: publish\n    if: github.actor != 'x'\n")),
        ("build.yml", replacing("python-version: ${{ matrix.python }}", "cache: pip")),
    ],
)
def test_a_release_that_could_be_untested_or_fed_from_elsewhere_is_red(name: str, change: Mutation) -> None:
    assert red(workflows.release, name, change)


def test_each_gate_before_publishing_is_needed_by_itself() -> None:
    text = texts()["release.yml"].replace("needs: [test, audit, osv]", "needs: [tag]")
    for gate in ("test", "audit", "osv", "build"):
        wanted = ", ".join(name for name in ("tag", "test", "audit", "osv", "build") if name != gate)
        changed = text.replace("needs: [tag, test, audit, osv, build]", f"needs: [{wanted}]")
        assert any(gate in fault for fault in workflows.release("release.yml", changed)), gate


def test_text_in_another_form_is_red() -> None:
    for line in ("\tuses: x", "    'permissions': write-all", "  job: &anchor", "    <<: *anchor", "  ? key"):
        assert list(workflows.form("ci.yml", texts()["ci.yml"] + line + "\n")), line
    assert list(workflows.form("ci.yml", "name: ci\n"))


def test_a_tag_is_released_only_with_its_version_and_a_dated_entry() -> None:
    source = '__version__ = "1.2.3"\n'
    dated, undated = "## [1.2.3] - 2026-01-02\n", "## [1.2.3] - unreleased\n"
    assert list(release.faults("v1.2.3", source, dated)) == []
    assert len(list(release.faults("v1.2.4", source, dated))) == 1
    assert len(list(release.faults("v1.2.3", source, undated))) == 1
    assert len(list(release.faults("v1.2.3", "", dated))) == 1
