"""A command run for an event: without a shell, the event in its environment and in a private file, never in its words.

What an event holds never keeps the command from being run: what does not fit into the environment is in the file alone.
"""

from __future__ import annotations

import errno
import json
import os
import signal

from waitbus.event import ALWAYS_FIELDS, FIELD_COLUMNS, NATURAL_FIELDS, WaitbusError, one_line
from waitbus.host.job import Job
from waitbus.host.process import CannotRun, exit_code
from waitbus.private import RUNTIME, ensure_private_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from waitbus.event import Event
    from waitbus.host.process import Actions

# What one variable may take, its name included, and all of them together. Linux allows 128 KiB for one, and for
# environment and words together a quarter of the stack, 128 KiB at least; macOS 1 MiB for all.
_ONE_MAX_BYTES = 32 * 1024
_ALL_MAX_BYTES = 96 * 1024
_NAME_MAX = 255
_SAID_MAX = 1000
_FRAME_NAMES = ("event_id", "event_type", "owner", "repo", "received_at", "delivery_id", "summary")
# Fields with a name of their own; none is the name of a setting, and no event can bring another one.
_OWN_NAMES = frozenset({*_FRAME_NAMES, *ALWAYS_FIELDS, *FIELD_COLUMNS, *NATURAL_FIELDS})
_NAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_FILE = b"WAITBUS_EVENT_FILE"
_OTHERS = "WAITBUS_FIELD_"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def without_event(environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """`environ` without what an outer event left in it."""
    cleared = {_own_name(name).encode() for name in _OWN_NAMES} | {_FILE}
    return {
        name: value for name, value in environ.items() if name not in cleared and not name.startswith(_OTHERS.encode())
    }


def event_variables(frame: Mapping[str, Any]) -> tuple[dict[bytes, bytes], list[str]]:
    """The event as ``WAITBUS_*``, in UTF-8: text as it is, other values as JSON, null not at all.

    Fields of the vocabulary (section 2 of docs/contract.md) are ``WAITBUS_CONCLUSION`` and so on, any other is
    ``WAITBUS_FIELD_NAME``: no event can set what waitbus itself reads. Returned with them are the names of the
    variables that were left out because they are too large.
    """
    made: dict[bytes, bytes] = {}
    left_out = []
    room = _ALL_MAX_BYTES
    for name, value in _variables(frame):
        raw = _text(value).replace("\0", "").encode("utf-8", "replace")
        size = len(name) + len(raw) + 2 + 8  # `=`, a zero byte, a pointer
        if len(name) > _NAME_MAX or size > min(_ONE_MAX_BYTES, room):
            left_out.append(name)
        elif (variable := name.encode()) not in made:
            made[variable] = raw
            room -= size
    return made, left_out


def _variables(frame: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values, null left out; the first of a name counts, and where there is little room the first have it."""
    fields = frame["fields"]
    pairs = [(_own_name(name), frame[name]) for name in _FRAME_NAMES]
    pairs += [(_own_name(name), fields[name]) for name in fields if name in _OWN_NAMES]
    pairs += [(_OTHERS + _upper(name), fields[name]) for name in fields if name not in _OWN_NAMES]
    return ((name, value) for name, value in pairs if value is not None)


def _own_name(name: str) -> str:
    return f"WAITBUS_{name.upper()}"


def _upper(name: str) -> str:
    return "".join([char if char in _NAME_CHARS else "_" for char in name.upper()])


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Handler:
    """Runs one command for one event at a time, as a `Job`. While entered, SIGINT, SIGTERM, SIGHUP and SIGQUIT end us.

    `directory` is ours alone and takes the event files. In a process group of its own (`own_group`) the command is
    ended with all it started, and reads nothing from a terminal; without, it shares the terminal with us, and its keys.
    `note` is called with a line for the person, at most once about the same thing.
    """

    def __init__(
        self, command: Sequence[str], directory: str, *, own_group: bool, note: Callable[[str], object]
    ) -> None:
        self._command = list(command)
        self._note = note
        self._directory = directory
        self._file = ""
        self._said: set[str] = set()
        # How many commands were started.
        self.started = 0
        self._job = Job(own_group=own_group, ends_us=_ENDING, on_starved=self._starved)
        self._actions: Actions = ()
        if own_group and os.isatty(0):
            self._actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]

    def __enter__(self) -> Self:
        self._job.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._job.__exit__(kind, error, trace)
        finally:
            self._remove()

    @property
    def running(self) -> bool:
        return self._job.pid != 0

    def start(self, event: Event) -> None:
        """Start the command. Raises `CannotRun`, or `WaitbusError` when the event's file cannot be written."""
        frame = event.as_frame()
        environ = without_event(os.environb)
        variables, left_out = event_variables(frame)
        try:
            environ[_FILE] = os.fsencode(self._write(event.event_id, frame))
            try:
                self._job.start(self._command, {**environ, **variables}, self._actions)
            except CannotRun as error:
                if error.errno != errno.E2BIG:
                    raise
                left_out = [name.decode() for name in variables] + left_out
                self._job.start(self._command, environ, self._actions)
        except BaseException:
            if not self.running:
                self._remove()
            raise
        self.started += 1
        self._say_left_out(left_out)

    def _say_left_out(self, names: Sequence[str]) -> None:
        """Once for a name: whoever reads the variable must know where else to look."""
        new = [name for name in names if name not in self._said]
        if new and len(self._said) < _SAID_MAX:
            self._said.update(new[:_SAID_MAX])
            shown = ", ".join([one_line(name, 60) for name in new[:3]]) + (" and others" if len(new) > 3 else "")
            self._note(f"too large for the command's environment, and in $WAITBUS_EVENT_FILE only: {shown}")

    def _starved(self) -> None:
        if "" not in self._said:
            self._said.add("")
            self._note("the command was stopped: it wants the terminal, which it has not in a process group of its own")

    def poll(self) -> int | None:
        """The exit code when the command has ended: its own, or 128+n of the signal that killed it."""
        status = self._job.poll()
        if status is None:
            return None
        self._remove()
        return exit_code(status)

    def wait(self) -> int:
        """Block until the command has ended; its exit code."""
        status = self._job.wait()
        self._remove()
        return exit_code(status)

    def sleep(self, fds: Iterable[int], until: float | None) -> None:
        """Block until a command ended, one of `fds` can be read, or `until` (of ``time.monotonic()``)."""
        self._job.sleep(fds, until)

    def end(self) -> None:
        """End the command, if one runs, with all of its group. Raises `Ended` when we were asked to end meanwhile."""
        self._job.end()
        self._remove()

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
            raise WaitbusError(f"cannot write the event to {path}: {error.strerror}") from None
        return path

    def _remove(self) -> None:
        path, self._file = self._file, ""
        if path:
            try:
                os.unlink(path)
            except OSError:  # the command took it away
                return
