"""Reach the hub, and start one where there is none: one at a time, by lock, detached, with no more than it needs.

The started hub is nobody's child and holds no secret of the client's environment; it leaves when nobody is connected.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time

from waitbus.client.core import HubError
from waitbus.event import one_line
from waitbus.private import RUNTIME, check_private_socket, ensure_private_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from waitbus.client.core import Stream
    from waitbus.settings import Settings

ABSENT = (FileNotFoundError, ConnectionRefusedError)
# A hub may have to import 0.2.0's store before it listens.
START_SEC = 60.0
_RETRY_FIRST_SEC = 0.005
_RETRY_LAST_SEC = 0.1
# What a hub says that found another one holding the state directory. When that one does not listen (it starts, or
# drains and leaves), it is waited for.
_TAKEN = "a hub already runs"
_OTHER_HUB_SEC = 10.0
_LOG_KEEP_BYTES = 256 * 1024
_READY_FD = 3
# The shell lets the hub go into the background and leaves: the hub is init's child, no zombie and no surprise for a
# client that waits for its own children.
_LAUNCH = 'cd / && exec "$@" &'
_KEPT_VARIABLES = ("HOME", "LANG", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER")
_KEPT_PREFIXES = ("COVERAGE_", "DYLD_", "LC_", "PYTHON", "XDG_")
# SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM have these numbers everywhere; `signal` itself is memory a waiter can spare.
_DEFAULT_SIGNALS = (1, 2, 3, 13, 15)


def connect(settings: Settings) -> socket.socket:
    """A connection to the hub, not blocking.

    Raises one of `ABSENT` when nobody listens, ``BlockingIOError`` when the hub has too many connections to accept yet,
    `SettingsError` when the socket is another user's or open to one.
    """
    path = settings.broadcast_socket
    check_private_socket(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def dial(stream: Stream, settings: Settings, may_start: bool) -> tuple[socket.socket | None, bool]:
    """One try of a subscription to connect: the connection, or None and whether a hub is to be started first."""
    now = time.monotonic()
    try:
        return connect(settings), False
    except BlockingIOError:
        stream.later(now)
        return None, False
    except ABSENT:
        return None, stream.absent(now, may_start)


def ensure_hub(settings: Settings) -> None:
    """Return when a hub listens; start one where there is none. However many ask at once, one hub starts.

    Raises `HubError` with the reason when none can be started.
    """
    if _listens(settings):
        return
    deadline = time.monotonic() + START_SEC
    ensure_private_dir(settings.runtime_dir, RUNTIME)
    ensure_private_dir(settings.state_dir)
    lock = _open(settings.autostart_lock, os.O_RDWR)
    try:
        delay = _RETRY_FIRST_SEC
        while not _try_lock(lock):
            time.sleep(delay)  # another client starts it just now
            if _listens(settings):
                return
            if time.monotonic() >= deadline:
                raise HubError(f"no hub came up in time: look at {settings.hub_log}, or run `waitbus status`")
            delay = min(_RETRY_LAST_SEC, delay * 2)
        _start(settings, deadline)
    finally:
        os.close(lock)


def _listens(settings: Settings) -> bool:
    try:
        connect(settings).close()
    except BlockingIOError:
        return True
    except ABSENT:
        return False
    return True


def _start(settings: Settings, deadline: float) -> None:
    """Start a hub while holding the lock. Tried again as long as another hub is on its way in or out."""
    other = min(deadline, time.monotonic() + _OTHER_HUB_SEC)
    delay = _RETRY_FIRST_SEC
    while not _listens(settings):  # the one who held the lock before may have been quicker
        reason = _launch(settings, deadline)
        if reason is None or _listens(settings):
            return
        if not reason.startswith(_TAKEN) or time.monotonic() >= other:
            raise HubError(f"the hub could not start: {reason} (log: {settings.hub_log})")
        time.sleep(delay)
        delay = min(1.0, delay * 4)


def _launch(settings: Settings, deadline: float) -> str | None:
    """Start the process and wait until it listens. None, or the reason why it does not."""
    log = _open(settings.hub_log, os.O_WRONLY | os.O_APPEND)
    try:
        begin = os.fstat(log).st_size
        if begin > _LOG_KEEP_BYTES:
            os.ftruncate(log, 0)
            begin = 0
        ready, told = os.pipe()
        try:
            _spawn(settings, log, told)
        finally:
            os.close(told)
        try:
            if not _wait_readable(ready, deadline):
                return f"it did not listen within {START_SEC:.0f} s"
            if os.read(ready, 64):
                return None
        finally:
            os.close(ready)
        return _last_line(settings.hub_log, begin) or _silence(log)
    finally:
        os.close(log)


def _spawn(settings: Settings, log: int, told: int) -> None:
    command = [sys.executable, "-P", "-m", "waitbus", "serve", "hub"]
    command += ["--idle-exit", f"{settings.idle_exit_s:f}", "--ready-fd", str(_READY_FD)]
    import fcntl

    # Out of the way of the numbers they are copied to.
    log = fcntl.fcntl(log, fcntl.F_DUPFD_CLOEXEC, 10)
    told = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, 10)
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        (os.POSIX_SPAWN_DUP2, told, _READY_FD),
        *[(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable_fds()],
    ]
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _LAUNCH, "sh", *command],
            hub_environ(settings, os.environ),
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
    except OSError as error:
        raise HubError(f"the hub could not start: /bin/sh: {error.strerror}") from None
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
    kept = {
        name: value for name, value in environ.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
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
        raise HubError(f"cannot open {path} to start a hub: {error.strerror}") from None


def _try_lock(fd: int) -> bool:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _wait_readable(fd: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _silence(log: int) -> str:
    """Why a hub ended without a word: the disk may have no room for one."""
    full = os.fstatvfs(log).f_bavail == 0
    return "no room left on the disk: free some space, then try again" if full else "it ended without a word"


def _last_line(path: str, begin: int) -> str:
    """The last line written to the log since `begin`, without the program's name in front."""
    with open(path, "rb") as file:
        file.seek(begin)
        lines = file.read(_LOG_KEEP_BYTES).decode("utf-8", "replace").strip().splitlines()
    return one_line(lines[-1]).removeprefix("waitbus: ").removeprefix("waitbus hub: ") if lines else ""
