"""What a service tells systemd and gets from it: readiness, watchdog, sockets that were opened before it started.

The protocols are those of sd_notify(3) and sd_listen_fds(3); everything here is a no-op outside systemd.
"""

from __future__ import annotations

import os
import socket

LISTEN_FDS_START = 3


def notify(state: str) -> bool:
    """Send e.g. ``READY=1`` to $NOTIFY_SOCKET. False when there is none or it does not listen; never raises."""
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
    """Seconds between two ``WATCHDOG=1``: half of what systemd allows; None when no watchdog watches this process."""
    try:
        usec = int(os.environ.get("WATCHDOG_USEC", ""))
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return usec / 2_000_000 if usec > 0 and pid == os.getpid() else None


def inherited_sockets() -> dict[str, socket.socket]:
    """Sockets handed over by systemd, by their LISTEN_FDNAMES name; none when they were meant for another process.

    The variables are removed so that no child takes the descriptors for its own.
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
