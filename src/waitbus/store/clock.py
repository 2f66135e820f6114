"""The time of the operating system, whatever a test has done to this process's own clocks.

A writer may run inside a test that freezes or moves them: `monkeypatch` swaps the functions of `time`, freezegun also
every module's references to them, time-machine what they do inside the interpreter. An event is still stamped with
the real time, and a wait for the store still ends.
"""

from __future__ import annotations

import os
import time
from threading import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

_SECOND_NS = 1_000_000_000
# SQLite asks the operating system itself. The number of days that it answers is exact to a twentieth of a millisecond.
_NOW_MS = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"

# Nobody ever releases it: to wait for it with a time-out is a sleep that no patch of `time.sleep` reaches.
_never = Lock()
_never.acquire()


def real_ns(conn: sqlite3.Connection, *, own_ns: Callable[[], int] = time.time_ns) -> int:
    """Nanoseconds since the epoch. Raises ``sqlite3.Error``.

    SQLite's clock has milliseconds. The process's own is finer, and is taken while the two agree to a second.
    """
    real: int = conn.execute(_NOW_MS).fetchone()[0] * 1_000_000
    own = own_ns()
    return own if abs(own - real) < _SECOND_NS else real


def elapsed(*, times: Callable[[], os.times_result] = os.times) -> float:
    """Seconds since some fixed moment, exact to the kernel's tick (a hundredth of a second)."""
    return times()[4]


def pause(seconds: float, *, wait: Callable[[bool, float], bool] = _never.acquire) -> None:
    """Sleep. A signal's handler runs at once, and the sleep goes on."""
    wait(True, seconds)
