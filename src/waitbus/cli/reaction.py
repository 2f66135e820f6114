"""A command run for an event: without a shell, the event in its environment and in a private file, never in its words.

Whatever ends us ends the command with us: its own process group, the file, nothing is left behind.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

from waitbus.event import ALWAYS_FIELDS, FIELD_COLUMNS, NATURAL_FIELDS, WaitbusError
from waitbus.private import RUNTIME, ensure_private_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import FrameType, TracebackType
    from typing import Any, Self

    from waitbus.event import Event

NOT_FOUND, NOT_RUNNABLE = 127, 126
# How long a command may take to end when asked to, before it is killed.
GRACE_SEC = 5.0
_LOOK_AGAIN_SEC = 0.02
# One variable's value at most; what is longer is in the file only. The kernel allows 128 KiB.
_VALUE_MAX_BYTES = 32 * 1024
_FRAME_NAMES = ("event_id", "event_type", "owner", "repo", "received_at", "delivery_id", "summary")
# Fields with a name of their own; none is the name of a setting, and no event can bring another one.
_OWN_NAMES = frozenset({*_FRAME_NAMES, *ALWAYS_FIELDS, *FIELD_COLUMNS, *NATURAL_FIELDS})
_NAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_FILE = "WAITBUS_EVENT_FILE"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal asked this process to end. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def event_environ(frame: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the event in ``WAITBUS_*``: text as it is, other values as JSON, null not at all.

    Fields of the contract's vocabulary are ``WAITBUS_CONCLUSION`` and so on, any other is ``WAITBUS_FIELD_NAME``: no
    event can set what waitbus itself reads. What an outer event left there is taken out.
    """
    cleared = {_own_name(name) for name in _OWN_NAMES}
    made = {
        name: value
        for name, value in environ.items()
        if name not in cleared and not name.startswith("WAITBUS_FIELD_") and name != _FILE
    }
    for name, value in frame["fields"].items():
        _put(made, _own_name(name) if name in _OWN_NAMES else _field_name(name), value)
    for name in _FRAME_NAMES:
        _put(made, _own_name(name), frame[name])
    return made


def _own_name(name: str) -> str:
    return f"WAITBUS_{name.upper()}"


def _field_name(name: str) -> str:
    return "WAITBUS_FIELD_" + "".join([char if char in _NAME_CHARS else "_" for char in name.upper()])


def _put(environ: dict[str, str], name: str, value: object) -> None:
    if value is None:
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    raw = text.replace("\0", "").encode("utf-8", "replace")
    if len(raw) <= _VALUE_MAX_BYTES:
        environ[name] = raw.decode()


class Reaction:
    """Runs one command for one event at a time. While entered, SIGTERM and SIGHUP raise `Ended`.

    `directory` is ours alone and takes the event files. In a process group of its own (`own_group`) the command is
    ended with all it started; without, it shares the terminal with us, and its keys.
    """

    def __init__(self, command: Sequence[str], directory: str, *, own_group: bool) -> None:
        self._command = list(command)
        self._directory = directory
        self._own_group = own_group
        self._pid = 0
        self._file = ""
        self._asked = 0
        self._old: dict[int, Any] = {}
        self._wake, self._woken = os.pipe()

    def __enter__(self) -> Self:
        for fd in (self._wake, self._woken):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        self._old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _nothing)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                self._old[number] = signal.signal(number, _raise)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Ended):
                self._end(error.number)
            else:
                self._end(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in self._old.items():
                signal.signal(number, handler)
            os.close(self._wake)
            os.close(self._woken)

    @property
    def running(self) -> bool:
        return self._pid != 0

    def start(self, event: Event) -> int | None:
        """Start the command. None, or at once the exit code when it cannot be run."""
        # Nothing may come between the start and our knowing of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            frame = event.as_frame()
            environ = event_environ(frame, os.environ)
            environ[_FILE] = self._write(event.event_id, frame)
            options: dict[str, Any] = {"setpgroup": 0} if self._own_group else {}
            self._pid = os.posix_spawnp(
                self._command[0],
                self._command,
                environ,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
                **options,
            )
        except OSError as error:
            self._remove()
            return NOT_FOUND if isinstance(error, FileNotFoundError | NotADirectoryError) else NOT_RUNNABLE
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        return None

    def poll(self) -> int | None:
        """The exit code when the command has ended: its own, or 128+n of the signal that killed it."""
        if not self._pid:
            return None
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        self._pid = 0
        self._remove()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def wait(self) -> int:
        """Block until the command has ended; its exit code."""
        while (code := self.poll()) is None:
            self.sleep((), None)
        return code

    def sleep(self, fds: Iterable[int], until: float | None) -> None:
        """Block until a command ended, one of `fds` can be read, or `until` (of ``time.monotonic()``)."""
        poll = select.poll()
        for fd in (self._wake, *fds):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000)
        try:
            os.read(self._wake, 512)
        except BlockingIOError:
            return

    def end(self) -> None:
        """End the command, if one runs, with all of its group. Raises `Ended` when we were asked to end meanwhile."""
        self._end(signal.SIGTERM)
        if self._asked == signal.SIGINT:
            raise KeyboardInterrupt
        if self._asked:
            raise Ended(self._asked)

    def _end(self, number: int) -> None:
        """By signal `number`, and what is left after the grace, or when asked a second time, by SIGKILL."""
        pid = self._pid
        if not pid:
            return
        # Ctrl-C reaches a command that shares the terminal by itself, again and again; how long it takes is its affair.
        shared = number == signal.SIGINT and not self._own_group
        handlers = {ending: signal.signal(ending, self._on_asked) for ending in _ENDING}
        try:
            deadline = None if shared else time.monotonic() + GRACE_SEC
            if not shared:
                self._kill(pid, number)
                self._kill(pid, signal.SIGCONT)
            while self.poll() is None and self._patient(deadline, shared):
                self.sleep((), deadline)
            while self._kill(pid, 0) and _is_alive(pid) and self._patient(deadline, shared):
                self.sleep((), time.monotonic() + _LOOK_AGAIN_SEC)  # nobody tells when a group is empty
            self._kill(pid, signal.SIGKILL)
            if self._pid:
                self.wait()
        finally:
            for ending, handler in handlers.items():
                signal.signal(ending, handler)

    def _patient(self, deadline: float | None, shared: bool) -> bool:
        if self._asked and not (shared and self._asked == signal.SIGINT):
            return False
        return deadline is None or time.monotonic() < deadline

    def _on_asked(self, number: int, frame: FrameType | None) -> None:
        self._asked = number

    def _kill(self, pid: int, number: int) -> bool:
        """Whether there was anybody to send it to. A lone command that was waited for is nobody any more."""
        try:
            if self._own_group:
                os.killpg(pid, number)
            elif self._pid:
                os.kill(pid, number)
            else:
                return False
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _write(self, event_id: str, frame: Mapping[str, Any]) -> str:
        ensure_private_dir(self._directory, RUNTIME)
        path = os.path.join(self._directory, f"event-{os.getpid()}-{event_id}.json")
        raw = json.dumps(frame).encode() + b"\n"
        self._file = path
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(fd, "wb") as file:
                file.write(raw)
        except OSError as error:
            self._remove()
            raise WaitbusError(f"cannot write the event to {path}: {error.strerror}") from None
        return path

    def _remove(self) -> None:
        path, self._file = self._file, ""
        if path:
            try:
                os.unlink(path)
            except OSError:  # the command took it away
                return


def _is_alive(group: int) -> bool:
    """Whether a process group holds anybody but the dead whom nobody has waited for yet, as in many containers."""
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:  # macOS: signals do not count the dead
        return True
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, _parent, its_group = file.read().rpartition(b")")[2].split()[:3]
        except (OSError, ValueError):  # gone meanwhile
            continue
        if int(its_group) == group and state not in b"ZX":
            return True
    return False


def _nothing(number: int, frame: FrameType | None) -> None:
    """SIGCHLD only has to wake."""


def _raise(number: int, frame: FrameType | None) -> None:
    raise Ended(number)
