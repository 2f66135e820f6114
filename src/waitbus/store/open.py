"""Opening the store: for a writer, which makes and migrates it, and for a reader, which changes nothing.

Every way in which the file can be unusable ends here in one `StoreError`, before anything is written.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys

from waitbus.private import SettingsError, check_owner, check_private_dir, ensure_private_dir, quote
from waitbus.store import migrate
from waitbus.store.errors import StoreBusy, StoreDamaged, StoreError, StoreMissing, explain, is_busy
from waitbus.store.place import Place, set_aside
from waitbus.store.wal import LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Never, TypeVar

    from waitbus.settings import Settings

    Opened = TypeVar("Opened", bound="Connection")

__all__ = [
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreMissing",
    "explain",
    "is_busy",
    "open_reader",
    "open_writer",
]

# What SQLite says where it can neither find nor make the files that it keeps beside a store.
_NO_FILES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_MADE = "SELECT min(applied_at_ns) FROM schema_migrations"
_TRIES = 5  # a file that is replaced while it is opened is opened again
# With `durability = "process"` a commit reaches the kernel, with "power-loss" the disk.
_SYNCHRONOUS = {"process": "NORMAL", "power-loss": "FULL"}


# Of every connection of this process that is open. SQLite keeps one index for all that have the same file open.
_open: list[Place] = []

# Bound here: a test that turns its program's `sqlite3.connect` to memory must not turn an event there, too.
_connect_to = sqlite3.connect


class Connection(sqlite3.Connection):
    """A connection in autocommit mode that knows which files it has open; `is_frozen`: on a disk that never changes."""

    place: Place
    is_frozen = False

    def close(self) -> None:
        super().close()
        if self.place in _open:
            _open.remove(self.place)


class Writer(Connection):
    """A connection that may write. Its files may have been replaced meanwhile: closing it does no harm to others."""

    def close(self) -> None:
        self.place.close(self, super().close)


def open_writer(settings: Settings, *, timeout: float = 5.0, cache_kib: int | None = None) -> Writer:
    """A connection that may write, in autocommit mode; the store is made or migrated when it has to be.

    `timeout` in seconds is SQLite's busy time-out, `cache_kib` the memory it may keep pages in (SQLite's own: 2,000).
    Any thread may use the connection, one at a time. Raises `StoreError` or `SettingsError`.
    """
    path = settings.db_path
    ensure_private_dir(settings.state_dir)
    check_directory(settings)
    for _ in range(_TRIES):
        _check_file(path, create=True)
        conn = _connect(Writer, path, "rw", timeout)
        try:
            version = migrate.check(conn, path)
            _refuse_foreign_log(conn)
            if version < migrate.VERSION:
                migrate.migrate(conn, path, timeout=timeout)
            conn.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[settings.durability]}")
            conn.execute("PRAGMA wal_autocheckpoint = 0")  # `wal.py` says who does it
            conn.execute(f"PRAGMA journal_size_limit = {LIMIT}")
            if cache_kib is not None:
                conn.execute(f"PRAGMA cache_size = -{cache_kib:d}")
            if sys.platform == "darwin" and settings.durability == "power-loss":
                conn.execute("PRAGMA fullfsync = ON")
        except BaseException as error:
            if _is_replaced(conn, error):
                continue
            _give_up(conn, error)
        if conn.place.take():
            return conn
        conn.close()
    raise StoreError(f"{path} is replaced again and again: look for what does that, then try again")


def open_reader(settings: Settings, *, timeout: float = 5.0) -> Connection:
    """A connection that cannot write. Raises `StoreError`; `StoreMissing` when there is no store yet.

    On a read-only disk a store is read as it is there.
    """
    path = settings.db_path
    try:
        check_private_dir(settings.state_dir)
    except FileNotFoundError:
        if os.path.dirname(path) == settings.state_dir:
            raise _nothing_yet(path) from None
    frozen = False
    for _ in range(_TRIES):
        _check_file(path, create=False)
        conn = _connect(Connection, path, "ro&immutable=1" if frozen else "ro", timeout)
        conn.is_frozen = frozen
        try:
            version = migrate.check(conn, path)
            _refuse_foreign_log(conn)
            if version == 0:
                raise _nothing_yet(path, "is empty")
            if version < migrate.VERSION:
                raise StoreError(f"{path} has schema {version}, older than ours: run waitbus init")
            conn.execute("PRAGMA query_only = ON")
        except BaseException as error:
            if not frozen and _needs_files_that_nobody_can_make(error, path):
                conn.close()
                frozen = True
                continue
            if _is_replaced(conn, error):
                continue
            _give_up(conn, error)
        if conn.place.take():
            return conn
        conn.close()
    raise StoreError(f"{path} is replaced again and again: look for what does that, then try again")


def _refuse_foreign_log(conn: Connection) -> None:
    """Raise `StoreDamaged` where the log beside the file is another store's: SQLite reads it as this one's.

    The moment at which a store was made tells one from another. Without the log, it is read from the file alone.
    """
    place = conn.place
    if conn.is_frozen or not place.has_log():
        return
    without = _connect(Connection, place.path, "ro&immutable=1", 0)
    try:
        made = without.execute(_MADE).fetchone()
    except sqlite3.Error:  # all of it is still in the log, or what is wrong shows elsewhere
        return
    finally:
        without.close()
    if made is not None and made != conn.execute(_MADE).fetchone():
        place.disown_log()
        log = quote(os.path.realpath(place.path) + "-wal")
        raise StoreDamaged(
            f"the log beside {place.path} is that of another store: stop what uses it, and move it away: "
            f"mv {log} {log}.bad"
        )


def _needs_files_that_nobody_can_make(error: BaseException, path: str) -> bool:
    """Whether SQLite could not make a log and an index to read a store by, because the disk is read-only.

    Nothing changes there, so neither is needed; but a log that is there holds events. Raises `StoreError` for that.
    """
    if not isinstance(error, sqlite3.OperationalError) or error.sqlite_errorcode & 0xFF not in _NO_FILES:
        return False
    real = os.path.realpath(path)
    directory = os.path.dirname(real)
    try:
        if os.access(directory, os.W_OK) and not os.statvfs(directory).f_flag & os.ST_RDONLY:
            return False
        log_bytes = os.stat(real + "-wal").st_size
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if log_bytes:
        raise StoreError(
            f"{path} is on a read-only disk, and its log was not taken back into it: "
            f"copy {quote(real)} and {quote(real + '-wal')} to a directory of yours, and set WAITBUS_DB to the copy"
        )
    return True


def _is_replaced(conn: Connection, error: BaseException) -> bool:
    """Whether the file went while it was opened; then it is closed, and how that failed says nothing of the new one."""
    if not isinstance(error, sqlite3.Error | StoreError) or conn.place.take():
        return False
    conn.close()
    return True


def _give_up(conn: Connection, error: BaseException) -> Never:
    conn.close()
    if isinstance(error, sqlite3.Error):
        raise explain(error, conn.place.path) from error
    raise error


def _connect(kind: type[Opened], path: str, mode: str, timeout: float) -> Opened:
    place = Place(path)
    for other in _open:
        if other.has_same_database(place) and not other.stands():
            raise StoreError(
                f"the log of {path} was taken away, and this process still has it open: close what it has open there, "
                "or start it again"
            )
    try:
        conn = _connect_to(
            address_of(path, mode),
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=kind,
        )
    except sqlite3.Error as error:
        raise explain(error, path) from error
    conn.place = place
    _open.append(place)
    return conn


def address_of(path: str, mode: str) -> str:
    """SQLite's address of a file: `mode` is `ro`, or `rw`, which does not make it; more options may follow it."""
    # Not `urllib`: what an address gives a meaning to is all that needs a disguise.
    return "file:{}?mode={}".format(path.replace("%", "%25").replace("?", "%3f").replace("#", "%23"), mode)


def _nothing_yet(path: str, why: str = "does not exist") -> StoreMissing:
    return StoreMissing(f"no events yet: {path} {why}; emit one (waitbus emit --help) or run waitbus init")


def check_directory(settings: Settings) -> None:
    """A file put elsewhere, by `WAITBUS_DB` or a symbolic link, must lie where nobody else can swap it.

    Raises `StoreError` when that directory cannot be looked at, `SettingsError` when it is not ours.
    """
    path = settings.db_path
    directories = {os.path.dirname(path)}
    if os.path.islink(path):
        directories.add(os.path.dirname(settings.store))
    for directory in directories - {settings.state_dir}:
        try:
            found = os.stat(directory)
        except OSError as error:
            raise StoreError(f"cannot open {path}: {directory}: {error.strerror}") from None
        check_owner(directory, found, "WAITBUS_DB")
        if found.st_mode & 0o022:
            raise SettingsError(
                f"{directory} can be written by other users (mode {stat.S_IMODE(found.st_mode):04o}): "
                f"run chmod go-w {quote(directory)}"
            )


def _check_file(path: str, *, create: bool) -> None:
    try:
        if create and not os.path.lexists(path):
            _make_file(path)
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise _nothing_yet(path) from None
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(
            f"{path} is not a file but a {'directory' if stat.S_ISDIR(found.st_mode) else 'special file'}: "
            f"move it away: mv {quote(path)} {quote(path + '.old')}"
        )
    check_owner(path, found)
    if found.st_mode & 0o022:
        raise SettingsError(f"{path} can be written by other users: run chmod 600 {quote(path)}")


def _make_file(path: str) -> None:
    """An empty file, whose mode SQLite gives to its other files; what a vanished store left of those is set aside."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:  # another process was quicker
        return
    os.close(fd)
    set_aside(path)
