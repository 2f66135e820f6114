"""Peer credentials: the kernel's own on this system; the BSD structure from bytes as its header lays them out."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from waitbus.host.peer import peer_uid, xucred_uid


def test_the_other_end_of_a_socket_pair_is_us() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_uid(left) == os.getuid()


def test_the_bsd_structure_is_read_by_its_header() -> None:
    # struct xucred { u_int cr_version; uid_t cr_uid; short cr_ngroups; gid_t cr_groups[16]; } of <sys/ucred.h>
    raw = struct.pack("2Ih2x16I", 0, 501, 1, 20, *[0] * 15)
    assert len(raw) == 76
    assert xucred_uid(raw) == 501


def test_an_unknown_version_of_it_is_refused() -> None:
    with pytest.raises(OSError, match="version 1"):
        xucred_uid(struct.pack("2Ih2x16I", 1, 501, 1, 20, *[0] * 15))
