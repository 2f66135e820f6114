"""Keeps the store small: deletes the events that are too old, then the first ones while there are too many.

Age is judged by `received_at`, wherever the row is. If the store exceeds its limit of bytes or rows, rows go in the
order of commit. The hub calls `Pruner.step` between events. A step holds SQLite's write lock for a few milliseconds,
and not at all if there is nothing to do, so no producer has to wait noticeably. Freed pages are returned to the disk in
the same small steps.

An import or a back-fill can put old rows behind young ones, and an index on `received_at` would slow down every insert.
So a pruner divides the rows into stretches and remembers the age of the oldest row in each. It reads all rows once, and
later only new ones.
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

_STEP_S = 0.005  # how long a step may read, and then how long it may delete: what a producer may have to wait
_DELETED = 500  # the most rows that a step deletes
_LOOKED_AT = 256  # rows read between two looks at the clock
_STRETCH = 4096  # rows in a stretch
_VACUUM_PAGES = 128  # pages that a step returns to the disk
_SPARE_PAGES = 256  # free pages that are kept for new events, or a quarter of the file if that is more
_BUSY_PAUSE_S = 0.005
_MAX_SEQ = (1 << 63) - 1


class Policy:
    """The limits: age in seconds, size in bytes, number of rows. 0 (or None, for rows) means no limit."""

    __slots__ = ("max_age_s", "max_bytes", "max_rows")

    def __init__(self, max_age_s: float = 0, max_bytes: int = 0, max_rows: int | None = None) -> None:
        self.max_age_s = max_age_s
        self.max_bytes = max_bytes
        self.max_rows = max_rows


def policy_of(settings: Settings) -> Policy:
    """Return the limits in the settings. There are none if `retention` is off."""
    if not settings.retention:
        return Policy()
    return Policy(settings.max_age_s, settings.max_bytes, settings.max_rows)


class PruneStep:
    """What one step did: rows deleted, whether there is more to do, and the error if another process was writing."""

    __slots__ = ("busy", "deleted", "more")

    def __init__(self, deleted: int, more: bool, busy: sqlite3.Error | None = None) -> None:
        self.deleted = deleted
        self.more = more
        self.busy = busy


class PruneReport:
    """What `prune_all` did, or would do with `dry_run`: `deleted` is then an estimate if the size decides."""

    __slots__ = ("bytes_after", "bytes_before", "deleted", "dry_run", "rows_before")

    def __init__(self, rows_before: int, deleted: int, bytes_before: int, bytes_after: int, dry_run: bool) -> None:
        self.rows_before = rows_before
        self.deleted = deleted
        self.bytes_before = bytes_before
        self.bytes_after = bytes_after
        self.dry_run = dry_run


class _Stretch:
    """The rows after the previous stretch, up to seq `end`. `oldest_ns` is None if none of them has a time."""

    __slots__ = ("end", "oldest_ns")

    def __init__(self, end: int, oldest_ns: int | None) -> None:
        self.end = end
        self.oldest_ns = oldest_ns


class Pruner:
    """Prunes one store file by one policy, in small steps. Another file needs another `Pruner`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._stretches: list[_Stretch] = []
        self._in_last = 0  # rows in the last stretch
        self._surplus: int | None = None  # rows beyond the limit; None until they have been counted

    def step(self, conn: sqlite3.Connection, *, now_ns: int, upto: int | None = None) -> PruneStep:
        """Do a little of the work. Once there is no more, the next call looks at the store from the beginning.

        `conn` is a writer's connection in autocommit mode. Rows after seq `upto` stay: somebody has yet to read them.
        If the store is busy, the step does nothing and says that there is more to do. Raises `StoreError`.
        """
        try:
            try:
                step = self._step(conn, now_ns, _MAX_SEQ if upto is None else upto)
                if step.deleted or step.more:
                    wal = Wal(path_of(conn))
                    if wal.needs_checkpoint():
                        wal.checkpoint(conn)
                return step
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return PruneStep(0, True, error)
            raise explain(error, conn) from error
        except sqlite3.Error as error:
            raise explain(error, conn) from error

    def _step(self, conn: sqlite3.Connection, now_ns: int, upto: int) -> PruneStep:
        if self._policy.max_age_s:
            if not self._look(conn):
                return PruneStep(0, True)
            deleted = self._delete_old(conn, now_ns - int(self._policy.max_age_s * 1e9), upto)
            if deleted is not None:
                return PruneStep(deleted, True)
        deleted = self._delete_first(conn, upto)
        if deleted:
            return PruneStep(deleted, True)
        more = _give_back(conn, self._policy)
        if not more:
            self._surplus = None
        return PruneStep(0, more)

    def _look(self, conn: sqlite3.Connection) -> bool:
        """Read the ages of the rows added since the last look. Returns False if the time was up before the end."""
        stop = time.monotonic() + _STEP_S
        while True:
            seen = self._stretches[-1].end if self._stretches else 0
            rows, end, oldest_ns = conn.execute(_AGES, (seen, _LOOKED_AT)).fetchone()
            if rows:
                self._remember(rows, end, oldest_ns)
            if rows < _LOOKED_AT:
                return True
            if time.monotonic() > stop:
                return False

    def _remember(self, rows: int, end: int, oldest_ns: int | None) -> None:
        if not self._stretches or self._in_last >= _STRETCH:
            self._stretches.append(_Stretch(end, oldest_ns))
            self._in_last = rows
            return
        last = self._stretches[-1]
        last.end = end
        last.oldest_ns = min((one for one in (last.oldest_ns, oldest_ns) if one is not None), default=None)
        self._in_last += rows

    def _delete_old(self, conn: sqlite3.Connection, limit_ns: int, upto: int) -> int | None:
        """Delete rows older than `limit_ns` from one stretch. Returns how many, or None if no stretch has any."""
        start = 0
        for stretch in self._stretches:
            if stretch.oldest_ns is not None and stretch.oldest_ns < limit_ns:
                break
            start = stretch.end
        else:
            return None
        rows = [row[0] for row in conn.execute(_OLD, (start, min(stretch.end, upto), limit_ns, _DELETED))]
        deleted = _delete(conn, rows)
        if deleted == len(rows) < _DELETED:
            stretch.oldest_ns = conn.execute(_OLDEST, (start, stretch.end)).fetchone()[0]
            if stretch.oldest_ns is None and stretch is not self._stretches[-1]:
                self._stretches.remove(stretch)
        return deleted

    def _delete_first(self, conn: sqlite3.Connection, upto: int) -> int:
        """Delete the first rows while the store has too many rows or bytes. Returns how many were deleted."""
        if self._surplus is None:
            self._surplus = _surplus_rows(conn, self._policy)
        if not self._surplus and not _too_big(conn, self._policy):
            return 0
        rows = [row[0] for row in conn.execute(_FIRST, (upto, _DELETED))]
        surplus = self._surplus
        deleted = _delete(conn, rows, lambda count: count < surplus or _too_big(conn, self._policy))
        self._surplus = max(0, surplus - deleted)
        return deleted


# Only an integer can be too old. A row whose time is something else stays until another limit deletes it.
_AGES = (
    "SELECT count(*), max(seq), min(received_at) FILTER (WHERE typeof(received_at) = 'integer') "
    "FROM (SELECT seq, received_at FROM events WHERE seq > ? ORDER BY seq LIMIT ?)"
)
_OLDEST = "SELECT min(received_at) FROM events WHERE typeof(received_at) = 'integer' AND seq > ? AND seq <= ?"
_OLD = (
    "SELECT seq FROM events WHERE seq > ? AND seq <= ? AND typeof(received_at) = 'integer' AND received_at < ? "
    "ORDER BY seq LIMIT ?"
)
_FIRST = "SELECT seq FROM events WHERE seq <= ? ORDER BY seq LIMIT ?"
_COUNT_OLD = "SELECT count(*) FROM events WHERE typeof(received_at) = 'integer' AND received_at < ?"


def _delete(conn: sqlite3.Connection, rows: list[int], wanted: Callable[[int], bool] = lambda count: True) -> int:
    """Delete rows in one short transaction, as long as `wanted(number deleted so far)` is true. Returns how many."""
    if not rows:
        return 0
    conn.execute("BEGIN IMMEDIATE")
    stop = time.monotonic() + _STEP_S
    deleted = 0
    for seq in rows:
        if not wanted(deleted):
            break
        conn.execute("DELETE FROM events WHERE seq = ?", (seq,))
        deleted += 1
        if time.monotonic() > stop:
            break
    conn.execute("COMMIT")
    return deleted


def _surplus_rows(conn: sqlite3.Connection, policy: Policy) -> int:
    if policy.max_rows is None:
        return 0
    first, last = conn.execute("SELECT min(seq), max(seq) FROM events").fetchone()
    if first is None or last - first < policy.max_rows:  # no need to count
        return 0
    return max(0, _count(conn) - policy.max_rows)


def _count(conn: sqlite3.Connection) -> int:
    count: int = conn.execute("SELECT count(*) FROM events").fetchone()[0]
    return count


def _pages(conn: sqlite3.Connection) -> tuple[int, int, int]:
    """Return the number of pages in the file, how many of them are free, and the size of a page in bytes."""
    names = ("page_count", "freelist_count", "page_size")
    count, free, size = (conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return count, free, size


def _too_big(conn: sqlite3.Connection, policy: Policy) -> bool:
    if not policy.max_bytes:
        return False
    count, free, size = _pages(conn)
    return (count - free) * size > policy.max_bytes


def _give_back(conn: sqlite3.Connection, policy: Policy) -> bool:
    """Return some free pages to the disk if there are many. Returns whether there are still many."""
    count, free, size = _pages(conn)
    spare = 0 if policy.max_bytes and count * size > policy.max_bytes else max(_SPARE_PAGES, count // 4)
    if free <= spare:
        return False
    _vacuum(conn, min(_VACUUM_PAGES, free - spare))
    return _pages(conn)[1] < free and free - spare > _VACUUM_PAGES


def _vacuum(conn: sqlite3.Connection, pages: int) -> None:
    # This statement returns a row without columns for each page, and `execute` would stop at the first.
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
    """Prune until nothing is left to do, in steps between which producers can write.

    `progress` is called with the number of rows deleted so far. `vacuum` returns all free pages to the disk. Raises
    `StoreBusy` if the store stays busy for `timeout` seconds, and `StoreError` if it fails; rows that were deleted
    until then stay deleted.
    """
    try:
        rows_before, bytes_before = _count(conn), _file_bytes(conn)
        if dry_run:
            return PruneReport(rows_before, _estimate(conn, policy, now_ns), bytes_before, bytes_before, True)
        pruner = Pruner(policy)
        deleted = 0
        deadline = time.monotonic() + timeout
        more = True
        while more:
            step = pruner.step(conn, now_ns=now_ns)
            more = step.more
            deleted += step.deleted
            if step.busy is not None:
                if time.monotonic() > deadline:
                    raise step.busy
                time.sleep(_BUSY_PAUSE_S)
            else:
                deadline = time.monotonic() + timeout
            if progress is not None and step.deleted:
                progress(deleted)
        if vacuum:
            free = None
            while (left := _pages(conn)[1]) and left != free:
                free = left
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
        old = conn.execute(_COUNT_OLD, (now_ns - int(policy.max_age_s * 1e9),)).fetchone()[0]
    count, free, size = _pages(conn)
    used = (count - free) * size
    rows = _count(conn)
    over = rows * (used - policy.max_bytes) // used if policy.max_bytes and used > policy.max_bytes else 0
    return min(rows, max(old, over, _surplus_rows(conn, policy)))
