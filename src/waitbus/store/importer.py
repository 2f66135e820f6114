"""Imports the store of waitbus 0.2.0, `github.db` in the state directory. This happens once; the file is left alone.

Rows keep their `event_id` and their order and become history: their `ingest_method` is `import`, and the field
`imported_ingest_method` holds the old value. Each chunk is committed together with the position it reached. So an
import that was killed goes on where it stopped, and two at the same time share the work.
"""

from __future__ import annotations

import os
import sqlite3
import time

from waitbus.event import FIELD_COLUMNS
from waitbus.private import check_owner
from waitbus.store.errors import StoreError, explain
from waitbus.store.open import address_of, open_writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waitbus.settings import Settings

OLD_NAME = "github.db"
CHUNK = 1000
_PAUSE_S = 0.002
_REQUIRED = ("delivery_id", "source", "event_type", "owner", "repo", "received_at", "payload_json", "ingest_method")
_COLUMNS = (*[name for name in _REQUIRED if name != "ingest_method"], *FIELD_COLUMNS, "event_id")
_OURS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# Keys in `meta`: the last `seq` imported, and when the import was complete.
_AT = "import-0.2.0-seq"
_DONE = "import-0.2.0-done"


class ImportReport:
    """What an import did: the file it read, the number of rows it imported, and the number already in the store."""

    __slots__ = ("imported", "path", "skipped")

    def __init__(self, path: str, imported: int, skipped: int) -> None:
        self.path = path
        self.imported = imported
        self.skipped = skipped


def import_v020(settings: Settings, *, progress: Callable[[int], object] | None = None) -> ImportReport | None:
    """Import 0.2.0's store, if there is one that was not imported yet. Returns None if there is nothing to do.

    `progress` is called with the number of rows read so far. Raises `StoreError` if either file fails; rows that were
    imported until then stay.
    """
    old = os.path.join(settings.state_dir, OLD_NAME)
    if old == settings.db_path:
        return None
    try:
        check_owner(old, os.stat(old))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"cannot look at {old}: {error.strerror}") from None
    conn = open_writer(settings)
    try:
        return _import(conn, old, progress)
    except sqlite3.Error as error:
        # The new file was just opened without a problem, so any error other than one of writing is about the old file.
        ours = getattr(error, "sqlite_errorcode", 0) & 0xFF in _OURS
        raise explain(error, settings.db_path if ours else old) from error
    finally:
        conn.close()


def _import(conn: sqlite3.Connection, old: str, progress: Callable[[int], object] | None) -> ImportReport | None:
    if _meta(conn, _DONE) is not None:
        return None
    conn.execute("ATTACH ? AS old", (address_of(old, "ro"),))  # read-only: the old file is never written to
    columns = {row[1] for row in conn.execute("PRAGMA old.table_info(events)")}
    if not {*_REQUIRED, "seq"} <= columns:
        if columns:
            raise StoreError(f"{old} is not a store of waitbus 0.2.0: move it away, so that waitbus ignores it")
        return None  # no event was ever written to it
    shared = ", ".join(name for name in _COLUMNS if name in columns)
    copy = _COPY.format(shared)
    imported = seen = 0
    while True:
        count, inserted = _chunk(conn, copy)
        seen += count
        imported += inserted
        if progress is not None:
            progress(seen)
        if count < CHUNK:
            return ImportReport(old, imported, seen - imported)


_COPY = (
    "INSERT OR IGNORE INTO main.events ({0}, ingest_method, fields_json) "
    "SELECT {0}, 'import', json_object('imported_ingest_method', CAST(ingest_method AS TEXT)) "
    "FROM old.events WHERE seq > ? AND seq <= ? ORDER BY seq"
)
_WINDOW = "SELECT count(*), max(seq) FROM (SELECT seq FROM old.events WHERE seq > ? ORDER BY seq LIMIT ?)"


def _chunk(conn: sqlite3.Connection, copy: str) -> tuple[int, int]:
    """Import one chunk. Returns how many rows it had and how many of them were new."""
    _begin(conn)
    try:
        start = int(_meta(conn, _AT) or -1)
        count, end = conn.execute(_WINDOW, (start, CHUNK)).fetchone()
        inserted = conn.execute(copy, (start, end)).rowcount if count else 0
        if count:
            _set_meta(conn, _AT, str(end))
        if count < CHUNK:
            _set_meta(conn, _DONE, str(time.time_ns()))
        conn.execute("COMMIT")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
    return count, inserted


def _begin(conn: sqlite3.Connection) -> None:
    """Take the write lock, after a pause that lets a producer take it first."""
    time.sleep(_PAUSE_S)
    conn.execute("BEGIN IMMEDIATE")


def _meta(conn: sqlite3.Connection, key: str) -> str | None:
    row = conn.execute("SELECT value FROM main.meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def _set_meta(conn: sqlite3.Connection, key: str, value: str) -> None:
    conn.execute("INSERT OR REPLACE INTO main.meta (key, value) VALUES (?, ?)", (key, value))
