"""Who is subscribed, and what came of it: one frame for who asks, bounded however many and however odd they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Cli, HubProcess, Peer
from waitbus import wire
from waitbus.client.emit import emit
from waitbus.client.probe import hub_state
from waitbus.event import EventInsert
from waitbus.hub.session import Session
from waitbus.hub.waiters import WAITER_BYTES, status_of
from waitbus.predicate import Predicate
from waitbus.settings import Settings
from waitbus.ulid import ULID_MIN


def tell(number: int) -> str:
    return emit(EventInsert(source="s", event_type="t", fields={"n": number})).event.event_id


NOTHING = {"key": "event_id", "op": "eq", "value": ""}


def status(peer: Callable[..., Peer]) -> dict[str, Any]:
    asker = peer({"status": True, "match": NOTHING})
    answer = asker.read()
    assert answer is not None
    assert answer["kind"] == "hub_status"
    return answer


def test_each_waiter_is_told_with_what_it_saw_and_matched(hub: HubProcess, peer: Callable[..., Peer]) -> None:
    tell(0)
    node = {"key": "n", "op": "eq", "value": 1}
    replaying = peer({"since": ULID_MIN, "match": node, "caught_up": True})
    mark = replaying.read()
    assert mark is not None
    assert mark["caught_up"]
    live = peer({})
    for number in (1, 2, 1):
        tell(number)
    assert [live.event()["fields"]["n"] for _ in range(3)] == [1, 2, 1]
    replaying.event()
    replaying.event()
    answer = status(peer)
    assert answer["subscribers"] == 2
    first, second = sorted(answer["waiters"], key=lambda waiter: waiter["matched"])
    assert first["connected_at"] > 1_700_000_000
    told = {"pid": os.getpid(), "connected_at": first["connected_at"]}
    assert first == {**told, "predicate": node, "seen": 4, "matched": 2}
    assert (second["predicate"], second["seen"], second["matched"]) == (None, 3, 3)


def test_only_who_asks_is_told(hub: HubProcess, peer: Callable[..., Peer]) -> None:
    for first in ({"caught_up": True}, {"caught_up": True, "status": False}, {"caught_up": True, "status": 1}):
        mark = peer(first).read()
        assert mark is not None
        assert mark["kind"] == "daemon_heartbeat"


def test_the_first_frame_can_ask_for_it() -> None:
    assert wire.parse_subscribe_request(wire.subscribe_frame(status=True)).status
    assert not wire.parse_subscribe_request(wire.subscribe_frame()).status
    assert "status" in wire.FEATURES


class _Connection:
    """A served connection, as far as its status goes."""

    def __init__(self, begun: int, node: dict[str, Any] | None) -> None:
        self.session = Session(1 << 20)
        body = json.dumps({} if node is None else {"match": node}).encode()
        assert self.session.receive(len(body).to_bytes(4, "big") + body) is not None
        self.session.begin(0, None)
        self.begun, self.matched, self.pid = begun, 0, 2**31
        self.predicate = None if node is None else Predicate.from_object(node)


def frame_of(connections: list[_Connection]) -> dict[str, Any]:
    data = status_of(connections, 5)  # type: ignore[arg-type]
    assert len(data) <= wire.MAX_FRAME_BYTES + wire.HEADER_BYTES
    return wire.decode(data[wire.HEADER_BYTES :])


@pytest.mark.parametrize("char", ["x", "é", "\U0001f600", "\ud800", "\x01"])
def test_many_waiters_are_cut_and_the_oldest_are_named(char: str) -> None:
    leaf = {"key": "n", "op": "eq", "value": char * 50}
    connections = [_Connection(begun, leaf) for begun in range(1500)]
    answer = frame_of(connections[::-1])
    assert answer["subscribers"] == 1500
    named = [waiter["connected_at"] for waiter in answer["waiters"]]
    assert named == list(range(len(named)))
    assert 50 < len(named) < 1500
    assert answer["waiters"][0]["predicate"] == leaf


def test_a_predicate_that_is_too_long_hides_no_other() -> None:
    long = {"any": [{"key": "n", "op": "eq", "value": "y" * 900} for _ in range(15)]}
    answer = frame_of([_Connection(1, long), _Connection(2, None)])
    first, second = answer["waiters"]
    assert (first["predicate"], first["is_cut"], second["predicate"]) == (None, True, None)
    assert "is_cut" not in second
    assert len(json.dumps(first)) < WAITER_BYTES


def test_who_is_not_served_is_no_waiter() -> None:
    gone, here = _Connection(1, None), _Connection(2, None)
    gone.session.close()
    assert frame_of([gone, here])["subscribers"] == 1


def test_status_shows_them(hub: HubProcess, peer: Callable[..., Peer], cli: Cli, settings: Settings) -> None:
    peer({"match": Predicate.parse("name=build && exit_code!=0").as_object})
    long = {"any": [{"key": "n", "op": "eq", "value": "y" * 900} for _ in range(5)]}
    peer({"match": long})
    peer({})
    lines = [line[8:] for line in cli("status").stdout.splitlines() if " seen, " in line]
    assert sorted(line.partition(": ")[2] for line in lines) == [
        "a predicate too long to be told; 0 seen, 0 matched",
        "any event; 0 seen, 0 matched",
        "name=build && exit_code!=0; 0 seen, 0 matched",
    ]
    assert all(line.startswith(f"pid {os.getpid()} for ") for line in lines)
    told = json.loads(cli("status", "--json").stdout)["hub"]
    assert told["subscribers"] == 3
    assert {waiter["predicate"] for waiter in told["waiters"]} >= {None, "name=build && exit_code!=0"}
    for _ in range(20):
        peer({})
    assert "waiters" in cli("status").stdout
    assert "\n        3 more; --json lists" in cli("status").stdout
    assert hub_state(settings)["subscribers"] == 23
