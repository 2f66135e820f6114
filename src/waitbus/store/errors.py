"""Turns SQLite's errors into messages for people: one line each, with what to do next."""

from __future__ import annotations

import os
import sqlite3

from waitbus.event import WaitbusError
from waitbus.private import quote


class StoreError(WaitbusError):
    """The store cannot be used as it is. Committed events stay in it; what this error stopped was not committed."""


class StoreDamaged(StoreError):
    """The file is damaged: it does not return everything that was committed. Trying again does not help."""


class StoreMissing(StoreError):
    """There is no store yet: the file is missing or empty, because nothing was written yet or it was deleted."""


class StoreBusy(StoreError):
    """Another process holds the lock on the store. Trying again may help."""


def explain(error: sqlite3.Error, place: str | sqlite3.Connection) -> StoreError:
    """Return the `StoreError` that says what `error` means: `StoreDamaged`, `StoreBusy` or the base class.

    `place` is the file's path or a connection to it.
    """
    path = place if isinstance(place, str) else path_of(place)
    code = getattr(error, "sqlite_errorcode", None)
    if code in _IO_DAMAGE or (code == sqlite3.SQLITE_ERROR and str(error).startswith(_NO_SUCH)):
        code = sqlite3.SQLITE_CORRUPT
    form = _FORMS.get(code & 0xFF) if isinstance(code, int) else None
    if form is _CANNOT_OPEN and not _can_open():
        form = _TOO_MANY
    if form is None:
        return StoreError(f"the store {path} failed: {error}")
    kind = {_DAMAGED: StoreDamaged, _BUSY: StoreBusy}.get(form, StoreError)
    return kind(form.format(path=path, word=quote(path), error=error))


def _can_open() -> bool:
    """Whether this process may open as many files as SQLite has open for a store, and a few more."""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_FILES))
    except OSError:
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return True


_FILES = 8


def damaged(place: str | sqlite3.Connection, why: str) -> StoreDamaged:
    """Return the `StoreDamaged` for damage that SQLite itself does not notice. `why` says in a few words what it is."""
    path = place if isinstance(place, str) else path_of(place)
    return StoreDamaged(_DAMAGED.format(path=path, word=quote(path), error=why))


def path_of(conn: sqlite3.Connection) -> str:
    """Return the path of a connection's file, for messages."""
    place = getattr(conn, "place", None)  # ours have one, and some of ours are not allowed to run the PRAGMA below
    if place is not None:
        return str(place.path)
    try:
        return next(row[2] for row in conn.execute("PRAGMA database_list") if row[1] == "main") or ":memory:"
    except (sqlite3.Error, StopIteration):
        return "the store"


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock that the statement needed, so that trying again may help."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


# I/O errors that mean damage: the file or its log is shorter than it says, or the file system itself is corrupt
# (SQLITE_IOERR_CORRUPTFS, which `sqlite3` has no name for).
_IO_DAMAGE = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR | 33 << 8)
# waitbus only names what its schema has, so these errors mean that the schema is damaged.
_NO_SUCH = ("no such table", "no such column", "no such index")
_DAMAGED = (
    "{path} is damaged or not an SQLite database ({error}): move it away (mv {word} {word}.bad) to begin with an empty "
    "store, or save what is left with: sqlite3 {word} .recover"
)
_BUSY = "{path} is busy: another process holds its write lock; look for a stopped one (waitbus status), then try again"
_CANNOT_OPEN = "cannot open {path}: check that its directory exists and that you may write there"
_TOO_MANY = "cannot open {path}: too many files are open: raise the limit (ulimit -n 256), or close some"
_FORMS = {
    sqlite3.SQLITE_FULL: "no space left to write {path}: free some, then try again; events already committed are safe",
    sqlite3.SQLITE_READONLY: "{path} cannot be written: check its owner and mode, and that the disk is not read-only",
    sqlite3.SQLITE_PERM: "{path} cannot be used: check its owner and mode",
    sqlite3.SQLITE_CANTOPEN: _CANNOT_OPEN,
    sqlite3.SQLITE_IOERR: "the disk failed under {path} ({error}): check its space and health, then try again",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_TOOBIG: "the event is too big for {path}: at most 1 GB",
}
