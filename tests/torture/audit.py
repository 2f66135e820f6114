"""The judge: what the store holds against what each subscriber was given, and what each producer was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from tests.torture.consumer import FILTERED
from tests.torture.stores import Generation


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


def account(expected: list[str], received: list[str], spared: Collection[str] = ()) -> Account:
    """Compare two lists of event_ids; those `spared` may be missing, and nothing else.

    What nobody expected counts as repeated: it was given without a reason.
    """
    place = {event_id: index for index, event_id in enumerate(expected)}
    counts = Counter(received)
    lost = sum(event_id not in counts and event_id not in spared for event_id in expected)
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
    """The store at the end, with every file that was the store before: what they hold, in commit order."""

    def __init__(self, generations: list[Generation]) -> None:
        self.generations = [(generation, generation.rows()) for generation in generations]
        self.rows = [row for _, rows in self.generations for row in rows]
        self.unsound = sum(not generation.sound() for generation in generations)

    def expected(self, kind: str) -> list[str]:
        """The event_ids a subscriber of this kind should have been given; a restored row is the one it was."""
        return list(dict.fromkeys(event_id for event_id, delivery_id in self.rows if _wants(kind, delivery_id)))

    def last_new(self, kind: str) -> list[str]:
        """The newest event for a subscriber of this kind in the file in place, if it had not been in an earlier one."""
        *earlier, (_, rows) = self.generations
        known = {event_id for _, before in earlier for event_id, _ in before}
        return [event_id for event_id, delivery in rows if _wants(kind, delivery) and event_id not in known][-1:]

    def spared(self, name: str, received: list[str]) -> set[str]:
        """What one subscriber need not have been given: rows of a file that went before it came to them."""
        spared: set[str] = set()
        for generation, rows in self.generations:
            if generation.end_ns:
                had = set(received[: generation.given.get(name, 0)])
                ids = [event_id for event_id, _ in rows]
                last = max((at for at, event_id in enumerate(ids) if event_id in had), default=-1)
                spared.update(ids[last + 1 :])
        return spared

    def named(self, event_ids: set[str]) -> str:
        """Some events by their delivery_id and their place in commit order, for the report."""
        found = [f"{delivery} at {at}" for at, (event_id, delivery) in enumerate(self.rows) if event_id in event_ids]
        return f" (missing: {', '.join(found[:3])})" if found else ""

    def numbers(self, producer: str) -> list[list[int]]:
        """The numbers of one producer, in commit order, file by file."""
        return [
            [int(delivery.partition("-")[2]) for _, delivery in rows if delivery.startswith(f"{producer}-")]
            for _, rows in self.generations
        ]


def _wants(kind: str, delivery_id: str) -> bool:
    return kind != "filtered" or delivery_id.startswith((f"{FILTERED}-", "end"))


class Ledger:
    """What one producer was told: how many of its numbers were answered for, and how many of those as new.

    `begun` has for each call its first number, how many, and when it was begun.
    """

    def __init__(self, log: Path) -> None:
        self.answered = self.inserted = 0
        self.gaps = 0
        self.begun: list[tuple[int, int, int]] = []
        lines = log.read_text().splitlines() if log.exists() else []
        for first, count, inserted, begun_ns in (map(int, line.split()) for line in lines):
            self.gaps += first != self.answered
            self.answered = first + count
            self.inserted += inserted
            self.begun.append((first, count, begun_ns))


def wronged(truth: Truth, name: str, ledger: Ledger) -> list[str]:
    """How the store and what a producer was told differ, in words."""
    wrongs = []
    committed = truth.numbers(name)
    ends = [generation.end_ns for generation, _ in truth.generations]
    files = [(end_ns, set(numbers)) for end_ns, numbers in zip(ends, committed, strict=True)]
    missing = [
        number
        for first, count, begun_ns in ledger.begun
        for number in range(first, first + count)
        if not any(number in numbers for end_ns, numbers in files if not end_ns or end_ns >= begun_ns)
    ]
    if missing:
        wrongs.append(f"{name}: {len(missing)} answered for are not in the store, such as {missing[0]}")
    if any(numbers != sorted(set(numbers)) for numbers in committed):
        wrongs.append(f"{name}: its events were not committed once each in the order it emitted them")
    if ledger.gaps:
        wrongs.append(f"{name}: its log has {ledger.gaps} gaps: the harness is wrong")
    return wrongs
