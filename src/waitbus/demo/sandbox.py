"""A bus of its own in a temporary directory, and the processes started on it, for the demos.

The rule: whatever happens, Ctrl-C at any instant included, leaving it ends every process and removes the directory.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile

import waitbus
from waitbus.event import WaitbusError, one_line
from waitbus.settings import SOCKET_PATH_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any, Self

PATIENCE_S = 10.0  # how long anything may take before the demo gives up on it
WAITBUS = (sys.executable, "-m", "waitbus")
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What the children must not inherit: another bus, a service manager's sockets, a pytest's options, colours.
_FOREIGN = ("WAITBUS_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "PYTEST_", "PY_COLORS", "FORCE_COLOR", "CLICOLOR_FORCE")


class WrongStep(WaitbusError):
    """A step did not do what the demo says it does."""


def last_line(output: bytes) -> str:
    """The last line that says something, without pytest's frame of `=`."""
    lines = [line.strip(" =") for line in output.decode(errors="replace").splitlines()]
    return one_line(next((line for line in reversed(lines) if line), "it said nothing"))


class Signals:
    """Ctrl-C, a termination or a hang-up as an exception, but never between starting a process and noting it down."""

    def __init__(self) -> None:
        self._held = 0
        self._pending: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _ENDINGS:
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):  # nohup stays nohup
                self._before[number] = before
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """What comes now comes at the end of the block."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held and self._pending is not None:
                pending, self._pending = self._pending, None
                self._raise(pending)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._held:
            self._pending = number
        else:
            self._raise(number)

    @staticmethod
    def _raise(number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


class Sandbox:
    """The directory, the hub on it, and everything started there; leaving ends the processes, the last one first."""

    def __init__(self, signals: Signals) -> None:
        self.root = ""
        self._signals = signals
        self._children: list[subprocess.Popen[bytes]] = []
        self._environ: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            with self._signals.hold():
                self.root = tempfile.mkdtemp(prefix="waitbus-demo-", dir=_short_directory())
            self._furnish()
            self.start_ready("serve", "hub", "--idle-exit", "60s")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _furnish(self) -> None:
        lib = self._path("lib")
        os.mkdir(self._path("shop"))
        self.write("pytest.ini", "[pytest]\n")  # or pytest would look for one in the directories above
        # This package and nothing that lies beside it, so that another Python's pytest can load the plugin.
        os.mkdir(lib)
        os.symlink(os.path.dirname(os.path.abspath(waitbus.__file__)), os.path.join(lib, "waitbus"))
        inherited = os.environ.get("PYTHONPATH")
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)},
            "WAITBUS_STATE_DIR": self._path("state"),
            "WAITBUS_RUNTIME_DIR": self._path("run"),
            "WAITBUS_CONFIG": self._path("config.toml"),
            "WAITBUS_AUTOSTART": "0",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": f"{lib}{os.pathsep}{inherited}" if inherited else lib,
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
        }

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def write(self, name: str, text: str) -> None:
        """A file of the project that the processes are started in."""
        with open(os.path.join(self._path("shop"), name), "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, argv: list[str], pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """A process in the project's directory, in a session of its own: Ctrl-C reaches the demo, which ends it."""
        with self._signals.hold():
            child = subprocess.Popen(
                argv,
                cwd=self._path("shop"),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=pass_fds,
                start_new_session=True,
            )
            self._children.append(child)
        return child

    def start_ready(self, *words: str) -> subprocess.Popen[bytes]:
        """A verb that says when it is ready: the hub that it listens, a wait that the hub has answered it."""
        reader, writer = os.pipe()
        with open(reader, "rb") as ready:
            try:
                child = self.start([*WAITBUS, *words, "--ready-fd", str(writer)], pass_fds=(writer,))
            finally:
                os.close(writer)
            if not select.select([ready], [], [], PATIENCE_S)[0] or not ready.readline():
                raise WrongStep(f"waitbus {words[0]} did not get ready: {last_line(self.end(child))}")
        return child

    def finish(self, child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """Wait for a process's own end: what it said on standard output and standard error."""
        try:
            return child.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise WrongStep(f"{child.args!r} did not end: {last_line(self.end(child))}") from None

    def end(self, child: subprocess.Popen[bytes]) -> bytes:
        """End a process and all it started, gently if it lets us; what it had said."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter: macOS's word for a zombie
                if child.poll() is None or number == signal.SIGKILL:
                    os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return b"".join(child.communicate(timeout=3.0))
        return b""

    def close(self) -> None:
        """End everything, remove everything."""
        with self._signals.hold():
            while self._children:
                self.end(self._children.pop())
            shutil.rmtree(self.root, ignore_errors=True)


def _short_directory() -> str:
    """Where AF_UNIX addresses still fit: some systems' temporary directories are too long for them."""
    base = tempfile.gettempdir()
    return base if len(os.fsencode(base)) < SOCKET_PATH_BYTES - 45 else "/tmp"  # noqa: S108
