"""Run the suite on every supported Python found here, and end with one line for each.

The interpreter that runs this file is the main one: it measures coverage and holds the floor of
pyproject.toml. Each other one gets an environment of its own under ``.venvs/``, from the same lock.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tools.pythons import SUPPORTED, Python, find

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venvs"


@dataclass(frozen=True)
class Outcome:
    """One line of the summary."""

    version: str
    text: str
    failed: bool = False


def say(text: str) -> None:
    """Print at once, so that lines stay in order with those of child processes."""
    print(text, flush=True)


def run(command: list[str], env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Run a command, pass its output through as it comes, and return its exit code and last lines."""
    tail = b""
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        while chunk := os.read(child.stdout.fileno(), 65536):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            tail = (tail + chunk)[-4096:]
    return child.returncode, tail.decode(errors="replace").strip().splitlines()


def closing_line(code: int, lines: list[str]) -> str:
    """What pytest says at the end, without its frame."""
    return lines[-1].strip("= ") if lines else f"exit code {code}"


def pytest_arguments(workers: int, chosen: list[str]) -> list[str]:
    """The arguments that every run of the suite shares."""
    return ["-m", "pytest", "-q", f"--numprocesses={workers}", "--dist=worksteal", *chosen]


def run_with_coverage(workers: int) -> Outcome:
    """The suite on this interpreter, subprocesses measured too, and the floor."""
    version = platform.python_version()
    say(f"\n== Python {version}, with coverage")
    coverage = [sys.executable, "-m", "coverage"]
    with tempfile.TemporaryDirectory(prefix="waitbus-coverage-") as folder:
        # A folder of its own: two runs in one checkout must not eat each other's data.
        env = {"COVERAGE_FILE": str(Path(folder) / ".coverage")}
        code, lines = run([*coverage, "run", *pytest_arguments(workers, [])], env)
        closing = closing_line(code, lines)
        if code:
            return Outcome(version, closing, failed=True)
        code, _ = run([*coverage, "combine", "--quiet"], env)
        if code:
            return Outcome(version, f"{closing}; coverage could not be combined", failed=True)
        shutil.copy(env["COVERAGE_FILE"], ROOT / ".coverage")
        code, lines = run([*coverage, "report"], env)
    total = next((line.split()[-1] for line in lines if line.startswith("TOTAL")), "unknown")
    return Outcome(version, f"{closing}; coverage {total}{', under the floor' if code else ''}", failed=code != 0)


def run_plain(python: str, version: str, workers: int, chosen: list[str]) -> Outcome:
    """The suite on one interpreter, without coverage."""
    say(f"\n== Python {version}")
    code, lines = run([python, *pytest_arguments(workers, chosen)])
    return Outcome(version, closing_line(code, lines), failed=code != 0)


def run_elsewhere(python: Python, uv: str, workers: int, chosen: list[str]) -> Outcome:
    """Lay the other interpreter's environment as the lock says, then run the suite in it."""
    home = ENVIRONMENTS / python.minor
    sync = [uv, "sync", "--frozen", "--quiet", "--no-default-groups", "--group=test", "--python", python.path]
    code, _ = run(sync, {"UV_PROJECT_ENVIRONMENT": str(home), "UV_PYTHON_DOWNLOADS": "never"})
    if code:
        return Outcome(python.version, f"its environment could not be made from {python.path}", failed=True)
    return run_plain(str(home / "bin" / "python"), python.version, workers, chosen)


def summarise(outcomes: list[Outcome], seconds: float) -> int:
    """Print one line for each Python and return the exit code."""
    say("\n== Summary")
    for outcome in outcomes:
        say(f"  {outcome.version:<8} {'FAILED: ' if outcome.failed else ''}{outcome.text}")
    failed = [outcome.version for outcome in outcomes if outcome.failed]
    verdict = "Failed on " + ", ".join(failed) if failed else "All passed"
    say(f"  {verdict}, after {seconds:.0f} s.")
    return 1 if failed else 0


def main() -> int:
    """Run everything, whatever fails on the way, and say so at the end."""
    parser = argparse.ArgumentParser(description="Run the suite on every supported Python found here.")
    parser.add_argument("--uv", required=True, help="the uv that lays the environments")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("chosen", nargs="*", help="passed on to pytest; coverage is then left out")
    arguments = parser.parse_args()

    start = time.monotonic()
    this = ".".join(platform.python_version_tuple()[:2])
    if arguments.chosen:
        outcomes = [run_plain(sys.executable, platform.python_version(), arguments.workers, arguments.chosen)]
    else:
        outcomes = [run_with_coverage(arguments.workers)]
    for minor in SUPPORTED:
        if minor == this:
            continue
        if python := find(minor, arguments.uv):
            outcomes.append(run_elsewhere(python, arguments.uv, arguments.workers, arguments.chosen))
        else:
            outcomes.append(Outcome(minor, "not found here, so not tested"))
    return summarise(outcomes, time.monotonic() - start)


if __name__ == "__main__":
    sys.exit(main())
