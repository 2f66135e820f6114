"""All paths and options, from `WAITBUS_*` variables, then `config.toml`, then the defaults.

Loading creates no directory. It imports `tomllib` only if the config file sets something, because every verb loads the
settings. `private` checks that a path is private when the path is used.
"""

from __future__ import annotations

import os
import sys

from waitbus.private import RUNTIME, STATE, SettingsError, can_make, foreign_owner
from waitbus.units import LARGEST, parse_duration, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Never

__all__ = ["Settings", "SettingsError", "load"]

DAY_S = 86_400
MIB = 1 << 20
MACOS = sys.platform == "darwin"
# The longest path of an AF_UNIX socket: the size of `sun_path` without the final zero.
SOCKET_PATH_BYTES = 103 if MACOS else 107

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


class Settings:
    """Every path and every limit. `load` makes it; nothing changes it afterwards.

    Durations are in seconds, sizes in bytes. 0 for `max_age_s` or `max_bytes`, and None for `max_rows`, mean no limit.
    """

    __slots__ = (
        "autostart",
        "bell_socket",
        "broadcast_socket",
        "config_path",
        "db_path",
        "doorbell_socket",
        "durability",
        "hub_log",
        "idle_exit_s",
        "max_age_s",
        "max_bytes",
        "max_rows",
        "queue_bytes",
        "retention",
        "runtime_dir",
        "state_dir",
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.state_dir = state = _place(environ, STATE, _state_home, "")
        self.runtime_dir = runtime = _place(environ, RUNTIME, _runtime_home, "")
        self.config_path = config = _place(
            environ, "WAITBUS_CONFIG", lambda environ: _config_home(environ) or state, "config.toml"
        )
        self.db_path = _place(environ, "WAITBUS_DB", lambda _: state, "waitbus.db")
        self.broadcast_socket = _place(environ, "WAITBUS_BROADCAST_SOCKET", lambda _: runtime, "broadcast.sock")
        self.doorbell_socket = doorbell = _place(environ, "WAITBUS_DOORBELL_SOCKET", lambda _: runtime, _DOORBELL)
        self.bell_socket = _bell_beside(doorbell)
        self.hub_log = os.path.join(state, "hub.log")
        _check_address(environ, "WAITBUS_BROADCAST_SOCKET", self.broadcast_socket)
        _check_address(environ, "WAITBUS_DOORBELL_SOCKET", max(doorbell, self.bell_socket, key=len))
        self.durability = "process"
        self.retention = True
        self.max_age_s: float = 30 * DAY_S
        self.max_bytes = 1 << 30
        self.max_rows: int | None = None
        self.queue_bytes = 4 * MIB
        self.idle_exit_s: float = 600
        self.autostart = True
        _read_config(self, config)
        switch = environ.get("WAITBUS_AUTOSTART")
        if switch:
            self.autostart = _env_switch("WAITBUS_AUTOSTART", switch)

    @property
    def store(self) -> str:
        """The path of the store without symbolic links. It is the same for every name of one store."""
        return os.path.realpath(self.db_path)

    @property
    def hub_lock(self) -> str:
        """The file beside the store that its hub locks. It says where that hub listens."""
        return _beside(self.store, "hub")

    @property
    def autostart_lock(self) -> str:
        """The file that a client locks while it starts a hub for this store."""
        return _beside(self.store, "autostart")


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Load the settings from an environment (default: the process's) and the config file that it names.

    Raises `SettingsError` for an unknown key or an invalid value. Its text names the file, the key and the right form.
    """
    return Settings(os.environ if environ is None else environ)


# Paths.

_DB = "waitbus.db"
_DOORBELL = "doorbell.sock"


def _beside(store: str, what: str) -> str:
    """Return the path of a lock beside the store.

    Its name does not start like those of SQLite's files, so that deleting `waitbus.db*` does not delete it.
    """
    directory, name = os.path.split(store)
    return os.path.join(directory, f"{what}.lock" if name == _DB else f"{what}-{name}.lock")


def _bell_beside(doorbell: str) -> str:
    """Return the bell's path. It depends on the doorbell's name, so that two buses in one directory have two bells."""
    directory, name = os.path.split(doorbell)
    return os.path.join(directory, "bell.sock" if name == _DOORBELL else f"bell-{name}")


def _place(environ: Mapping[str, str], variable: str, home: Callable[[Mapping[str, str]], str], name: str) -> str:
    value = environ.get(variable) or os.path.join(home(environ), name)
    if "\0" in value:
        raise SettingsError(f"{variable} holds a zero byte: set it to a path")
    if value[0] == "~":
        raise SettingsError(f"{variable} begins with ~, which only a shell expands: write the whole path")
    try:
        return os.path.abspath(value)
    except OSError:
        raise SettingsError(
            f"{variable} is a relative path, and the working directory is gone: write the whole path"
        ) from None


def _home(environ: Mapping[str, str]) -> str:
    """Return the home directory. Raises `SettingsError` if there is none, or it is not usable."""
    home = environ.get("HOME")
    uid = os.geteuid()
    if home is None:
        import pwd

        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            raise SettingsError(
                f"HOME is not set, and user {uid} has no passwd entry: set WAITBUS_STATE_DIR to a directory of your own"
            ) from None
    if not os.path.isabs(home):
        raise SettingsError(
            f"the home directory {home!r} is not an absolute path: set HOME, or set WAITBUS_STATE_DIR to a directory "
            "of your own"
        )
    # If root creates a directory in a user's home (`sudo -E`), that user is locked out of it.
    owner = foreign_owner(home) if uid == 0 else None
    if owner is not None:
        raise SettingsError(
            f"the home directory {home} belongs to user {owner}, not to you ({uid}): "
            f"run waitbus as user {owner}, or set WAITBUS_STATE_DIR to a directory of your own"
        )
    return home


def _xdg(environ: Mapping[str, str], variable: str) -> str | None:
    """Return an XDG directory, or None if it is unset, relative or another user's, as the specification demands."""
    value = environ.get(variable)
    return value if value and os.path.isabs(value) and foreign_owner(value) is None else None


def _config_home(environ: Mapping[str, str]) -> str | None:
    """Return the directory of the config file, or None without a home. The caller then uses the state directory."""
    base = _xdg(environ, "XDG_CONFIG_HOME")
    try:
        return os.path.join(base or os.path.join(_home(environ), ".config"), "waitbus")
    except SettingsError:
        return None


def _state_home(environ: Mapping[str, str]) -> str:
    if MACOS:
        return os.path.join(_home(environ), "Library", "Application Support", "waitbus")
    return os.path.join(_xdg(environ, "XDG_STATE_HOME") or os.path.join(_home(environ), ".local", "state"), "waitbus")


def _runtime_home(environ: Mapping[str, str]) -> str:
    base = None if MACOS else _xdg(environ, "XDG_RUNTIME_DIR")
    # XDG_RUNTIME_DIR is deleted when the user logs out, and programs that still run cannot create it again.
    return os.path.join(base, "waitbus") if base and can_make(base) else spare_runtime_dir()


def spare_runtime_dir() -> str:
    """Return the runtime directory that is used without `XDG_RUNTIME_DIR`."""
    if MACOS:
        return os.path.join(os.confstr("CS_DARWIN_USER_TEMP_DIR") or "/tmp", "waitbus")  # noqa: S108
    # Another user could take this name in /tmp. `ensure_private_dir` then refuses it.
    return f"/tmp/waitbus-{os.geteuid()}"  # noqa: S108


def _check_address(environ: Mapping[str, str], variable: str, path: str) -> None:
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES:
        fix = variable if environ.get(variable) else "WAITBUS_RUNTIME_DIR"
        raise SettingsError(
            f"{path} has {size} bytes, but a socket's path has at most {SOCKET_PATH_BYTES}: set {fix} to a shorter one"
        )


# The config file.


def _read_config(settings: Settings, path: str) -> None:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    # The file that `init` writes sets nothing yet, and parsing it as TOML would add a quarter to the time of `emit`.
    empty = {b"", *[f"[{section}]".encode() for section in _CONFIG]}
    if all(line in empty or line[:1] == b"#" for line in map(bytes.strip, text.splitlines())):
        return
    import tomllib

    try:
        config = tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    for section, table in config.items():
        known = _CONFIG.get(section)
        if known is None:
            raise SettingsError(f"{path}: unknown section [{section}]; known: {', '.join(_CONFIG)}")
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {section} is a section: write [{section}]")
        for key, value in table.items():
            if key not in known:
                raise SettingsError(f"{path}: unknown key {key!r} in [{section}]; known: {', '.join(known)}")
            attribute, read, form = known[key]
            try:
                setattr(settings, attribute, read(value))
            except (ValueError, _FormError):
                raise SettingsError(f"{path}: [{section}] {key} takes {form}, not {value!r}") from None


class _FormError(Exception):
    """A value has the wrong form. `_read_config` turns this into a message that names the right one."""


def _wrong() -> Never:
    raise _FormError


def _switch(value: object) -> bool:
    return value if isinstance(value, bool) else _wrong()


def _durability(value: object) -> str:
    return value if isinstance(value, str) and value in ("process", "power-loss") else _wrong()


def _duration(value: object) -> float:
    if isinstance(value, str):
        value = parse_duration(value)  # keeps the fraction: half a second must not become 0, which means no limit
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 << 33:
        return value
    _wrong()


def _size(value: object) -> int:
    if isinstance(value, str):
        value = parse_size(value)
    return value if type(value) is int and 0 <= value <= LARGEST else _wrong()


def _queue(value: object) -> int:
    size = _size(value)
    return size if size >= 2 * 65_536 else _wrong()


def _rows(value: object) -> int | None:
    count = _size(value)
    return count or None


_FORM_DURATION = 'a duration like "30d", or seconds (0: no limit)'
_FORM_SIZE = 'a size like "1GiB", or bytes (0: no limit)'
_FORM_SWITCH = "true or false"
_CONFIG: dict[str, dict[str, tuple[str, Callable[[object], Any], str]]] = {
    "store": {
        "durability": ("durability", _durability, '"process" or "power-loss"'),
        "retention": ("retention", _switch, _FORM_SWITCH),
        "max_age": ("max_age_s", _duration, _FORM_DURATION),
        "max_bytes": ("max_bytes", _size, _FORM_SIZE),
        "max_rows": ("max_rows", _rows, "a whole number of events (0: no limit)"),
    },
    "hub": {
        "queue_bytes": ("queue_bytes", _queue, 'a size like "4MiB", at least "128KiB"'),
        "idle_exit": ("idle_exit_s", _duration, 'a duration like "10m", or seconds (0: no end)'),
    },
    "client": {
        "autostart": ("autostart", _switch, _FORM_SWITCH),
    },
}


def _env_switch(variable: str, value: str) -> bool:
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise SettingsError(f"{variable} takes 1 or 0, not {value!r}")
