"""Settings: where things are, what a config file may say, and which places are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus.settings import MACOS, SOCKET_PATH_BYTES, Settings, SettingsError, load
from waitbus.units import parse_duration, parse_size


@pytest.fixture
def config(bus_dir: Path) -> Callable[[str], Settings]:
    def make(text: str) -> Settings:
        path = bus_dir / "config.toml"
        path.write_text(text)
        return load({"HOME": str(bus_dir), "WAITBUS_CONFIG": str(path), "WAITBUS_RUNTIME_DIR": str(bus_dir / "r")})

    return make


@pytest.mark.skipif(MACOS, reason="macOS has its own places")
def test_the_places_of_a_bare_linux_environment() -> None:
    found = load({"HOME": "/home/u"})
    assert found.state_dir == "/home/u/.local/state/waitbus"
    assert found.config_path == "/home/u/.config/waitbus/config.toml"
    assert found.runtime_dir == f"/tmp/waitbus-{os.geteuid()}"
    assert found.db_path == "/home/u/.local/state/waitbus/waitbus.db"
    assert found.broadcast_socket == found.runtime_dir + "/broadcast.sock"
    assert found.hub_lock == found.state_dir + "/hub.lock"


@pytest.mark.skipif(not MACOS, reason="Linux has its own places")
def test_the_places_of_a_bare_macos_environment() -> None:
    found = load({"HOME": "/Users/u"})
    assert found.state_dir == "/Users/u/Library/Application Support/waitbus"
    assert found.config_path == "/Users/u/.config/waitbus/config.toml"
    assert found.runtime_dir.endswith("/waitbus")


@pytest.mark.skipif(MACOS, reason="macOS has its own places")
def test_xdg_directories_are_followed_unless_they_are_relative(bus_dir: Path) -> None:
    xdg = {"XDG_STATE_HOME": str(bus_dir / "s"), "XDG_CONFIG_HOME": "rel", "XDG_RUNTIME_DIR": str(bus_dir / "r")}
    found = load({"HOME": "/h", **xdg})
    assert found.state_dir == f"{bus_dir}/s/waitbus"
    assert found.config_path == "/h/.config/waitbus/config.toml"
    assert found.doorbell_socket == f"{bus_dir}/r/waitbus/doorbell.sock"


def test_variables_override_each_place() -> None:
    found = load(
        {
            "HOME": "/h",
            "WAITBUS_STATE_DIR": "/s",
            "WAITBUS_RUNTIME_DIR": "/r",
            "WAITBUS_CONFIG": "/c.toml",
            "WAITBUS_DB": "/d/x.db",
            "WAITBUS_BROADCAST_SOCKET": "/b/b.sock",
            "WAITBUS_DOORBELL_SOCKET": "/d/d.sock",
        }
    )
    assert (found.state_dir, found.runtime_dir, found.config_path) == ("/s", "/r", "/c.toml")
    assert (found.db_path, found.broadcast_socket) == ("/d/x.db", "/b/b.sock")
    assert (found.doorbell_socket, found.bell_socket) == ("/d/d.sock", "/d/bell-d.sock")
    assert (found.hub_lock, found.autostart_lock) == ("/d/hub-x.db.lock", "/d/autostart-x.db.lock")
    assert found.hub_log == "/s/hub.log"


def test_loading_makes_no_directory(bus_dir: Path) -> None:
    load({"HOME": str(bus_dir), "WAITBUS_RUNTIME_DIR": str(bus_dir / "run")})
    assert list(bus_dir.iterdir()) == []


def test_a_socket_path_that_is_too_long_names_the_variable_to_set() -> None:
    long = "/tmp/" + "x" * SOCKET_PATH_BYTES
    with pytest.raises(SettingsError, match="WAITBUS_RUNTIME_DIR"):
        load({"HOME": "/h", "WAITBUS_RUNTIME_DIR": long})
    with pytest.raises(SettingsError, match="WAITBUS_DOORBELL_SOCKET"):
        load({"HOME": "/h", "WAITBUS_RUNTIME_DIR": "/r", "WAITBUS_DOORBELL_SOCKET": long})


def test_a_zero_byte_in_a_path_is_refused() -> None:
    with pytest.raises(SettingsError, match="zero byte"):
        load({"HOME": "/h", "WAITBUS_DB": "/a\0b"})


@pytest.mark.parametrize(("value", "wanted"), [("0", False), ("off", False), ("1", True), ("yes", True), ("", True)])
def test_autostart_by_environment(value: str, wanted: bool) -> None:
    assert load({"HOME": "/h", "WAITBUS_AUTOSTART": value}).autostart is wanted


def test_autostart_that_is_neither_is_refused() -> None:
    with pytest.raises(SettingsError, match="WAITBUS_AUTOSTART takes 1 or 0, not 'maybe'"):
        load({"HOME": "/h", "WAITBUS_AUTOSTART": "maybe"})


def test_the_defaults(config: Callable[[str], Settings]) -> None:
    found = config("")
    assert (found.durability, found.retention, found.autostart) == ("process", True, True)
    assert (found.max_age_s, found.max_bytes, found.max_rows) == (30 * 86_400, 1 << 30, None)
    assert (found.queue_bytes, found.idle_exit_s) == (4 << 20, 600)


def test_every_key_of_the_config_file(config: Callable[[str], Settings]) -> None:
    found = config(
        """
        [store]
        durability = "power-loss"
        retention = false
        max_age = "90d"
        max_bytes = "2GiB"
        max_rows = 1000
        [hub]
        queue_bytes = "8MiB"
        idle_exit = 30
        [client]
        autostart = false
        """
    )
    assert (found.durability, found.retention, found.autostart) == ("power-loss", False, False)
    assert (found.max_age_s, found.max_bytes, found.max_rows) == (90 * 86_400, 2 << 30, 1000)
    assert (found.queue_bytes, found.idle_exit_s) == (8 << 20, 30)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[store]\ndurability = 'always'", "power-loss"),
        ("[store]\nretention = 'no'", "true or false"),
        ("[store]\nmax_age = 'soon'", "30d"),
        ("[store]\nmax_age = true", "30d"),
        ("[store]\nmax_age = -1", "30d"),
        ("[store]\nmax_bytes = 1.5", "1GiB"),
        ("[store]\nmax_bytes = 99999999999999999999", "1GiB"),
        ("[store]\nmax_rows = -5", "events"),
        ("[hub]\nqueue_bytes = 1", "128KiB"),
        ("[hub]\nidle_exit = []", "10m"),
        ("[client]\nautostart = 1", "true or false"),
        ("[store]\ncolour = 1", "unknown key 'colour'"),
        ("[shop]\n", r"unknown section \[shop\]"),
        ("store = 1", r"write \[store\]"),
        ("a = [", "not valid TOML"),
    ],
)
def test_a_wrong_config_file_is_named_with_the_right_form(
    config: Callable[[str], Settings], text: str, word: str
) -> None:
    with pytest.raises(SettingsError, match=rf"config\.toml.*{word}") as caught:
        config(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ['"500ms"', '"0.001ms"', "0.5", '"1ms"'])
def test_a_short_duration_is_not_no_limit(config: Callable[[str], Settings], value: str) -> None:
    found = config(f"[store]\nmax_age = {value}\n[hub]\nidle_exit = {value}")
    assert 0 < found.max_age_s <= 0.5
    assert found.idle_exit_s == found.max_age_s


@pytest.mark.parametrize("value", ['"0.5"', '"0.0001KiB"', "1", '"0.9b"'])
def test_a_small_size_is_not_no_limit(config: Callable[[str], Settings], value: str) -> None:
    found = config(f"[store]\nmax_bytes = {value}\nmax_rows = {value}")
    assert (found.max_bytes, found.max_rows) == (1, 1)


def test_a_config_file_that_is_no_utf8_or_no_file(bus_dir: Path) -> None:
    (bus_dir / "config.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load({"HOME": str(bus_dir), "WAITBUS_CONFIG": str(bus_dir / "config.toml")})
    with pytest.raises(SettingsError, match="cannot read"):
        load({"HOME": str(bus_dir), "WAITBUS_CONFIG": str(bus_dir)})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86_400),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("0", 0),
        (" 1.5H ", 5400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "s", "1x", "-1", "1h-1m", "nan", "inf", "1e5", "1..2", "5m3", "1h30", "9" * 400, "1 h", "\uff11"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("500MB", 500_000_000),
        ("1GiB", 1 << 30),
        ("1 g", 1 << 30),
        ("1.5k", 1536),
        ("0.1k", 103),
        ("0", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1XB", "1e9", "9" * 400, "9" * 30, "1.2.3", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="1GiB"):
        parse_size(text)


@given(st.text())
def test_any_text_is_a_duration_and_a_size_or_a_clear_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            found = parse(text)
        except ValueError:
            continue
        assert 0 <= found < float("inf")


def test_settings_and_the_writing_half_of_the_store_import_nothing_slow() -> None:
    """`waitbus emit` pays for every one of these at each start."""
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
import json, socket, sqlite3
before = set(sys.modules)
import waitbus.store.append
print(*(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert {name for name in done.stdout.split() if not name.startswith("waitbus")} <= {
        "__future__",
        "_weakrefset",
        "math",
        "threading",
    }
