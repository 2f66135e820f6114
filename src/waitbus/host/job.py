r"""Runs a command as a shell runs a job: it ends, stops and continues together with this process.

Signals that would end this process by default are handled. Such a signal is passed on to the command, or it ends both.
If no command runs, it raises `Ended`. A signal that this process was started to ignore (``nohup``) stays ignored, also
in the command.

If the command is in our process group, the terminal sends its keys to both. If it has a group of its own, only we get
Ctrl-C, Ctrl-Z and Ctrl-\, and pass them on.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from waitbus.host import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from types import FrameType, TracebackType
    from typing import Any, Self

# How long a command may take to end after a signal, before it is killed.
GRACE_SEC = 5.0
_LOOK_AGAIN_SEC = 0.02
_TYPED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
# Signals that by default do not end a process.
_HARMLESS = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGINFO", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGSTOP"}
if sys.platform == "darwin":
    _HARMLESS.add("SIGIO")
_OUT_OF_REACH = {"SIGKILL"}
# Faults of the process itself: a handler in Python would return to the instruction that failed.
_FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"}
# Python ignores these from its start, so that a failed write is an error instead of the end of the process.
_PYTHONS = {"SIGPIPE", "SIGXFSZ"}


class Ended(BaseException):
    """A signal asked this process to end. `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def ending_signals() -> list[int]:
    """Return the signals that end a process by default and can be handled, including the real-time ones."""
    names = _HARMLESS | _OUT_OF_REACH | _FAULTS | _PYTHONS
    others = {getattr(signal, name) for name in names if hasattr(signal, name)}
    return sorted(number for number in signal.valid_signals() if number not in others)


class Job:
    """Runs one command at a time. As a context manager it handles signals as described above.

    `own_group` gives the command a process group of its own, which is ended as a whole. Signals in `ends_us` raise
    `Ended` even while a command runs; all others are passed on to it. `on_starved` is called when a command in a group
    of its own is stopped because it wants to use the terminal.
    """

    def __init__(
        self,
        *,
        own_group: bool = False,
        ends_us: Collection[int] = (),
        on_starved: Callable[[], object] | None = None,
    ) -> None:
        self.pid = 0  # 0 while no command runs
        self.status: int | None = None  # the wait status of the last command that ended
        self._own_group = own_group
        self._ends_us = ends_us
        self._on_starved = on_starved
        self._ending = False
        self._asked = 0
        self._old: dict[int, Any] = {}
        self._wake, self._woken = os.pipe()

    def __enter__(self) -> Self:
        for fd in (self._wake, self._woken):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        self.handle(signal.SIGCHLD, lambda: None)  # wakes up `sleep`
        handlers = dict.fromkeys(ending_signals(), self._on_signal)
        handlers[signal.SIGTSTP] = self._on_stop
        if self._own_group:
            handlers[signal.SIGWINCH] = self._on_resized
        for number, handler in handlers.items():
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: Python could not restore this handler
                self._old[number] = signal.signal(number, handler)
        return self

    def handle(self, number: int, action: Callable[[], object]) -> None:
        """Call `action` on a signal, until this context manager exits."""
        self._old.setdefault(number, signal.signal(number, lambda _number, _frame: action()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(error.number if isinstance(error, Ended) else signal.SIGTERM)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in self._old.items():
                if handler is not None:
                    signal.signal(number, handler)
            os.close(self._wake)
            os.close(self._woken)

    # --- the command -------------------------------------------------------------------------------------------------

    def start(self, argv: Sequence[str], environ: Mapping[bytes, bytes], actions: process.Actions = ()) -> None:
        """Start a command. Raises `process.CannotRun`."""
        # No signal handler may run between the start of the command and the assignment of its pid.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._old)
        try:
            self.pid = process.start(argv, environ, own_group=self._own_group, actions=actions, mask=mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def poll(self) -> int | None:
        """Return the wait status if the command has ended, else None."""
        if not self.pid:
            return None
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        if not pid:
            return None
        if os.WIFSTOPPED(status):
            self._on_command_stopped(os.WSTOPSIG(status))
            return None
        self.status = status  # before a signal can find that no command runs
        self.pid = 0  # from now on the kernel may reuse the pid
        return status

    def wait(self) -> int:
        """Block until the command has ended. Returns its wait status."""
        while (status := self.poll()) is None:
            self.sleep()
        return status

    def sleep(self, fds: Iterable[int] = (), until: float | None = None) -> list[int]:
        """Block until a signal arrives, one of `fds` is readable, or the time is `until` (of ``time.monotonic()``).

        Returns those of `fds` that are readable.
        """
        poll = select.poll()
        for fd in (self._wake, *fds):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000)]
        if self._wake in ready:
            ready.remove(self._wake)
            os.read(self._wake, 512)
        return ready

    def end(self) -> None:
        """End the command, if one runs, with its whole group. Raises `Ended` if a signal arrived in the meantime."""
        self._end(signal.SIGTERM)
        if self._asked:
            raise Ended(self._asked)

    def _end(self, number: int) -> None:
        """Send signal `number`, then SIGKILL to what still runs after `GRACE_SEC` or after a second signal to us."""
        pid = self.pid
        if not pid:
            return
        # The terminal itself sends its keys to a command that shares our group, every time. It may take as long as it
        # likes to end.
        shared = not self._own_group and number in _TYPED
        self._ending = True
        try:
            deadline = None if shared else time.monotonic() + GRACE_SEC
            if not shared:
                self._send(pid, number)
                self._send(pid, signal.SIGCONT)
            while self.poll() is None and self._patient(deadline, shared):
                self.sleep((), deadline)
            while self._send(pid, 0) and _is_alive(pid) and self._patient(deadline, shared):
                self.sleep((), time.monotonic() + _LOOK_AGAIN_SEC)  # the kernel does not report an empty group
            self._send(pid, signal.SIGKILL)
            if self.pid:
                self.wait()
        finally:
            self._ending = False

    def _patient(self, deadline: float | None, shared: bool) -> bool:
        if self._asked and not (shared and self._asked in _TYPED):
            return False
        return deadline is None or time.monotonic() < deadline

    # --- signals -----------------------------------------------------------------------------------------------------

    def send(self, number: int) -> None:
        """Send a signal to the command, if one runs, and to its group, if it has one."""
        if self.pid:
            self._send(self.pid, number)

    def _send(self, pid: int, number: int) -> bool:
        """Send a signal to the group or the command. Returns whether it still existed."""
        try:
            if self._own_group:
                os.killpg(pid, number)
            elif self.pid:
                os.kill(pid, number)
            else:
                return False
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._ending:
            if number in self._ends_us:
                self._asked = number
                return
        elif not self.pid or number in self._ends_us:
            raise Ended(number)
        if not self._is_typed(number):
            self.send(number)

    def _on_resized(self, number: int, _frame: FrameType | None) -> None:
        self.send(number)

    def _is_typed(self, number: int) -> bool:
        """Whether the terminal has sent this signal to the command as well."""
        return not self._own_group and number in _TYPED and in_foreground()

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_typed(number):
            self.send(number)
            self._stop()
            self.send(signal.SIGCONT)  # even if this process did not stop
        elif not self.pid:
            self._stop()
        # Otherwise the command got the signal too, and this process stops if the command does.

    def _stop(self) -> None:
        """Stop as this process would without a handler. The kernel does not stop it if no shell could continue it."""
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            signal.raise_signal(signal.SIGTSTP)  # returns after SIGCONT
        finally:
            signal.signal(signal.SIGTSTP, handler)

    def _on_command_stopped(self, number: int) -> None:
        if self._own_group:
            if number in (signal.SIGTTIN, signal.SIGTTOU) and self._on_starved is not None:
                self._on_starved()
        elif in_foreground():  # by Ctrl-Z, or by itself like an editor: the shell only notices if we stop as well
            self._stop()


def in_foreground() -> bool:
    """Whether our process group is in the foreground of a terminal, so that the terminal's keys reach it."""
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


def _is_alive(group: int) -> bool:
    """Whether a process group has a member that is not a zombie. In many containers nobody reaps orphaned zombies."""
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:  # macOS, where signals do not reach zombies
        return True
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, _parent, its_group = file.read().rpartition(b")")[2].split()[:3]
        except (OSError, ValueError):  # the process has just ended
            continue
        if int(its_group) == group and state not in b"ZX":
            return True
    return False
