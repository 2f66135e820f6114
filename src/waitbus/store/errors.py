"""What SQLite's errors mean to the person in front of it: one line each, with what to do next."""

from __future__ import annotations

import sqlite3

from waitbus.event import WaitbusError
from waitbus.private import quote


class StoreError(WaitbusError):
    """The store cannot be used as it is. Nothing was lost: what was committed stays, what was not is reported here."""


class StoreDamaged(StoreError):
    """The file is not a sound database: what it gives is not all that was committed. Trying again does not help."""


class StoreMissing(StoreError):
    """There is no file, or an empty one: nobody has written yet, or the file was taken away and is made again."""


class StoreBusy(StoreError):
    """Another process holds the lock that is needed. Trying again may help."""


def explain(error: sqlite3.Error, place: str | sqlite3.Connection) -> StoreError:
    """The `StoreError` that says what `error` means: `StoreDamaged` and `StoreBusy` where it is that.

    `place` is the file's path or a connection to it.
    """
    path = place if isinstance(place, str) else path_of(place)
    code = getattr(error, "sqlite_errorcode", None)
    if code in _CUT_SHORT or (code == sqlite3.SQLITE_ERROR and str(error).startswith(_NO_SUCH)):
        code = sqlite3.SQLITE_CORRUPT
    form = _FORMS.get(code & 0xFF) if isinstance(code, int) else None
    if form is None:
        return StoreError(f"the store {path} failed: {error}")
    kind = {_DAMAGED: StoreDamaged, _BUSY: StoreBusy}.get(form, StoreError)
    return kind(form.format(path=path, word=quote(path), error=error))


def damaged(place: str | sqlite3.Connection, why: str) -> StoreDamaged:
    """The `StoreDamaged` for what SQLite itself does not notice. `why` is a few words."""
    path = place if isinstance(place, str) else path_of(place)
    return StoreDamaged(_DAMAGED.format(path=path, word=quote(path), error=why))


def path_of(conn: sqlite3.Connection) -> str:
    """The file behind a connection, for messages."""
    place = getattr(conn, "place", None)  # as the connections of `open` have, which may be forbidden to ask
    if place is not None:
        return str(place.path)
    try:
        return next(row[2] for row in conn.execute("PRAGMA database_list") if row[1] == "main") or ":memory:"
    except (sqlite3.Error, StopIteration):
        return "the store"


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock that was asked for: worth another try."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


# A file, or its log, that ends before what is said to be in it; a file system that found damage of its own.
_CUT_SHORT = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR | 33 << 8)
# Every statement of ours names what the schema has.
_NO_SUCH = ("no such table", "no such column", "no such index")
_DAMAGED = (
    "{path} is not a sound SQLite database ({error}): move it away (mv {word} {word}.bad) and start afresh, "
    "or save what is left with: sqlite3 {word} .recover"
)
_BUSY = "{path} is busy: another process holds its write lock; look for a stopped one (waitbus status), then try again"
_FORMS = {
    sqlite3.SQLITE_FULL: "no room left to write {path}: free some space, then try again; what was committed is safe",
    sqlite3.SQLITE_READONLY: "{path} cannot be written: check its owner and mode, and that the disk is not read-only",
    sqlite3.SQLITE_PERM: "{path} cannot be used: check its owner and mode",
    sqlite3.SQLITE_CANTOPEN: "cannot open {path}: check that its directory exists and that you may write there",
    sqlite3.SQLITE_IOERR: "the disk failed under {path} ({error}): check its space and health, then try again",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_TOOBIG: "the event is too big for {path}: at most 1 GB",
}
