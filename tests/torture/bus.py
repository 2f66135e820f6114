"""A private bus and the processes on it: how they are started, killed, found again and ended.

Nothing here sleeps: a pause is a wait for a child that ends too early, with a timeout.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from waitbus import settings as settings_module
from waitbus.private import ensure_private_dir

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 30.0  # seconds given to what should take a fraction of one


class Failure(Exception):
    """Something that must not happen, happened; the text says what was seen."""


class Bus:
    """Directories, environment and settings of one private bus; its files are removed by `close`."""

    def __init__(self, config: str = "") -> None:
        self.path = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
        (self.path / "config.toml").write_text(config)
        foreign = ("WAITBUS_", "XDG_", "LISTEN_", "NOTIFY_", "WATCHDOG_")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environ |= {
            "WAITBUS_STATE_DIR": str(self.path / "state"),
            "WAITBUS_RUNTIME_DIR": str(self.path / "run"),
            "WAITBUS_CONFIG": str(self.path / "config.toml"),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        }
        self.settings = settings_module.load(self.environ)
        ensure_private_dir(self.settings.state_dir)
        ensure_private_dir(self.settings.runtime_dir)
        self.children: list[Child] = []

    def spawn(self, name: str, *argv: str, **environ: str) -> Child:
        """A child of this interpreter running module ``argv[0]``; its stdin and stdout are pipes."""
        child = Child(name, self, argv, environ)
        self.children.append(child)
        return child

    def hub_said(self) -> str:
        """The last lines of the hubs' logs: those of ours, and those that clients started."""
        said = ""
        for path in (self.path / "hub.stderr", Path(self.settings.hub_log)):
            with contextlib.suppress(OSError):
                said += path.read_text(errors="replace")[-800:]
        return " / ".join(said.split("\n"))

    def close(self) -> None:
        for child in self.children:
            child.close()
        pid = listener_pid(self.settings.broadcast_socket)
        if pid is not None:
            send_and_wait(pid, signal.SIGTERM)
        shutil.rmtree(self.path, ignore_errors=True)


class Child:
    """One process of ours. What it says on stderr is kept in a file for the report."""

    def __init__(
        self, name: str, bus: Bus, argv: tuple[str, ...], environ: Mapping[str, str], pass_fds: tuple[int, ...] = ()
    ) -> None:
        self.name = name
        self.log = bus.path / f"{name}.stderr"
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**bus.environ, **environ},
                pass_fds=pass_fds,
            )
        self.expected = False  # whether its end is wanted

    @property
    def output(self) -> int:
        """The descriptor of its stdout, which ends when the process does."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def await_line(self, patience: float = PATIENCE) -> bytes:
        """What it says next on stdout; at its end, `Failure`."""
        if not select.select([self.output], [], [], patience)[0]:
            raise Failure(f"{self.name} said nothing for {patience:.0f} s")
        said = os.read(self.output, 4096)
        if not said:
            raise self.ended()
        return said

    def ended(self) -> Failure:
        words = self.log.read_text(errors="replace").strip().splitlines()
        return Failure(f"{self.name} ended with {self.process.wait(PATIENCE)}: {' / '.join(words[-12:]) or 'no word'}")

    def kill(self) -> None:
        self.expected = True
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(PATIENCE)
        self._close_pipes()

    def finish(self, patience: float = PATIENCE) -> None:
        """End its stdin, which asks it to come to its end, and wait for that; anything but exit 0 is a `Failure`."""
        assert self.process.stdin is not None
        self.expected = True
        self.process.stdin.close()
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not come to its end in {patience:.0f} s") from None
        if code:
            raise self.ended()
        self._close_pipes()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def pause(seconds: float, watched: list[Child]) -> None:
    """Let `seconds` pass. Raises `Failure` as soon as one of `watched` ends by itself."""
    ready = select.select([child.output for child in watched], [], [], seconds)[0]
    for child in watched:
        if child.output in ready and not os.read(child.output, 4096):
            raise child.ended()


class Hub:
    """The hub of one bus, whoever started it: this harness, or a client that found none."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._child: Child | None = None
        self._ready = -1

    def start(self) -> None:
        """Begin to start one; `await_ready` returns when it listens."""
        self._forget()
        reader, writer = os.pipe()
        argv = ("waitbus", "serve", "hub", "--ready-fd", str(writer))
        self._child = Child("hub", self.bus, argv, {}, (writer,))
        self.bus.children.append(self._child)
        os.close(writer)
        self._ready = reader

    def await_ready(self) -> None:
        """Return when a hub listens: the one begun here, or one that was quicker."""
        assert self._child is not None
        if not select.select([self._ready], [], [], PATIENCE)[0]:
            raise Failure("the hub did not get ready")
        if os.read(self._ready, 64):
            return
        refused = self._child.ended()
        if self._child.process.returncode != 2:
            raise refused
        try:
            self.await_other()
        except Failure:
            raise refused from None

    def await_other(self, why: str = "no client started a hub") -> int:
        """The process of a hub that we did not start, as soon as it listens."""
        for _ in range(int(PATIENCE / 0.02)):
            if (pid := self.pid()) is not None:
                return pid
            select.select([], [], [], 0.02)
        raise Failure(why)

    def pid(self) -> int | None:
        return listener_pid(self.bus.settings.broadcast_socket)

    def kill(self, pid: int | None = None) -> None:
        """SIGKILL whichever process is the hub, or is about to be; `pid` where its sockets cannot tell."""
        pid = pid or self.pid()
        if pid is not None:
            send_and_wait(pid, signal.SIGKILL)
        if self._child is not None:
            self._child.kill()
        self._forget()

    def stop(self) -> None:
        """SIGTERM, and return when it is gone."""
        pid = self.pid()
        if pid is not None:
            send_and_wait(pid, signal.SIGTERM)

    def rss_kib(self) -> int:
        """Resident memory of the hub that runs, in KiB; 0 where it cannot be told."""
        pid = self.pid()
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)], timeout=PATIENCE))
        return 0

    def _forget(self) -> None:
        if self._child is not None:
            self._child.close()
            self.bus.children.remove(self._child)
            self._child = None
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1


def listener_pid(path: str) -> int | None:
    """The process that listens on a socket, by the kernel's word; None when nobody does.

    Not by the hub's lock: whoever looks at a lock holds it for an instant, and could turn a starting hub away.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
            if sys.platform == "darwin":
                return probe.getsockopt(0, 2)  # SOL_LOCAL, LOCAL_PEERPID
            else:
                return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        except OSError:
            return None


def send_and_wait(pid: int, number: int) -> None:
    """Signal a process that is not our child, and return when it is gone."""
    try:
        if sys.platform == "linux":
            fd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(fd, number)
                if not select.select([fd], [], [], PATIENCE)[0]:
                    raise Failure(f"pid {pid} did not end on signal {number}")
            finally:
                os.close(fd)
        else:
            for _ in range(int(PATIENCE / 0.01)):
                os.kill(pid, number)
                select.select([], [], [], 0.01)
            raise Failure(f"pid {pid} did not end on signal {number}")
    except ProcessLookupError:
        return


@contextlib.contextmanager
def private_bus(config: str = "") -> Iterator[Bus]:
    bus = Bus(config)
    try:
        yield bus
    finally:
        bus.close()
