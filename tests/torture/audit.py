"""The judge: what the store holds against what each subscriber was given, and what each producer was told."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tests.torture.consumer import FILTERED


class Account:
    """One subscriber's account: events it should have been given, and how it was not so."""

    def __init__(self, expected: int, lost: int, repeated: int, disordered: int) -> None:
        self.expected = expected
        self.lost = lost
        self.repeated = repeated
        self.disordered = disordered

    @property
    def good(self) -> bool:
        return not (self.lost or self.repeated or self.disordered)

    def add(self, other: Account) -> None:
        self.expected += other.expected
        self.lost += other.lost
        self.repeated += other.repeated
        self.disordered += other.disordered

    def figures(self) -> dict[str, int]:
        return dict(vars(self))

    def __str__(self) -> str:
        return f"{self.expected} expected, {self.lost} lost, {self.repeated} repeated, {self.disordered} out of order"


def given(log: Path) -> list[str]:
    """The event_ids a subscriber was given, in order."""
    return [line.split()[0] for line in log.read_text().splitlines()]


def delays_us(log: Path) -> list[int]:
    return [int(line.split()[1]) for line in log.read_text().splitlines()]


def account(expected: list[str], received: list[str]) -> Account:
    """Compare two lists of event_ids. What nobody expected counts as repeated: it was given without a reason."""
    place = {event_id: index for index, event_id in enumerate(expected)}
    counts = Counter(received)
    lost = sum(event_id not in counts for event_id in expected)
    repeated = len(received) - sum(event_id in place for event_id in counts)
    firsts = [place[event_id] for event_id in dict.fromkeys(received) if event_id in place]
    disordered = sum(after < before for before, after in pairwise(firsts))
    return Account(len(expected), lost, repeated, disordered)


def without_promised_repeats(received: list[str], kills: list[int]) -> tuple[list[str], int]:
    """Take out what a bookmark may repeat: the last event before a kill, once, as the first one after it.

    `kills` are lengths of the log at each kill. Returns what is left and how many were taken out.
    """
    drop = {at for at in kills if 0 < at < len(received) and received[at] == received[at - 1]}
    return [event_id for index, event_id in enumerate(received) if index not in drop], len(drop)


class Truth:
    """The store at the end: its event_ids and delivery_ids in commit order."""

    def __init__(self, path: str) -> None:
        with contextlib.closing(sqlite3.connect(path)) as store:
            query = "SELECT event_id, delivery_id FROM events ORDER BY seq"
            self.rows: list[tuple[str, str]] = store.execute(query).fetchall()
            self.sound = store.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def expected(self, kind: str) -> list[str]:
        """The event_ids a subscriber of this kind should have been given."""
        prefix = f"{FILTERED}-"
        return [
            event_id
            for event_id, delivery_id in self.rows
            if kind != "filtered" or delivery_id.startswith((prefix, "end"))
        ]

    def numbers(self, producer: str) -> list[int]:
        """The numbers of one producer, in commit order."""
        return [int(delivery.partition("-")[2]) for _, delivery in self.rows if delivery.startswith(f"{producer}-")]


class Ledger:
    """What one producer was told: how many of its numbers were answered for, and how many of those as new."""

    def __init__(self, log: Path) -> None:
        self.answered = self.inserted = 0
        self.gaps = 0
        lines = log.read_text().splitlines() if log.exists() else []
        for first, count, inserted in (map(int, line.split()) for line in lines):
            self.gaps += first != self.answered
            self.answered = first + count
            self.inserted += inserted


def wronged(truth: Truth, name: str, ledger: Ledger) -> list[str]:
    """How the store and what a producer was told differ, in words."""
    numbers, wrongs = truth.numbers(name), []
    missing = set(range(ledger.answered)) - set(numbers)
    if missing:
        wrongs.append(f"{name}: {len(missing)} answered for are not in the store, such as {min(missing)}")
    if numbers != sorted(set(numbers)):
        wrongs.append(f"{name}: its events were not committed once each in the order it emitted them")
    if ledger.gaps:
        wrongs.append(f"{name}: its log has {ledger.gaps} gaps: the harness is wrong")
    return wrongs
