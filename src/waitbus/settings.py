"""Where things are and how they behave: `WAITBUS_*`, then `config.toml`, then the defaults.

Loading changes no directory and imports `tomllib` only when a file says something: every verb pays for this file.
Whether a place is ours alone is `private`'s to check, when it is used.
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
# The kernel's room for an AF_UNIX address, less the final zero.
SOCKET_PATH_BYTES = 103 if MACOS else 107

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


class Settings:
    """Every path and every limit, resolved. Made by `load`; by convention nobody writes to it afterwards.

    Durations are seconds, sizes bytes. `max_age_s`, `max_bytes` of 0 and `max_rows` of None set no limit.
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
        """The file that is meant, links resolved: two names of one store are one store."""
        return os.path.realpath(self.db_path)

    @property
    def hub_lock(self) -> str:
        """What the hub of this store locks; its content says where that hub listens. It lies beside the store."""
        return _beside(self.store, "hub")

    @property
    def autostart_lock(self) -> str:
        """What a client locks while it starts a hub for this store."""
        return _beside(self.store, "autostart")


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from an environment (default: the process's) and the config file it points to.

    Raises `SettingsError` for a value or key that is not known, naming the file, the key and the right form.
    """
    return Settings(os.environ if environ is None else environ)


# Where things are.

_DB = "waitbus.db"
_DOORBELL = "doorbell.sock"


def _beside(store: str, what: str) -> str:
    """A lock beside the store: not named as SQLite's files are, so that who removes those leaves it there."""
    directory, name = os.path.split(store)
    return os.path.join(directory, f"{what}.lock" if name == _DB else f"{what}-{name}.lock")


def _bell_beside(doorbell: str) -> str:
    """The bell's path by the doorbell's, so that two buses with doorbells in one directory have a bell each."""
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
    except OSError:  # relative, and the working directory is gone
        raise SettingsError(
            f"{variable} is not absolute, and the working directory is gone: write the whole path"
        ) from None


def _home(environ: Mapping[str, str]) -> str:
    """The home directory. Raises `SettingsError` when there is none to be used."""
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
    # What root makes in a user's home (`sudo -E`) locks that user out.
    owner = foreign_owner(home) if uid == 0 else None
    if owner is not None:
        raise SettingsError(
            f"the home directory {home} belongs to user {owner}, not to you ({uid}): "
            f"run it as user {owner}, or set WAITBUS_STATE_DIR to a directory of your own"
        )
    return home


def _xdg(environ: Mapping[str, str], variable: str) -> str | None:
    """An XDG directory. The specification has one ignored that is not absolute, or not owned by the user."""
    value = environ.get(variable)
    return value if value and os.path.isabs(value) and foreign_owner(value) is None else None


def _config_home(environ: Mapping[str, str]) -> str | None:
    """None without a home: it then lies beside the store."""
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
    # It is taken away when the user logs out, and what still runs then cannot make it again.
    return os.path.join(base, "waitbus") if base and can_make(base) else spare_runtime_dir()


def spare_runtime_dir() -> str:
    """The runtime directory of who has no `XDG_RUNTIME_DIR`."""
    if MACOS:
        return os.path.join(os.confstr("CS_DARWIN_USER_TEMP_DIR") or "/tmp", "waitbus")  # noqa: S108
    # In /tmp the name is anybody's to take: `ensure_private_dir` refuses it when somebody did.
    return f"/tmp/waitbus-{os.geteuid()}"  # noqa: S108


def _check_address(environ: Mapping[str, str], variable: str, path: str) -> None:
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES:
        fix = variable if environ.get(variable) else "WAITBUS_RUNTIME_DIR"
        raise SettingsError(
            f"{path} has {size} bytes, a socket's path at most {SOCKET_PATH_BYTES}: set {fix} to a shorter path"
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
    # What `init` writes says nothing yet, and reading it as TOML would take a quarter as long as `emit`.
    silent = {b"", *[f"[{section}]".encode() for section in _CONFIG]}
    if all(line in silent or line[:1] == b"#" for line in map(bytes.strip, text.splitlines())):
        return
    import tomllib

    try:
        config = tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from None
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
    """A value of the wrong form; `_read_config` says which one is right."""


def _wrong() -> Never:
    raise _FormError


def _switch(value: object) -> bool:
    return value if isinstance(value, bool) else _wrong()


def _durability(value: object) -> str:
    return value if isinstance(value, str) and value in ("process", "power-loss") else _wrong()


def _duration(value: object) -> float:
    if isinstance(value, str):
        value = parse_duration(value)  # with its fraction: half a second must not become 0, no limit
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


_FORM_DURATION = 'a duration such as "30d" or seconds (0: no limit)'
_FORM_SIZE = 'a size such as "1GiB" or bytes (0: no limit)'
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
        "queue_bytes": ("queue_bytes", _queue, 'a size such as "4MiB", at least "128KiB"'),
        "idle_exit": ("idle_exit_s", _duration, 'a duration such as "10m" or seconds'),
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
