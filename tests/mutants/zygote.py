"""A process that has imported pytest and hypothesis, and forks itself for each run of tests: most of a run's time less.

``python -m tests.mutants.zygote TREE``. A line of stdin asks for one run: JSON with `tests` (files), `limit` (seconds)
and `log` (a file for what pytest prints). A line of stdout answers: `code`, pytest's own, or None where the time was
over, and `seconds`. The product is first imported after the fork, from TREE.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from typing import Any

import hypothesis.strategies  # noqa: F401  # imported here for all the children
import pytest

# A fault may ask for memory without end.
MEMORY_BYTES = 4 << 30
# What a test waits for comes at once, or does not come with this fault.
PATIENCE_SEC = 5
ARGUMENTS = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist")
ALLOWED = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")  # we have imported hypothesis
_PR_SET_CHILD_SUBREAPER = 36


def main(tree: str) -> None:
    _adopt_orphans()
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        begin = time.monotonic()
        code = run(tree, order)
        print(json.dumps({"code": code, "seconds": time.monotonic() - begin}), flush=True)


def _adopt_orphans() -> None:
    """Daemons that tests started come to us when their parent is gone, so that they can be ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(tree: str, order: dict[str, Any]) -> int | None:
    pid = os.fork()
    if not pid:
        os.setsid()
        os._exit(_child(tree, order))
    code = _awaited(pid, time.monotonic() + order["limit"])
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    _end_children()
    return code


def _child(tree: str, order: dict[str, Any]) -> int:
    """The run itself, in the forked process."""
    code = 3
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for fd in (1, 2):
            os.dup2(log, fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        os.chdir(tree)
        os.environ |= {
            "PYTHONPATH": f"{tree}/src",
            "WB_TEST_DIR": order["scratch"],
            "WB_TEST_PATIENCE": str(PATIENCE_SEC),
        }
        sys.path[:0] = [f"{tree}/src", tree]
        sys.argv = ["pytest"]
        code = int(pytest.main([*ARGUMENTS, *ALLOWED, *order["tests"]]))
    except BaseException:  # whatever it is, this process ends here and does not become a second zygote
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _awaited(pid: int, deadline: float) -> int | None:
    """The exit code; None when the time is over or nobody asks any more."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline or select.select([0], [], [], 0.01)[0]:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None


def _end_children() -> None:
    """End whoever is left, and wait for them all."""
    while True:
        with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as children:
            for child in children.read().split():
                os.kill(int(child), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(sys.argv[1])
