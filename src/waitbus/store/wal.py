"""The write-ahead log: a writer checkpoints it when it is long, after its commit has been announced.

SQLite would checkpoint inside a commit, before the bell rings, and without holding the write lock. With busy writers
such a checkpoint never completes: the log grows by gigabytes, and every commit tries again.
"""

from __future__ import annotations

import os
import sqlite3

# The size in bytes at which to checkpoint: about 500 events written one at a time, or 5,000 in batches. With a limit
# four times as large, writers are no faster, and the longest wait of a busy writer is twice as long. The file keeps
# this size and is overwritten in place, so a larger file means that the log itself has grown.
LIMIT = 4 << 20
# How long a checkpoint may wait for the write lock, and then, while holding it, for a slow reader.
_WAIT_MS = 20


class Wal:
    """Watches the log of one store for one writer."""

    __slots__ = ("_limit", "_path")

    def __init__(self, db_path: str) -> None:
        self._path = os.path.realpath(db_path) + "-wal"
        self._limit = LIMIT

    def needs_checkpoint(self, size: int | None = None) -> bool:
        """Whether it is time for `checkpoint`. A caller that knows the size of the log, in bytes, passes it."""
        if size is None:
            try:
                size = os.stat(self._path).st_size
            except OSError:
                return False
        if size <= LIMIT:
            self._limit = LIMIT
        return size > self._limit

    def checkpoint(self, conn: sqlite3.Connection) -> None:
        """Copy the log into the database, so that the next commit starts the log from the beginning.

        This never raises: nothing is lost if it fails. If a reader prevents it, the next try comes once the log has
        grown by `LIMIT` again.
        """
        try:
            self._limit = os.stat(self._path).st_size + LIMIT
            patience = conn.execute("PRAGMA busy_timeout").fetchone()[0]
            try:
                conn.execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
                # PASSIVE does most of the work without the write lock. FULL takes the lock for what was added since.
                conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                conn.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            finally:
                conn.execute(f"PRAGMA busy_timeout = {patience}")
        except (OSError, sqlite3.Error):
            return
