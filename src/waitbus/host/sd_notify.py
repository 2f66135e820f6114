"""How a service talks to systemd: readiness, watchdog, and sockets that systemd opened.

The protocols are in sd_notify(3) and sd_listen_fds(3). Outside systemd these functions do nothing.
"""

from __future__ import annotations

import os
import socket

LISTEN_FDS_START = 3


def notify(state: str) -> bool:
    """Send a state, for example ``READY=1``, to $NOTIFY_SOCKET. Returns whether that worked; never raises."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError:
        return False
    return True


def watchdog_interval() -> float | None:
    """Return the seconds between two ``WATCHDOG=1``: half of what systemd allows. None without a watchdog."""
    try:
        usec = int(os.environ.get("WATCHDOG_USEC", ""))
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return usec / 2_000_000 if usec > 0 and pid == os.getpid() else None


def inherited_sockets() -> dict[str, socket.socket]:
    """Return the sockets that systemd passed to this process, by their names in LISTEN_FDNAMES.

    The variables are removed from the environment, so that no child process takes the descriptors for its own.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found = {}
    for index in range(int(count)):
        fd = LISTEN_FDS_START + index
        os.set_inheritable(fd, False)
        name = names[index] if index < len(names) else str(index)
        found[name.removesuffix(".socket")] = socket.socket(fileno=fd)
    return found
