"""The wake of `wake.py` beside that of others, in the same open loop: 0.2.0, and Redis Streams through redis-py.

Rounds alternate. Redis is asked over TCP, the client's default, and over an AF_UNIX socket, its fastest; it logs with
`appendfsync everysec`: what is written survives a kill, as with us. A peer that cannot run here is skipped by name.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import wake
from benchmarks.common import PATIENCE_SEC, PREVIOUS, PROGRAMS, Child, environment, open_loop
from benchmarks.figure import BenchError, Figure, median_of, ratio, skipped, times_under

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.common import Lab

# 0.2.0 will not subscribe to everything: both are asked for the same.
PREDICATE = 'fields.source="agent"'


def _missing(name: str) -> str:
    """Why a peer cannot run; empty when it can."""
    if name == "0.2.0":
        return "" if (PREVIOUS / "waitbus").exists() else "not installed (make bench lays it in .venvs/0.2.0)"
    if shutil.which("redis-server") is None:
        return "no redis-server on PATH (Debian: apt install redis-server)"
    if importlib.util.find_spec("redis") is None:
        return "redis-py is not installed (make bench does it)"
    return ""


def _listening(path: Path, daemon: Child) -> None:
    """Wait until something listens there: a peer's daemon does not say when."""
    deadline = time.monotonic() + PATIENCE_SEC
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(f"nothing listens on {path.name}") from None
        time.sleep(0.02)


def previous_round(lab: Lab, count: int) -> list[float]:
    """0.2.0: its hub, its `emit`, its `subscribe`; the very programs that ours runs."""
    with tempfile.TemporaryDirectory(prefix="v020-", dir=lab.folder) as folder, ExitStack() as stack:
        env = environment(Path(folder))
        subprocess.run([PREVIOUS / "waitbus", "init"], env=env, capture_output=True)

        def start(*words: object, heard: bool = True) -> Child:
            return stack.enter_context(Child([str(word) for word in words], env, heard=heard))

        hub = start(PREVIOUS / "waitbus", "broadcast", "serve", heard=False)
        _listening(Path(env["WAITBUS_RUNTIME_DIR"]) / "broadcast.sock", hub)
        python = PREVIOUS / "python"
        subscriber = start(python, "-I", PROGRAMS / "subscribe.py", count, PREDICATE)
        emitter = start(python, "-I", PROGRAMS / "emit_paced.py", wake.RATE_HZ, count)
        return open_loop(emitter, subscriber, rate=wake.RATE_HZ, count=count)


def redis_round(lab: Lab, count: int, *, tcp: bool) -> list[float]:
    """Redis: XADD and a blocking XREAD, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="redis-", dir=lab.folder) as folder, ExitStack() as stack:
        env = environment(Path(folder))
        path, port = Path(folder) / "redis.sock", _free_port() if tcp else 0

        def start(*words: object, heard: bool = True) -> Child:
            return stack.enter_context(Child([str(word) for word in words], env, heard=heard))

        server = start(
            *("redis-server", "--bind", "127.0.0.1", "--port", port, "--unixsocket", path, "--dir", folder),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--logfile", Path(folder) / "log"),
            heard=False,
        )
        _listening(path, server)
        address = f"redis://127.0.0.1:{port}" if tcp else f"unix://{path}"
        subscriber = start(sys.executable, PROGRAMS / "redis_subscribe.py", address, count)
        emitter = start(sys.executable, PROGRAMS / "redis_paced.py", address, wake.RATE_HZ, count)
        return open_loop(emitter, subscriber, rate=wake.RATE_HZ, count=count)


def _free_port() -> int:
    with socket.socket(socket.AF_INET) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Each peer, and how many times under it the p50 must be.
PEERS: dict[str, tuple[Callable[[Lab, int], list[float]], float]] = {
    "0.2.0": (previous_round, 8.0),
    "Redis Streams, TCP": (partial(redis_round, tcp=True), 1.0),
    "Redis Streams, AF_UNIX": (partial(redis_round, tcp=False), 1.0),
}


def measure(lab: Lab) -> Iterator[Figure]:
    """Ours and each peer that can run, alternately."""
    count = lab.pick(500, 200)
    present = [name for name in PEERS if not _missing(name)]
    ours: list[list[float]] = []
    theirs: dict[str, list[list[float]]] = {name: [] for name in present}
    for _ in range(lab.pick(4, 1) if present else 0):
        ours.append(wake.one_round(lab, count, PREDICATE))
        for name in present:
            theirs[name].append(PEERS[name][0](lab, count))
    for name, (_, limit) in PEERS.items():
        if reason := _missing(name):
            yield skipped(f"wake against {name}", reason)
            continue
        for share, times in ((0.5, limit), (0.99, None)):
            what, mine, its = (
                f"wake p{share * 100:.0f} against {name}",
                median_of(ours, share),
                median_of(theirs[name], share),
            )
            if times is None:
                yield ratio(what, "ms", mine, name, its)
            else:
                yield times_under(what, "ms", mine, name, its, times)
