"""One child process whose output passes through us unchanged and live, its last bytes kept. Nothing here knows the bus.

A terminal stays one: where ours is a terminal the child gets a pseudo-terminal of the same size, else a pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import stat

from waitbus.event import WaitbusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

CANNOT_RUN = 126
NOT_FOUND = 127
SIGNALLED = 128
_READ_BYTES = 1 << 16
# A terminal's bytes may still be on their way in the kernel when its writer is gone: this long, and only if somebody
# else holds it open.
_LINGER_MS = 100
# Python ignores these; a program expects to be ended by them.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class CannotRun(WaitbusError):
    """The command could not be started. `code` is what a shell would exit with."""

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__(f"cannot run {command}: {error.strerror}")
        self.code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN


class Child:
    """A running command. `keep_bytes` is how much of its output `tail` gives at the end; 0 leaves its streams alone."""

    def __init__(self, argv: list[str], keep_bytes: int) -> None:
        self._kept = bytearray()
        self._was_cut = False
        self._keep = keep_bytes
        self._pid = 0
        self._early: list[int] = []
        self._passing: dict[int, int] = {}
        self._terminal: tuple[int, int] | None = None
        _occupy_standard_streams()
        self._wake, wakened = os.pipe()
        os.set_blocking(wakened, False)
        signal.set_wakeup_fd(wakened, warn_on_full_buffer=False)
        self._handle_signals()
        self.pid = self._pid = self._spawn(argv)
        for number in self._early:
            self._forward(number, None)

    def _spawn(self, argv: list[str]) -> int:
        actions = self._redirect() if self._keep else []
        try:
            return os.posix_spawnp(
                argv[0],
                argv,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, source, target) for source, target in actions],
                setsigdef=_IGNORED_BY_PYTHON,
            )
        except OSError as error:
            raise CannotRun(argv[0], error) from None
        finally:
            for fd in {source for source, _ in actions}:
                if self._terminal is None or fd != self._terminal[1]:
                    os.close(fd)

    # --- streams -----------------------------------------------------------------------------------------------------

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
        signal.signal(signal.SIGWINCH, lambda _number, _frame: self._on_resized(like))
        return ours, theirs

    def _copy_size(self, like: int) -> None:
        import termios

        if self._terminal is not None:
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(like, termios.TIOCGWINSZ, b"\0" * 8)
                fcntl.ioctl(self._terminal[0], termios.TIOCSWINSZ, size)

    def _on_resized(self, like: int) -> None:
        self._copy_size(like)
        self._forward(signal.SIGWINCH, None)

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
                poll = select.poll()
                poll.register(target, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True

    # --- signals -----------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # only to be wakened
        for number in _FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup it stays ignored, for the child too
                signal.signal(number, self._forward)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground():
            return  # typed at the terminal: the child got it, too
        if self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._pid, number)
        else:
            self._early.append(number)

    # --- the end -----------------------------------------------------------------------------------------------------

    def wait(self) -> int:
        """Pass its output on until it ends; its wait status. What it left in the background is not waited for."""
        poll = select.poll()
        for fd in (self._wake, *self._passing):
            poll.register(fd, select.POLLIN)
        while True:
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            if ended:
                break
            for fd, _ in poll.poll():
                if fd == self._wake:
                    os.read(fd, 512)
                elif not self._pass_on(fd):
                    poll.unregister(fd)
        self._pid = 0  # from here on the number may be another process's
        self._drain()
        return status

    def _drain(self) -> None:
        """What was written before the end and not read yet."""
        if self._terminal is not None:
            os.close(self._terminal[1])
        for read in list(self._passing):
            patience = _LINGER_MS if self._terminal is not None and read == self._terminal[0] else 0
            poll = select.poll()
            poll.register(read, select.POLLIN)
            while poll.poll(patience) and self._pass_on(read):
                pass

    def tail(self) -> tuple[bytes, bool]:
        """The last bytes of its output, at most as many as were to be kept; and whether there was more."""
        return bytes(self._kept[-self._keep :]), self._was_cut or len(self._kept) > self._keep


def _occupy_standard_streams() -> None:
    """Where one of the three is closed, a pipe of ours would take its number, and its place: let it be nowhere."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(fd, True)


def _in_foreground() -> bool:
    """Whether we are what runs in the foreground of a terminal, so that its keys reach the child without us."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)
