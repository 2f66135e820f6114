"""The store: whether it opens, is sound, and is the newest there is."""

from __future__ import annotations

import os
import sqlite3

from waitbus.doctor.findings import BAD, NOTE, OK, Finding
from waitbus.event import WaitbusError
from waitbus.private import quote
from waitbus.store import migrate
from waitbus.store.errors import damaged
from waitbus.store.importer import OLD_NAME
from waitbus.store.open import open_reader
from waitbus.store.read import last_seq, read_after
from waitbus.store.stats import journal_mode, troubles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from waitbus.settings import Settings

_CHECK_SEC = 10.0  # how long the store is searched for damage


def look(settings: Settings) -> Iterator[Finding]:
    """What is in the store's place, and what of 0.2.0 is not in it yet."""
    if os.path.lexists(settings.db_path):
        yield from _store(settings)
        return
    yield Finding(NOTE, "store", f"{settings.db_path} is not there yet: the first event makes it")
    old = os.path.join(settings.state_dir, OLD_NAME)
    if os.path.isfile(old):
        yield Finding(NOTE, "0.2.0", f"{old} was not taken over yet: run waitbus init, which leaves it where it is")


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        conn = open_reader(settings)
    except WaitbusError as error:
        yield Finding(BAD, "store", str(error))
        return
    try:
        read_after(conn, last_seq(conn) - 1, 1)
        version = migrate.check(conn, settings.db_path)
        mode = journal_mode(conn)
        found = troubles(conn, timeout=_CHECK_SEC)
    except (WaitbusError, sqlite3.Error) as error:
        yield Finding(BAD, "store", str(error))
        return
    finally:
        conn.close()
    yield _soundness(settings.db_path, found)
    yield Finding(OK, "schema", f"{version}, the newest this waitbus knows")
    if mode != "wal":
        yield Finding(BAD, "journal", f"it is {mode}, not wal: stop what uses the store, then run waitbus init")


def _soundness(path: str, found: list[str] | None) -> Finding:
    if found is None:
        check = f"sqlite3 {quote(path)} 'PRAGMA integrity_check'"
        return Finding(NOTE, "store", f"{path} opens; it is too big to be looked through here: {check}")
    if not found:
        return Finding(OK, "store", f"{path} is sound")
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Finding(BAD, "store", str(damaged(path, f"{found[0]}{more}")))
