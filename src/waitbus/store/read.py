"""Reading events: rows after a cursor as frames, and what lies behind a cursor.

Never raises for what a row holds: a foreign program may have written blobs, broken UTF-8, numbers for text or text for
numbers. Every frame given out can be said in JSON and has the keys and types of the contract.
"""

from __future__ import annotations

import math
import sqlite3

from waitbus.event import (
    FIELD_COLUMNS,
    ULID_MIN,
    Event,
    decode_ulid,
    default_summary,
    encode_ulid,
    from_json,
    is_ulid,
    ulid_ms,
)
from waitbus.store.errors import explain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waitbus.store.prefilter import Condition

# A derived id has the row's time, no chance in the first 17 of its 80 random bits, and the `seq` in the other 63.
_ENTROPY_BITS = 80
_MAX_SEQ = (1 << 63) - 1
_TIME_CHARS = 10
_NO_CHANCE = "000"
# What a row is read as, in this order; `_frame` unpacks it.
_HEAD = ("seq", "event_id", "event_type", "owner", "repo", "received_at", "delivery_id", "summary", "fields_json")
_ALWAYS = ("source", "ingest_method", "status", "conclusion")
_REST = tuple(name for name in FIELD_COLUMNS if name not in _ALWAYS)
_NAMES = (*_HEAD, *_ALWAYS, *_REST)
_REST_AT = len(_HEAD) + len(_ALWAYS)
_SELECT = " ".join(("SELECT", ", ".join(_NAMES), "FROM events"))
_AFTER = _SELECT + " WHERE seq > ? ORDER BY seq LIMIT ?"
_BETWEEN = _SELECT + " WHERE seq > ? AND seq <= ?{} ORDER BY seq LIMIT ?"

# The types a row may have to be taken as it is.
_TEXT: frozenset[type] = frozenset({str})
_TEXT_OR_NULL: frozenset[type] = frozenset({str, type(None)})
_KINDS: dict[str, frozenset[type]] = {
    **dict.fromkeys(("event_id", "event_type", "owner", "repo", "delivery_id", "source", "ingest_method"), _TEXT),
    **dict.fromkeys(("summary", "fields_json", "status", "conclusion"), _TEXT_OR_NULL),
    **{name: frozenset({kind, type(None)}) for name, kind in FIELD_COLUMNS.items()},
    "seq": frozenset({int}),
    "received_at": frozenset({int}),
}
# Signatures of rows met before: the row's types -> which of `_REST` it has, or None when it must be mended.
_signatures: dict[tuple[type, ...], tuple[tuple[int, str], ...] | None] = {}
_SIGNATURES = 1024


def read_after(
    conn: sqlite3.Connection,
    seq: int,
    limit: int,
    *,
    upto: int | None = None,
    where: Condition | None = None,
) -> list[tuple[int, dict[str, Any]]]:
    """At most `limit` events committed after `seq` (and none after `upto`), in commit order, as `(seq, event frame)`.

    With `upto`, `where` of `prefilter.condition_of` passes over rows that cannot be wanted.
    Raises `StoreError` when the file fails, never for what a row holds.
    """
    if upto is None:
        rows = _rows(conn, _AFTER, (seq, limit))
    else:
        sql, bound = (f" AND {where[0]}", where[1]) if where else ("", ())
        rows = _rows(conn, _BETWEEN.format(sql), (seq, upto, *bound, limit))
    return [(row[0], _frame(row)) for row in rows]


def _rows(conn: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    try:
        try:
            return conn.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
            # Text that is no UTF-8, somewhere in these rows: read them again, more slowly.
            before = conn.text_factory
            conn.text_factory = _decode
            try:
                return conn.execute(query, values).fetchall()
            finally:
                conn.text_factory = before
    except sqlite3.Error as error:
        raise explain(error, conn) from error


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _frame(row: tuple[Any, ...]) -> dict[str, Any]:
    signature = tuple(map(type, row))
    try:
        present = _signatures[signature]
    except KeyError:
        present = _learn(signature)
    if present is None or not is_ulid(row[1]):
        row = _mend(row)
        present = _learn(tuple(map(type, row))) or ()
    (_, event_id, event_type, owner, repo, received_at, delivery_id, summary, natural, source, method, status, end) = (
        row[:_REST_AT]
    )
    fields: dict[str, Any] = {
        "source": source,
        "event_type": event_type,
        "owner": owner,
        "repo": repo,
        "ingest_method": method,
        "status": status,
        "conclusion": end,
    }
    for index, name in present:
        fields[name] = row[index]
    if natural is not None:
        for name, value in _natural(natural).items():
            if name not in fields and name not in FIELD_COLUMNS:  # what has a column is what the column says
                fields[name] = value
    return {
        "event_id": event_id,
        "event_type": event_type,
        "owner": owner,
        "repo": repo,
        "received_at": received_at,
        "delivery_id": delivery_id,
        "summary": summary or default_summary(fields),
        "fields": fields,
        "kind": "event",
    }


def _learn(signature: tuple[type, ...]) -> tuple[tuple[int, str], ...] | None:
    present = None
    if all(kind in _KINDS[name] for name, kind in zip(_NAMES, signature, strict=True)):
        present = tuple(
            (index, _NAMES[index]) for index in range(_REST_AT, len(_NAMES)) if signature[index] is not type(None)
        )
    if len(_signatures) >= _SIGNATURES:
        _signatures.clear()
    _signatures[signature] = present
    return present


def _mend(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row as close to its promise as what it holds allows."""
    mended = []
    for name, value in zip(_NAMES, row, strict=True):
        kinds = _KINDS[name]
        if type(value) in kinds:
            mended.append(value)
        elif str in kinds:
            mended.append(as_text(value) if value is not None or kinds is _TEXT else None)
        else:
            number = _as_int(value)
            mended.append(number if number is not None or name != "received_at" else 0)
    if type(row[1]) is not str or not is_ulid(mended[1]):
        mended[1] = derived_id(mended[5], row[0])
    return tuple(mended)


def derived_id(received_at: int, seq: int) -> str:
    """The ULID of a row whose writer gave none: of its time and its place, so that every reader says the same."""
    return encode_ulid((max(0, received_at) // 1_000_000 << _ENTROPY_BITS | seq) & (1 << 128) - 1)


def derived_seq(event_id: str) -> int | None:
    """The `seq` in an id that `derived_id` may have made; None when it cannot have."""
    if not is_ulid(event_id) or not event_id.startswith(_NO_CHANCE, _TIME_CHARS):
        return None
    return decode_ulid(event_id) & _MAX_SEQ


def as_text(value: object) -> str:
    """Text of whatever a text column may hold; bytes that are no UTF-8 are replaced."""
    if value is None:
        return ""
    return _decode(value) if isinstance(value, bytes) else str(value)


def _as_int(value: object) -> int | None:
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    return None


def _natural(text: str) -> dict[str, Any]:
    """The natural fields; nothing when the text is no JSON object, however it was broken."""
    try:
        value = from_json(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def last_seq(conn: sqlite3.Connection) -> int:
    """The newest row's `seq`; 0 when there is none."""
    return _number(conn, "SELECT seq FROM events ORDER BY seq DESC LIMIT 1") or 0


def seq_of(conn: sqlite3.Connection, event_id: str) -> int | None:
    """The `seq` of the event with this id, stored or derived."""
    seq = _number(conn, "SELECT seq FROM events WHERE event_id = ?", event_id)
    if seq is None and (derived := derived_seq(event_id)) is not None:
        rows = _rows(conn, _SELECT + " WHERE seq = ?", (derived,))
        seq = derived if rows and _frame(rows[0])["event_id"] == event_id else None
    return seq


def _number(conn: sqlite3.Connection, query: str, *values: object) -> int | None:
    try:
        row = conn.execute(query, values).fetchone()
    except sqlite3.Error as error:
        raise explain(error, conn) from error
    return None if row is None else row[0]


def cursor_of(conn: sqlite3.Connection, since: str) -> int:
    """The `seq` after which a replay from `since` starts.

    An id we know is a place in commit order. One we do not is a point in time: it starts before the first event with
    a greater id.
    """
    known = seq_of(conn, since)
    if known is not None:
        return known
    if since == ULID_MIN:
        return 0  # from the start: also what a foreign program gave an id of its own making
    nearest = _number(conn, "SELECT seq FROM events WHERE event_id > ? ORDER BY event_id LIMIT 1", since)
    # Rows without an id stand together in its index.
    nameless = "SELECT min(seq) FROM events WHERE event_id IS NULL AND received_at >= ?"
    unnamed = _number(conn, nameless, min(ulid_ms(since) * 1_000_000, _MAX_SEQ))
    if nearest is None or unnamed is not None:
        nearest = min(seq for seq in (nearest, unnamed, last_seq(conn) + 1) if seq is not None)
    # Ids of different processes may stand in another order than their commits: look for an earlier one, by
    # whichever index has less to walk (`+` keeps a column out of the choice of index).
    first = _number(conn, "SELECT seq FROM events ORDER BY seq LIMIT 1") or 0
    if nearest - first < last_seq(conn) - nearest:
        query = "SELECT min(seq) FROM events WHERE +event_id > ? AND seq < ?"
    else:
        query = "SELECT min(seq) FROM events WHERE event_id > ? AND +seq < ?"
    earlier = _number(conn, query, since, nearest)
    return (nearest if earlier is None else earlier) - 1


def event_id_at(conn: sqlite3.Connection, seq: int) -> str | None:
    """The id of the newest event at or before `seq`."""
    rows = _rows(conn, _SELECT + " WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (seq,))
    return _frame(rows[0])["event_id"] if rows else None


def event_with_payload(conn: sqlite3.Connection, event_id: str) -> Event | None:
    """One event with its `payload_json`; None when there is none of this id."""
    seq = seq_of(conn, event_id)
    return None if seq is None else _one(conn, "seq", seq)


def event_of_delivery(conn: sqlite3.Connection, delivery_id: str) -> Event | None:
    """The event stored under a producer's own key."""
    return _one(conn, "delivery_id", delivery_id)


def _one(conn: sqlite3.Connection, column: str, value: str | int) -> Event | None:
    query = "SELECT {}, payload_json FROM events WHERE {} = ?"
    rows = _rows(conn, query.format(", ".join(_NAMES), column), (value,))
    if not rows:
        return None
    *row, payload = rows[0]
    event = Event.from_frame(_frame(tuple(row)))
    event.payload_json = as_text(payload)
    return event


def data_version(conn: sqlite3.Connection) -> int:
    """A number that changes when another connection has committed."""
    return _number(conn, "PRAGMA data_version") or 0
