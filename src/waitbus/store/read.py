"""Reads events: the rows after a cursor, as frames, and the cursor that belongs to an id or a time.

Each read is limited in bytes as well as in rows, whatever a foreign program wrote: SQLite returns no value longer than
`fields` may be, and a page ends once its text is long enough.
"""

from __future__ import annotations

import sqlite3

from waitbus.event import HISTORY_METHODS, MAX_FIELDS_BYTES, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, Event
from waitbus.store.clock import real_ns
from waitbus.store.errors import damaged, explain
from waitbus.store.frames import CUT, KINDS, MAX_SEQ, NAMES, as_text, decode, derived_seq, frame_of
from waitbus.ulid import ULID_MIN, is_ulid, ulid_at, ulid_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waitbus.store.frames import Row
    from waitbus.store.prefilter import Condition

_SELECT = "SELECT {} FROM events WHERE seq > ? AND seq <= ?{} ORDER BY seq LIMIT ?"
_PAGE = _SELECT.format(", ".join(NAMES), "{}")
_BACK = "SELECT seq FROM events WHERE seq <= ? AND seq > ?{} ORDER BY seq DESC LIMIT ?"
# The question that `cursor_of` asks the index, put to the newest row itself: a damaged index may have lost entries.
_IS_NEWEST_BETWEEN = (
    "SELECT seq FROM (SELECT seq, event_id FROM events ORDER BY seq DESC LIMIT 1) WHERE event_id > ? AND event_id < ?"
)
# A page ends with the row that brings its text to this many characters.
PAGE_CHARS = 256 << 10
# Of a value that is too long only the start is read, if SQLite can load the whole value within this limit.
_LIFTED_BYTES = 16 << 20


class Page:
    """Some rows in commit order, as `(seq, event frame)`, and how far the store was read for them.

    The page holds every matching row up to seq `end`. `more` says that the page was full, so that there may be others
    after `end`. `chars` is the length of all its text.
    """

    __slots__ = ("chars", "end", "more", "rows")

    def __init__(self, start: int) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.end = start
        self.more = False
        self.chars = 0

    def add(self, row: Row, *, cut: bool = False) -> None:
        frame, chars = frame_of(row, cut=cut)
        self.end = row[0]
        self.rows.append((row[0], frame))
        self.chars += chars


def read_page(
    conn: sqlite3.Connection,
    seq: int,
    limit: int,
    *,
    upto: int | None = None,
    where: Condition | None = None,
    max_chars: int = PAGE_CHARS,
) -> Page:
    """Read at most `limit` events committed after `seq` and not after `upto`, until they hold `max_chars` of text.

    `where`, from `prefilter.condition_of`, skips rows that cannot match; it may leave in others that do not match.
    Raises `StoreError` if the file fails, but never because of what a row holds.
    """
    page = Page(seq)
    with _Bounded(conn, MAX_FIELDS_BYTES):
        while True:
            try:
                _fill(conn, page, limit, upto, where, max_chars)
                return page
            except (sqlite3.DataError, sqlite3.OperationalError) as error:
                if where is not None:  # a row that it would have skipped may be the cause
                    where = None
                elif _is_too_big(error):
                    _add_by_cells(conn, page)
                elif "decode" in str(error) and conn.text_factory is not decode:
                    conn.text_factory = decode  # one of these rows holds invalid UTF-8
                else:
                    raise


def _fill(
    conn: sqlite3.Connection, page: Page, limit: int, upto: int | None, where: Condition | None, max_chars: int
) -> None:
    sql, bound = (f" AND {where[0]}", where[1]) if where else ("", ())
    page.more = page.chars >= max_chars or len(page.rows) == limit
    if page.more:
        return
    values = (page.end, MAX_SEQ if upto is None else upto, *bound, limit - len(page.rows))
    for row in conn.execute(_PAGE.format(sql), values):
        page.add(row)
        if page.chars >= max_chars:
            page.more = True
            return
    page.more = len(page.rows) == limit
    if upto is not None and not page.more:
        page.end = upto


def read_after(
    conn: sqlite3.Connection,
    seq: int,
    limit: int,
    *,
    upto: int | None = None,
    where: Condition | None = None,
) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of `read_page` without its limit on text. A negative `limit` means no limit."""
    rows: list[tuple[int, dict[str, Any]]] = []
    while True:
        page = read_page(conn, seq, limit - len(rows), upto=upto, where=where)
        rows += page.rows
        if not page.more or len(rows) == limit:
            return rows
        seq = page.end


def read_back(
    conn: sqlite3.Connection, seq: int, limit: int, *, after: int = 0, where: Condition | None = None
) -> Page:
    """The newest `limit` events up to `seq` and committed after `after`, the newest first, however long they are.

    `where` is that of `read_page`; `end` is the seq before which there may be more. Raises `StoreError`.
    """
    sql, bound = (f" AND {where[0]}", where[1]) if where else ("", ())
    try:
        found = [row[0] for row in conn.execute(_BACK.format(sql), (seq, after, *bound, limit))]
    except sqlite3.Error as error:
        raise explain(error, conn) from error
    back = Page(found[-1] if len(found) == limit else after + 1)
    back.more = len(found) == limit
    at = found[-1] - 1 if found else seq
    while at < seq:
        page = read_page(conn, at, limit, upto=found[0], where=where)
        back.rows[:0] = page.rows[::-1]
        back.chars += page.chars
        at = page.end if page.more else seq
    return back


class _Bounded:
    """A context manager: SQLite refuses to read values longer than `max_bytes`, and its errors become `StoreError`."""

    __slots__ = ("_before", "_conn", "_max_bytes")

    def __init__(self, conn: sqlite3.Connection, max_bytes: int) -> None:
        self._conn = conn
        self._max_bytes = max_bytes

    def __enter__(self) -> None:
        self._before = self._conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._max_bytes), self._conn.text_factory

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        limit, self._conn.text_factory = self._before
        self._conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
        if isinstance(error, sqlite3.Error):
            raise explain(error, self._conn) from error


def _is_too_big(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_TOOBIG


def _add_by_cells(conn: sqlite3.Connection, page: Page) -> None:
    """Read the row after the page's end value by value, cut its long values, and add it.

    This row, or one soon after it, holds a value that is too long to be read.
    """
    found = conn.execute("SELECT seq FROM events WHERE seq > ? ORDER BY seq LIMIT 1", (page.end,)).fetchone()
    if found is None:
        return
    conn.text_factory = decode
    (seq,) = found
    cells = [_cell(conn, name, seq) for name in NAMES]
    page.end = seq
    if cells[0][0] is not None:  # otherwise the row was pruned just now
        page.add(tuple(value for value, _ in cells), cut=any(is_cut for _, is_cut in cells))


def _cell(conn: sqlite3.Connection, name: str, seq: int) -> tuple[Any, bool]:
    """Return one value and whether it was too long. A long text is cut; any other long value becomes None."""
    query = "SELECT {} FROM events WHERE seq = ?"
    try:
        return (conn.execute(query.format(name), (seq,)).fetchone() or (None,))[0], False
    except sqlite3.DataError as error:
        if not _is_too_big(error):
            raise
    if str not in KINDS[name] or name == "fields_json":
        return None, True
    bound = conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LIFTED_BYTES)
    try:
        start = query.format(f"substr(CAST({name} AS BLOB), 1, {MAX_NAME_BYTES})")
        return decode((conn.execute(start, (seq,)).fetchone() or (b"",))[0]) + CUT, True
    except sqlite3.DataError as error:
        if not _is_too_big(error):
            raise
        return CUT, True
    finally:
        conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, bound)


def last_seq(conn: sqlite3.Connection) -> int:
    """Return the newest row's `seq`, or 0 if there is none. Raises `StoreError`."""
    return _number(conn, "SELECT seq FROM events ORDER BY seq DESC LIMIT 1") or 0


def seq_of(conn: sqlite3.Connection, event_id: str) -> int | None:
    """Return the `seq` of the event with this id, stored or derived, or None if there is none. Raises `StoreError`."""
    seq = _number(conn, "SELECT seq FROM events WHERE event_id = ?", event_id)
    if seq is None and (derived := derived_seq(event_id)) is not None:
        frame = frame_at(conn, derived)
        seq = derived if frame is not None and frame["event_id"] == event_id else None
    return seq


def frame_at(conn: sqlite3.Connection, seq: int) -> dict[str, Any] | None:
    """Return the event with this `seq`, or None if there is none. Raises `StoreError`."""
    rows = read_page(conn, seq - 1, 1, upto=seq).rows
    return rows[0][1] if rows else None


def _number(conn: sqlite3.Connection, query: str, *values: object) -> int | None:
    try:
        row = conn.execute(query, values).fetchone()
    except sqlite3.Error as error:
        raise explain(error, conn) from error
    return None if row is None else row[0]


def cursor_of(conn: sqlite3.Connection, since: str) -> int:
    """Return the `seq` after which a replay from `since` starts. Raises `StoreError`.

    If an event has the id `since`, the replay starts after it. Otherwise `since` is a point in time: the replay starts
    before the first event with a greater id. Ids from a clock that was a day or more wrong say nothing about when
    their events were written, but their position does. An id from the future never makes a replay start early, and
    rows with a wrong clock right before the start are included.
    """
    known = seq_of(conn, since)
    if known is not None:
        return known
    if since == ULID_MIN:
        return 0  # everything, including rows to which a foreign program gave an id of another form
    ahead_ms = real_ns(conn) // 1_000_000 + _WRONG_MS
    ahead = ulid_at(ahead_ms * 1_000_000)
    between = "SELECT seq FROM events WHERE event_id > ? AND event_id < ? ORDER BY event_id LIMIT 1"
    nearest = _number(conn, between, since, ahead)
    if nearest is None and _number(conn, _IS_NEWEST_BETWEEN, since, ahead) is not None:
        raise damaged(conn, "its newest event is not found by its event_id")
    # The index has the rows without an id next to each other, so finding them is quick.
    nameless = "SELECT min(seq) FROM events WHERE event_id IS NULL AND received_at >= ? AND received_at < ?"
    unnamed = _number(conn, nameless, min(ulid_ms(since) * 1_000_000, MAX_SEQ), ahead_ms * 1_000_000)
    if nearest is None or unnamed is not None:
        nearest = min(seq for seq in (nearest, unnamed, last_seq(conn) + 1) if seq is not None)
    # Ids of different processes may be in another order than their commits, so look for an earlier row. Use the index
    # that has less to scan (a `+` before a column keeps SQLite from using the column's index).
    first = _number(conn, "SELECT seq FROM events ORDER BY seq LIMIT 1") or 0
    if nearest - first < last_seq(conn) - nearest:
        query = "SELECT min(seq) FROM events WHERE +event_id > ? AND +event_id < ? AND seq < ?"
    else:
        query = "SELECT min(seq) FROM events WHERE event_id > ? AND event_id < ? AND +seq < ?"
    earlier = _number(conn, query, since, ahead, nearest)
    return _before_strays(conn, nearest if earlier is None else earlier, ahead_ms) - 1


# A clock that is wrong by a day was not just adjusted: a test moves it, or the machine's clock has lost its power.
_WRONG_MS = 86_400_000
_LOOK_BACK = 256
_STAMPS = (
    "SELECT seq, substr(CAST(event_id AS BLOB), 1, 27), received_at, ingest_method IN (?, ?) "
    "FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?"
)


def _before_strays(conn: sqlite3.Connection, seq: int, ahead_ms: int) -> int:
    """Return `seq`, or the first of the rows directly before it that were written with a wrong clock.

    A clock is wrong if it is more than a day ahead of now, or a day behind an earlier row. History rows are ignored,
    because their ids may have any time.
    """
    try:
        rows = conn.execute(_STAMPS, (*HISTORY_METHODS, seq, _LOOK_BACK)).fetchall()
    except sqlite3.Error as error:
        if _is_too_big(error):
            return seq
        raise explain(error, conn) from error
    start, latest = seq, 0
    for place, event_id, received_at, is_history in reversed(rows):
        stamp = _stamp_ms(event_id, received_at)
        if not is_history and (stamp > ahead_ms or stamp < latest - _WRONG_MS):
            start = min(start, place)
        else:
            start = seq
            latest = latest if is_history else max(latest, stamp)
    return start


def _stamp_ms(event_id: bytes | None, received_at: object) -> int:
    text = (event_id or b"").decode("ascii", "replace")
    return ulid_ms(text) if is_ulid(text) else received_at // 1_000_000 if type(received_at) is int else 0


def event_id_at(conn: sqlite3.Connection, seq: int) -> str | None:
    """Return the id of the newest event at or before `seq`, or None if there is none. Raises `StoreError`."""
    found = _number(conn, "SELECT seq FROM events WHERE seq <= ? ORDER BY seq DESC LIMIT 1", seq)
    frame = None if found is None else frame_at(conn, found)
    return None if frame is None else frame["event_id"]


def event_with_payload(conn: sqlite3.Connection, event_id: str) -> Event | None:
    """Return the event with this id, or None if there is none. Raises `StoreError`.

    Its `payload_json` is loaded, and is None if it exceeds `MAX_PAYLOAD_BYTES`.
    """
    return _one(conn, seq_of(conn, event_id))


def event_of_delivery(conn: sqlite3.Connection, delivery_id: str) -> Event | None:
    """Return the event with this `delivery_id`, in the same way as `event_with_payload`."""
    return _one(conn, _number(conn, "SELECT seq FROM events WHERE delivery_id = ?", delivery_id))


def _one(conn: sqlite3.Connection, seq: int | None) -> Event | None:
    frame = None if seq is None else frame_at(conn, seq)
    if frame is None:
        return None
    event = Event.from_frame(frame)
    with _Bounded(conn, MAX_PAYLOAD_BYTES):
        conn.text_factory = decode
        try:
            (payload,) = conn.execute("SELECT payload_json FROM events WHERE seq = ?", (seq,)).fetchone() or ("",)
            event.payload_json = as_text(payload)
        except sqlite3.DataError as error:
            if not _is_too_big(error):
                raise
    return event


def data_version(conn: sqlite3.Connection) -> int:
    """Return a number that changes whenever another connection has committed. Raises `StoreError`."""
    return _number(conn, "PRAGMA data_version") or 0
