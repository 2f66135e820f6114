"""What every figure shares: the installed package, a private bus, and child processes that always end.

Nothing here runs from the source tree: the wheel is built, installed into an environment of its own and measured there.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.figure import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(__file__).resolve().parent / "programs"
PREVIOUS = ROOT / ".venvs" / "0.2.0" / "bin"
PATIENCE_SEC = 60.0


class Child:
    """A child process that speaks in lines; what it writes to standard error is shown when it fails."""

    def __init__(
        self, command: Sequence[str | Path], env: dict[str, str], *, fds: Sequence[int] = (), heard: bool = True
    ) -> None:
        self._name = " ".join(Path(part).name for part in command[:4] if not str(part).startswith("-"))
        self._heard = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if heard else subprocess.DEVNULL,
            stderr=self._errors,
            env=env,
            bufsize=0,
            pass_fds=tuple(fds),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def hear(self) -> str:
        """The next line it prints. Raises `BenchError` when it ends instead, or takes a minute."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        deadline = time.monotonic() + PATIENCE_SEC
        while b"\n" not in self._heard:
            if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise BenchError(f"{self._name} said nothing for {PATIENCE_SEC:.0f} s{self._last_words()}")
            piece = os.read(fd, 1 << 16)
            if not piece:
                raise BenchError(f"{self._name} ended with {self._process.wait()}{self._last_words()}")
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def wait(self) -> None:
        """Wait for its end. Raises `BenchError` unless it ended well."""
        try:
            code = self._process.wait(PATIENCE_SEC)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self._name} did not end{self._last_words()}") from None
        if code:
            raise BenchError(f"{self._name} ended with {code}{self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._errors.close()


def environment(home: Path) -> dict[str, str]:
    """A bus of its own, and nothing of ours that would change what is measured (coverage, PYTHON*)."""
    places = {"state": home / "state", "run": home / "run", "config": home / "config"}
    for place in places.values():
        place.mkdir(mode=0o700, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_STATE_HOME": str(places["state"]),
        "XDG_RUNTIME_DIR": str(places["run"]),
        "XDG_CONFIG_HOME": str(places["config"]),
        "WAITBUS_STATE_DIR": str(places["state"] / "waitbus"),
        "WAITBUS_RUNTIME_DIR": str(places["run"] / "waitbus"),
        "WAITBUS_AUTOSTART": "0",
    }


class Bus:
    """A private bus: a hub of the installed package and what talks to it. Everything ends with the `with` block."""

    def __init__(self, lab: Lab, *, hub: bool = True) -> None:
        self._stack = ExitStack()
        self.python = lab.installed.python
        self.home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bus-", dir=lab.folder)))
        self.env = environment(self.home)
        self.database = self.home / "state" / "waitbus" / "waitbus.db"
        self.broadcast = self.home / "run" / "waitbus" / "broadcast.sock"
        if hub:
            try:
                self.hub = self._start_hub(lab.installed.command)
            except BaseException:
                self._stack.close()
                raise

    def _start_hub(self, command: Path) -> Child:
        ready, told = os.pipe()
        try:
            # As autostart does it, so that an orphan would leave, too.
            words: list[str | Path] = [command, "serve", "hub", "--idle-exit", "600", "--ready-fd", str(told)]
            try:
                hub = self._stack.enter_context(Child(words, self.env, fds=[told]))
            finally:
                os.close(told)
            if not select.select([ready], [], [], PATIENCE_SEC)[0] or not os.read(ready, 64):
                hub.wait()
                raise BenchError("the hub ended at once")
        finally:
            os.close(ready)
        return hub

    def part(self, name: str, *words: object) -> Child:
        """Start one of `programs/` with the installed package's interpreter."""
        command: list[str | Path] = [self.python, "-I", PROGRAMS / f"{name}.py", *map(str, words)]
        return self._stack.enter_context(Child(command, self.env))

    def run(self, *command: str | Path) -> Child:
        """Start any other program on this bus."""
        return self._stack.enter_context(Child(command, self.env))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


@dataclass(frozen=True)
class Installed:
    """The wheel, and the environment it was installed into."""

    wheel: Path
    python: Path
    command: Path


class Lab:
    """One run: its temporary folder and how thorough it is."""

    def __init__(self, folder: Path, *, quick: bool, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.quick = quick
        self.say = say

    def pick(self, thorough: int, quick: int) -> int:
        return quick if self.quick else thorough

    @cached_property
    def installed(self) -> Installed:
        """Build the wheel, lay an environment with pip as anybody would, and compile, so that no run does it."""
        self.say("building the wheel and installing it")
        dist, home = self.folder / "dist", self.folder / "venv"
        self._run(sys.executable, "-m", "tools.build", str(dist))
        (wheel,) = dist.glob("*.whl")
        self._run(sys.executable, "-m", "venv", str(home))
        python = home / "bin" / "python"
        self._run(str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--compile", str(wheel))
        return Installed(wheel, python, home / "bin" / "waitbus")

    def _run(self, *command: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTHON"))}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"{' '.join(command)} failed: {done.stderr.strip()[-400:]}")


def open_loop(emitter: Child, subscriber: Child, *, rate: float, count: int) -> list[float]:
    """Milliseconds from each intended dispatch to the woken subscriber. Checks that each came once, in order."""
    subscriber.hear()
    prefix = f"paced{emitter.pid}"  # rounds on one bus: each has ids of its own
    emitter.say(prefix)
    start = int(emitter.hear())
    seen: list[tuple[str, int]] = json.loads(subscriber.hear())
    if [name for name, _ in seen] != [f"{prefix}-{number}" for number in range(count)]:
        raise BenchError("events were lost, repeated or out of order")
    return [(at - start - int(number * 1e9 / rate)) / 1e6 for number, (_, at) in enumerate(seen)]


def status_number(pid: int, key: str) -> int:
    """A number of `/proc/PID/status`; memory is in KiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{key}:"))


def cpu_ns(pid: int) -> int:
    """Nanoseconds on a processor, all threads, by the scheduler's own account."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def has_proc() -> bool:
    """Whether this kernel tells of its processes under `/proc`."""
    return Path("/proc/self/schedstat").exists()


def wheel_needs(wheel: Path) -> list[str]:
    """What the wheel's metadata requires without any extra."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return [line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line]


def machine() -> list[str]:
    """What the figures depend on, and nothing that names this machine."""
    import platform
    import sqlite3

    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return [
        f"{os.cpu_count()} x {model or platform.machine()}",
        f"{platform.system()} {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        f"load {os.getloadavg()[0]:.2f}",
    ]
