"""Many subscribers in one process, each waiting on a value of its own, on plain sockets and the wire by hand.

usage: crowd.py SOCKET N
Says ``up`` when all are answered and live. At a line on stdin prints how many event frames came: none should have.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys

DESCRIPTORS_BESIDE = 64


def frame(value: dict[str, object]) -> bytes:
    body = json.dumps(value).encode()
    return len(body).to_bytes(4, "big") + body


def read_frame(peer: socket.socket) -> dict[str, object]:
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = peer.recv(size - len(data))
            if not piece:
                raise SystemExit("the hub ended a connection of the crowd")
            data += piece
        return data

    value: dict[str, object] = json.loads(exactly(int.from_bytes(exactly(4), "big")))
    return value


def main() -> None:
    path, count = sys.argv[1], int(sys.argv[2])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + DESCRIPTORS_BESIDE, hard))
    crowd = []
    for number in range(count):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        match = {"key": "workflow_name", "op": "eq", "value": f"other-{number}"}
        peer.sendall(frame({"proto": 1, "match": match, "caught_up": True}))
        crowd.append(peer)
    for peer in crowd:
        while not read_frame(peer).get("caught_up"):
            pass
    print("up", flush=True)
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    by_fd = {peer.fileno(): peer for peer in crowd}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    events = 0
    while True:
        ready = [fd for fd, _ in poll.poll()]
        events += sum(read_frame(by_fd[fd])["kind"] != "daemon_heartbeat" for fd in ready if fd in by_fd)
        if sys.stdin.fileno() in ready:
            break
    print(events, flush=True)


main()
