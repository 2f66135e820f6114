"""Numbered migrations: each is a file that never changes once released, known here by its checksum.

`PRAGMA user_version` says how many a file has had, `schema_migrations` which. Nothing is hashed at run time: what a
file has recorded is compared with the constants, and a test compares those with the files.
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
)
VERSION = len(MIGRATIONS)
# Every commit writes some four pages to the log. With pages of half SQLite's own 4,096 bytes busy writers write a
# quarter more events a second; yet smaller ones make a big payload dear.
PAGE_BYTES = 2048
_RETRY_S = 0.005


def check(conn: sqlite3.Connection, path: str) -> int:
    """How many migrations the file has had, having made sure that it is one of ours and that we know them all.

    0 stands for a file with nothing in it. Raises `StoreError` for a newer schema, 0.2.0's, or another program's.
    """
    ours = not conn.in_transaction
    if ours:
        conn.execute("BEGIN")  # all of one moment: another process may be migrating
    try:
        return _check(conn, path)
    finally:
        if ours and conn.in_transaction:  # a damaged file may have ended it
            conn.execute("ROLLBACK")


def _check(conn: sqlite3.Connection, path: str) -> int:
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    owner: int = conn.execute("PRAGMA application_id").fetchone()[0]
    if owner != APPLICATION_ID:
        _refuse_foreign(conn, path, owner)
        return 0
    if version > VERSION:
        raise StoreError(
            f"{path} has schema {version}, and this waitbus knows {VERSION} at most: "
            "update waitbus (pip install --upgrade waitbus)"
        )
    known = [(number, sha256) for number, _, sha256 in MIGRATIONS[:version]]
    if conn.execute(_RECORDED).fetchall() != known:
        raise StoreError(
            f"{path} was made by another build of waitbus (its schema's checksum differs): "
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
    """Bring the file to our schema, all or nothing; safe when several processes do it at once.

    `timeout` in seconds bounds the wait for the others. Raises `StoreError` as `check` does, ``sqlite3.Error`` else.
    """
    deadline = elapsed() + timeout
    while True:
        try:
            # These must come before the first table; none does anything to a file that has it already.
            conn.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
            conn.execute("PRAGMA journal_mode = WAL")
            conn.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.Error as error:
            # SQLite does not call its busy handler for a change of the journal's mode.
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
    """The text of one migration."""
    name = os.path.join(os.path.dirname(__file__), "migrations", f"{number:04d}_{slug}.sql")
    with open(name, encoding="utf-8") as file:
        return file.read()


def statements(text: str) -> list[str]:
    """`text` as single statements: ``executescript`` would commit the transaction that makes them one."""
    found = []
    start = 0
    while (end := text.find(";", start)) >= 0:
        while not sqlite3.complete_statement(text[start : end + 1]):
            end = text.index(";", end + 1)
        found.append(text[start : end + 1])
        start = end + 1
    return found
