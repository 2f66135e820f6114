"""Standard input, output and error, whatever they are: closed, full, not blocking, or left by their reader.

The rule: nothing that happens to what is printed changes how a verb ends. Each stream takes every byte; after the first
one that cannot be written the rest goes nowhere. Only a verb that does nothing but print is stopped, by `OutputLost`.
"""

from __future__ import annotations

import errno
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TextIO

    from _typeshed import ReadableBuffer

    class Patience(Protocol):
        """What waits for a reader in its own way."""

        def write(self, data: ReadableBuffer) -> int: ...


_READER_LEFT = (errno.EPIPE, errno.ECONNRESET)


class OutputLost(Exception):
    """Standard output takes no more, and the verb that runs does nothing but print."""


class Outlet(io.FileIO):
    """A descriptor that is written to without an error, and that is waited for where it does not block.

    `lost` is the error after which nothing was written any more. `patience` writes instead, where a reader that does
    not read must hold nothing up. While `is_all` is set, what is printed is all that the
    verb is for: then the first byte lost raises `OutputLost`, once.
    """

    def __init__(self, fd: int, lost: OSError | None = None) -> None:
        super().__init__(fd, "wb", closefd=False)
        self.lost = lost
        self.is_all = False
        self.patience: Patience | None = None
        self._has_raised = False

    def write(self, data: ReadableBuffer) -> int:
        if self.patience is not None and self.lost is None:
            return self.patience.write(data)
        while self.lost is None:
            try:
                count = super().write(data)
            except OSError as error:
                self.lost = error
            else:
                if count is not None:
                    return count
                wait_for(self.fileno(), writing=True)
        if self.is_all and not self._has_raised:
            self._has_raised = True
            raise OutputLost
        return memoryview(data).nbytes

    def offer(self, data: ReadableBuffer, seconds: float | None) -> int:
        """Write as much as the reader takes at once: how much, and 0 when it takes nothing for so long."""
        from select import PIPE_BUF

        while wait_for(self.fileno(), writing=True, seconds=seconds):
            try:
                # What a pipe that can be written to takes without blocking.
                count = super().write(memoryview(data)[:PIPE_BUF])
            except OSError as error:
                self.lost = error
                return self.write(data)
            if count or seconds == 0:
                return count or 0
        return 0

    def abandon(self) -> None:
        """Nobody reads: what is not written yet goes nowhere."""
        self.lost = self.lost or _left()
        self._has_raised = True

    def settle(self, code: int) -> tuple[int, str | None]:
        """At the end: the exit code, given the verb's own, and what is to be said about what was lost, if anything."""
        self._has_raised = True
        sys.stdout.flush()
        if self.lost is None or self.lost.errno in _READER_LEFT:  # a reader that left has seen enough
            return code, None
        return code or (2 if self.is_all else 0), f"cannot write to standard output: {self.lost.strerror}"

    def give_up(self) -> None:
        """After an interrupt: what is still buffered is written where that does not block, else it goes nowhere."""
        self._has_raised = True
        if not wait_for(self.fileno(), writing=True, seconds=0):
            self.lost = self.lost or _left()


def take_over() -> Outlet:
    """Put outlets under `sys.stdout` and `sys.stderr`; the one of standard output."""
    closed = _occupy()
    outlet = Outlet(1, _left() if 1 in closed else None)
    outlet.is_all = True  # help and the like; a verb says so itself
    sys.stdout = _text_on(outlet, sys.stdout)
    sys.stderr = _text_on(Outlet(2), sys.stderr)
    return outlet


def _text_on(outlet: Outlet, old: TextIO | None) -> io.TextIOWrapper:
    """A text stream as Python makes one; what its encoding cannot say is written as an escape."""
    by_line = outlet.isatty() or bool(old and old.line_buffering) or getattr(old, "write_through", False)
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        old.encoding if old else "utf-8",
        "backslashreplace",
        line_buffering=by_line,
        write_through=True,  # to the buffer, in which bytes and text keep their order
    )


def _occupy() -> set[int]:
    """Open what is closed of the first three descriptors, or a file of ours would take its place; which they were."""
    closed = set()
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.add(fd)
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    return closed


def wait_for(fd: int, *, writing: bool = False, seconds: float | None = None) -> bool:
    """Block until a descriptor can be read, or written to, or has failed. Whether it was so within `seconds`."""
    from select import POLLIN, POLLOUT, poll

    poller = poll()
    poller.register(fd, POLLOUT if writing else POLLIN)
    return bool(poller.poll(None if seconds is None else seconds * 1000))


def _left() -> OSError:
    return BrokenPipeError(errno.EPIPE, "nobody reads it")
