"""What can be said about a store: figures for `status` and `stats`, checks for damage for `doctor`."""

from __future__ import annotations

import os
import sqlite3
import time

from waitbus.store.errors import damaged, explain
from waitbus.store.frames import as_text
from waitbus.store.read import last_seq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPAN = "SELECT count(*), min(seq), max(seq), min(received_at), max(received_at) FROM events"
_COUNTS = "SELECT source, event_type, count(*), max(received_at) FROM events {} GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
_SINCE = "WHERE received_at >= ?"
_KEY = "SELECT {} FROM events WHERE seq = ?"
_BY_KEY = "SELECT seq FROM events WHERE {} = ?"
_OPERATIONS = 100_000  # instructions of SQLite's virtual machine between two looks at the clock


def stats(conn: sqlite3.Connection, path: str) -> dict[str, Any]:
    """Return figures about the store at `path`: sizes in bytes, times in nanoseconds since the epoch.

    The times and seqs are None for an empty store. This reads the whole table, in about 0.1 s for a million events.
    Raises `StoreError`.
    """
    try:
        rows, first_seq, last_seq, oldest, newest = conn.execute(_SPAN).fetchone()
        pages, free, page_size, schema = (
            conn.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size", "user_version")
        )
        journal = journal_mode(conn)
    except sqlite3.Error as error:
        raise explain(error, path) from error
    return {
        "path": path,
        "schema": schema,
        "journal_mode": journal,
        "rows": rows,
        "first_seq": first_seq,
        "last_seq": last_seq,
        "oldest_received_at": oldest if isinstance(oldest, int) else None,
        "newest_received_at": newest if isinstance(newest, int) else None,
        "bytes": pages * page_size,
        "free_bytes": free * page_size,
        "wal_bytes": _size(path + "-wal"),
    }


def journal_mode(conn: sqlite3.Connection) -> str:
    """Return the store's journal mode. Anything but `wal` means that something is wrong. Raises ``sqlite3.Error``."""
    # For a file opened as immutable SQLite reports `delete`, whatever its mode is.
    return "wal" if getattr(conn, "is_frozen", False) else str(conn.execute("PRAGMA journal_mode").fetchone()[0])


def counts(conn: sqlite3.Connection, *, since_ns: int | None = None) -> list[dict[str, Any]]:
    """Count the events of each source and type, the most frequent first. `since_ns` leaves out those received before.

    Each item has `source`, `event_type`, `events` (the count) and `newest_received_at` (nanoseconds since the epoch).
    Raises `StoreError`.
    """
    where, values = (_SINCE, (since_ns,)) if since_ns is not None else ("", ())
    before = conn.text_factory
    conn.text_factory = bytes  # a foreign program may have written text that is not UTF-8
    try:
        found = conn.execute(_COUNTS.format(where), values).fetchall()
    except sqlite3.Error as error:
        raise explain(error, conn) from error
    finally:
        conn.text_factory = before
    return [
        {
            "source": as_text(source),
            "event_type": as_text(event_type),
            "events": count,
            "newest_received_at": newest if isinstance(newest, int) else None,
        }
        for source, event_type, count, newest in found
    ]


def look_up_newest(conn: sqlite3.Connection) -> None:
    """Check that the newest event is found by its `event_id` and its `delivery_id`. Raises `StoreError`.

    This costs next to nothing and notices an index whose first page is damaged.
    """
    newest = last_seq(conn)
    for name in ("event_id", "delivery_id"):
        try:
            (key,) = conn.execute(_KEY.format(name), (newest,)).fetchone() or (None,)
            found = conn.execute(_BY_KEY.format(name), (key,)).fetchone()
        except sqlite3.Error as error:
            raise explain(error, conn) from error
        if key is not None and found != (newest,):
            raise damaged(conn, f"its newest event is not found by its {name}")


def troubles(conn: sqlite3.Connection, *, timeout: float | None = None) -> list[str] | None:
    """Return what SQLite's integrity check finds wrong, a line for each problem. Empty means that the file is sound.

    This reads the whole file, in about 3 s for a gigabyte. Returns None if it takes longer than `timeout` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    if deadline is not None:
        conn.set_progress_handler(lambda: time.monotonic() > deadline, _OPERATIONS)
    try:
        lines = "\n".join([str(row[0]) for row in conn.execute("PRAGMA integrity_check(20)")]).splitlines()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return None
        return [str(explain(error, conn))]
    finally:
        conn.set_progress_handler(None, 0)
    return [] if lines == ["ok"] else [line for line in lines if not line.startswith("***")]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
