"""Taking over the store of waitbus 0.2.0: `github.db` in the state directory, once, and left where it is.

Rows keep their `event_id` and their order, and become history: their `ingest_method` is `import`, and the word it was
is the field `imported_ingest_method`. Each chunk is committed together with how far it came, so an import that was
killed goes on where it stopped, and two at once share the work.
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
# In `meta`: the last `seq` taken over, and when there was no more.
_AT = "import-0.2.0-seq"
_DONE = "import-0.2.0-done"


class ImportReport:
    """What an import did: the file it read, the rows it took over, and those that were there already."""

    __slots__ = ("imported", "path", "skipped")

    def __init__(self, path: str, imported: int, skipped: int) -> None:
        self.path = path
        self.imported = imported
        self.skipped = skipped


def import_v020(settings: Settings, *, progress: Callable[[int], object] | None = None) -> ImportReport | None:
    """Take over 0.2.0's store if there is one that was not taken over yet; None when there is nothing to do.

    `progress` hears the rows read so far. Raises `StoreError` when either file fails; what was taken over stays.
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
        # What fails in writing is about the new file, which was just found sound; anything else about the old one.
        ours = getattr(error, "sqlite_errorcode", 0) & 0xFF in _OURS
        raise explain(error, settings.db_path if ours else old) from error
    finally:
        conn.close()


def _import(conn: sqlite3.Connection, old: str, progress: Callable[[int], object] | None) -> ImportReport | None:
    if _meta(conn, _DONE) is not None:
        return None
    conn.execute("ATTACH ? AS old", (address_of(old, "ro"),))  # never a lock or a byte on the old file
    columns = {row[1] for row in conn.execute("PRAGMA old.table_info(events)")}
    if not {*_REQUIRED, "seq"} <= columns:
        if columns:
            raise StoreError(f"{old} has no table of waitbus 0.2.0: move it away, and it will not be looked at again")
        return None  # nothing was ever written to it
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
    """Take over one chunk: how many rows it had, and how many were new."""
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
    """Take the write lock, after a pause in which a producer may take it first."""
    time.sleep(_PAUSE_S)
    conn.execute("BEGIN IMMEDIATE")


def _meta(conn: sqlite3.Connection, key: str) -> str | None:
    row = conn.execute("SELECT value FROM main.meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def _set_meta(conn: sqlite3.Connection, key: str, value: str) -> None:
    conn.execute("INSERT OR REPLACE INTO main.meta (key, value) VALUES (?, ?)", (key, value))
