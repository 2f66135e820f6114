"""The pages in docs/ name what there is: every file, function and package, and none that was renamed."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import io
import re
import sqlite3
import subprocess
from functools import cache
from pathlib import Path

import pytest

import waitbus
from tests.conftest import PATIENCE, HubProcess
from tests.test_house import ROOT, in_checkout, project
from waitbus.client.wait import wait_for
from waitbus.settings import Settings

PACKAGE = ROOT / "src" / "waitbus"
ARCHITECTURE = "docs/architecture.md"

# What was renamed or moved, as a pattern, and what it is called now.
OLD_NAMES = {
    r"\bclass Feed\b|\bFeed\(": "StoreReader",
    r"\bclass Stream\b|\bStream\(": "SubscriptionState",
    r"\bwire\.Subscription\b": "wire.SubscribeRequest",
    r"\bis_long\b|\.shorten\(": "Wal.needs_checkpoint and Wal.checkpoint",
    r"\bhorizon\b": "live_after_seq",
    r"\b_ahead\b|\b_replay_ahead\b": "_awaiting_live and _replay_budget",
    r"\bStage\b": "Sandbox",
    r"\bReactions?\b": "Handler",
    r"\bcli[./](child|lines|output|reaction|rows|show|table)\b": "a file of client/, host/ or ui/",
    r"\bfacts\(": "stats",
    r"\bbenchmarks[./]parts\b": "benchmarks/programs",
    r"\brooms\b|\b(its|this|that|own|each|every|another|event) room\b": "package",
}


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def names_in(path: Path) -> frozenset[str]:
    """Functions and classes of a module, methods as ``Class.method``, inherited ones not."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found.update(
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            )
    return frozenset(found)


def items_of(text: str) -> list[str]:
    """The numbered items of a text, each as one line."""
    return [" ".join(item.split()) for item in re.findall(r"^\d+\. .*(?:\n +.*)*", text, re.MULTILINE)]


def unknown_names(item: str) -> list[str]:
    """What a numbered item names that none of the files named in it has."""
    files = [PACKAGE / name for name in re.findall(r"`([\w/]+\.py)`", item)]
    missing = [str(path) for path in files if not path.exists()]
    known = frozenset[str]().union(*[names_in(path) for path in files if path.exists()])
    functions = re.findall(r"`([\w.]+)\(\)`", item)
    classes = re.findall(r"`([A-Z][A-Za-z]*[a-z][A-Za-z]*)`", item)
    return missing + [name for name in (*functions, *classes) if name not in known]


def test_unknown_names_are_found() -> None:
    assert unknown_names("1. `wire.py`: `encode()` and `Decoder.feed()` of a `Decoder`") == []
    assert unknown_names("1. `wire.py`: `Decoder.eat()`, `encode_()`, `Feed`") == ["Decoder.eat", "encode_", "Feed"]
    assert unknown_names("1. `emit()`, but no file") == ["emit"]
    assert unknown_names("1. `wires.py`") == [str(PACKAGE / "wires.py")]


@in_checkout
def test_the_walk_through_the_code_names_what_there_is() -> None:
    items = items_of(text_of(ARCHITECTURE))
    assert len(items) > 15
    assert {item: unknown for item in items if (unknown := unknown_names(item))} == {}
    # Each step names a function, so that nobody has to search a file for it.
    assert [item for item in items if not re.search(r"`[\w.]+\(\)`", item)] == []


def listed_packages() -> list[str]:
    """What the first column of the table of packages names, in order."""
    table = text_of(ARCHITECTURE).partition("## Packages\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [name.rstrip("/") for row in rows for name in re.findall(r"`([\w/]+)`", row)]


@in_checkout
def test_every_package_is_in_the_table() -> None:
    packages = {str(init.parent.relative_to(PACKAGE)) for init in PACKAGE.rglob("__init__.py")} - {"."}
    assert sorted(listed_packages()) == sorted({*packages, *[module.stem for module in PACKAGE.glob("*.py")]})


@in_checkout
def test_the_table_has_the_order_of_the_imports() -> None:
    contracts = project()["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    layer_of = {name: at for at, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}
    listed = [name for name in listed_packages() if name in layer_of]
    assert listed == sorted(listed, key=layer_of.__getitem__)


@in_checkout
@pytest.mark.parametrize("pattern", OLD_NAMES)
def test_no_old_name_is_left(pattern: str) -> None:
    where = ["src", "docs", "tests", "benchmarks", "tools", "*.md", "llms.txt", "pyproject.toml"]
    excluded = [":!CHANGELOG.md", ":!tests/test_docs.py"]
    found = subprocess.run(
        ["git", "grep", "-nP", pattern, "--", *where, *excluded], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode in (0, 1), found.stderr
    assert found.stdout == "", f"now called {OLD_NAMES[pattern]}"


@in_checkout
def test_code_that_cites_the_contract_names_the_page_and_a_section_that_exists() -> None:
    cited = 0
    sections = set(re.findall(r"^## (\d+)\. ", text_of("docs/contract.md"), re.MULTILINE))
    for path in PACKAGE.rglob("*.py"):
        text = " ".join(path.read_text(encoding="utf-8").split())
        assert not re.search(r"(?<!docs/)\bcontract\b", text), path
        for before, after in re.findall(r"section (\d+) of docs/contract\.md|docs/contract\.md, section (\d+)", text):
            assert before + after in sections, path
            cited += 1
    assert cited > 5


def sample(page: str, language: str, holding: str) -> str:
    """The one block of code of a page that holds a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if holding in block]
    return str(found)


@in_checkout
def test_the_row_of_the_wire_page_is_heard(hub: HubProcess, settings: Settings) -> None:
    statement = sample("docs/wire.md", "sql", "INSERT")
    with contextlib.closing(sqlite3.connect(settings.db_path)) as store, store:
        store.execute(statement)
    found = wait_for("event_type=backup", source="cron", since="start", timeout=PATIENCE)
    assert found is not None
    assert found.delivery_id == "my-key-1"


@pytest.mark.parametrize("name", [name for name in waitbus.__all__ if not name.startswith("__")])
def test_every_public_name_has_an_example_that_runs(hub: HubProcess, settings: Settings, name: str) -> None:
    public = {name: getattr(waitbus, name) for name in waitbus.__all__}
    found = doctest.DocTestFinder(recurse=False).find(public[name], name, globs={**public, "asyncio": asyncio})
    assert len(found) == 1
    assert found[0].examples
    said = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(found[0], out=said.write).failed == 0, said.getvalue()
