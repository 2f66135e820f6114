"""Numbered migrations. Each is an SQL file that never changes once it is released, identified here by its checksum.

`PRAGMA user_version` says how many migrations a store has had, and the table `schema_migrations` says which. Nothing
is hashed at run time: the checksums that a store has recorded are compared with the constants here, and a test compares
the constants with the SQL files.
"""

from __future__ import annotations

import os
import sqlite3

from waitbus.private import quote
from waitbus.store.clock import elapsed, pause, real_ns
from waitbus.store.errors import StoreError, is_busy

APPLICATION_ID = 0x77624253
# (sequence number, slug, sha256 of NUMBER_SLUG.sql)
MIGRATIONS: tuple[tuple[int, str, str], ...] = (
    (1, "events", "a755a4b8be01e6f47b994fe70d1fc7725f02975659548b3008c975bcf44279c0"),
    (2, "natural_names", "2a0482586c5465b76c97c3e00bf52f0a93ef67e61e3a646b0454b9596bfebdec"),
)
VERSION = len(MIGRATIONS)
# Every commit writes about four pages to the log. With half of SQLite's default page size, 4,096 bytes, busy writers
# write a quarter more events in a second. Even smaller pages would make large payloads slow.
PAGE_BYTES = 2048
_RETRY_S = 0.005


def check(conn: sqlite3.Connection, path: str) -> int:
    """Return how many migrations the store has had; 0 means that the file is empty.

    Raises `StoreError` if the file has a newer schema, or is a store of 0.2.0 or another program's database.
    """
    ours = not conn.in_transaction
    if ours:
        conn.execute("BEGIN")  # a consistent view, because another process may be migrating
    try:
        return _check(conn, path)
    finally:
        if ours and conn.in_transaction:  # an error of a damaged file may have ended the transaction
            conn.execute("ROLLBACK")


def _check(conn: sqlite3.Connection, path: str) -> int:
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    owner: int = conn.execute("PRAGMA application_id").fetchone()[0]
    if owner != APPLICATION_ID:
        _refuse_foreign(conn, path, owner)
        return 0
    if version > VERSION:
        raise StoreError(
            f"{path} has schema {version}, but this waitbus only knows schemas up to {VERSION}: "
            "update waitbus (pip install --upgrade waitbus)"
        )
    known = [(number, sha256) for number, _, sha256 in MIGRATIONS[:version]]
    if conn.execute(_RECORDED).fetchall() != known:
        raise StoreError(
            f"{path} was created by another build of waitbus (its schema's checksum differs): "
            f"move it away: mv {quote(path)} {quote(path + '.old')}"
        )
    return version


_RECORDED = "SELECT sequence_number, sha256 FROM schema_migrations ORDER BY sequence_number"


def _refuse_foreign(conn: sqlite3.Connection, path: str, owner: int) -> None:
    tables = {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if {"events", "schema_migrations"} <= tables and owner == 0:
        old = os.path.join(os.path.dirname(path), "github.db")
        if path == old:
            raise StoreError(f"{path} is a store of waitbus 0.2.0: unset WAITBUS_DB, then waitbus init imports it")
        raise StoreError(
            f"{path} is a store of waitbus 0.2.0: run mv {quote(path)} {quote(old)}, then waitbus init imports it"
        )
    if tables or owner:
        raise StoreError(f"{path} is another program's database: move it away, or set WAITBUS_DB to another file")


def migrate(conn: sqlite3.Connection, path: str, *, timeout: float) -> None:
    """Apply all missing migrations in one transaction. Several processes may do this at the same time.

    `timeout` in seconds limits the wait for the others. Raises `StoreError` as `check` does, else ``sqlite3.Error``.
    """
    deadline = elapsed() + timeout
    while True:
        try:
            # These must come before the first table. They change nothing in a file that already has tables.
            conn.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
            conn.execute("PRAGMA journal_mode = WAL")
            conn.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.Error as error:
            # SQLite does not call its busy handler when the journal mode changes.
            if not is_busy(error) or elapsed() > deadline:
                raise
            pause(_RETRY_S)
    try:
        for number, slug, sha256 in MIGRATIONS[check(conn, path) :]:
            _apply(conn, number, slug, sha256)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _apply(conn: sqlite3.Connection, number: int, slug: str, sha256: str) -> None:
    for statement in statements(script(number, slug)):
        conn.execute(statement)
    conn.execute(
        "INSERT INTO schema_migrations (sequence_number, slug, applied_at_ns, sha256) VALUES (?, ?, ?, ?)",
        (number, slug, real_ns(conn), sha256),
    )
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    conn.execute(f"PRAGMA user_version = {number}")


def script(number: int, slug: str) -> str:
    """Return the text of one migration."""
    name = os.path.join(os.path.dirname(__file__), "migrations", f"{number:04d}_{slug}.sql")
    with open(name, encoding="utf-8") as file:
        return file.read()


def statements(text: str) -> list[str]:
    """Split `text` into statements. ``executescript`` would first commit the transaction that makes them atomic."""
    found = []
    start = 0
    while (end := text.find(";", start)) >= 0:
        while not sqlite3.complete_statement(text[start : end + 1]):
            end = text.index(";", end + 1)
        found.append(text[start : end + 1])
        start = end + 1
    return found
