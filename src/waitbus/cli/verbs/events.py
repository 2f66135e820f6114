"""`waitbus events`: the store in SQL, read-only, with a limit on rows and on time.

What may be asked is held three times over: by the statement's first word, by SQLite's authorizer, and by a connection
that cannot write.
"""

from __future__ import annotations

import re
import sqlite3
import time

from waitbus.cli.exitcodes import OK, TIMED_OUT
from waitbus.cli.flags import as_text, duration
from waitbus.event import WaitbusError
from waitbus.settings import load
from waitbus.store.errors import StoreError, explain
from waitbus.store.open import open_reader
from waitbus.store.read import Page, frame_at, read_page, seq_of
from waitbus.ui.event_format import add_format, printer
from waitbus.ui.output import note
from waitbus.ui.patience import Aside, OutputLate, outlet
from waitbus.ui.stdin import read_text
from waitbus.ui.streams import wait_for
from waitbus.ui.table import print_rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator
    from typing import Any

    Values = tuple[Any, ...]

ONLY_PRINTS = True  # what is printed is all it is for
NEWEST = 20
LIMIT = 1000
_TIMEOUT_SEC = 30.0
_PAGE = 500
_SQL_BYTES = 1 << 20
_OPERATIONS = 20_000  # of SQLite's machine between two looks at the clock: a few milliseconds

_DESCRIPTION = """\
Query the store in SQL: one SELECT (or WITH … SELECT) on the table `events`.
Without SQL, print the newest 20 events. The store is opened read-only: nothing
can be changed from here."""

_EPILOG = """\
Text is a table on a terminal, and tab-separated elsewhere. The columns include seq event_id received_at (ns) source
event_type owner repo conclusion status summary fields_json payload_json; pragma_table_xinfo('events') lists them all.
A source's own field is read from fields_json: json_extract(fields_json, '$.step').

exit codes: 0, 2 for SQL that cannot be run, 124 if it took longer than --timeout

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
    parser.add_argument(
        "sql", nargs="?", metavar="SQL", type=as_text, help="the statement; - reads it from standard input"
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, help=f"print at most N rows; 0: all (default: {LIMIT}; without SQL {NEWEST})"
    )
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        type=duration,
        help=f"stop after this time, even if not all is read (default: {_TIMEOUT_SEC:g}s for the statement alone)",
    )
    add_format(parser, "csv", "tsv")


def run(args: argparse.Namespace) -> int:
    """Ask, and print the answer. A slow reader does not hold up the store: what it has not read is kept aside."""
    sql = args.sql
    if sql == "-":
        sql = read_text("SQL", _SQL_BYTES)
    limit = args.limit if args.limit is not None else NEWEST if sql is None else LIMIT
    if limit < 0:
        raise SqlError("--limit takes a number of rows, or 0 for all")
    if sql is not None:
        check(sql)
    began = time.monotonic()
    stdout = outlet()
    aside = None if stdout is None else Aside(stdout)
    conn = open_reader(load())
    clock = _Clock(began + (_TIMEOUT_SEC if args.timeout is None else args.timeout))
    code, complaint = OK, None
    try:
        conn.set_authorizer(_authorize)
        conn.set_progress_handler(clock.look, _OPERATIONS)
        conn.text_factory = _decode
        if sql is None:
            _newest(conn, limit, args.format, clock)
        else:
            complaint = _answer(conn, sql, limit, args.format, clock)
    except (sqlite3.Error, StoreError) as error:
        clock.check(error, conn)
        code, complaint = TIMED_OUT, _stopped(args.timeout)
    except OutputLate:
        code, complaint = TIMED_OUT, _stopped(args.timeout)
    finally:
        conn.close()
    if aside is not None and not aside.drain(None if args.timeout is None else began + args.timeout):
        code, complaint = TIMED_OUT, f"stopped after {args.timeout:g} s: the rest of the answer was not read"
    if complaint is not None and (aside is None or wait_for(2, writing=True, seconds=0)):
        note(complaint)
    return code


def _stopped(timeout: float | None) -> str:
    seconds = _TIMEOUT_SEC if timeout is None else timeout
    return f"stopped after {seconds:g} s: narrow the statement, or give it more time with --timeout"


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

    def check_row(self) -> None:
        """Between two rows: the statement may be quick, and what is made of it slow. Raises `OutputLate`."""
        if self.look():
            if self._interrupted:
                raise KeyboardInterrupt
            raise OutputLate

    def check(self, error: sqlite3.Error | StoreError, conn: sqlite3.Connection) -> None:
        """Return if the statement ended because of its time; raise what every other end means."""
        if isinstance(error, StoreError):
            if not isinstance(error.__cause__, sqlite3.Error):
                raise error
            error = error.__cause__
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code == sqlite3.SQLITE_INTERRUPT:
            if not self._late:
                raise KeyboardInterrupt
            return
        if code & 0xFF == sqlite3.SQLITE_AUTH:
            raise SqlError("that is not to be done from here: only reading the store is") from error
        if code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE):
            raise SqlError(f"SQL: {error}; {_hint(str(error))}") from error
        raise explain(error, conn) from error


def _hint(error: str) -> str:
    name = error.removeprefix("no such column: ")
    if name == error or not name.isidentifier():
        return "the columns are named by: pragma_table_xinfo('events')"
    return f"a source's own field is read as: json_extract(fields_json, '$.{name}')"


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


def _newest(conn: sqlite3.Connection, limit: int, form: str, clock: _Clock) -> None:
    if form in ("csv", "tsv"):
        _answer(conn, _NEWEST.format(limit or -1), 0, form, clock)
        return
    found = conn.execute(
        "SELECT min(seq), max(seq) FROM (SELECT seq FROM events ORDER BY seq DESC LIMIT ?)", (limit or -1,)
    ).fetchone()
    if found[0] is None:
        return
    show = printer(form)
    page = Page(found[0] - 1)
    while page.end < found[1]:
        page = read_page(conn, page.end, _PAGE, upto=found[1])
        for _, frame in page.rows:
            clock.check_row()
            show(frame)


_NEWEST = (
    "SELECT event_id, received_at, source, event_type, owner, repo, conclusion, summary "
    "FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq DESC LIMIT {}) ORDER BY seq"
)


def _answer(conn: sqlite3.Connection, sql: str, limit: int, form: str, clock: _Clock) -> str | None:
    """Print the rows; what is to be said about them."""
    try:
        cursor = conn.execute(sql)
    except sqlite3.ProgrammingError as error:  # two statements, or a placeholder
        raise SqlError(f"SQL: {error}") from error
    names = [column[0] for column in cursor.description]
    rows = _Rows(cursor, limit, clock)
    if form == "cloudevents":
        _cloudevents(conn, names, rows)
    else:
        print_rows(names, rows, form)
    return f"cut after {limit} rows: --limit 0 gives all" if rows.cut else None


class _Rows:
    """The rows of an answer, `limit` of them at most; 0 means no limit. `cut` says whether there were more."""

    def __init__(self, cursor: sqlite3.Cursor, limit: int, clock: _Clock) -> None:
        self._cursor = cursor
        self._limit = limit
        self._clock = clock
        self.cut = False

    def __iter__(self) -> Iterator[Values]:
        for number, row in enumerate(self._cursor, 1):
            if number > self._limit > 0:
                self.cut = True
                return
            self._clock.check_row()
            yield row


def _cloudevents(conn: sqlite3.Connection, names: list[str], rows: Iterable[Values]) -> None:
    known = [name for name in ("event_id", "seq") if name in names]
    if not known:
        raise SqlError("--format cloudevents needs the column event_id or seq in the answer: SELECT event_id …")
    show = printer("cloudevents")
    for row in rows:
        frame = None
        for name in known:  # a foreign program may have given no event_id
            value = row[names.index(name)]
            seq = value if name == "seq" else seq_of(conn, str(value))
            if frame is None and isinstance(seq, int):
                frame = frame_at(conn, seq)
        if frame is not None:
            show(frame)
