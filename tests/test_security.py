"""SECURITY.md and docs/supply-chain.md say what is so: what they cite exists, and what they show can be typed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import HubProcess
from tests.test_house import ROOT, in_checkout
from waitbus import __repository__
from waitbus.cli.main import VERBS, module_of
from waitbus.cli.parser import make_parser
from waitbus.client.emit import emit
from waitbus.client.wait import wait_for
from waitbus.event import EventInsert
from waitbus.verify import signatures

PAGES = ("SECURITY.md", "docs/supply-chain.md")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@in_checkout
def test_every_test_that_is_cited_exists() -> None:
    cited = {found for page in PAGES for found in re.findall(r"`(test_\w+\.py)::(\w+)`", text_of(page))}
    assert len(cited) > 40
    for file, name in cited:
        code = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *(async )?def {name}\(", code, re.MULTILINE), f"{file}::{name}"


@in_checkout
@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_target_that_is_named_exists(page: str) -> None:
    text = text_of(page)
    for link in re.findall(r"\]\((?!https?:)([^)#]*)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link
    for path in re.findall(r"`((?:packaging|tools|docs|tests|\.github)/[\w./-]+)[ `]", text):
        assert (ROOT / path).exists(), path
    for workflow in re.findall(r"`(\w+\.yml)`", text):
        assert (ROOT / ".github" / "workflows" / workflow).exists(), workflow
    for module in re.findall(r"python3 -m (tools\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= set(targets)
    # Names in quotes after `make audit` are its lines.
    audit = (ROOT / "tools" / "audit.py").read_text(encoding="utf-8")
    for line in re.findall(r"`make audit`[:,] (?:lines? )?((?:\"[^\"]+\"(?:, )?)+)", text):
        for name in re.findall(r"\"([^\"…]+)…?\"", line):
            assert f'"{name}' in audit, name


@in_checkout
def test_every_command_of_ours_that_is_shown_is_understood() -> None:
    commands = [line for page in PAGES for line in re.findall(r"`waitbus ([^`]+)`", text_of(page))]
    assert len(commands) > 8
    for command in commands:
        verb, *words = shlex.split(command)
        assert verb in VERBS, command
        if any(word.isupper() or word.startswith("--") for word in words):  # a whole command, not a name for one
            make_parser(verb, VERBS[verb], module_of(verb)).parse_args(words)


@in_checkout
def test_the_commands_that_are_shown_are_those_that_verify_release_runs() -> None:
    text = text_of("SECURITY.md").replace("FILE.sigstore.json", "BUNDLE")
    for tool, bundle in (("gh", None), ("cosign", "BUNDLE"), ("pypi-attestations", None)):
        assert f"`{shlex.join([tool, *signatures.arguments(tool, 'FILE', '0.3.0', bundle)])}`" in text, tool


@in_checkout
def test_a_first_installation_begins_with_verifying() -> None:
    install = text_of("README.md").partition("## Install")[2].partition("\n## ")[0]
    asks = shlex.split(
        re.findall(r"^gh attestation verify (?:.*\\\n)*.*", install, re.MULTILINE)[0].replace("\\\n", "")
    )
    assert {"--repo", __repository__, "--source-ref", "--signer-workflow"} <= set(asks)
    assert f"{__repository__}/{signatures.SIGNER}" in asks
    assert (
        install.index("gh attestation verify")
        < install.index("uv tool install ./")
        < install.index("uv tool install waitbus")
    )


@in_checkout
def test_what_decides_a_release_is_approved_by_one_team() -> None:
    lines = [line.split() for line in text_of(".github/CODEOWNERS").splitlines() if not line.startswith("#")]
    owners = {path: who for path, *who in lines}
    assert all(len(who) == 1 for who in owners.values())
    assert all((ROOT / path.strip("/")).exists() for path in owners if path != "*")
    deciding = {"/.ci/", "/.github/", "/Makefile", "/packaging/", "/pyproject.toml", "/tools/", "/uv.lock"}
    assert {path for path, who in owners.items() if who == [f"@{__repository__.partition('/')[0]}/release"]} >= deciding


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds; one that is closed while we look is none."""
    held = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(f"/proc/{pid}/fd/{name}")
            if link.startswith("socket:"):
                held.add(link.removeprefix("socket:[").rstrip("]"))
    return held


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_hub_at_work_holds_no_socket_but_of_this_machine(hub: HubProcess) -> None:
    emit(EventInsert(source="s", event_type="t"))
    assert wait_for("event_type=t", since="start", timeout=20) is not None
    before = sockets_of(hub.pid)
    local = {line.split()[6] for line in Path(f"/proc/{hub.pid}/net/unix").read_text().splitlines()[1:]}
    held = before & sockets_of(hub.pid)  # those that came or went meanwhile are in one list and not in the other
    assert len(held) >= 3
    assert held <= local
