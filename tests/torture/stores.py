"""The store's file taken away or replaced under everybody, and what every one of its files held.

What is lost then is defined so: a row lives in the file that was in place when it was committed, and who acknowledged
it before the replacement kept his word. From a file that is gone, a subscriber may have been given less: what he had
not been given when it went may come or not. From the file in place everybody is given everything, and no row twice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path

from waitbus.store.frames import derived_id
from waitbus.ulid import is_ulid

SUFFIXES = ("", "-wal", "-shm")


class Generation:
    """One file that was the store, from `begin_ns` to `end_ns` of the monotonic clock (0: it still is)."""

    def __init__(self, path: Path, begin_ns: int) -> None:
        self.path = path
        self.begin_ns = begin_ns
        self.end_ns = 0
        # For each subscriber by name, how many events it had been given when the file went.
        self.given: dict[str, int] = {}

    def rows(self) -> list[tuple[str, str]]:
        """Every row's event_id (as a reader derives it, where there is none) and delivery_id, in commit order."""
        with contextlib.closing(sqlite3.connect(self.path)) as store:
            if not store.execute("SELECT 1 FROM sqlite_schema WHERE name = 'events'").fetchone():
                return []  # it went before it was made
            rows = store.execute("SELECT seq, event_id, received_at, delivery_id FROM events ORDER BY seq").fetchall()
        return [(given if is_ulid(given) else derived_id(at, seq), delivery) for seq, given, at, delivery in rows]

    def sound(self) -> bool:
        with contextlib.closing(sqlite3.connect(self.path)) as store:
            return bool(store.execute("PRAGMA integrity_check").fetchone() == ("ok",))


class Stores:
    """The files that were the store of one bus, in turn. To replace one, everybody must be stopped."""

    def __init__(self, db_path: str, place: Path) -> None:
        self._path = Path(db_path)
        self._place = place
        self._place.mkdir()
        self._backup = place / "backup"
        self.generations = [Generation(self._path, 0)]

    def back_up(self) -> None:
        """Take a copy for a later `restore`, as a person does with SQLite's own means."""
        self._backup.unlink(missing_ok=True)
        with (
            contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as store,
            contextlib.closing(sqlite3.connect(self._backup)) as copy,
        ):
            store.backup(copy)
        self._backup.chmod(0o600)

    def can_restore(self) -> bool:
        return self._backup.exists()

    def remove(self, given: dict[str, int]) -> None:
        """As ``rm waitbus.db*`` does it, but the harness keeps the files under another name."""
        kept = self._place / str(len(self.generations)) / self._path.name
        kept.parent.mkdir()
        for suffix in SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                os.link(f"{self._path}{suffix}", f"{kept}{suffix}")
                os.unlink(f"{self._path}{suffix}")
        now = time.monotonic_ns()
        last = self.generations[-1]
        last.path, last.end_ns, last.given = kept, now, given
        self.generations.append(Generation(self._path, now))

    def restore(self, given: dict[str, int]) -> None:
        """As ``rm waitbus.db*; mv backup waitbus.db``."""
        self.remove(given)
        shutil.move(self._backup, self._path)
