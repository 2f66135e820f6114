"""The clock of the machine, which event ids are made from."""

from __future__ import annotations

import os
import sqlite3
import sys
import time

from waitbus.doctor.findings import BAD, OK, Finding
from waitbus.event import WaitbusError
from waitbus.store.open import open_reader
from waitbus.store.read import last_seq, read_after
from waitbus.ui.times import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from waitbus.settings import Settings

# An event this far in the future was written by a clock that has since been set back, or will be.
SLACK_NS = 5 * 10**9
_EARLIEST_NS = 1_735_689_600 * 10**9  # 2025: no machine that has waitbus is younger
_SET = "sudo sntp -sS time.apple.com" if sys.platform == "darwin" else "sudo timedatectl set-ntp true"


def look(settings: Settings) -> Iterator[Finding]:
    """Whether the clock was ever set, and whether it is behind the newest event."""
    now, newest_ns = time.time_ns(), _newest_ns(settings)
    if now < _EARLIEST_NS:
        yield Finding(BAD, "clock", f"it stands before 2025, and event ids are made from it: {_SET}")
    elif newest_ns is not None and newest_ns > now + SLACK_NS:
        ahead = span((newest_ns - now) / 1e9)
        yield Finding(BAD, "clock", f"the newest event is {ahead} in the future: {_SET}, or wait until then")
    else:
        yield Finding(OK, "clock", time.strftime("%Y-%m-%d %H:%M:%S %z"))


def _newest_ns(settings: Settings) -> int | None:
    """When the newest event happened; None if there is none, or if the store cannot be read."""
    if not os.path.lexists(settings.db_path):
        return None
    try:
        conn = open_reader(settings)
        try:
            newest = read_after(conn, last_seq(conn) - 1, 1)
        finally:
            conn.close()
    except (WaitbusError, sqlite3.Error):  # `store` says so
        return None
    return next((frame["received_at"] for _, frame in newest), None)
