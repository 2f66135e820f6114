"""A reader that does not read: what is printed waits for it as long as it may, and never with the store open.

Both kinds here stand between `sys.stdout` and its descriptor, as `Outlet.patience`. In a process whose standard output
is not ours to hold up, such as a test's, there is none, and what is printed is printed at once.
"""

from __future__ import annotations

import os
import stat
import sys
import time

from waitbus.event import WaitbusError
from waitbus.ui.streams import Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from _typeshed import ReadableBuffer

_IN_MEMORY = 8 << 20  # bytes held for a slow reader before they go to a temporary file
_READ_BYTES = 1 << 16


class OutputLate(Exception):
    """Standard output was not read in time."""


def outlet() -> Outlet | None:
    """The outlet under `sys.stdout`, if there is one whose reader may be slow."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Outlet) and not stat.S_ISREG(os.fstat(raw.fileno()).st_mode) else None


class Until:
    """For `with`: waits for the reader until `deadline`, then raises `OutputLate`, and the rest goes nowhere.

    `deadline` is a time of ``time.monotonic()``.
    """

    def __init__(self, outlet: Outlet, deadline: float) -> None:
        self._outlet = outlet
        self._deadline = deadline

    def __enter__(self) -> None:
        self._outlet.patience = self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                sys.stdout.flush()
        finally:
            self._outlet.patience = None

    def write(self, data: ReadableBuffer) -> int:
        count = self._outlet.offer(data, max(0.0, self._deadline - time.monotonic()))
        if not count:
            self._outlet.abandon()
            raise OutputLate
        return count


class Aside:
    """Never waits for the reader: keeps what is not read at once until `drain`."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._held: IO[bytes] | None = None
        outlet.patience = self

    def write(self, data: ReadableBuffer) -> int:
        if self._held is None:
            count = self._outlet.offer(data, 0.0)
            if count:
                return count
            from tempfile import SpooledTemporaryFile  # slow to import, and seldom needed

            self._held = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  # `drain` closes it
        try:
            return self._held.write(data)
        except OSError as error:
            raise WaitbusError(
                f"cannot keep what the reader of the output leaves unread: {error.strerror}; write it to a file instead"
            ) from None

    def drain(self, deadline: float | None) -> bool:
        """Let the reader have the rest. False when it was not read by `deadline`: what is left goes nowhere."""
        sys.stdout.flush()
        held, self._held = self._held, None
        self._outlet.patience = None
        if held is None:
            return True
        held.seek(0)
        with held:
            while data := memoryview(held.read(_READ_BYTES)):
                while data:
                    patience = None if deadline is None else max(0.0, deadline - time.monotonic())
                    count = self._outlet.offer(data, patience)
                    if not count:
                        self._outlet.abandon()
                        return False
                    data = data[count:]
        return True
