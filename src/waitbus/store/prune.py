"""Keeping the store small: the oldest events go, by age, by size, by count.

The hub calls `prune_step` between events. A step holds SQLite's write lock for a few milliseconds, and not at all when
there is nothing to do: no producer waits for it noticeably. Freed pages are given back to the disk in the same way.
"""

from __future__ import annotations

import sqlite3
import time

from waitbus.store.errors import explain, is_busy, path_of
from waitbus.store.wal import Wal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waitbus.settings import Settings

_STEP_S = 0.005  # how long a step may delete: what a producer may have to wait
_VACUUM_PAGES = 128
_SPARE_PAGES = 256  # free pages that are kept for the next events, together with a quarter of the file
_BUSY_PAUSE_S = 0.005


class Policy:
    """What is too much: seconds, bytes, rows. 0 or None sets no limit."""

    __slots__ = ("max_age_s", "max_bytes", "max_rows")

    def __init__(self, max_age_s: float = 0, max_bytes: int = 0, max_rows: int | None = None) -> None:
        self.max_age_s = max_age_s
        self.max_bytes = max_bytes
        self.max_rows = max_rows


def policy_of(settings: Settings) -> Policy:
    """The limits of the settings; none with `retention` off."""
    if not settings.retention:
        return Policy()
    return Policy(settings.max_age_s, settings.max_bytes, settings.max_rows)


class PruneStep:
    """What one step did: rows deleted, where the next one starts, and whether there is more to do."""

    __slots__ = ("deleted", "more", "next_seq")

    def __init__(self, deleted: int, next_seq: int, more: bool) -> None:
        self.deleted = deleted
        self.next_seq = next_seq
        self.more = more


class PruneReport:
    """What `prune_all` did, or with `dry_run` would do (then `deleted` is an estimate where size decides)."""

    __slots__ = ("bytes_after", "bytes_before", "deleted", "dry_run", "rows_before")

    def __init__(self, rows_before: int, deleted: int, bytes_before: int, bytes_after: int, dry_run: bool) -> None:
        self.rows_before = rows_before
        self.deleted = deleted
        self.bytes_before = bytes_before
        self.bytes_after = bytes_after
        self.dry_run = dry_run


def prune_step(
    conn: sqlite3.Connection, policy: Policy, *, now_ns: int, start_seq: int = 0, limit: int = 500
) -> PruneStep:
    """Look at the `limit` oldest rows after `start_seq`, and delete those that the policy gives up.

    `conn` is a writer's in autocommit mode. A busy store is no error: there is more to do, later. Raises `StoreError`.
    """
    try:
        try:
            step = _delete(conn, policy, now_ns, start_seq, limit)
            if not step.more:
                step.more = _give_back(conn, policy)
            wal = Wal(path_of(conn))
            if (step.deleted or step.more) and wal.is_long():
                wal.shorten(conn)
            return step
        finally:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if is_busy(error):
            return PruneStep(0, start_seq, True)
        raise explain(error, conn) from error
    except sqlite3.Error as error:
        raise explain(error, conn) from error


def _delete(conn: sqlite3.Connection, policy: Policy, now_ns: int, start_seq: int, limit: int) -> PruneStep:
    oldest_ns = now_ns - int(policy.max_age_s * 1e9) if policy.max_age_s else -1
    surplus = _surplus_rows(conn, policy)
    too_big = _too_big(conn, policy)
    rows = conn.execute(_WINDOW, (start_seq, limit)).fetchall()
    if not surplus and not too_big and not any(_is_older(ns, oldest_ns) for _, ns in rows):
        return PruneStep(0, start_seq, False)
    deleted = 0
    seq = start_seq
    conn.execute("BEGIN IMMEDIATE")
    stop = time.monotonic() + _STEP_S
    for seq, received_at in rows:
        if deleted < surplus or too_big or _is_older(received_at, oldest_ns):
            conn.execute("DELETE FROM events WHERE seq = ?", (seq,))
            deleted += 1
            too_big = too_big and _too_big(conn, policy)
            if time.monotonic() > stop:
                break
    conn.execute("COMMIT")
    # A window in which nothing was old ends the search: what comes after it is younger.
    return PruneStep(deleted, seq, bool(deleted) and bool(rows) and _has_more(conn, seq))


_WINDOW = "SELECT seq, received_at FROM events WHERE seq > ? ORDER BY seq LIMIT ?"


def _has_more(conn: sqlite3.Connection, seq: int) -> bool:
    return conn.execute("SELECT 1 FROM events WHERE seq > ? LIMIT 1", (seq,)).fetchone() is not None


def _is_older(received_at: object, oldest_ns: int) -> bool:
    """Only a number can be old: what a foreign program wrote instead of one waits for the other limits."""
    return isinstance(received_at, int) and received_at < oldest_ns


def _surplus_rows(conn: sqlite3.Connection, policy: Policy) -> int:
    if policy.max_rows is None:
        return 0
    first, last = conn.execute("SELECT min(seq), max(seq) FROM events").fetchone()
    if first is None or last - first < policy.max_rows:  # there cannot be more rows than numbers
        return 0
    return max(0, _count(conn) - policy.max_rows)


def _count(conn: sqlite3.Connection) -> int:
    count: int = conn.execute("SELECT count(*) FROM events").fetchone()[0]
    return count


def _pages(conn: sqlite3.Connection) -> tuple[int, int, int]:
    """Pages in the file, how many of them are free, and the bytes of one."""
    names = ("page_count", "freelist_count", "page_size")
    count, free, size = (conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return count, free, size


def _too_big(conn: sqlite3.Connection, policy: Policy) -> bool:
    if not policy.max_bytes:
        return False
    count, free, size = _pages(conn)
    return (count - free) * size > policy.max_bytes


def _give_back(conn: sqlite3.Connection, policy: Policy) -> bool:
    """Return some free pages to the disk when there are many; whether there are still many."""
    count, free, size = _pages(conn)
    spare = 0 if policy.max_bytes and count * size > policy.max_bytes else max(_SPARE_PAGES, count // 4)
    if free <= spare:
        return False
    _vacuum(conn, min(_VACUUM_PAGES, free - spare))
    return _pages(conn)[1] < free and free - spare > _VACUUM_PAGES


def _vacuum(conn: sqlite3.Connection, pages: int) -> None:
    # The statement gives a row without columns for each page, at which `execute` would stop.
    conn.executescript(f"PRAGMA incremental_vacuum({pages})")


def prune_all(
    conn: sqlite3.Connection,
    policy: Policy,
    *,
    now_ns: int,
    dry_run: bool = False,
    vacuum: bool = False,
    timeout: float = 30.0,
    progress: Callable[[int], object] | None = None,
) -> PruneReport:
    """Prune until nothing is left to do, in steps that let producers through; `progress` hears rows deleted so far.

    `vacuum` gives all free pages back. `timeout` in seconds bounds the wait for a busy store. Raises `StoreError`.
    """
    try:
        rows_before, bytes_before = _count(conn), _file_bytes(conn)
        if dry_run:
            return PruneReport(rows_before, _estimate(conn, policy, now_ns), bytes_before, bytes_before, True)
        deleted = seq = 0
        deadline = time.monotonic() + timeout
        while True:
            step = prune_step(conn, policy, now_ns=now_ns, start_seq=seq)
            if step.deleted or step.next_seq != seq:
                deadline = time.monotonic() + timeout
            deleted += step.deleted
            seq = step.next_seq
            if progress is not None and step.deleted:
                progress(deleted)
            if not step.more or time.monotonic() > deadline:
                break
            if not step.deleted:
                time.sleep(_BUSY_PAUSE_S)  # somebody writes
        if vacuum:
            while _pages(conn)[1]:
                _vacuum(conn, _VACUUM_PAGES)
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return PruneReport(rows_before, deleted, bytes_before, _file_bytes(conn), False)
    except sqlite3.Error as error:
        raise explain(error, conn) from error


def _file_bytes(conn: sqlite3.Connection) -> int:
    count, _, size = _pages(conn)
    return count * size


def _estimate(conn: sqlite3.Connection, policy: Policy, now_ns: int) -> int:
    old = 0
    if policy.max_age_s:
        query = "SELECT count(*) FROM events WHERE typeof(received_at) = 'integer' AND received_at < ?"
        old = conn.execute(query, (now_ns - int(policy.max_age_s * 1e9),)).fetchone()[0]
    count, free, size = _pages(conn)
    used = (count - free) * size
    rows = _count(conn)
    over = rows * (used - policy.max_bytes) // used if policy.max_bytes and used > policy.max_bytes else 0
    return min(rows, max(old, over, _surplus_rows(conn, policy)))
