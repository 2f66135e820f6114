"""One command whose output passes through us unchanged and live, its last bytes kept. Nothing here knows the bus.

A terminal stays one: where ours is a terminal the child gets a pseudo-terminal of the same size, else a pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import sys
import time

from waitbus.host.job import Job
from waitbus.ui.streams import wait_for

_READ_BYTES = 1 << 16
# A terminal's bytes may still be on their way in the kernel when its writer is gone: this long, and only if somebody
# else holds it open.
_LINGER_SEC = 0.1
_DRAIN_SEC = 1.0


class Child:
    """A running command. `keep_bytes` is how much of its output `tail` gives at the end; 0 leaves its streams alone.

    `job` is entered and carries it. Raises `CannotRun`. `lost` says what kept its output from being passed on, if
    anything but a reader that left.
    """

    def __init__(self, job: Job, argv: list[str], keep_bytes: int) -> None:
        self.lost: OSError | None = None
        self._job = job
        self._kept = bytearray()
        self._was_cut = False
        self._keep = keep_bytes
        self._passing: dict[int, int] = {}
        self._terminal: tuple[int, int] | None = None
        actions = self._redirect_or_not() if keep_bytes else []
        try:
            job.start(argv, os.environb, [(os.POSIX_SPAWN_DUP2, source, target) for source, target in actions])
        finally:
            self._close_theirs({source for source, _ in actions})
        self.pid = job.pid

    def _close_theirs(self, fds: set[int]) -> None:
        """Close what is the child's now; the terminal stays open, or what was written last would be lost with it."""
        for fd in fds:
            if self._terminal is None or fd != self._terminal[1]:
                os.close(fd)

    # --- streams -----------------------------------------------------------------------------------------------------

    def _redirect_or_not(self) -> list[tuple[int, int]]:
        """What `_redirect` gives; nothing where the system has no pipe or terminal to give, to run it all the same."""
        try:
            return self._redirect()
        except OSError:
            self._terminal, self._passing = None, {}
            return []

    def _redirect(self) -> list[tuple[int, int]]:
        """What the child gets in place of our standard output and error, as `(descriptor, 1 or 2)`."""
        actions: list[tuple[int, int]] = []
        made: dict[tuple[int, int], int] = {}
        for target in (1, 2):
            found = os.fstat(target)
            # One and the same file gets one and the same stream, so that the order of what is said stays.
            place = (found.st_dev, found.st_ino)
            if place not in made:
                terminal = stat.S_ISCHR(found.st_mode) and os.isatty(target)
                read, made[place] = self._open_terminal(target) if terminal and self._terminal is None else os.pipe()
                self._passing[read] = target
            actions.append((made[place], target))
        return actions

    def _open_terminal(self, like: int) -> tuple[int, int]:
        """A pseudo-terminal that passes every byte on as it is; ours still does what a terminal does with them."""
        import termios

        ours, theirs = os.openpty()
        modes = termios.tcgetattr(theirs)
        modes[1] &= ~termios.OPOST
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, modes)
        self._terminal = (ours, theirs)
        self._copy_size(like)
        self._job.handle(signal.SIGWINCH, lambda: self._on_resized(like))
        return ours, theirs

    def _copy_size(self, like: int) -> None:
        import termios

        if self._terminal is not None:
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(like, termios.TIOCGWINSZ, b"\0" * 8)
                fcntl.ioctl(self._terminal[0], termios.TIOCSWINSZ, size)

    def _on_resized(self, like: int) -> None:
        self._copy_size(like)
        self._job.send(signal.SIGWINCH)

    def _pass_on(self, read: int) -> bool:
        """Move what is there to where it belongs. False when the stream is over."""
        try:
            data = os.read(read, _READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # EIO: nobody holds the other end of a terminal
            data = b""
        if data and self._write(self._passing[read], data):
            self._kept += data
            if len(self._kept) > 2 * self._keep:
                del self._kept[: -self._keep]
                self._was_cut = True
            return True
        del self._passing[read]
        os.close(read)  # a child whose reader is gone learns it as it would without us
        return False

    def _write(self, target: int, data: bytes) -> bool:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(target, view) :]
            except BlockingIOError:
                wait_for(target, writing=True)
            except BrokenPipeError:
                return False
            except OSError as error:
                self.lost = error
                return False
        return True

    # --- the end -----------------------------------------------------------------------------------------------------

    def wait(self) -> int:
        """Pass its output on until it ends; its wait status. What it left in the background is not waited for."""
        while (status := self._job.poll()) is None:
            for fd in self._job.sleep(self._passing):
                self._pass_on(fd)
        self._drain()
        return status

    def _drain(self) -> None:
        """What was written before the end and not read yet; not what somebody in the background goes on writing."""
        if self._terminal is not None:
            os.close(self._terminal[1])
        until = time.monotonic() + _DRAIN_SEC
        for read in list(self._passing):
            if self._terminal is not None and read == self._terminal[0]:
                while time.monotonic() < until and wait_for(read, seconds=_LINGER_SEC) and self._pass_on(read):
                    pass
                continue
            left = _waiting_in(read)
            while left > 0:
                left -= _READ_BYTES
                if not self._pass_on(read):
                    break

    def tail(self) -> tuple[bytes, bool]:
        """The last bytes of its output, at most as many as were to be kept; and whether there was more."""
        return bytes(self._kept[-self._keep :]), self._was_cut or len(self._kept) > self._keep


def _waiting_in(pipe: int) -> int:
    """How many bytes can be read without waiting for more."""
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
