"""Whether a place is ours alone: what is refused, with which advice, and where nothing is ever made."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import PATIENCE, Cli
from waitbus.private import (
    SettingsError,
    check_private_socket,
    ensure_private_dir,
    foreign_owner,
    make_dirs,
    quote,
)
from waitbus.settings import MACOS, load

OTHER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a place to another user, which takes root")


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_a_quoted_word_is_one_word_for_a_shell(text: str) -> None:
    assert quote("plain/path-1.db") == "plain/path-1.db"
    assert shlex.split(quote(text)) == [text]


def test_a_private_directory_is_made_with_its_parents(bus_dir: Path) -> None:
    before = os.umask(0)
    try:
        ensure_private_dir(str(bus_dir / "a" / "b"))
    finally:
        os.umask(before)
    for made in (bus_dir / "a", bus_dir / "a" / "b"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    ensure_private_dir(str(bus_dir / "a" / "b"))


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o701, 0o710])
def test_a_directory_open_to_others_is_refused_with_the_command_that_mends_it(bus_dir: Path, mode: int) -> None:
    path = bus_dir / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"{mode:04o}.*run chmod 700 {path}"):
        ensure_private_dir(str(path))
    subprocess.run(["chmod", "700", str(path)], check=True)
    ensure_private_dir(str(path))


def test_a_symbolic_link_is_refused(bus_dir: Path) -> None:
    (bus_dir / "real").mkdir(0o700)
    (bus_dir / "link").symlink_to(bus_dir / "real")
    with pytest.raises(SettingsError, match="link is a symbolic link"):
        ensure_private_dir(str(bus_dir / "link"))


def test_what_is_no_directory_is_refused(bus_dir: Path) -> None:
    (bus_dir / "file").touch()
    with pytest.raises(SettingsError, match="file is not a directory"):
        ensure_private_dir(str(bus_dir / "file"))
    with pytest.raises(SettingsError, match="file"):
        ensure_private_dir(str(bus_dir / "file" / "below"))


def test_a_directory_that_cannot_be_made_is_an_error_with_its_name() -> None:
    with pytest.raises(SettingsError, match="cannot create the directory /proc/waitbus"):
        ensure_private_dir("/proc/waitbus/state")


@as_root
def test_a_directory_of_another_user_is_refused(bus_dir: Path) -> None:
    path = bus_dir / "state"
    path.mkdir(0o700)
    os.chown(path, 65534, 65534)
    with pytest.raises(SettingsError, match=f"{path} belongs to user 65534, not to you"):
        ensure_private_dir(str(path))


def test_sockets(bus_dir: Path) -> None:
    path = str(bus_dir / "s.sock")
    with pytest.raises(FileNotFoundError):
        check_private_socket(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o666)
        with pytest.raises(SettingsError, match=f"run chmod 600 {path}"):
            check_private_socket(path)
        os.chmod(path, 0o600)
        check_private_socket(path)
    (bus_dir / "file").touch()
    with pytest.raises(SettingsError, match="is not a socket"):
        check_private_socket(str(bus_dir / "file"))
    with pytest.raises(FileNotFoundError):
        check_private_socket(str(bus_dir / "file" / "s.sock"))


@as_root
def test_a_socket_of_another_user_is_refused(bus_dir: Path) -> None:
    path = str(bus_dir / "s.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o600)
        os.chown(path, 65534, 65534)
        with pytest.raises(SettingsError, match="belongs to user 65534"):
            check_private_socket(path)


@pytest.mark.parametrize("name", ["state", "state/deeper"])
def test_a_place_that_everybody_could_replace_is_refused(bus_dir: Path, name: str) -> None:
    """Whoever may write to the directory above may put something else there; not where it is sticky, as /tmp is."""
    above = bus_dir / "above"
    above.mkdir()
    above.chmod(0o777)
    for _ in range(2):  # where it is to be made, and where it is
        with pytest.raises(SettingsError, match=f"everybody may write to {above}.*chmod o-w {above}"):
            ensure_private_dir(str(above / "state"))
        (above / "state").mkdir(mode=0o700, exist_ok=True)
    above.chmod(0o1777)
    ensure_private_dir(str(above / name))


@as_root
def test_nothing_is_made_in_a_directory_of_another_user(bus_dir: Path) -> None:
    theirs = bus_dir / "theirs"
    theirs.mkdir(0o700)
    os.chown(theirs, OTHER, OTHER)
    for make in (ensure_private_dir, make_dirs):
        with pytest.raises(
            SettingsError, match=f"{theirs} belongs to user {OTHER}.*: run waitbus as user {OTHER}, or set"
        ):
            make(str(theirs / "a" / "b"))
    with pytest.raises(SettingsError, match=f"{theirs} belongs to user {OTHER}"):
        make_dirs(str(theirs))  # it is there, and nothing may be put into it
    assert list(theirs.iterdir()) == []
    theirs.chmod(0o1777)  # as /tmp of a container whose root is not this one
    ensure_private_dir(str(theirs / "a"))


@as_root
def test_whose_a_directory_is(bus_dir: Path) -> None:
    theirs = bus_dir / "theirs"
    theirs.mkdir()
    os.chown(theirs, OTHER, OTHER)
    assert foreign_owner(str(bus_dir)) is None
    assert foreign_owner(str(bus_dir / "not" / "there")) is None
    assert foreign_owner(str(theirs)) == foreign_owner(str(theirs / "not" / "there")) == OTHER


# --- each verb, with the environment of somebody else -----------------------------------------------------------------

TELL = ("emit", "--source", "test", "--event-type", "tick")
VERBS: tuple[tuple[str, ...], ...] = (TELL, ("wait", "--timeout", "1"), ("serve", "hub"), ("init",), ("status",))
# As another user, who may not read this interpreter's files: what is needed is loaded before.
AS_USER = """
import argparse, importlib, os, pkgutil, pwd, sys
import waitbus
for module in pkgutil.walk_packages(waitbus.__path__, "waitbus."):
    if module.name.startswith(("waitbus.cli", "waitbus.client", "waitbus.store")):
        importlib.import_module(module.name)
from waitbus.cli.main import main
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def nowhere(cli: Cli, bus_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No variable says where anything is; the working directory is empty, and is given."""
    for name in ("WAITBUS_STATE_DIR", "WAITBUS_RUNTIME_DIR", "WAITBUS_CONFIG", "HOME"):
        monkeypatch.delenv(name, raising=False)
    work = bus_dir / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "chown" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("home", ["", "home", "~"])
def test_a_home_that_is_no_path_is_refused_and_nothing_is_made(nowhere: Path, cli: Cli, home: str) -> None:
    for verb in VERBS:
        refused(cli(*verb, HOME=home), "WAITBUS_STATE_DIR")
    assert list(nowhere.iterdir()) == []
    state = {"WAITBUS_STATE_DIR": str(nowhere / "state"), "WAITBUS_RUNTIME_DIR": str(nowhere / "run")}
    assert cli(*TELL, HOME=home, **state).returncode == 0
    assert cli("init", HOME=home, **state).returncode == 0
    assert sorted(os.listdir(nowhere)) == ["run", "state"]
    assert (nowhere / "state" / "config.toml").exists()


@as_root
@pytest.mark.root
def test_a_user_without_a_home_is_told_what_to_set(nowhere: Path, cli: Cli) -> None:
    nowhere.parent.chmod(0o755)
    os.chown(nowhere, OTHER, OTHER)

    def as_user(*verb: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", AS_USER, str(OTHER), *verb]
        # Coverage would have this user write into a directory that is not theirs.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        environ = {**inherited, **environ}
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environ)

    for verb in (TELL, ("wait", "--timeout", "1"), ("status",)):
        refused(as_user(*verb), f"user {OTHER} has no passwd entry", "set WAITBUS_STATE_DIR")
    assert list(nowhere.iterdir()) == []
    told = as_user(*TELL, WAITBUS_STATE_DIR=str(nowhere / "state"))
    assert (told.returncode, told.stderr) == (0, "")
    assert os.listdir(nowhere) == ["state"]


@as_root
@pytest.mark.root
@pytest.mark.skipif(MACOS, reason="macOS has its own places")
def test_root_with_the_home_of_a_user_is_refused_and_leaves_it_as_it_was(nowhere: Path, cli: Cli) -> None:
    """`sudo -E`: what root makes there would lock the user out."""
    home = nowhere / "home"
    for path in (home, home / ".local", home / "run"):
        path.mkdir(mode=0o700)
        os.chown(path, OTHER, OTHER)
    sudo = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "XDG_STATE_HOME": str(home / ".local" / "state")}
    for verb in VERBS:
        refused(cli(*verb, **sudo), str(home), f"belongs to user {OTHER}", f"run waitbus as user {OTHER}, or set")
    assert sorted(path.name for path in home.rglob("*")) == [".local", "run"]
    # Nor does a directory inside that is root's already, since an earlier mistake, make it root's place.
    (home / ".local" / "state").mkdir(mode=0o700)
    refused(cli(*TELL, HOME=str(home)), f"belongs to user {OTHER}")
    assert cli(*TELL, HOME=str(home), WAITBUS_STATE_DIR=str(nowhere / "state")).returncode == 0
    assert sorted(path.name for path in home.rglob("*")) == [".local", "run", "state"]


@as_root
@pytest.mark.skipif(MACOS, reason="macOS has its own places")
def test_an_xdg_directory_of_another_user_is_ignored(bus_dir: Path) -> None:
    theirs = bus_dir / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, OTHER, OTHER)
    names = ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME")
    for place in (theirs, theirs / "not" / "there"):
        found = load({"HOME": "/h", **dict.fromkeys(names, str(place))})
        assert found.state_dir == "/h/.local/state/waitbus"
        assert found.config_path == "/h/.config/waitbus/config.toml"
        assert found.runtime_dir == "/tmp/waitbus-0"
    os.chown(theirs, 0, 0)
    found = load({"HOME": "/h", **dict.fromkeys(names, str(theirs))})
    assert found.state_dir == found.runtime_dir == f"{theirs}/waitbus"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_runtime_directory_that_went_with_the_login_is_done_without(bus_dir: Path) -> None:
    above = bus_dir / "run-user"
    above.mkdir(mode=0o500)
    found = load({"HOME": "/h", "XDG_RUNTIME_DIR": str(above / "1000")})
    assert found.runtime_dir == f"/tmp/waitbus-{os.geteuid()}"


@pytest.mark.parametrize("variable", ["WAITBUS_STATE_DIR", "WAITBUS_DB", "WAITBUS_RUNTIME_DIR", "WAITBUS_CONFIG"])
def test_a_tilde_that_no_shell_expanded_is_refused(nowhere: Path, cli: Cli, variable: str) -> None:
    refused(cli(*TELL, **{"HOME": str(nowhere), variable: "~/bus"}), f"{variable} begins with ~")
    assert list(nowhere.iterdir()) == []


def test_a_relative_place_in_a_directory_that_is_gone(nowhere: Path, cli: Cli) -> None:
    nowhere.rmdir()
    refused(cli(*TELL, HOME="/h", WAITBUS_STATE_DIR="state"), "WAITBUS_STATE_DIR is a relative path")
