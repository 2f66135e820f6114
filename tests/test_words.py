"""What was meant by a word that nothing is called."""

from __future__ import annotations

import pytest

from waitbus import verdict
from waitbus.event import ALWAYS_FIELDS, FIELD_COLUMNS, NATURAL_FIELDS
from waitbus.words import CONCLUSIONS, FIELDS, meant

NAMES = ["conclusion", "exit_code", "head_branch", "msg_from", "msg_to", "workflow_name", "name"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("conclusoin", "conclusion"),  # by its letters
        ("Conclusion", "conclusion"),
        ("exitcode", "exit_code"),
        ("EXIT-CODE", "exit_code"),
        ("branch", "head_branch"),  # by what others call it, or by a part
        ("returncode", "exit_code"),
        ("from", "msg_from"),
        ("workflow", "workflow_name"),
        ("msg", None),  # two have that part
        ("zzz", None),
        ("", None),
        ("name", None),  # it is one of them
    ],
)
def test_by_meaning_by_parts_and_by_letters(word: str, expected: str | None) -> None:
    assert meant(word, NAMES, FIELDS) == expected


def test_a_meaning_counts_only_among_what_is_known() -> None:
    assert meant("branch", ["exit_code"], FIELDS) is None
    assert meant("red", ["failure"], CONCLUSIONS) == "failure"
    assert meant("red", ["failure"]) is None


def test_what_others_say_leads_to_what_there_is() -> None:
    assert set(CONCLUSIONS.values()) <= verdict.CONCLUSIONS
    assert not set(CONCLUSIONS) & verdict.CONCLUSIONS
    assert set(FIELDS.values()) <= {*ALWAYS_FIELDS, *FIELD_COLUMNS, *NATURAL_FIELDS}
