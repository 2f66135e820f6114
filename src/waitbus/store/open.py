"""Opens the store: for a writer, which creates and migrates it, or for a reader, which changes nothing.

If the file is unusable in any way, opening it raises a `StoreError` before anything is written.
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

# SQLite's errors if it can neither find nor create the log and its index.
_NO_FILES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_CREATED = "SELECT min(applied_at_ns) FROM schema_migrations"
_TRIES = 5  # how often to open a file that is replaced while it is opened
# With `durability = "process"` a commit reaches the kernel, with "power-loss" the disk.
_SYNCHRONOUS = {"process": "NORMAL", "power-loss": "FULL"}


# The files of every open connection of this process. SQLite shares one index among all connections to the same file.
_open: list[Place] = []

# Bound at import: a test that makes its program's `sqlite3.connect` open a database in memory must not redirect events.
_connect_to = sqlite3.connect


class Connection(sqlite3.Connection):
    """A connection in autocommit mode that knows its files. `is_frozen` says that they are opened as immutable."""

    place: Place
    is_frozen = False

    def close(self) -> None:
        super().close()
        if self.place in _open:
            _open.remove(self.place)


class Writer(Connection):
    """A connection that may write. Closing it does no harm to files that have replaced its own."""

    def close(self) -> None:
        self.place.close(self, super().close)


def open_writer(settings: Settings, *, timeout: float = 5.0, cache_kib: int | None = None) -> Writer:
    """Open the store for writing, in autocommit mode. Creates or migrates the store if needed.

    `timeout` in seconds is SQLite's busy time-out. `cache_kib` is the size of SQLite's page cache (its default: 2,000).
    Any thread may use the connection, but only one at a time. Raises `StoreError` or `SettingsError`.
    """
    path = settings.db_path
    ensure_private_dir(settings.state_dir)
    check_directory(settings)
    for _ in range(_TRIES):
        _check_file(settings, create=True)
        conn = _connect(Writer, path, "rw", timeout)
        try:
            version = migrate.check(conn, path)
            _refuse_foreign_log(conn)
            if version < migrate.VERSION:
                migrate.migrate(conn, path, timeout=timeout)
            conn.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[settings.durability]}")
            conn.execute("PRAGMA wal_autocheckpoint = 0")  # see `wal` for who checkpoints
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
    raise StoreError(f"{path} is replaced again and again: find the program that does that, then try again")


def open_reader(settings: Settings, *, timeout: float = 5.0) -> Connection:
    """Open the store for reading. Raises `StoreError`, or `StoreMissing` if there is no store yet.

    On a read-only disk, where SQLite cannot create its other files, the store is opened as immutable.
    """
    path = settings.db_path
    try:
        check_private_dir(settings.state_dir)
    except FileNotFoundError:
        if os.path.dirname(path) == settings.state_dir:
            raise _nothing_yet(path) from None
    frozen = False
    for _ in range(_TRIES):
        _check_file(settings, create=False)
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
            if not frozen and _is_on_read_only_disk(error, path):
                conn.close()
                frozen = True
                continue
            if _is_replaced(conn, error):
                continue
            _give_up(conn, error)
        if conn.place.take():
            return conn
        conn.close()
    raise StoreError(f"{path} is replaced again and again: find the program that does that, then try again")


def _refuse_foreign_log(conn: Connection) -> None:
    """Raise `StoreDamaged` if the log beside the file belongs to another store: SQLite would read it as this one's.

    The time of creation tells two stores apart. It is read once with the log and once from the file alone.
    """
    place = conn.place
    if conn.is_frozen or not place.has_log():
        return
    without = _connect(Connection, place.path, "ro&immutable=1", 0)
    try:
        created = without.execute(_CREATED).fetchone()
    except sqlite3.Error:  # everything is still in the log, or another check will report what is wrong
        return
    finally:
        without.close()
    if created is not None and created != conn.execute(_CREATED).fetchone():
        place.disown_log()
        log = quote(os.path.realpath(place.path) + "-wal")
        raise StoreDamaged(
            f"the log beside {place.path} belongs to another store: stop the programs that use it, and move it away: "
            f"mv {log} {log}.bad"
        )


def _is_on_read_only_disk(error: BaseException, path: str) -> bool:
    """Whether `error` means that SQLite could not create the log and its index because the disk is read-only.

    Nothing changes on such a disk, so SQLite needs neither. But if there is a log, it holds events that cannot be read:
    that raises `StoreError`.
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
            f"{path} is on a read-only disk, and part of it is still in its log: "
            f"copy {quote(real)} and {quote(real + '-wal')} to a directory of yours, and set WAITBUS_DB to the copy"
        )
    return True


def _is_replaced(conn: Connection, error: BaseException) -> bool:
    """Whether the file was replaced while it was opened, so that `error` says nothing about the new file.

    If so, this closes the connection.
    """
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
                f"the log of {path} was deleted while this process has the store open: "
                "close its other connections to it, or restart the process"
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
    """Return SQLite's URI of a file. `mode` is `ro` or `rw` (neither creates the file); `&option=value` may follow."""
    # `urllib` is slow to import, and only these three characters have a meaning in such a URI.
    return "file:{}?mode={}".format(path.replace("%", "%25").replace("?", "%3f").replace("#", "%23"), mode)


def _nothing_yet(path: str, why: str = "does not exist") -> StoreMissing:
    return StoreMissing(f"no events yet: {path} {why}; emit one (waitbus emit --help) or run waitbus init")


def check_directory(settings: Settings) -> None:
    """Check that no other user can replace a store that `WAITBUS_DB` or a symbolic link puts elsewhere.

    Raises `StoreError` if its directory cannot be looked at, and `SettingsError` if others own it or may write to it.
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


def _check_file(settings: Settings, *, create: bool) -> None:
    path = settings.db_path
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
    _check_readers(settings)


def _check_readers(settings: Settings) -> None:
    """Raise `SettingsError` if other users can read the store: they can enter its directory and read a file in it."""
    if os.path.dirname(settings.db_path) == settings.state_dir and not os.path.islink(settings.db_path):
        return
    real = settings.store
    if not os.stat(os.path.dirname(real)).st_mode & 0o011:
        return
    for path in (real, real + "-wal", real + "-shm"):
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except FileNotFoundError:
            continue
        if mode & 0o077:
            raise SettingsError(f"{path} can be read by other users (mode {mode:04o}): run chmod 600 {quote(path)}")


def _make_file(path: str) -> None:
    """Create an empty file. SQLite gives its mode to its other files; those of a store that is gone are set aside."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:  # another process was quicker
        return
    os.close(fd)
    set_aside(path)
