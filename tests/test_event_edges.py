"""Events, ULIDs and JSON text at their edges: what each refuses, keeps and says, to the letter."""

from __future__ import annotations

import pytest

from waitbus.event import default_summary, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("as it is", "as it is"),
        (" a\tb\n\nc  d ", "a b c d"),
        ("a\x1b[31mb\x00c", "a [31mb c"),
        ("é ✓", "é ✓"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        (" " * 5 + "x" * 200, "x" * 200),
        ("a  " * 100, "a " * 99 + "a"),
    ],
)
def test_one_line_for_a_person(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_line_is_cut_where_it_is_asked_to_be() -> None:
    assert one_line("abcdef", 6) == "abcdef"
    assert one_line("abcdefg", 6) == "abcde…"
    # Of an endless text only so much is looked at as may make the line.
    assert one_line(" " * 24 + "x", 6) == ""
    assert one_line(" " * 23 + "x", 6) == "x"


@pytest.mark.parametrize(
    ("fields", "summary"),
    [
        ({}, "s t"),
        ({"owner": "o", "repo": "r"}, "s t o/r"),
        ({"owner": "local", "repo": "r"}, "s t"),
        ({"conclusion": "failure", "status": "completed", "action": "x"}, "s t failure"),
        ({"status": "queued", "action": "x"}, "s t queued"),
        ({"action": "die"}, "s t die"),
        *[
            ({name: "it", **dict.fromkeys(after, "no")}, "s t it")
            for name, *after in [
                names[at:]
                for names in (
                    ["workflow_name", "job_name", "alert_name", "container_name", "path", "msg_body", "name"],
                )
                for at in range(7)
            ]
        ],
    ],
)
def test_a_summary_for_producers_that_gave_none(fields: dict[str, str], summary: str) -> None:
    assert default_summary({"source": "s", "event_type": "t", "owner": "local", **fields}) == summary
