"""The table of `make mutants`: it names files and tests that exist, so that a move cannot leave a file unwatched."""

from __future__ import annotations

import tomllib
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src" / "waitbus"


def test_the_table_names_files_and_tests_that_exist() -> None:
    table = tomllib.loads((TESTS / "mutants" / "table.toml").read_text(encoding="utf-8"))["modules"]
    assert [name for name in table if not (SOURCE / f"{name}.py").exists()] == []
    assert [test for tests in table.values() for test in tests if not (TESTS / f"{test}.py").exists()] == []
    assert all(table.values())


def test_every_explanation_has_a_reason() -> None:
    explained = tomllib.loads((TESTS / "mutants" / "explained.toml").read_text(encoding="utf-8")).get("explained", [])
    for entry in explained:
        assert entry.keys() <= {"function", "was", "now", "why"}
        assert isinstance(entry.get("now", []), list)
        assert entry["function"] is not None
        assert entry["was"].strip()
        assert entry["why"].strip()
