"""Who is at the other end of a UNIX socket, by the kernel's word.

Linux answers with `SO_PEERCRED`, macOS and the BSDs with `LOCAL_PEERCRED` (what `getpeereid` reads), without ctypes.
"""

from __future__ import annotations

import socket
import struct
import sys

# <sys/un.h> and <sys/ucred.h> of macOS: SOL_LOCAL, LOCAL_PEERCRED, LOCAL_PEERPID; Python names none of them.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_XUCRED_BYTES = 76


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process that connected. Raises ``OSError`` when the kernel cannot say."""
    if sys.platform == "linux":
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _pid, uid, _gid = struct.unpack("3i", raw)
        return int(uid)
    else:
        return xucred_uid(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES))


def peer_pid(connection: socket.socket) -> int | None:
    """The process at the other end, or the one that called ``listen``. None when the kernel does not say."""
    try:
        if sys.platform == "linux":
            pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        else:
            pid = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
    except OSError:
        return None
    return pid if pid > 0 else None


def xucred_uid(raw: bytes) -> int:
    """The user id in a BSD `struct xucred` (version, uid, …). Raises ``OSError`` on a version that is not 0."""
    version, uid = struct.unpack_from("2I", raw)
    if version != 0:
        raise OSError(f"struct xucred of unknown version {version}")
    return int(uid)
