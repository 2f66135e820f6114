"""What is downloaded: the wheel's size, and that nothing comes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.common import wheel_needs
from benchmarks.figure import Figure, at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.common import Lab


def measure(lab: Lab) -> Iterator[Figure]:
    """Two facts of the built wheel."""
    wheel = lab.installed.wheel
    yield at_most("the wheel", "KB", wheel.stat().st_size / 1000, 420)
    yield at_most("  what it requires", "packages", len(wheel_needs(wheel)), 0)
