"""Asks the kernel who is at the other end of a UNIX socket.

Linux has `SO_PEERCRED`, macOS and the BSDs have `LOCAL_PEERCRED` (which `getpeereid` reads). Neither needs ctypes.
"""

from __future__ import annotations

import socket
import struct
import sys

# SOL_LOCAL, LOCAL_PEERCRED, LOCAL_PEERPID and the size of `struct xucred` on macOS (<sys/un.h>, <sys/ucred.h>).
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_XUCRED_BYTES = 76


def peer_uid(connection: socket.socket) -> int:
    """Return the uid of the process at the other end. Raises ``OSError`` if the kernel does not know it."""
    if sys.platform == "linux":
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _pid, uid, _gid = struct.unpack("3i", raw)
        return int(uid)
    else:
        return xucred_uid(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES))


def peer_pid(connection: socket.socket) -> int | None:
    """Return the pid of the process at the other end, or None. For a client, that is the one that called ``listen``."""
    try:
        if sys.platform == "linux":
            pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        else:
            pid = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
    except OSError:
        return None
    return pid if pid > 0 else None


def xucred_uid(raw: bytes) -> int:
    """Return the uid in a BSD `struct xucred` (version, uid, …). Raises ``OSError`` if its version is not 0."""
    version, uid = struct.unpack_from("2I", raw)
    if version != 0:
        raise OSError(f"struct xucred of unknown version {version}")
    return int(uid)
