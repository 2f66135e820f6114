"""Fixtures: a private bus for each test, a real hub process on it, and a raw peer that speaks the wire by hand."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from waitbus import settings as settings_module
from waitbus.settings import Settings
from waitbus.store import hublock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.pytest_runs import Forker, Project

# A shell without job control starts what runs in its background with these signals ignored, and everything that a test
# starts would inherit that. The suite means the same in the background as in the foreground.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# Seconds a test waits for something that should come at once; reaching it is a failure. (`make mutants` has less.)
PATIENCE = float(os.environ.get("WB_TEST_PATIENCE", "20"))
ROOT = Path(__file__).parent.parent

# The suite is the same every time and says nothing of a machine's speed; `make fuzz` is where new examples are sought.
hypothesis_settings.register_profile(
    "suite", derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("suite")


@pytest.fixture
def bus_dir() -> Iterator[Path]:
    """A short private directory: AF_UNIX paths are short, pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="wb-", dir=os.environ.get("WB_TEST_DIR", "/tmp")))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def settings(bus_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a private bus; the environment points there, too, for this process and its children."""
    for name in list(os.environ):
        if name.startswith(("WAITBUS_", "XDG_", "LISTEN_", "NOTIFY_", "WATCHDOG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WAITBUS_STATE_DIR", str(bus_dir / "state"))
    monkeypatch.setenv("WAITBUS_RUNTIME_DIR", str(bus_dir / "run"))
    monkeypatch.setenv("WAITBUS_CONFIG", str(bus_dir / "config.toml"))
    monkeypatch.setenv("WAITBUS_AUTOSTART", "0")
    monkeypatch.setattr("waitbus.client.emit._default", None)  # it was read from another test's environment
    return settings_module.load()


class HubProcess:
    """A hub in a process of its own. `start` returns when it listens; whatever it said is in `stderr_path`."""

    def __init__(self, settings: Settings, stderr_path: Path) -> None:
        self.settings = settings
        self.stderr_path = stderr_path
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> HubProcess:
        reader, writer = os.pipe()
        with self.stderr_path.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "waitbus", "serve", "hub", "--ready-fd", str(writer), *options],
                pass_fds=[writer],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        os.close(writer)
        with os.fdopen(reader, "rb") as ready:
            assert select.select([ready], [], [], PATIENCE)[0], "the hub did not get ready"
            assert ready.read() == b"ready\n", self.stderr
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, give the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


@pytest.fixture
def unstarted_hub(settings: Settings, bus_dir: Path) -> Iterator[HubProcess]:
    process = HubProcess(settings, bus_dir / "hub.stderr")
    yield process
    process.close()


@pytest.fixture
def hub(unstarted_hub: HubProcess) -> HubProcess:
    return unstarted_hub.start()


Hubs = Callable[..., HubProcess]


@pytest.fixture
def hubs(settings: Settings, bus_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hubs]:
    """Starts hubs of other buses: keywords are the variables that differ from this bus's."""
    made: list[HubProcess] = []

    def start(**variables: str) -> HubProcess:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            made.append(HubProcess(settings_module.load(), bus_dir / f"other-{len(made)}.stderr"))
            return made[-1].start()

    yield start
    for hub in made:
        hub.close()


def hub_pid(settings: Settings) -> int:
    """The pid the running hub wrote into its lock; 0 when none does."""
    return hublock.read(settings.hub_lock).pid or 0


def stop_hub(settings: Settings) -> None:
    """End the hub that was started, and wait until it is gone: its lock is free then."""
    if pid := hub_pid(settings):
        with suppress(ProcessLookupError):
            os.kill(pid, 15)
        with open(settings.hub_lock) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.fixture
def bus(settings: Settings) -> Iterator[Settings]:
    """A bus without a hub, which may be started."""
    yield settings
    stop_hub(settings)


class Peer:
    """A client written from the contract alone: raw bytes on the broadcast socket."""

    def __init__(self, settings: Settings) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(settings.broadcast_socket)
        self._file = self.socket.makefile("rb")

    def send(self, frame: dict[str, Any] | bytes) -> None:
        body = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
        self.socket.sendall(len(body).to_bytes(4, "big") + body)

    def read(self) -> dict[str, Any] | None:
        """The next frame; None at a clean end of stream."""
        header = self._file.read(4)
        if not header:
            return None
        body = self._file.read(int.from_bytes(header, "big"))
        frame: dict[str, Any] = json.loads(body)
        return frame

    def event(self) -> dict[str, Any]:
        """The next event frame; anything but a heartbeat in between fails."""
        while (frame := self.read()) is not None:
            if frame["kind"] == "event":
                return frame
            assert frame["kind"] == "daemon_heartbeat", frame
        raise AssertionError("the stream ended")

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def peer(settings: Settings) -> Iterator[Callable[..., Peer]]:
    """Makes peers; with a first frame, subscribes with it and checks the ack."""
    peers: list[Peer] = []

    def make(first: dict[str, Any] | None = None) -> Peer:
        made = Peer(settings)
        peers.append(made)
        if first is not None:
            made.send(first)
            ack = made.read()
            assert ack is not None
            assert ack["kind"] == "subscribe_ack"
        return made

    yield make
    for made in peers:
        made.close()


class Cli:
    """Runs the command line in child processes of this interpreter."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[str]] = []

    def __call__(self, *argv: str, stdin: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            [sys.executable, "-m", "waitbus", *argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            start_new_session=True,  # whatever terminal the suite is run in
            env={**os.environ, **environ},
        )

    def spawn(self, *argv: str, pass_fds: tuple[int, ...] = (), **environ: str) -> subprocess.Popen[str]:
        """Start and go on; killed at the end of the test if it still runs."""
        child = subprocess.Popen(
            [sys.executable, "-m", "waitbus", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
            start_new_session=True,
            env={**os.environ, **environ},
        )
        self.children.append(child)
        return child

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate(timeout=PATIENCE)


@pytest.fixture
def cli(settings: Settings) -> Iterator[Cli]:
    runner = Cli()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    from tests.pytest_runs import Forker

    made = Forker()
    yield made
    made.close()


@pytest.fixture
def project(bus_dir: Path, settings: Settings, forker: Forker) -> Iterator[Project]:
    """A directory of tests to run pytest in, on the private bus."""
    from tests.pytest_runs import Project

    made = Project(bus_dir / "shop", settings, forker)
    yield made
    made.close()
