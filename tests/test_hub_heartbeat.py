"""Heartbeats: those who ask hear them more often, nobody else does, and there is a timer only where somebody asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import HubProcess, Peer
from waitbus import wire
from waitbus.hub.connection import Connection
from waitbus.hub.heartbeat import Heartbeats


class Timer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """A loop with a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_later(self, delay: float, call: Callable[..., None], *args: Any) -> Timer:
        self.timers.append(Timer(self.now + delay, lambda: call(*args)))
        return self.timers[-1]

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if timer.call is not None]

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.waiting if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.now, call = timer.when, timer.call
            timer.cancel()
            assert call is not None
            call()
        self.now = end


class Bench:
    def __init__(self) -> None:
        self.loop = Loop()
        self.heard: dict[str, list[float]] = {}
        self.heartbeats = Heartbeats(cast("asyncio.AbstractEventLoop", self.loop), self.beat)

    def beat(self, connections: list[Connection]) -> None:
        for connection in connections:
            self.heard.setdefault(str(connection), []).append(self.loop.now)

    def add(self, name: str, interval: float) -> None:
        self.heartbeats.add(cast("Connection", name), interval)

    def discard(self, name: str) -> None:
        self.heartbeats.discard(cast("Connection", name))


def test_each_hears_it_as_often_as_it_asked() -> None:
    bench = Bench()
    bench.add("often", 3)
    bench.add("seldom", 60)
    bench.loop.run(2)
    bench.add("later", 3)
    bench.loop.run(8)
    assert bench.heard == {"often": [3, 6, 9], "later": [3, 6, 9]}
    bench.loop.run(50)
    assert bench.heard["seldom"] == [60]


def test_there_is_a_timer_only_while_somebody_wants_one() -> None:
    bench = Bench()
    assert bench.loop.waiting == []
    for name in "abc":
        bench.add(name, 60)
    assert len(bench.loop.waiting) == 1
    bench.add("often", 3)
    bench.loop.run(10)
    assert len(bench.loop.waiting) == 2
    bench.discard("often")
    assert len(bench.loop.waiting) == 1
    for name in "abc":
        bench.discard(name)
    assert bench.loop.waiting == []
    bench.discard("nobody")
    bench.add("a", 60)
    bench.heartbeats.stop()
    assert bench.loop.waiting == []


def test_one_that_leaves_at_its_heartbeat_stops_nobody() -> None:
    bench = Bench()
    bench.add("a", 3)
    beat = bench.beat

    def leave(connections: list[Connection]) -> None:
        beat(connections)
        bench.discard("a")

    bench.heartbeats._beat = leave
    bench.loop.run(4)
    bench.add("b", 3)
    bench.loop.run(4)
    assert bench.heard == {"a": [3], "b": [7]}


@pytest.mark.parametrize(
    ("asked", "given_"),
    [(1, 1), (3, 3), (60, 60), (2.9, 2), (0, 1), (-5, 1), (61, 60), (10**400, 60), (1e300, 60), (None, 60)],
)
def test_what_is_asked_for_is_given_within_bounds(asked: object, given_: int) -> None:
    assert wire.parse_subscribe_request({"heartbeat_sec": asked}).heartbeat_sec == given_


@given(st.booleans() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()))
def test_what_is_not_a_number_changes_nothing(asked: object) -> None:
    assert wire.parse_subscribe_request({"heartbeat_sec": asked}).heartbeat_sec == wire.HEARTBEAT_SEC


def test_who_asks_hears_the_hub_and_nobody_else_does(hub: HubProcess, peer: Callable[..., Peer]) -> None:
    other, often = peer({}), peer()
    often.send({"heartbeat_sec": 1})
    ack = often.read()
    assert ack is not None
    assert ack["heartbeat_sec"] == 1
    assert "heartbeat_sec" in ack["features"]
    for _ in range(2):
        assert (often.read() or {})["kind"] == "daemon_heartbeat"
    other.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.socket.recv(1)
