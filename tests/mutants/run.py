"""Runs tests on mutants: a copy of the tree for each worker, so that the checkout is never touched."""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.mutants.generate import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("src", "tests", "tools", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
# How long a run may take, by how long it took without a fault.
FACTOR, SLACK_SEC = 3.0, 4.0
CLEAN_LIMIT_SEC = 300.0
SEED = 7
# What stands in place of a module to prove that its tests would see a fault there.
CANARY = "raise AssertionError('the tests see this file')\n"


class Broken(Exception):
    """Nothing can be said of a module's mutants; the text says why."""


class Worker:
    """One copy of the tree, and the process that runs tests on it."""

    def __init__(self, place: Path) -> None:
        self.tree = place / "tree"
        self.scratch = place / "t"
        self.log = place / "log"
        self.tree.mkdir(parents=True)
        for path in (place.parent, place):
            path.chmod(0o711)  # another user of the tests must get to a socket, to be turned away there
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, self.tree / name)
        self._stamp = 1_000_000_000
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.zygote", str(self.tree)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt from the keyboard is ours to pass on
        )

    def write(self, path: str, code: str) -> None:
        """Put a text in place of a file, with a time it never had, so that no compiled file is taken for its own."""
        self._stamp += 1
        target = self.tree / path
        target.write_text(code, encoding="utf-8")
        os.utime(target, (self._stamp, self._stamp))

    def run(self, tests: list[str], limit: float) -> tuple[int | None, float]:
        """pytest's exit code (None: the time was over) and the seconds it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.scratch.mkdir(0o711, exist_ok=True)
        order = {"tests": tests, "limit": limit, "log": str(self.log), "scratch": str(self.scratch)}
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise Broken("the process that runs the tests is gone")
        shutil.rmtree(self.scratch, ignore_errors=True)
        said = json.loads(answer)
        return said["code"], said["seconds"]

    def close(self) -> None:
        """End of its input ends it, in the middle of a run, too."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Verdict:
    """What became of one mutant: `killed`, `timed out` (killed, too) or `survived`."""

    __slots__ = ("mutant", "word")

    def __init__(self, mutant: Mutant, word: str) -> None:
        self.mutant = mutant
        self.word = word


class Pool:
    """The workers, and who is free."""

    def __init__(self, place: Path, count: int) -> None:
        self._workers = [Worker(place / str(number)) for number in range(count)]
        self._threads = ThreadPoolExecutor(count)
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def map(self, act: Callable[[Worker, Any], Any], items: list[Any]) -> Iterator[Any]:
        """`act` on every item, in order, on whichever worker is free."""

        def one(item: Any) -> Any:
            worker = self._free.get()
            try:
                return act(worker, item)
            finally:
                self._free.put(worker)

        return self._threads.map(one, items)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()


class Module:
    """One file under test: its path, its tests, its mutants."""

    def __init__(self, name: str, tests: list[str], sample: int | None) -> None:
        self.name = name
        self.path = f"src/waitbus/{name}.py"
        self.tests = [f"tests/{test}.py" for test in tests]
        self.source = (ROOT / self.path).read_text(encoding="utf-8")
        found = mutants_of(self.source)
        self.known = len(found)
        if sample is not None and sample < len(found):
            chosen = sorted(random.Random(SEED).sample(range(len(found)), sample))
            found = [found[at] for at in chosen]
        self.mutants = found
        self.seconds = 0.0

    def prove(self, pool: Pool) -> float:
        """The limit for a run. Raises `Broken` where the tests fail without a fault, or do not see this file."""

        def clean(worker: Worker, _: object) -> float:
            code, seconds = worker.run(self.tests, CLEAN_LIMIT_SEC)
            if code != 0:
                said = worker.log.read_text(errors="replace").strip()[-3000:]
                raise Broken(f"{self.name}: its tests fail without any fault, with {code}:\n{said}")
            return seconds

        def canary(worker: Worker, _: object) -> int | None:
            return self._on(worker, CANARY, CLEAN_LIMIT_SEC)

        (seconds,) = pool.map(clean, [None])
        (code,) = pool.map(canary, [None])
        if code == 0:
            raise Broken(f"{self.name}: its tests pass without the file at all: name others in table.toml")
        return float(seconds) * FACTOR + SLACK_SEC

    def judge(self, pool: Pool) -> Iterator[Verdict]:
        """Every mutant's verdict, in order."""
        begin = time.monotonic()
        limit = self.prove(pool)

        def one(worker: Worker, mutant: Mutant) -> Verdict:
            code = self._on(worker, mutant.code, limit)
            return Verdict(mutant, "survived" if code == 0 else "timed out" if code is None else "killed")

        yield from pool.map(one, self.mutants)
        self.seconds = time.monotonic() - begin

    def _on(self, worker: Worker, code: str, limit: float) -> int | None:
        worker.write(self.path, code)
        try:
            return worker.run(self.tests, limit)[0]
        finally:
            worker.write(self.path, self.source)
