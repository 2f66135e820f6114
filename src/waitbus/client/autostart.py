"""Start a hub where there is none: one at a time, by lock, detached, with no more than it needs.

The started hub is nobody's child and holds no secret of the client's environment; it leaves when nobody is connected.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from waitbus.client.connect import ABSENT, connect_to, places
from waitbus.client.core import NO_HUB, HubError
from waitbus.event import one_line
from waitbus.private import RUNTIME, ensure_private_dir
from waitbus.store import hublock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from waitbus.settings import Settings

# How long a hub may take that says nothing yet: it may have to import 0.2.0's store before it listens.
START_SEC = 60.0
# And one that has said where it listens, and does not: it has lost its place and looks for it, or is about to leave.
_OTHER_HUB_SEC = 10.0
_RETRY_FIRST_SEC = 0.005
_RETRY_LAST_SEC = 0.1
# What a hub says that found another one with the lock of the store; that one is waited for.
_TAKEN = "a hub already runs"
_LOG_KEEP_BYTES = 256 * 1024
_READY_FD = 3
# The shell lets the hub go into the background and leaves: the hub is init's child, no zombie and no surprise for a
# client that waits for its own children.
_LAUNCH = 'cd / && exec "$@" &'
# What a hub gets of a client's environment: what Python and the C library need to find themselves and their encoding,
# and where things are. Names, not prefixes: a secret may be called PYTHONSECRET.
_KEPT_VARIABLES = (
    *("HOME", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"),
    *("LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES"),
    *("LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "DYLD_LIBRARY_PATH"),
    *("PYTHONCOERCECLOCALE", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONIOENCODING", "PYTHONNOUSERSITE"),
    *("PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONPYCACHEPREFIX", "PYTHONUSERBASE", "PYTHONUTF8"),
    *("COVERAGE_FILE", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"),
)
# SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM have these numbers everywhere; `signal` itself is memory a waiter can spare.
_DEFAULT_SIGNALS = (1, 2, 3, 13, 15)


class Start:
    """A hub getting ready: ours, another client's, or one that has the lock and does not listen yet.

    In steps that never wait, so that its user waits as long as it wants; what was begun goes on without it.
    `may_launch`: whether to start one where none has the lock. Raises `HubError` when none will come.
    """

    __slots__ = ("_began", "_delay", "_lock", "_log", "_log_begin", "_may_launch", "_ready", "_settings")

    def __init__(self, settings: Settings, *, may_launch: bool = True) -> None:
        self._settings = settings
        self._may_launch = may_launch
        self._began = time.monotonic()
        self._delay = _RETRY_FIRST_SEC
        self._lock = -1
        self._ready = -1
        self._log = -1
        self._log_begin = 0

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go. A hub on its way goes on."""
        for name in ("_lock", "_ready", "_log"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    def fileno(self) -> int:
        """What becomes readable when the hub that was started says something; -1: ask again after `patience`."""
        return self._ready

    def patience(self, now: float, deadline: float | None = None) -> float:
        """For how many seconds to wait before the next `step`, unless `fileno` is readable earlier."""
        until = self._began + START_SEC if self._ready >= 0 else now + self._delay
        return max(0.0, (until if deadline is None else min(until, deadline)) - now)

    def run(self, deadline: float | None = None) -> bool:
        """Whether a hub listens, at `deadline` at the latest."""
        while not self.step():
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            patience = self.patience(now, deadline)
            if self._ready >= 0:
                _wait_readable(self._ready, patience)
            else:
                time.sleep(patience)
        return True

    def step(self) -> bool:
        """Do what can be done now. True when a hub listens."""
        if self._ready >= 0:
            return self._listen_to_ours()
        held = hublock.is_held(self._settings.hub_lock)
        if self._listens(held):
            return True
        if held:
            self._wait_for_other()
        elif not self._may_launch:
            raise HubError(NO_HUB)
        elif self._take_lock():
            self._launch()
        else:
            self._give_up_after(START_SEC, "another client has been starting one for so long")
        self._delay = min(_RETRY_LAST_SEC, self._delay * 2)
        return False

    def _listens(self, held: bool) -> bool:
        """Whether a hub listens. What the lock says counts while somebody holds it, and else our own place alone."""
        for path in places(self._settings) if held else (self._settings.broadcast_socket,):
            try:
                connect_to(path).close()
            except BlockingIOError:
                return True
            except ABSENT:
                continue
            return True
        return False

    def _wait_for_other(self) -> None:
        holder = hublock.read(self._settings.hub_lock)
        where = f"listens on {holder.broadcast}, which is not there" if holder.broadcast else "does not listen yet"
        patience = _OTHER_HUB_SEC if holder.broadcast else START_SEC
        self._give_up_after(patience, f"the one that has {self._settings.hub_lock} ({holder.who}) {where}")

    def _give_up_after(self, patience: float, why: str) -> None:
        if time.monotonic() >= self._began + patience:
            raise HubError(f"no hub came up in time, {why}: look at {self._settings.hub_log}, or run `waitbus status`")

    def _take_lock(self) -> bool:
        import fcntl

        if self._lock < 0:
            ensure_private_dir(self._settings.state_dir)
            ensure_private_dir(self._settings.runtime_dir, RUNTIME)
            self._lock = _open(self._settings.autostart_lock, os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _launch(self) -> None:
        """Start the process, which writes to a pipe when it listens."""
        log = _open(self._settings.hub_log, os.O_WRONLY | os.O_APPEND)
        self._log = log
        self._log_begin = os.fstat(log).st_size
        if self._log_begin > _LOG_KEEP_BYTES:
            os.ftruncate(log, 0)
            self._log_begin = 0
        try:
            self._ready, told = os.pipe()
            try:
                _spawn(self._settings, log, told)
            finally:
                os.close(told)
        except OSError as error:
            raise HubError(f"the hub could not start: {_reason(error)}") from None

    def _listen_to_ours(self) -> bool:
        if not _wait_readable(self._ready, 0):
            if time.monotonic() >= self._began + START_SEC:
                raise self._failed(f"it did not listen within {START_SEC:.0f} s")
            return False
        said = os.read(self._ready, 64)
        os.close(self._ready)
        self._ready = -1
        reason = "" if said else _last_line(self._settings.hub_log, self._log_begin) or _silence(self._log)
        os.close(self._log)
        self._log = -1
        if reason and not reason.startswith(_TAKEN):
            raise self._failed(reason)
        if reason:
            self._give_up_after(START_SEC, "others come and go")
        return not reason

    def _failed(self, reason: str) -> HubError:
        return HubError(f"the hub could not start: {reason} (log: {self._settings.hub_log})")


def _spawn(settings: Settings, log: int, told: int) -> None:
    command = [sys.executable, "-P", "-m", "waitbus", "serve", "hub"]
    command += ["--idle-exit", f"{settings.idle_exit_s:f}", "--ready-fd", str(_READY_FD)]
    import fcntl

    # Out of the way of the numbers they are copied to.
    log = fcntl.fcntl(log, fcntl.F_DUPFD_CLOEXEC, 10)
    try:
        told = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, 10)
    except OSError:
        os.close(log)
        raise
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        (os.POSIX_SPAWN_DUP2, told, _READY_FD),
    ]
    try:
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable_fds()]
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _LAUNCH, "sh", *command],
            hub_environ(settings, os.environ),
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        os.close(log)
        os.close(told)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # the program we run in reaps its children itself
        return


def _inheritable_fds() -> list[int]:
    """Descriptors our own parent left open for us: kept by a hub, its pipes would never end."""
    found = []
    for name in os.listdir("/dev/fd"):
        fd = int(name)
        try:
            if fd > _READY_FD and os.get_inheritable(fd):
                found.append(fd)
        except OSError:  # the listing's own
            continue
    return found


def hub_environ(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a started hub: these settings' places whatever they came from, and no secrets."""
    kept = {name: environ[name] for name in _KEPT_VARIABLES if name in environ}
    kept["WAITBUS_CONFIG"] = settings.config_path
    kept["WAITBUS_STATE_DIR"] = settings.state_dir
    kept["WAITBUS_RUNTIME_DIR"] = settings.runtime_dir
    kept["WAITBUS_DB"] = settings.db_path
    kept["WAITBUS_BROADCAST_SOCKET"] = settings.broadcast_socket
    kept["WAITBUS_DOORBELL_SOCKET"] = settings.doorbell_socket
    # The hub works in `/`: a relative entry means our directory, and a source tree is found as we found it.
    paths = [os.path.abspath(entry) for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.basename(root) not in ("site-packages", "dist-packages") and root not in paths:
        paths.append(root)
    if paths:
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    return kept


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HubError(f"cannot open {path} to start a hub: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    """Why the system refused, and what to do if it is that this process has too many files open."""
    # EINVAL: the number that a descriptor was to be copied to is beyond the limit.
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.EINVAL):
        return "too many files are open: raise the limit (ulimit -n 256), or close some"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def _wait_readable(fd: int, patience: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def _silence(log: int) -> str:
    """Why a hub ended without a word: the disk may have no room for one."""
    full = os.fstatvfs(log).f_bavail == 0
    return "no space left on the disk: free some, then try again" if full else "it ended without a word"


def _last_line(path: str, begin: int) -> str:
    """The last line written to the log since `begin`, without the program's name in front."""
    with open(path, "rb") as file:
        file.seek(begin)
        lines = file.read(_LOG_KEEP_BYTES).decode("utf-8", "replace").strip().splitlines()
    return one_line(lines[-1]).removeprefix("waitbus: ").removeprefix("waitbus hub: ") if lines else ""
