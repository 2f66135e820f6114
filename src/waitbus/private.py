"""Checks that files and directories are private, and creates private directories.

Private means that they belong to the user who runs this process and are closed to all others. Nothing is created in
another user's directory. That user could rename it; and if root creates something there (with `sudo -E`), that user is
locked out.
"""

from __future__ import annotations

import os
import stat

from waitbus.event import WaitbusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Never

STATE = "WAITBUS_STATE_DIR"
RUNTIME = "WAITBUS_RUNTIME_DIR"


class SettingsError(WaitbusError):
    """A setting is invalid or a path is not private. The text says what to change or which command to run."""


def ensure_private_dir(path: str, setting: str = STATE) -> None:
    """Create the directory `path`, with missing parents, mode 0700. If it exists, check that it is private.

    Raises `SettingsError`, whose text names the path and what to do. `setting` is the variable that can name another
    path.
    """
    try:
        check_private_dir(path, setting)
    except FileNotFoundError:
        make_dirs(path, setting)
        check_private_dir(path, setting)


def check_private_dir(path: str, setting: str = STATE) -> None:
    """Check that `path` is a directory of this user that no other user can open or replace.

    Raises ``FileNotFoundError`` if it does not exist, else `SettingsError`, whose text names the path and what to do.
    """
    try:
        found = os.lstat(path)
        above = os.stat(os.path.dirname(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"cannot look at {path}: {error.strerror}; set {setting} to another path") from None
    mode = found.st_mode
    if stat.S_ISLNK(mode):
        raise SettingsError(
            f"{path} is a symbolic link: use the directory itself, or remove the link: rm {quote(path)}"
        )
    if not stat.S_ISDIR(mode):
        raise SettingsError(f"{path} is not a directory: move it away: mv {quote(path)} {quote(path + '.old')}")
    check_owner(path, found, setting)
    if mode & 0o077:
        raise SettingsError(
            f"{path} is open to other users (mode {stat.S_IMODE(mode):04o}): run chmod 700 {quote(path)}"
        )
    _check_closed(os.path.dirname(path), above, setting)


def check_private_socket(path: str, setting: str = RUNTIME) -> None:
    """Check that `path` is a socket of this user that no other user can connect to.

    Raises ``FileNotFoundError`` if it does not exist, else `SettingsError`, whose text names the path and what to do.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise SettingsError(f"cannot look at {path}: {error.strerror}; set {setting} to another path") from None
    mode = found.st_mode
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"{path} is not a socket: remove it: rm {quote(path)}")
    check_owner(path, found, setting)
    if mode & 0o077:
        raise SettingsError(
            f"{path} is open to other users (mode {stat.S_IMODE(mode):04o}): run chmod 600 {quote(path)}"
        )


def check_owner(path: str, found: os.stat_result, setting: str = STATE) -> None:
    """Raise `SettingsError` if `path`, whose status is `found`, belongs to another user."""
    if found.st_uid != os.geteuid():
        _refuse(path, found.st_uid, setting)


def make_dirs(path: str, setting: str = STATE) -> None:
    """Create the directory `path`, with missing parents, mode 0700.

    Raises `SettingsError` if the nearest directory that exists belongs to another user (but not root or a shared one,
    like /tmp), or if everybody may write there.
    """
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        parent = os.path.dirname(path)
        if parent == path:
            break
        path = parent
    _check_ground(path, setting)
    for path in reversed(missing):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:  # another process was faster; callers check its directory like any other
            continue
        except OSError as error:
            raise SettingsError(
                f"cannot create the directory {path}: {error.strerror}; set {setting} to a path you may write to"
            ) from None


def foreign_owner(path: str) -> int | None:
    """Return the uid of the other user who owns `path`, or None if this user owns it. -1 if it cannot be looked at.

    If `path` does not exist, the nearest directory above it counts, and that may also be root's or a shared one.
    """
    there, found = _nearest(path)
    if found is None:
        return -1
    ours = found.st_uid == os.geteuid() if there == path else _is_ground(found)
    return None if ours else found.st_uid


def can_make(path: str) -> bool:
    """Whether `path` exists or this user may create it."""
    there, found = _nearest(path)
    return found is not None and (there == path or os.access(there, os.W_OK | os.X_OK))


def _nearest(path: str) -> tuple[str, os.stat_result | None]:
    """Return `path`, or else the nearest directory above it that exists, and its status (None if that is denied)."""
    while True:
        try:
            return path, os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            path = os.path.dirname(path)
        except OSError:
            return path, None


def _check_ground(path: str, setting: str) -> None:
    """Check a directory before something is created in it."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise SettingsError(f"cannot look at {path}: {error.strerror}; set {setting} to another path") from None
    if not _is_ground(found):
        _refuse(path, found.st_uid, setting)
    _check_closed(path, found, setting)


def _check_closed(path: str, found: os.stat_result, setting: str) -> None:
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise SettingsError(
            f"everybody may write to {path} and could replace what is in it: "
            f"run chmod o-w {quote(path)}, or set {setting} to another path"
        )


def _is_ground(found: os.stat_result) -> bool:
    """Whether files may be created in a directory: it is this user's or root's, or shared and sticky like /tmp."""
    shared = stat.S_ISVTX | stat.S_IWOTH
    return found.st_uid in (os.geteuid(), 0) or found.st_mode & shared == shared


def _refuse(path: str, owner: int, setting: str) -> Never:
    uid = os.geteuid()
    if uid == 0:  # root must not chown it: its owner would be locked out
        mend = f"run waitbus as user {owner}, or set"
    elif owner == 0:  # root probably created it by mistake
        mend = f"run sudo chown -R {uid} {quote(path)}, or set"
    else:
        mend = "set"
    raise SettingsError(f"{path} belongs to user {owner}, not to you ({uid}): {mend} {setting} to a path of your own")


def quote(text: str) -> str:
    """Quote `text` for a POSIX shell. `shlex.quote` does the same, but importing it is slow."""
    if text and not text.strip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_"):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"
