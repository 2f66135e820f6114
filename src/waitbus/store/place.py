"""Whether the files that a connection has open are still those at its path.

A file that was deleted, moved away or replaced goes on to be written by whoever has it open, and nobody else ever reads
that. So a writer looks before it writes, and again after the commit: what it acknowledges is in the file at the path.
SQLite keeps three files for a store, and each of them can be taken away alone: the database, its log (`-wal`), and the
log's index (`-shm`), which also holds the locks.
"""

from __future__ import annotations

import os
import sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # Device and inode, which nobody else gets while the file is open; None where no file stands.
    File = tuple[int, int] | None

# The bytes of a database that SQLite locks to keep others from being alone with it: see `os_unix.c`.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


class Place:
    """The files at one path. Make it, open the connection, then `take`: from then on `stands` says if they are there.

    `log_bytes` is the size of the log when `holds` last looked.
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
        """Remember what the connection opened. False when the file was replaced since this was made: open it again."""
        self._files = self._look()
        return self._before is None or self._files[0] == self._before

    def may_write(self) -> bool:
        """Whether the index is still ours. It holds the locks: who has another one does not see what we write.

        For a writer, before it writes, to save it half of `stands`.
        """
        try:
            return _id(os.stat(self._index_path)) == self._files[2]
        except OSError:
            return self._files[2] is None

    def holds(self) -> bool:
        """Whether what was just committed is where others read: the database and the log are still ours.

        For a writer, after its commit. A file that stands while we have ours open never has the same inode.
        """
        try:
            database, log = os.stat(self.path), os.stat(self._log_path)
        except OSError:
            return self._look()[:2] == self._files[:2]
        self.log_bytes = log.st_size
        return _id(database) == self._files[0] and _id(log) == self._files[1]

    def stands(self) -> bool:
        """Whether all three files are still those that the connection has open."""
        return self._look() == self._files

    def has_log(self) -> bool:
        """Whether there is a log with something in it."""
        try:
            return os.stat(self._log_path).st_size > 0
        except OSError:
            return False

    def disown_log(self) -> None:
        """The log is not this store's: nothing of it must get into the file when the connection is closed."""
        self._is_log_ours = False

    def has_same_database(self, other: Place) -> bool:
        """Whether a connection about to be opened at `other` gets the file that ours has open."""
        return self._files[0] is not None and self._files[0] == other._before

    def has_database(self) -> bool:
        """Whether the file itself is still ours, whatever became of its log."""
        return _file(self.path) == self._files[0]

    def clear(self) -> None:
        """Make room for another file: a log that stayed behind when ours went would be read as the new one's."""
        database, log, _ = self._files
        if log is not None and _file(self._real_path) != database and _file(self._log_path) == log:
            set_aside(self._real_path)

    def _look(self) -> tuple[File, File, File]:
        return _file(self.path), _file(self._log_path), _file(self._index_path)

    def close(self, conn: sqlite3.Connection, close: Callable[[], None]) -> None:
        """Close a writer without harm to files that took the place of its own.

        The last one who closes a database takes the log back into it and deletes the log, both by name. SQLite itself
        leaves that when the database is not the one at the path any more.
        """
        self.clear()
        now, ours = (_file(self._real_path), *self._look()[1:]), self._files
        self._files = (None, None, None)  # what is closed has no files, and its inodes may be given again
        database, log, index = [one == other for one, other in zip(now, ours, strict=True)]
        if not self._is_log_ours:
            _close_only(conn, self._real_path, close)
        elif not database:
            close()
        elif now[1] is None and not log:
            # Nobody has opened the database since its log was deleted, or there would be a new one: ours has all.
            _checkpoint(conn)
            close()
        elif log and (index or now[2] is None):
            close()
        else:
            _close_only(conn, self._real_path, close)


def set_aside(path: str) -> None:
    """Take away the log and the index of a database that is not there any more; the log is kept under another name."""
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
    """Close, and let the database, its log and its index be as they are."""
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
    """Lock the database as a reader does, until the descriptor is closed. None where the system cannot."""
    import fcntl
    import struct

    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        lock = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except (OSError, AttributeError):  # macOS names no such lock
        return fd
    return fd
