"""The judge of ``make torture`` itself: it must see a loss, a repeat and a disorder, and allow what is promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.audit import Ledger, account, without_promised_repeats

STORE = list("abcdef")


@pytest.mark.parametrize(
    ("received", "lost", "repeated", "disordered"),
    [
        ("abcdef", 0, 0, 0),
        ("abdef", 1, 0, 0),
        ("", 6, 0, 0),
        ("abcabcdef", 0, 3, 0),
        ("abdcef", 0, 0, 1),
        ("abxcdef", 0, 1, 0),
        ("fabcde", 0, 0, 1),
    ],
)
def test_an_account_says_what_was_wrong(received: str, lost: int, repeated: int, disordered: int) -> None:
    found = account(STORE, list(received))
    assert (found.expected, found.lost, found.repeated, found.disordered) == (6, lost, repeated, disordered)
    assert found.good is (received == "abcdef")


def test_a_bookmark_may_repeat_the_last_event_before_a_kill_and_no_other() -> None:
    assert without_promised_repeats(list("abbcdef"), [0, 2, 7]) == (STORE, 1)
    assert without_promised_repeats(list("ababcdef"), [2]) == (list("ababcdef"), 0)
    assert without_promised_repeats(list("abbcdef"), [3]) == (list("abbcdef"), 0)


def test_a_ledger_adds_up_what_a_producer_was_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert Ledger(log).answered == 0
    log.write_text("0 1 1\n1 20 20\n21 5 2\n")
    ledger = Ledger(log)
    assert (ledger.answered, ledger.inserted, ledger.gaps) == (26, 23, 0)
    log.write_text("0 1 1\n2 1 1\n")
    assert Ledger(log).gaps == 1
