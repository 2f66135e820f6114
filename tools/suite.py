"""Run the suite on every supported Python found here, and end with one line for each.

The interpreter that runs this file is the main one: it measures coverage and holds the floor of
pyproject.toml. Each other one gets an environment of its own under ``.venvs/``, from the same lock,
and leaves out the tests of this repository's own tools, which run on the main interpreter only.
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
from pathlib import Path

from tools.pythons import SUPPORTED, Python, find

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_TOOLS = "--ignore-glob=*/test_supply_*.py"
Outcome = tuple[str, str, bool]  # the version, a line about it, and whether it failed


def run(command: list[str], **env: str) -> tuple[int, str, list[str]]:
    """Run a command and pass its output through. Returns its exit code, its last line unframed, and everything."""
    tail = b""
    environ = {**os.environ, **env}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while chunk := os.read(child.stdout.fileno(), 65536):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            tail = (tail + chunk)[-4096:]
    lines = tail.decode(errors="replace").strip().splitlines()
    return child.returncode, lines[-1].strip("= ") if lines else f"exit code {child.returncode}", lines


def with_coverage(pytest: list[str]) -> tuple[str, bool]:
    """Run the suite on this interpreter, measure coverage in subprocesses too, and check the coverage floor."""
    coverage = [sys.executable, "-m", "coverage"]
    with tempfile.TemporaryDirectory(prefix="waitbus-coverage-") as folder:
        # A folder for each run, so that two runs in one checkout do not take each other's data.
        env = {"COVERAGE_FILE": str(Path(folder) / ".coverage")}
        code, closing, _ = run([*coverage, "run", *pytest], **env)
        if code:
            return closing, True
        if run([*coverage, "combine", "--quiet"], **env)[0]:
            return f"{closing}; coverage could not be combined", True
        shutil.copy(env["COVERAGE_FILE"], ROOT / ".coverage")
        code, _, lines = run([*coverage, "report"], **env)
    total = next((line.split()[-1] for line in lines if line.startswith("TOTAL")), "unknown")
    return f"{closing}; coverage {total}{', under the floor' if code else ''}", code != 0


def elsewhere(python: Python, uv: str, pytest: list[str]) -> tuple[str, bool]:
    """Install the other interpreter's environment from the lock, then run the suite in it."""
    home = ROOT / ".venvs" / python.minor
    sync = [uv, "sync", "--frozen", "--quiet", "--no-default-groups", "--group=test", "--python", python.path]
    if run(sync, UV_PROJECT_ENVIRONMENT=str(home), UV_PYTHON_DOWNLOADS="never")[0]:
        return f"its environment could not be made from {python.path}", True
    code, closing, _ = run([str(home / "bin" / "python"), *pytest])
    return closing, code != 0


def main() -> int:
    """Run everything even if something fails, and report it at the end."""
    parser = argparse.ArgumentParser(description="Run the suite on every supported Python found here.")
    parser.add_argument("--uv", required=True, help="the uv that lays the environments")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("chosen", nargs="*", help="passed on to pytest; coverage is then left out")
    arguments = parser.parse_args()
    pytest = ["-m", "pytest", "-q", f"--numprocesses={arguments.workers}", "--dist=worksteal", *arguments.chosen]
    start = time.monotonic()
    this = platform.python_version()
    print(f"\n== Python {this}{'' if arguments.chosen else ', with coverage'}", flush=True)
    if arguments.chosen:
        code, closing, _ = run([sys.executable, *pytest])
        outcomes: list[Outcome] = [(this, closing, code != 0)]
    else:
        outcomes = [(this, *with_coverage(pytest))]
    for minor in SUPPORTED:
        if this.startswith(f"{minor}."):
            continue
        if python := find(minor, arguments.uv):
            print(
                f"\n== Python {python.version}{'' if arguments.chosen else ', without tests/test_supply_*'}", flush=True
            )
            words = pytest if arguments.chosen else [*pytest, WITHOUT_TOOLS]
            outcomes.append((python.version, *elsewhere(python, arguments.uv, words)))
        else:
            outcomes.append((minor, "not found here, so not tested", False))
    print("\n== Summary")
    for version, text, failed in outcomes:
        print(f"  {version:<8} {'FAILED: ' if failed else ''}{text}")
    broken = [version for version, _, failed in outcomes if failed]
    verdict = "Failed on " + ", ".join(broken) if broken else "All passed"
    print(f"  {verdict}, after {time.monotonic() - start:.0f} s.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
