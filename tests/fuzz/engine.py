"""Runs one property for a time, with fresh examples each round, and keeps what broke it.

Hypothesis knows examples, not minutes: rounds of it, each with a seed of its own, fill the time.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

ROUND = 1000


class Target:
    """What is fuzzed: a name, where examples come from, and a check that raises when one shows a defect.

    A check that looks at several variants of an example returns how many.
    """

    def __init__(
        self, name: str, about: str, examples: SearchStrategy[Any], check: Callable[[Any], int | None]
    ) -> None:
        self.name = name
        self.about = about
        self.examples = examples
        self.check = check


class Outcome:
    """How many examples (with their variants) a target was given, and the defect found, if one was."""

    def __init__(self, name: str, examples: int, seconds: float, found: str | None, note: str = "") -> None:
        self.name = name
        self.examples = examples
        self.seconds = seconds
        self.found = found
        self.note = note


def fuzz(target: Target, *, seconds: float, examples: int | None, base_seed: str) -> Outcome:
    """Examples until the time is over or, with `examples`, until there were so many; at the first defect, stop."""
    count = rounds = 0
    begin = time.monotonic()
    failed = False  # then examples are tried to the end, for the smallest that fails

    def counted(example: Any) -> None:
        nonlocal count, failed
        if not (failed or examples is not None or time.monotonic() - begin < seconds):
            return
        count += 1
        try:
            count += (target.check(example) or 1) - 1
        except BaseException:
            failed = True
            raise

    while (count < examples) if examples is not None else (time.monotonic() - begin < seconds):
        size = min(ROUND, examples - count) if examples is not None else ROUND
        rounds += 1
        try:
            _round(counted, target.examples, size, f"{base_seed}/{target.name}/{rounds}")
        except Exception as error:  # whatever it is, it is a finding
            return Outcome(target.name, count, time.monotonic() - begin, _described(error))
    return Outcome(target.name, count, time.monotonic() - begin, None)


def _round(check: Callable[[Any], None], examples: SearchStrategy[Any], size: int, round_seed: str) -> None:
    profile = settings(
        max_examples=size,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )

    def property_(example: Any) -> None:
        check(example)

    profile(seed(round_seed)(given(examples)(property_)))()


def _described(error: Exception) -> str:
    """What was raised, the last steps of ours that led there, and the example as hypothesis shrank it."""
    steps = traceback.format_tb(error.__traceback__)
    ours = [step for step in steps if "hypothesis" not in step][-3:]
    return "\n".join([*ours, f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
