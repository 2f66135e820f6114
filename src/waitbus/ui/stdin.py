"""Standard input, read to its end or as it comes, whatever it is: closed, a directory, a pipe that does not block."""

from __future__ import annotations

import os
import sys

from waitbus.event import WaitbusError
from waitbus.ui.streams import wait_for

_READ_BYTES = 1 << 16


class InputError(WaitbusError):
    """Standard input cannot be read, or is not what was asked for."""


def check_stdin() -> None:
    """Raise `InputError` when this process was started with standard input closed."""
    if sys.stdin is None:
        raise InputError("standard input is closed: pipe something into it, or redirect it from a file")


def read_some(fd: int = 0) -> bytes:
    """Block until there is something to read, also where the descriptor does not block; nothing at the end."""
    while True:
        try:
            return os.read(fd, _READ_BYTES)
        except BlockingIOError:
            wait_for(fd)
        except OSError as error:
            raise InputError(f"cannot read standard input: {error.strerror}") from None


def read_text(what: str, limit: int) -> str:
    """All of standard input, as UTF-8 whatever the locale. `what` names it in errors; `limit` is in bytes."""
    check_stdin()
    raw = bytearray()
    while data := read_some():
        raw += data
        if len(raw) > limit:
            raise InputError(f"{what} on standard input is longer than {limit} bytes")
    return decoded(what, bytes(raw))


def decoded(what: str, raw: bytes) -> str:
    """`raw` as UTF-8, without the byte order mark that some programs put in front."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8: byte {error.start} is wrong") from None
