"""The write-ahead log, and who takes it back into the file: a writer whose commit has been told, when the log is long.

SQLite would do it inside a commit, before the bell, and without a lock: among busy writers it never comes to an end,
the log grows by gigabytes, and every commit tries anew.
"""

from __future__ import annotations

import os
import sqlite3

# The size at which it is time: some 500 events written one at a time, or 5,000 in batches. Four times as much writes no
# more events a second, and makes the worst wait of a busy writer twice as long. The file keeps this size, to be written
# over in place; what is longer shows that the log itself has grown.
LIMIT = 4 << 20
# How long a checkpoint may wait for the write lock, and then, holding it, for a slow reader.
_WAIT_MS = 20


class Wal:
    """Watches the log of one store for one writer."""

    __slots__ = ("_limit", "_path")

    def __init__(self, db_path: str) -> None:
        self._path = os.path.realpath(db_path) + "-wal"
        self._limit = LIMIT

    def needs_checkpoint(self, size: int | None = None) -> bool:
        """Whether it is time for `checkpoint`. `size` in bytes saves the `stat` of who has just looked."""
        if size is None:
            try:
                size = os.stat(self._path).st_size
            except OSError:
                return False
        if size <= LIMIT:
            self._limit = LIMIT
        return size > self._limit

    def checkpoint(self, conn: sqlite3.Connection) -> None:
        """Copy the log into the file, so that the next commit starts it anew. Never raises: nothing is lost without it.

        When a reader holds it up, the next try comes after as much again.
        """
        try:
            self._limit = os.stat(self._path).st_size + LIMIT
            patience = conn.execute("PRAGMA busy_timeout").fetchone()[0]
            try:
                conn.execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
                # The first does most of the work without the write lock, the second what came meanwhile, with it.
                conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                conn.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            finally:
                conn.execute(f"PRAGMA busy_timeout = {patience}")
        except (OSError, sqlite3.Error):
            return
