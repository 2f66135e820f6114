"""`waitbus source verify`: a plugin's files, its wheel and its publisher, without a line of it being run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.artifacts import Files, argv, record_anew, row, tool, zipped
from tests.conftest import PATIENCE

INFO = "waitbus_weather-1.2.dist-info"
RECORD = f"{INFO}/RECORD"
REPOSITORY = "https://github.com/ann/weather"


def plugin_files() -> Files:
    """A plugin that ends whoever imports it."""
    files = {
        "waitbus_weather/__init__.py": b"raise SystemExit('it was imported')\n",
        "waitbus_weather/forecast.py": b"",
        f"{INFO}/METADATA": b"Metadata-Version: 2.4\nName: waitbus-weather\nVersion: 1.2\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{INFO}/entry_points.txt": b"[waitbus.sources.v1]\nweather = waitbus_weather:source\n",
    }
    record_anew(files, RECORD)
    return files


class Plugin:
    """It, installed in a directory, its wheel, and a private PATH."""

    def __init__(self, root: Path) -> None:
        self.site, self.bin, self.wheel = root / "site", root / "bin", root / "waitbus_weather-1.2-py3-none-any.whl"
        self.bin.mkdir()
        files = plugin_files()
        self.wheel.write_bytes(zipped(files.items()))
        files[f"{INFO}/INSTALLER"] = b"hand\n"
        files[RECORD] += row(f"{INFO}/INSTALLER", b"hand\n").encode()
        for name, body in files.items():
            path = self.site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

    def verify(self, *flags: str, name: str = "weather") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "waitbus", "source", "verify", name, *flags],
            env={**os.environ, "PYTHONPATH": str(self.site), "PATH": str(self.bin)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def states(self, *flags: str) -> tuple[int, dict[str, str]]:
        done = self.verify("--wheel", str(self.wheel), "--repository", REPOSITORY, "--json", *flags)
        return done.returncode, {check["check"]: check["state"] for check in json.loads(done.stdout)["checks"]}


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def test_without_the_tool_it_is_not_set_up(plugin: Plugin) -> None:
    code, states = plugin.states()
    assert (code, states) == (78, {"installed": "ok", "wheel": "ok", "publisher": "not checked"})


def test_the_publisher_is_pypi_attestations_to_name(plugin: Plugin) -> None:
    tool(plugin.bin, "pypi-attestations", "exit 0")
    done = plugin.verify("--wheel", str(plugin.wheel), "--repository", REPOSITORY)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[0] == "weather: waitbus-weather 1.2"
    assert argv(plugin.bin, "pypi-attestations") == ["verify", "pypi", "--repository", REPOSITORY, str(plugin.wheel)]
    tool(plugin.bin, "pypi-attestations", "echo 'Verification failed: by another' >&2; exit 1")
    assert plugin.states()[0] == 76
    # Nothing was found, or nobody was reached: that is no word against it.
    tool(plugin.bin, "pypi-attestations", "echo 'Provenance for file \"x\" was not found' >&2; exit 1")
    code, states = plugin.states()
    assert (code, states["publisher"]) == (78, "not checked")


@pytest.mark.parametrize("flags", [(), ("--repository", REPOSITORY)])
def test_without_a_wheel_nothing_is_known_of_it(plugin: Plugin, flags: tuple[str, ...]) -> None:
    tool(plugin.bin, "pypi-attestations", "exit 0")
    done = plugin.verify(*flags)
    assert done.returncode == 78
    assert "pip download --no-deps" in done.stdout
    assert not (plugin.bin / "pypi-attestations.argv").exists()


def test_without_an_expectation_nobody_is_asked(plugin: Plugin) -> None:
    tool(plugin.bin, "pypi-attestations", "exit 0")
    done = plugin.verify("--wheel", str(plugin.wheel))
    assert (done.returncode, "you did not say whom you expect" in done.stdout) == (78, True)
    assert plugin.verify("--repository", "ann/weather").returncode == 2


def changed(plugin: Plugin) -> None:
    (plugin.site / "waitbus_weather" / "forecast.py").write_text("import os\n")


def added(plugin: Plugin) -> None:
    (plugin.site / "waitbus_weather" / "extra.py").write_text("import os\n")


def changed_with_care(plugin: Plugin) -> None:
    """The file and its line of RECORD."""
    changed(plugin)
    record = plugin.site / RECORD
    old, new = row("waitbus_weather/forecast.py", b""), row("waitbus_weather/forecast.py", b"import os\n")
    assert old in record.read_text()
    record.write_text(record.read_text().replace(old, new))


def added_with_care(plugin: Plugin) -> None:
    added(plugin)
    with (plugin.site / RECORD).open("a") as record:
        record.write(row("waitbus_weather/extra.py", b"import os\n"))


def forgotten(plugin: Plugin) -> None:
    """A file that the wheel has, taken away with its line of RECORD."""
    (plugin.site / "waitbus_weather" / "forecast.py").unlink()
    record = plugin.site / RECORD
    record.write_text(record.read_text().replace(row("waitbus_weather/forecast.py", b""), ""))


@pytest.mark.parametrize(
    ("tamper", "check"),
    [
        (changed, "installed"),
        (added, "installed"),
        (changed_with_care, "wheel"),
        (added_with_care, "wheel"),
        (forgotten, "wheel"),
    ],
)
def test_tampering_is_found(plugin: Plugin, tamper: Callable[[Plugin], None], check: str) -> None:
    tool(plugin.bin, "pypi-attestations", "exit 0")
    tamper(plugin)
    code, states = plugin.states()
    assert (code, [name for name, state in states.items() if state == "FAILED"]) == (76, [check])


def test_a_row_of_the_wheel_without_a_hash_vouches_for_nothing(plugin: Plugin) -> None:
    files = plugin_files()
    name = "waitbus_weather/forecast.py"
    files[RECORD] = files[RECORD].replace(row(name, b"").encode(), f"{name},,\n".encode())
    plugin.wheel.write_bytes(zipped(files.items()))
    code, states = plugin.states()
    assert (code, states["wheel"]) == (76, "FAILED")


def test_what_is_not_there(plugin: Plugin) -> None:
    for name in ("rain", "github"):
        done = plugin.verify(name=name)
        assert (done.returncode, done.stdout) == (66, "")
        assert "doctor --integrity" in done.stderr
    assert plugin.verify("--wheel", "/nonexistent.whl").returncode == 66
    for content in (b"no zip", zipped([("x", b"")])):
        plugin.wheel.write_bytes(content)
        done = plugin.verify("--wheel", str(plugin.wheel))
        assert (done.returncode, done.stderr.count("\n")) == (65, 1)


def test_an_installer_without_a_record(plugin: Plugin) -> None:
    (plugin.site / RECORD).unlink()
    done = plugin.verify("--wheel", str(plugin.wheel))
    assert (done.returncode, "left no RECORD" in done.stdout) == (78, True)


def test_two_that_offer_the_same_source(plugin: Plugin) -> None:
    other = plugin.site / "other-1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Name: other\nVersion: 1\n")
    (other / "entry_points.txt").write_text("[waitbus.sources.v1]\nweather = other:source\n")
    done = plugin.verify()
    assert (done.returncode, "other; waitbus-weather all offer" in done.stderr) == (65, True)


def test_what_a_wheel_puts_elsewhere_is_compared_where_it_lies(plugin: Plugin) -> None:
    files = plugin_files()
    files["waitbus_weather-1.2.data/purelib/waitbus_weather/forecast.py"] = files.pop("waitbus_weather/forecast.py")
    files["waitbus_weather-1.2.data/scripts/weather"] = b"#!python\n"
    record_anew(files, RECORD)
    plugin.wheel.write_bytes(zipped(files.items()))
    assert plugin.states()[1]["wheel"] == "ok"
