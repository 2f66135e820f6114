"""`waitbus events`: the store in SQL, read-only, with a limit on rows and on time.

What may be asked is held three times over: by the statement's first word, by SQLite's authorizer, and by a connection
that cannot write.
"""

from __future__ import annotations

import re
import sqlite3
import time

from waitbus.cli.arguments import as_text, duration
from waitbus.cli.output import note
from waitbus.cli.rows import print_rows
from waitbus.cli.show import add_format, printer
from waitbus.cli.stdin import read_text
from waitbus.event import WaitbusError
from waitbus.settings import load
from waitbus.store.errors import explain
from waitbus.store.open import open_reader
from waitbus.store.read import event_with_payload, read_after

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    Values = tuple[Any, ...]

ONLY_PRINTS = True  # what is printed is all it is for
NEWEST = 20
LIMIT = 1000
TIMED_OUT = 124
_TIMEOUT_SEC = 30.0
_SQL_BYTES = 1 << 20
_CELL = 60  # characters of a table's cell
_OPERATIONS = 20_000  # of SQLite's machine between two looks at the clock: a few milliseconds

_DESCRIPTION = """\
Ask the store in SQL: one SELECT (or WITH … SELECT) on the table `events`, in
which every field is a column. Without SQL: the newest 20 events. The store is
opened read-only; nothing can be changed from here."""

_EPILOG = """\
Text is a table on a terminal and tab-separated elsewhere. Among the columns: seq event_id received_at (ns) source
event_type owner repo conclusion status summary fields_json payload_json, and all that --match knows by a plain name.

exit codes: 0, 2 for SQL that cannot be run, 124 when it took longer than --timeout

examples:
  waitbus events
  waitbus events 'SELECT source, count(*) FROM events GROUP BY source'
  waitbus events "SELECT nodeids_failed FROM events WHERE source = 'pytest' ORDER BY seq DESC LIMIT 1" --json
  waitbus events --format csv --limit 0 'SELECT * FROM events' > events.csv
  waitbus events - < report.sql
"""


class SqlError(WaitbusError):
    """A statement that is not to be run, or that SQLite cannot run."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("sql", nargs="?", metavar="SQL", type=as_text, help="the statement; - reads it from stdin")
    parser.add_argument(
        "--limit", metavar="N", type=int, help=f"rows at most, 0 for all (default: {LIMIT}; without SQL {NEWEST})"
    )
    parser.add_argument(
        "--timeout", metavar="DURATION", type=duration, default=_TIMEOUT_SEC, help="stop it after this time (30s)"
    )
    add_format(parser, "csv", "tsv")


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    sql = args.sql
    if sql == "-":
        sql = read_text("SQL", _SQL_BYTES)
    limit = args.limit if args.limit is not None else NEWEST if sql is None else LIMIT
    if limit < 0:
        raise SqlError("--limit takes a number of rows, or 0 for all")
    if sql is not None:
        check(sql)
    conn = open_reader(load())
    clock = _Clock(time.monotonic() + args.timeout)
    try:
        conn.set_authorizer(_authorize)
        conn.set_progress_handler(clock.look, _OPERATIONS)
        conn.text_factory = _decode
        if sql is None:
            _newest(conn, limit, args.format)
        else:
            _answer(conn, sql, limit, args.format)
    except sqlite3.Error as error:
        return clock.explain(error, conn, args.timeout)
    finally:
        conn.close()
    return 0


def check(sql: str) -> None:
    """Refuse what is no SELECT. Raises `SqlError`."""
    bare = re.sub(r"\A(\s|;|--[^\n]*(\n|\Z)|/\*.*?(\*/|\Z))*", "", sql, flags=re.DOTALL)
    word = re.match(r"[A-Za-z]*", bare)
    if word is None or word[0].upper() not in ("SELECT", "WITH"):
        raise SqlError("only SELECT, or WITH … SELECT, is run here, such as: waitbus events 'SELECT * FROM events'")


class _Clock:
    """Stops a statement that takes too long, or on Ctrl-C: SQLite asks from time to time."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._interrupted = False
        self._late = False

    def look(self) -> int:
        try:
            self._late = time.monotonic() > self._deadline
        except KeyboardInterrupt:  # raised in whatever Python code runs when it comes
            self._interrupted = True
        return self._late or self._interrupted

    def explain(self, error: sqlite3.Error, conn: sqlite3.Connection, timeout: float) -> int:
        """The exit code of a statement that ended early; raises for every other end."""
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            if not self._late:
                raise KeyboardInterrupt
            note(f"stopped after {timeout:g} s: narrow the statement, or give it more time with --timeout")
            return TIMED_OUT
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code & 0xFF == sqlite3.SQLITE_AUTH:
            raise SqlError("that is not to be done from here: only reading the store is") from error
        if code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE):
            raise SqlError(f"SQL: {error}; the columns are named by: pragma_table_xinfo('events')") from error
        raise explain(error, conn) from error


_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info"})


def _authorize(action: int, first: str | None, second: str | None, _database: str | None, _inner: str | None) -> int:
    allowed = (
        action in _READING
        or (action == sqlite3.SQLITE_FUNCTION and second != "load_extension")
        or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS)
        # So SQLite declares its table-valued functions, json_each among them; the connection cannot write.
        or (action == sqlite3.SQLITE_UPDATE and first == "sqlite_master")
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _newest(conn: sqlite3.Connection, limit: int, form: str) -> None:
    if form in ("csv", "tsv"):
        _answer(conn, _NEWEST.format(limit or -1), 0, form)
        return
    oldest = conn.execute(
        "SELECT min(seq) FROM (SELECT seq FROM events ORDER BY seq DESC LIMIT ?)", (limit or -1,)
    ).fetchone()[0]
    show = printer(form)
    for _, frame in read_after(conn, (oldest or 1) - 1, limit or -1):
        show(frame)


_NEWEST = (
    "SELECT event_id, received_at, source, event_type, owner, repo, conclusion, summary "
    "FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq DESC LIMIT {}) ORDER BY seq"
)


def _answer(conn: sqlite3.Connection, sql: str, limit: int, form: str) -> None:
    try:
        cursor = conn.execute(sql)
    except sqlite3.ProgrammingError as error:  # two statements, or a placeholder
        raise SqlError(f"SQL: {error}") from error
    names = [column[0] for column in cursor.description]
    rows = _limited(cursor, limit)
    if form == "cloudevents":
        _cloudevents(conn, names, rows)
    else:
        print_rows(names, rows, form)


def _limited(cursor: sqlite3.Cursor, limit: int) -> Iterator[Values]:
    for number, row in enumerate(cursor, 1):
        if number > limit > 0:
            note(f"cut after {limit} rows: --limit 0 gives all")
            return
        yield row


def _cloudevents(conn: sqlite3.Connection, names: list[str], rows: Iterator[Values]) -> None:
    if "event_id" not in names:
        raise SqlError("--format cloudevents needs the column event_id in the answer: SELECT event_id …")
    at = names.index("event_id")
    show = printer("cloudevents")
    for row in rows:
        event = event_with_payload(conn, str(row[at]))
        if event is not None:
            show(event.as_frame())
