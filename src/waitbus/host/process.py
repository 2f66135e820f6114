"""Starting a command: found and run as ``execvp`` does it, with the signals that a shell would give it.

A file that is executable and no program, a script without its ``#!`` line, is run by ``sh``, as POSIX has it.
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
# Python ignores these; a program expects to be ended by them.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
# After these `execvp` looks into the next directory of PATH.
_LOOK_ON = (errno.EACCES, errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ENODEV, errno.ETIMEDOUT)
# What another try may find otherwise: the machine has too little of something just now.
_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY)


class CannotRun(WaitbusError):
    """The command could not be started. `code` is what a shell would exit with, `errno` is the system's reason."""

    def __init__(self, command: str, error: OSError) -> None:
        self.errno = error.errno or 0
        self.code = NOT_FOUND if self.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_RUNNABLE
        reason = error.strerror
        if self.errno == errno.ENOENT:
            # For a script the system means the interpreter.
            missing = "/" in command and os.path.lexists(command)
            reason = "the interpreter after its #! is not there" if missing else "there is no such command"
        super().__init__(f"cannot run {command}: {reason}")

    @property
    def may_pass(self) -> bool:
        """Whether the same command may be run a moment later."""
        return self.errno in _PASSING


def start(
    argv: Sequence[str],
    environ: Mapping[bytes, bytes],
    *,
    own_group: bool = False,
    actions: Actions = (),
    mask: Iterable[int] = (),
) -> int:
    """Start a command; its pid. Raises `CannotRun`.

    `own_group` makes it the leader of a process group. `actions` are `os.posix_spawn`'s, `mask` is what it finds
    blocked. PATH is ours.
    """
    options: dict[str, Any] = {"file_actions": actions, "setsigmask": mask, "setsigdef": _IGNORED_BY_PYTHON}
    if own_group:
        options["setpgroup"] = 0
    reason = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in _candidates(argv[0]):
        try:
            os.stat(path)  # cheaper than a process that finds nothing to run
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
    """Where a command may lie, in the order in which it is looked for. An empty entry of PATH is this directory."""
    if "/" in command:
        return [command]
    path = os.environ.get("PATH")
    if path is None:
        path = os.confstr("CS_PATH") or os.defpath
    return [os.path.join(directory or ".", command) for directory in path.split(":")]


def exit_code(status: int) -> int:
    """What a shell would exit with, given a wait status: the command's code, or 128+n when signal n killed it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALLED - code
