"""Projects with tests, each run by a pytest process of its own.

Most runs are forked from one process that has imported pytest already: an import of it for each would be most of the
time that these tests take. `Project.spawn` starts an interpreter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import PATIENCE, ROOT
from waitbus.settings import Settings
from waitbus.store.open import open_reader
from waitbus.store.read import read_after

PASS = "def test_good(): pass\n"
FAIL = "def test_bad(): assert 1 == 2, 'one is not two'\n"
ON = ("-p", "waitbus.pytest")
# What pytest sees of an installed waitbus, wherever the package itself comes from.
ENTRY_POINT = {
    "lib/waitbus_entry-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: waitbus-entry\nVersion: 0\n",
    "lib/waitbus_entry-0.dist-info/entry_points.txt": "[pytest11]\n"
    "waitbus = waitbus.sources.pytest_plugin\nwaitbus-options = waitbus.sources.pytest_options\n",
}


def last_line(output: str) -> dict[str, int]:
    """The numbers of pytest's own last line, under our names for them."""
    line = [line for line in output.splitlines() if re.search(r" in \d+\.\d+s", line)][-1]
    said = re.findall(r"(\d+) (\w+)", line.partition(" in ")[0])
    return {"errors" if name == "error" else name: int(number) for number, name in said}


class Forker:
    """One interpreter with pytest imported; every run is a fork of it."""

    def __init__(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "pytest_forker.py")],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, cwd: Path, argv: list[str], env: dict[str, str]) -> tuple[int, str]:
        """Exit code (negative: the signal that ended it) and everything printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        said = cwd.parent / "said"
        self._process.stdin.write(json.dumps([str(cwd), str(said), argv, env]) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code, said.read_text(errors="replace")

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


class Project:
    """A directory with tests, run by a pytest that sees no plugin but the ones a test names."""

    def __init__(self, root: Path, settings: Settings, forker: Forker) -> None:
        self.root = root
        self.settings = settings
        self._forker = forker
        self.children: list[subprocess.Popen[str]] = []
        self.write({"pytest.ini": "[pytest]\n"})

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _environ(self, autoload: bool, environ: dict[str, str]) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PY_"))}
        env["PYTHONPATH"] = f"{self.root / 'lib'}{os.pathsep}{ROOT / 'src'}"
        if not autoload:
            env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        return {**env, **environ}

    def spawn(self, *options: str, autoload: bool = False, **environ: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=self.root,
            env=self._environ(autoload, environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.children.append(child)
        return child

    def run(
        self, *options: str, files: dict[str, str] | None = None, autoload: bool = False, **environ: str
    ) -> tuple[int, str]:
        """Exit code and everything printed."""
        self.write(files or {})
        return self._forker.run(self.root, list(options), self._environ(autoload, environ))

    def events(self) -> list[dict[str, Any]]:
        """What the store holds, in order; nothing when there is no store."""
        if not os.path.exists(self.settings.db_path):
            return []
        reader = open_reader(self.settings)
        try:
            return [frame for _, frame in read_after(reader, 0, 1000)]
        finally:
            reader.close()

    def fields(self) -> list[dict[str, Any]]:
        return [event["fields"] for event in self.events()]

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.communicate()
