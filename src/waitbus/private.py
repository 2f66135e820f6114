"""Whether a place is ours alone, and how one is made.

Ours means: of the user we run as, and closed to everybody else. Nothing is made where another user rules: root would
lock out the user whose home it was given (`sudo -E`), and what another user may rename is not ours.
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
    """A setting that cannot be read, or a place that is not ours alone: what to change, or the command to run."""


def ensure_private_dir(path: str, setting: str = STATE) -> None:
    """Make `path` and what is missing above it, 0700; refuse what is there when it is not a directory of ours alone.

    `setting` is the variable that names another place. Raises `SettingsError` with the path and what mends it.
    """
    try:
        check_private_dir(path, setting)
    except FileNotFoundError:
        make_dirs(path, setting)
        check_private_dir(path, setting)


def check_private_dir(path: str, setting: str = STATE) -> None:
    """Check that `path` is a directory of ours that nobody else may look into, or replace.

    Raises ``FileNotFoundError`` when nothing is there, else `SettingsError` with the path and what to do.
    """
    try:
        found = os.lstat(path)
        above = os.stat(os.path.dirname(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"cannot look at {path}: {error.strerror}; set {setting} to another place") from None
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
    """Check that `path` is a socket of ours that nobody else may connect to.

    Raises ``FileNotFoundError`` when nothing is there, else `SettingsError` with the path and what to do.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise SettingsError(f"cannot look at {path}: {error.strerror}; set {setting} to another place") from None
    mode = found.st_mode
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"{path} is not a socket: remove it: rm {quote(path)}")
    check_owner(path, found, setting)
    if mode & 0o077:
        raise SettingsError(
            f"{path} is open to other users (mode {stat.S_IMODE(mode):04o}): run chmod 600 {quote(path)}"
        )


def check_owner(path: str, found: os.stat_result, setting: str = STATE) -> None:
    """Raise `SettingsError` when `path`, whose status is `found`, belongs to another user."""
    if found.st_uid != os.geteuid():
        _refuse(path, found.st_uid, setting)


def make_dirs(path: str, setting: str = STATE) -> None:
    """Make the directory `path` and what is missing above it, 0700, below a directory that is ours or the system's.

    Raises `SettingsError` when the nearest directory that exists belongs to another user, or everybody may write there.
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
        except FileExistsError:  # another process was quicker; what it made is checked like any other
            continue
        except OSError as error:
            raise SettingsError(
                f"cannot make the directory {path}: {error.strerror}; set {setting} to a place you may write to"
            ) from None


def foreign_owner(path: str) -> int | None:
    """The other user, root or not, whose directory `path` is; None when it is ours.

    Where nothing is, the nearest directory above counts, and may be the system's. -1 when it cannot be looked at.
    """
    there, found = _nearest(path)
    if found is None:
        return -1
    ours = found.st_uid == os.geteuid() if there == path else _is_ground(found)
    return None if ours else found.st_uid


def can_make(path: str) -> bool:
    """Whether `path` is there, or we may make it."""
    there, found = _nearest(path)
    return found is not None and (there == path or os.access(there, os.W_OK | os.X_OK))


def _nearest(path: str) -> tuple[str, os.stat_result | None]:
    """`path`, or the nearest directory above it that exists, and its status: None when it cannot be looked at."""
    while True:
        try:
            return path, os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            path = os.path.dirname(path)
        except OSError:
            return path, None


def _check_ground(path: str, setting: str) -> None:
    """Check the directory in which something is to be made."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise SettingsError(f"cannot look at {path}: {error.strerror}; set {setting} to another place") from None
    if not _is_ground(found):
        _refuse(path, found.st_uid, setting)
    _check_closed(path, found, setting)


def _check_closed(path: str, found: os.stat_result, setting: str) -> None:
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise SettingsError(
            f"{path} can be written by everybody, who could replace what is in it: "
            f"run chmod o-w {quote(path)}, or set {setting} to another place"
        )


def _is_ground(found: os.stat_result) -> bool:
    """Whether something of ours may be made there: it is ours, the system's, or like /tmp, where each entry is safe."""
    shared = stat.S_ISVTX | stat.S_IWOTH
    return found.st_uid in (os.geteuid(), 0) or found.st_mode & shared == shared


def _refuse(path: str, owner: int, setting: str) -> Never:
    uid = os.geteuid()
    if uid == 0:  # root must not take it: its owner would be locked out
        mend = f"run it as user {owner}, or set"
    elif owner == 0:  # what root has made by mistake
        mend = f"run sudo chown -R {uid} {quote(path)}, or set"
    else:
        mend = "set"
    raise SettingsError(f"{path} belongs to user {owner}, not to you ({uid}): {mend} {setting} to a place of your own")


def quote(text: str) -> str:
    """`text` as one word for a POSIX shell (`shlex` would bring `re` along)."""
    if text and not text.strip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_"):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"
