"""Starts a command: finds it in PATH as ``execvp`` does, and resets signals as a shell would.

An executable file in no format that the kernel knows (a script without a ``#!`` line) is run with ``sh``, as POSIX
demands.
"""

from __future__ import annotations

import errno
import os
import signal

from waitbus.event import WaitbusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    Actions = Sequence[tuple[Any, ...]]

NOT_RUNNABLE, NOT_FOUND, SIGNALLED = 126, 127, 128
_SHELL = "/bin/sh"
# Python ignores these signals, but other programs expect the default action.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
# After these errors `execvp` tries the next directory of PATH.
_LOOK_ON = (errno.EACCES, errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ENODEV, errno.ETIMEDOUT)
# Errors that may go away: the machine lacks some resource right now.
_TRANSIENT = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)


class CannotRun(WaitbusError):
    """The command could not be started. `code` is the exit code a shell would use, `errno` is the system's error."""

    def __init__(self, command: str, error: OSError) -> None:
        self.errno = error.errno or 0
        self.code = NOT_FOUND if self.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_RUNNABLE
        reason = error.strerror
        if self.errno == errno.ENOENT:
            # If the file exists, the kernel means the interpreter of the script.
            missing = "/" in command and os.path.lexists(command)
            reason = "the interpreter in its #! line does not exist" if missing else "there is no such command"
        super().__init__(f"cannot run {command}: {reason}")

    @property
    def may_pass(self) -> bool:
        """Whether starting the same command may work a moment later."""
        return self.errno in _TRANSIENT


def start(
    argv: Sequence[str],
    environ: Mapping[bytes, bytes],
    *,
    own_group: bool = False,
    actions: Actions = (),
    mask: Iterable[int] = (),
) -> int:
    """Start a command and return its pid. Raises `CannotRun`.

    The command is looked up in this process's PATH, not in that of `environ`. `own_group` makes it the leader of a new
    process group. `actions` are the file actions of `os.posix_spawn`. `mask` is the set of signals blocked in it.
    """
    options: dict[str, Any] = {"file_actions": actions, "setsigmask": mask, "setsigdef": _IGNORED_BY_PYTHON}
    if own_group:
        options["setpgroup"] = 0
    reason = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in _candidates(argv[0]):
        try:
            os.stat(path)  # cheaper than a process that fails to exec
            return _spawn(path, argv, environ, options)
        except OSError as error:
            if error.errno not in _LOOK_ON or "/" in argv[0]:
                raise CannotRun(argv[0], error) from None
            if error.errno == errno.EACCES:
                reason = error
    raise CannotRun(argv[0], reason)


def _spawn(path: str, argv: Sequence[str], environ: Mapping[bytes, bytes], options: dict[str, Any]) -> int:
    try:
        return os.posix_spawn(path, list(argv), environ, **options)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    return os.posix_spawn(_SHELL, [_SHELL, path, *argv[1:]], environ, **options)


def _candidates(command: str) -> list[str]:
    """Return the paths to try, in order. An empty entry of PATH means the working directory."""
    if "/" in command:
        return [command]
    path = os.environ.get("PATH")
    if path is None:
        path = os.confstr("CS_PATH") or os.defpath
    return [os.path.join(directory or ".", command) for directory in path.split(":")]


def exit_code(status: int) -> int:
    """Return a shell's exit code for a wait status: the command's code, or 128+n if signal n killed it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALLED - code
