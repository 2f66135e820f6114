"""Checks whether the files that a connection has open are still the ones at its path.

A process that has a file open can go on writing to it after the file was deleted, moved or replaced, but nobody else
will ever read that. So a writer checks before it writes and again after the commit. An event is acknowledged only if
it is in the file at the path.

SQLite keeps three files for a store, and each can be deleted alone: the database, its log (`-wal`), and the index of
the log (`-shm`), which also holds the locks.
"""

from __future__ import annotations

import os
import sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # Device and inode, which no other file can have while this one is open. None if there is no file.
    File = tuple[int, int] | None

# The bytes of a database on which SQLite holds a shared lock while it has the file open: see `os_unix.c`.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


class Place:
    """The three files at one path.

    Create it, open the connection, then call `take`. From then on `stands` says whether the connection's files are
    still at the path. `log_bytes` is the size of the log when `holds` last looked.
    """

    __slots__ = ("_before", "_files", "_index_path", "_is_log_ours", "_log_path", "_real_path", "log_bytes", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.log_bytes = 0
        # SQLite puts its other files beside the file itself, not beside a link to it.
        self._real_path = real = os.path.realpath(path)
        self._log_path = real + "-wal"
        self._index_path = real + "-shm"
        self._before = _file(path)
        self._is_log_ours = True
        self._files: tuple[File, File, File] = (None, None, None)

    def take(self) -> bool:
        """Remember the files that the connection opened.

        Returns False if the database was replaced since this object was created. The caller must then open it again.
        """
        self._files = self._look()
        return self._before is None or self._files[0] == self._before

    def may_write(self) -> bool:
        """Whether the index is still ours. A process with another index has other locks and does not see our writes.

        A writer calls this before it writes. It costs half of `stands`.
        """
        try:
            return _id(os.stat(self._index_path)) == self._files[2]
        except OSError:
            return self._files[2] is None

    def holds(self) -> bool:
        """Whether the last commit is where others read it: the database and the log at the path are still ours.

        A writer calls this after its commit. No other file can have the inode of one that we have open.
        """
        try:
            database, log = os.stat(self.path), os.stat(self._log_path)
        except OSError:
            return self._look()[:2] == self._files[:2]
        self.log_bytes = log.st_size
        return _id(database) == self._files[0] and _id(log) == self._files[1]

    def stands(self) -> bool:
        """Whether all three files are still the ones that the connection has open."""
        return self._look() == self._files

    def has_log(self) -> bool:
        """Whether there is a log that is not empty."""
        try:
            return os.stat(self._log_path).st_size > 0
        except OSError:
            return False

    def disown_log(self) -> None:
        """Note that the log belongs to another store, so that closing the connection does not checkpoint it."""
        self._is_log_ours = False

    def has_same_database(self, other: Place) -> bool:
        """Whether a connection that is about to open the file at `other` will get the file that ours has open."""
        return self._files[0] is not None and self._files[0] == other._before

    def has_database(self) -> bool:
        """Whether the database file is still ours, whatever became of its log."""
        return _file(self.path) == self._files[0]

    def clear(self) -> None:
        """Move our log away if our database is gone: SQLite would read it as the log of the next database."""
        database, log, _ = self._files
        if log is not None and _file(self._real_path) != database and _file(self._log_path) == log:
            set_aside(self._real_path)

    def _look(self) -> tuple[File, File, File]:
        return _file(self.path), _file(self._log_path), _file(self._index_path)

    def close(self, conn: sqlite3.Connection, close: Callable[[], None]) -> None:
        """Close a writer's connection without harm to files that have replaced its own.

        When the last connection to a database is closed, SQLite copies the log into it and deletes the log by its name.
        SQLite skips this by itself if another database is at the path, but not if only the log or its index is another.
        """
        self.clear()
        now, ours = (_file(self._real_path), *self._look()[1:]), self._files
        self._files = (None, None, None)  # once closed, its inodes may be reused
        database, log, index = [one == other for one, other in zip(now, ours, strict=True)]
        if not self._is_log_ours:
            _close_only(conn, self._real_path, close)
        elif not database:
            close()
        elif now[1] is None and not log:
            # The log was deleted, and nobody has opened the database since, or there would be a new log. So ours holds
            # everything, and it can still be copied into the database.
            _checkpoint(conn)
            close()
        elif log and (index or now[2] is None):
            close()
        else:
            _close_only(conn, self._real_path, close)


def set_aside(path: str) -> None:
    """Rename the log and delete the index of a database that is gone."""
    import contextlib  # half a millisecond that no start of `waitbus emit` should pay

    path = os.path.realpath(path)
    with contextlib.suppress(OSError):
        os.replace(path + "-wal", path + "-wal.old")
    with contextlib.suppress(OSError):
        os.unlink(path + "-shm")


def _checkpoint(conn: sqlite3.Connection) -> None:
    """Copy the log into the database. A failure loses nothing: the log stays."""
    try:
        conn.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    except sqlite3.Error:
        return


def _file(path: str) -> File:
    try:
        return _id(os.stat(path))
    except OSError:
        return None


def _id(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _close_only(conn: sqlite3.Connection, path: str, close: Callable[[], None]) -> None:
    """Close the connection and leave the database, its log and its index as they are."""
    option = getattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE", None)  # Python 3.12 and later
    if option is not None:
        conn.setconfig(option, True)  # type: ignore[attr-defined]
        close()
        return
    # SQLite checkpoints on close if it finds itself alone with the database. A lock that we hold through another open
    # file tells it that it is not alone.
    fd = _share_lock(path)
    try:
        close()
    finally:
        if fd is not None:
            os.close(fd)


def _share_lock(path: str) -> int | None:
    """Lock the database as a reader does, until the returned descriptor is closed. None if that is impossible."""
    import fcntl
    import struct

    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        lock = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except (OSError, AttributeError):  # Python has no name for such a lock on macOS
        return fd
    return fd
