"""The operating system's time, even while a test has patched the clocks of this process.

A writer may run inside a test that freezes or moves the clocks: `monkeypatch` replaces functions of `time`, freezegun
also replaces every module's references to them, and time-machine changes them inside the interpreter. Events still get
the real time, and waiting for the store still ends.
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
# SQLite asks the operating system itself. Its answer, a number of days, is exact to a twentieth of a millisecond.
_NOW_MS = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"

# Never released, so that waiting for it with a time-out is a sleep that no patch of `time.sleep` affects.
_never = Lock()
_never.acquire()


def real_ns(conn: sqlite3.Connection, *, own_ns: Callable[[], int] = time.time_ns) -> int:
    """Return the real time in nanoseconds since the epoch. Raises ``sqlite3.Error``.

    SQLite's clock counts milliseconds. The process's own clock is finer, and is used if the two agree to a second.
    """
    real: int = conn.execute(_NOW_MS).fetchone()[0] * 1_000_000
    own = own_ns()
    return own if abs(own - real) < _SECOND_NS else real


def elapsed(*, times: Callable[[], os.times_result] = os.times) -> float:
    """Return the seconds since some fixed moment, exact to the kernel's tick (a hundredth of a second)."""
    return times()[4]


def pause(seconds: float, *, wait: Callable[[bool, float], bool] = _never.acquire) -> None:
    """Sleep. If a signal arrives, its handler runs at once and the sleep goes on."""
    wait(True, seconds)
