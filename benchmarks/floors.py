"""Floors: the least that a Python bus on SQLite and AF_UNIX does on this machine, with this interpreter.

Each is a bare program of the standard library with none of a bus's duties: no checks, no predicates, no replay. A
figure is judged by its ratio to the floor that was measured in the same run, so that machines can be compared.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import Child, environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.common import Lab

# Wake: a bare INSERT, commit and datagram; asyncio, SELECT, json and send; a blocking read.
_HUB = r"""
import asyncio, json, socket, sqlite3, struct, sys
folder = sys.argv[1]
store = sqlite3.connect(folder + "/e.db", isolation_level=None)
store.execute("pragma journal_mode=wal"); store.execute("pragma synchronous=normal")
store.execute("create table ev(seq integer primary key autoincrement, id text unique, p text)")
subscribers = []; cursor = 0
async def main():
    async def come(reader, writer): subscribers.append(writer)
    await asyncio.start_unix_server(come, folder + "/b.sock")
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); bell.bind(folder + "/bell"); bell.setblocking(False)
    def ring():
        global cursor
        try:
            while 1: bell.recv(64)
        except BlockingIOError: pass
        query = "select seq, id, p from ev where seq > ? order by seq limit 500"
        for cursor, name, due in store.execute(query, (cursor,)).fetchall():
            body = json.dumps({"delivery_id": name, "p": due}).encode(); frame = struct.pack(">I", len(body)) + body
            for writer in subscribers: writer.write(frame)
    asyncio.get_running_loop().add_reader(bell, ring); print("up", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
_SUBSCRIBER = r"""
import json, socket, struct, sys, time
peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[1] + "/b.sock"); count = int(sys.argv[2])
stream = peer.makefile("rb"); print("up", flush=True); took = []
while len(took) < count:
    head = stream.read(4); event = json.loads(stream.read(struct.unpack(">I", head)[0]))
    took.append(time.monotonic_ns() - int(event["p"]))
print(json.dumps(took), flush=True)
"""
_EMITTER = r"""
import socket, sqlite3, sys, time
folder = sys.argv[1]; rate, count = float(sys.argv[2]), int(sys.argv[3])
store = sqlite3.connect(folder + "/e.db", isolation_level=None, timeout=5); store.execute("pragma synchronous=normal")
bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
start = time.monotonic_ns() + 200_000_000
for i in range(count):
    due = start + int(i * 1e9 / rate)
    while (left := due - time.monotonic_ns()) > 0: time.sleep(left / 1e9)
    store.execute("insert or ignore into ev(id, p) values(?, ?)", (str(i), str(due)))
    bell.sendto(b".", folder + "/bell")
"""

# Memory: what a daemon and a waiter hold before they do anything. Start-up: the imports, and one row committed.
_SAY_RSS = "print([int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmRSS')][0])"
_IDLE_HUB = (
    """
import sys; sys.modules['ssl'] = None
import asyncio, json, socket, sqlite3, struct
async def main():
    await asyncio.start_unix_server(lambda r, w: None, sys.argv[1] + '/s')
    c = sqlite3.connect(sys.argv[1] + '/d'); c.execute('pragma journal_mode=wal'); c.execute('create table t(a)')
    c.execute('select * from t').fetchall()
    await asyncio.sleep(.2); """
    + _SAY_RSS
    + """
asyncio.run(main())
"""
)
_WAITER = "import socket, json, argparse\n" + _SAY_RSS
_EMIT = """
import sys, socket, json, sqlite3
c = sqlite3.connect(sys.argv[1] + '/e'); c.execute('pragma journal_mode=wal')
c.execute('create table if not exists t(a)'); c.execute('insert into t values(1)'); c.commit()
"""


def wake(lab: Lab, *, rate: float, count: int) -> list[float]:
    """Milliseconds from each intended dispatch to the bare subscriber."""
    with tempfile.TemporaryDirectory(prefix="floor-", dir=lab.folder) as folder:
        env = environment(Path(folder))

        def program(code: str, *words: object) -> Child:
            return Child([lab.installed.python, "-I", "-c", code, folder, *map(str, words)], env)

        with program(_HUB) as hub:
            hub.hear()
            with program(_SUBSCRIBER, count) as subscriber:
                subscriber.hear()
                with program(_EMITTER, rate, count) as emitter:
                    took: list[int] = json.loads(subscriber.hear())
                    emitter.wait()
    return [value / 1e6 for value in took]


def idle_hub_kib(lab: Lab) -> int:
    """Resident memory of the bare daemon, KiB."""
    return _number(lab, _IDLE_HUB)


def waiter_kib(lab: Lab) -> int:
    """Resident memory of the bare waiter, KiB."""
    return _number(lab, _WAITER)


def _number(lab: Lab, code: str) -> int:
    with tempfile.TemporaryDirectory(prefix="floor-", dir=lab.folder) as folder:
        command = [str(lab.installed.python), "-I", "-c", code, folder]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def timer(command: list[str], env: dict[str, str]) -> Callable[[], float]:
    """What runs a command once and returns its milliseconds, whole process."""

    def once() -> float:
        begin = time.perf_counter()
        subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        return (time.perf_counter() - begin) * 1e3

    return once


def bare_start(lab: Lab, env: dict[str, str]) -> Callable[[], float]:
    """Runs the interpreter for nothing."""
    return timer([str(lab.installed.python), "-I", "-c", "pass"], env)


def bare_emit(lab: Lab, env: dict[str, str], folder: Path) -> Callable[[], float]:
    """Runs the imports and one commit."""
    return timer([str(lab.installed.python), "-I", "-c", _EMIT, str(folder)], env)
