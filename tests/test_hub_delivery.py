"""What an event or a subscriber may do to others: nothing. Real sockets and stores, mostly on the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import HubProcess, Peer
from tests.test_hub_server import in_process_hub
from waitbus import wire
from waitbus.client.emit import emit, emit_many
from waitbus.event import EventInsert
from waitbus.hub import delivery, fanout, replay, sweep
from waitbus.hub.connection import Connection
from waitbus.hub.server import Hub
from waitbus.settings import Settings
from waitbus.store.open import open_writer
from waitbus.ulid import ULID_MIN

Peers = Callable[..., Peer]
Loop = asyncio.AbstractEventLoop
NEEDED = {
    "source": "s", "event_type": "t", "owner": "o", "repo": "r", "received_at": 5, "payload_json": "{}",
    "ingest_method": "m",
}  # fmt: skip


def insert(store: sqlite3.Connection, key: str, **columns: Any) -> None:
    """As a foreign program that does not ring. Bytes in a list are text that is not UTF-8."""
    row = {**NEEDED, "delivery_id": key, **columns}
    marks = ["CAST(? AS TEXT)" if isinstance(value, list) else "?" for value in row.values()]
    values = [value[0] if isinstance(value, list) else value for value in row.values()]
    store.execute(f"INSERT INTO events ({', '.join(row)}) VALUES ({', '.join(marks)})", values)


def tick(n: int, **more: Any) -> EventInsert:
    return EventInsert(source="test", event_type="tick", delivery_id=str(n), fields={"n": n}, **more)


def glob(pattern: str, key: str = "msg_body") -> dict[str, Any]:
    return {"key": key, "op": "glob", "value": pattern}


class Client:
    """A subscriber on the hub's own loop, which reads only when it is asked to."""

    def __init__(self, loop: Loop, settings: Settings) -> None:
        self._loop = loop
        self._settings = settings
        self._decoder = wire.Decoder()
        self._frames: list[dict[str, Any]] = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)

    async def subscribe(self, **first: Any) -> dict[str, Any]:
        """Give the hub's answer."""
        await self._loop.sock_connect(self.socket, self._settings.broadcast_socket)
        await self._loop.sock_sendall(self.socket, wire.encode(first))
        answer = await self.frame()
        assert answer is not None
        return answer

    async def frame(self) -> dict[str, Any] | None:
        """The next frame; None at the end of the stream."""
        while not self._frames:
            data = await self._loop.sock_recv(self.socket, 1 << 16)
            if not data:
                return None
            self._frames += map(wire.decode, self._decoder.feed(data))
        return self._frames.pop(0)

    async def ids(self, last: str) -> list[str]:
        """What comes, up to the event of this delivery_id: delivery_ids, and the kinds of other frames."""
        seen: list[str] = []
        while last not in seen:
            frame = await self.frame()
            assert frame is not None, f"the stream ended after {seen}"
            seen.append(frame.get("delivery_id", frame["kind"]))
        return seen


Scenario = Callable[[Hub, Loop, Callable[[], Client], sqlite3.Connection], Any]


@pytest.fixture
def scene(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Runs a scenario beside a hub that never sweeps by itself."""
    monkeypatch.setattr(sweep, "SWEEP_SEC", 600.0)

    def run(scenario: Scenario) -> None:
        async def inner(hub: Hub, loop: Loop) -> None:
            clients: list[Client] = []

            def client() -> Client:
                clients.append(Client(loop, settings))
                return clients[-1]

            with contextlib.closing(open_writer(settings)) as store:
                try:
                    await scenario(hub, loop, client, store)
                finally:
                    for one in clients:
                        one.socket.close()

        in_process_hub(settings, inner)

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Let the hub have its turns until something is so."""
    while not condition():  # noqa: ASYNC110  # the hub's state has no event to wait on
        await asyncio.sleep(0)


def connections(hub: Hub) -> list[Connection]:
    return list(hub._connections)


# --- an event stops nobody --------------------------------------------------------------------------------------------

POISON: dict[str, dict[str, Any]] = {
    "a correlation id that fills a frame": {"msg_correlation_id": "x" * 66_000},
    "one that no row may have": {"msg_correlation_id": "x" * 300_000},
    "one that is longer as JSON": {"msg_correlation_id": "\x01" * 20_000},
    "800 deep": {"fields_json": '{"a":' * 800 + "1" + "}" * 800},
    "deep beyond every stack": {"fields_json": '{"a":' * 50_000 + "1" + "}" * 50_000},
    "long fields": {"fields_json": '{"a":"' + "x" * 300_000 + '"}'},
    "fields that only a frame is too small for": {"fields_json": '{"a":"' + "x" * 80_000 + '"}'},
    "half a surrogate": {"fields_json": '{"a":"\\ud800"}', "msg_correlation_id": "c"},
    "half surrogates that fill a frame": {"fields_json": '{"a":"' + "\\ud800" * 12_000 + '"}'},
    "NaN": {"fields_json": '{"a":NaN}'},
    "a long number": {"fields_json": '{"a":' + "9" * 5000 + "}"},
    "not UTF-8": {"msg_body": [b"\xff\xfe" * 40_000]},
    "a blob": {"source": b"\xff\x00" * 40_000},
    "an id of its own making": {"event_id": "mine"},
    "a long id": {"event_id": "x" * 300_000},
    "a long source": {"source": "z" * 200_000},
    "a long key": {"delivery_id": "k" * 300_000},
    "a long summary": {"summary": "z" * 100_000},
    "numbers for text": {"status": 5.5, "owner": 7, "run_id": "x", "received_at": "never"},
}


def test_no_event_stops_another_whatever_it_holds(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    live, picky = peer({}), peer({"match": {"any": [glob("*x*", "a"), {"key": "a.a.a", "op": "ne", "value": [[1]]}]}})
    between = peer({"match": {"key": "n", "op": "ge", "value": 0}})
    with contextlib.closing(sqlite3.connect(settings.db_path)) as store, store:
        for n, columns in enumerate(POISON.values()):
            insert(store, f"before {n}", fields_json=f'{{"n": {n}}}')
            insert(store, f"poison {n}", **columns)
    emit(tick(99, summary="last"))
    for client in (live, peer({"since": ULID_MIN})):
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1].get("delivery_id") != "99":
            frame = client.read()
            assert frame is not None
            seen.append(frame)
        assert len(seen) == 2 * len(POISON) + 1
        assert [frame["delivery_id"] for frame in seen[::2]] == [*[f"before {n}" for n in range(len(POISON))], "99"]
        assert {frame["kind"] for frame in seen} == {"event", "truncated"}
    for client in (between, peer({"since": ULID_MIN, "match": {"key": "n", "op": "ge", "value": 0}})):
        assert [client.event()["fields"]["n"] for _ in range(len(POISON) + 1)] == [*range(len(POISON)), 99]
    emit(tick(100, msg_body="for picky"))
    with contextlib.closing(sqlite3.connect(settings.db_path)) as store, store:
        insert(store, "end", fields_json='{"a": "x"}')
    emit(tick(101))
    while (frame := picky.read() or {})["kind"] != "event" or frame["delivery_id"] != "end":
        assert frame["kind"] in ("event", "truncated")
    assert hub.stderr == ""


@pytest.mark.parametrize("fault", ["encoding", "matching"])
def test_a_fault_of_one_event_is_logged_once_and_passed(
    scene: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    honest, asked = wire.encode_event, Hub.on_subscribed

    def cannot(frame: Any) -> bytes:
        if frame["delivery_id"] == "1":
            raise ZeroDivisionError("no such luck")
        return honest(frame)

    def breaks(self: Hub, connection: Connection) -> None:
        """A predicate with a fault of ours: nothing that comes over the wire has one."""
        connection.predicate = lambda frame: bool(cannot(frame))  # type: ignore[assignment]
        connection.predicate.terms = None  # type: ignore[union-attr]
        connection.predicate.has_patterns = False  # type: ignore[union-attr]
        connection.predicate.as_object = {"key": "n", "op": "exists"}  # type: ignore[union-attr]
        asked(self, connection)

    if fault == "encoding":
        monkeypatch.setattr(delivery, "encode_event", cannot)
    else:
        monkeypatch.setattr(Hub, "on_subscribed", breaks)

    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        live, another = client(), client()
        await live.subscribe()
        await another.subscribe(match={"key": "n", "op": "exists"})
        emit_many([tick(0), tick(1), tick(2)])
        assert await live.ids("2") == await another.ids("2") == ["0", "2"]
        late = client()
        await late.subscribe(since=ULID_MIN)
        assert await late.ids("2") == ["0", "2"]
        emit(tick(3))
        assert await live.ids("3") == await another.ids("3") == await late.ids("3") == ["3"]

    scene(scenario)
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(r"skipped event \w+: ZeroDivisionError at test_hub_delivery\.py:", line)
    assert "no such luck" in line


def test_a_subscriber_that_cannot_be_handed_its_bytes_is_closed_and_nobody_else(
    scene: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    honest = Connection.push

    def cannot(self: Connection, frame: bytes) -> bool:
        if self is broken[0]:
            raise ZeroDivisionError
        return honest(self, frame)

    broken: list[Connection] = []

    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        for since in ({}, {"since": ULID_MIN}):
            emit(tick(0))
            victim, other = client(), client()
            await victim.subscribe()
            broken[:] = connections(hub)
            await other.subscribe()
            assert broken[0] in connections(hub)
            monkeypatch.setattr(Connection, "push", cannot)
            if since:
                hub._replay.fall_behind(broken[0], 0)
            emit_many([tick(n) for n in range(1, 4)])
            assert await victim.frame() is None
            assert await other.ids("3") == ["1", "2", "3"]
            monkeypatch.setattr(Connection, "push", honest)
            store.execute("DELETE FROM events")
            other.socket.close()
            await until(lambda: not connections(hub))

    scene(scenario)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "closed a subscriber: ZeroDivisionError" in lines[0]


def test_a_fault_that_nothing_expects_leaves_the_hub_up(
    scene: Callable[[Scenario], None], capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        one = client()
        await one.subscribe()
        for _ in range(3):
            loop.call_soon(int, "not a number")
        emit(tick(1))
        assert await one.ids("1") == ["1"]

    scene(scenario)
    (line,) = capfd.readouterr().err.splitlines()
    assert "please report it: ValueError" in line


def test_what_was_not_handed_on_is_read_again(
    scene: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor moves after delivery, not before it."""
    honest = fanout.Fanout.deliver
    failed: list[bool] = []

    def once(self: fanout.Fanout, parcels: Any) -> set[Connection]:
        if not failed:
            failed.append(True)
            raise MemoryError
        return honest(self, parcels)

    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        one = client()
        await one.subscribe()
        monkeypatch.setattr(fanout.Fanout, "deliver", once)
        emit_many([tick(1), tick(2)])
        await until(lambda: bool(failed))
        assert hub.reader.changed()
        hub._swept()
        assert await one.ids("2") == ["1", "2"]

    scene(scenario)


# --- patterns: time is on the account of who brought them -------------------------------------------------------------


@pytest.mark.parametrize("bound", ["SLOW_SEC", "COSTLY_SEC"])
def test_who_takes_long_is_served_apart_and_has_everything_once_and_in_order(
    scene: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(fanout, bound, -1.0)
    monkeypatch.setattr(replay, "SLOW_SEC", fanout.SLOW_SEC)

    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        slow, plain = client(), client()
        await slow.subscribe(match=glob("b*"), caught_up=True)
        assert (await slow.frame() or {})["caught_up"] is True
        (connection,) = connections(hub)
        await plain.subscribe()
        for start in range(0, 2000, 400):
            emit_many([tick(n, msg_body="body") for n in range(start, start + 400)])
            expected = [str(n) for n in range(start, start + 400)]
            assert await plain.ids(expected[-1]) == expected
            assert await slow.ids(expected[-1]) == expected
        assert connection.is_slow == (bound == "SLOW_SEC")
        assert connection.session.is_live

    scene(scenario)


def test_who_was_slow_joins_the_others_when_it_has_been_quick_for_a_while(
    scene: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        one = client()
        await one.subscribe(match=glob("b*"))
        (connection,) = connections(hub)
        connection.mark_slow()
        hub._fanout.discard(connection)
        hub._replay.fall_behind(connection, hub.reader.cursor)
        n = 0
        while connection.is_slow:
            emit(tick(n, msg_body="body"))
            assert await one.ids(str(n)) == [str(n)]
            n += 1
        assert n > 1
        assert connection in hub._fanout._costly.candidates({"fields": {}})
        emit(tick(n, msg_body="body"))
        assert await one.ids(str(n)) == [str(n)]

    scene(scenario)


def test_a_turn_of_a_replay_ends_in_time(scene: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of costly rows is one row a turn: others have theirs between."""
    monkeypatch.setattr(replay, "TURN_SEC", -1.0)
    turns: list[int] = []
    honest = replay.Replay._read

    def counted(self: replay.Replay, connection: Connection, goal: int) -> None:
        turns.append(connection.session.cursor)
        honest(self, connection, goal)

    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        emit_many([tick(n) for n in range(20)])
        monkeypatch.setattr(replay.Replay, "_read", counted)
        one = client()
        await one.subscribe(since=ULID_MIN)
        assert await one.ids("19") == [str(n) for n in range(20)]
        assert turns == list(range(20))

    scene(scenario)


# --- memory: bytes are on the account of who makes the hub hold them --------------------------------------------------


def rss_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_a_replay_over_long_fields_takes_little_memory(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    live = peer({})
    before = rss_mib(hub.pid)
    long, fits = ('{"k":[' + "0," * count + "0]}" for count in (2_500_000, 130_000))
    with contextlib.closing(sqlite3.connect(settings.db_path)) as store, store:
        store.execute("PRAGMA synchronous = OFF")
        for n in range(10):
            insert(store, str(n), fields_json=long if n else fits)
    emit(tick(99))
    for client in (live, peer({"since": ULID_MIN}), peer({"since": ULID_MIN, "match": glob("*9*", "delivery_id")})):
        while (client.read() or {}).get("delivery_id") != "99":
            pass
    assert rss_mib(hub.pid) - before < 64


@pytest.mark.parametrize(
    "match",
    [
        {"key": "a", "op": "eq", "value": [0] * 20_000},
        {"key": "a", "op": "eq", "value": {str(n): n for n in range(4000)}},
        {"key": "a", "op": "eq", "value": "x" * 60_000},
        {"key": "a", "op": "ne", "value": ["x" * 1000] * 50},
        glob("*" * 60_000, "a"),
        {"any": [{"key": "a", "op": "eq", "value": "x" * 900} for _ in range(60)]},
        {"any": [{"key": "a." * 100 + "a", "op": "eq", "value": "x" * 100} for _ in range(64)]},
        {"any": [glob("*[ab]" * 50, "a") for _ in range(64)]},
        {"any": [{"key": "a", "op": "exists"}] * 2000},
        {"key": "a", "op": "eq", "value": [[[[[[[[[1]]]]]]]]]},
    ],
    ids=[
        "list",
        "object",
        "text",
        "list of texts",
        "pattern",
        "long values",
        "long keys",
        "patterns",
        "leaves",
        "depth",
    ],
)
def test_a_match_past_its_account_is_refused_with_a_word(hub: HubProcess, peer: Peers, match: dict[str, Any]) -> None:
    client = peer()
    client.send({"match": match})
    answer = client.read()
    assert answer is not None
    assert (answer["kind"], answer["reason"], answer["supported"]) == ("subscribe_rejected", "match", None)
    assert answer["remediation"]
    assert client.read() is None


@pytest.mark.parametrize("depth", [9, 978, 30_000])
@pytest.mark.parametrize("form", ["not", "value"])
def test_a_deep_match_is_refused_on_every_python(hub: HubProcess, peer: Peers, depth: int, form: str) -> None:
    opening, closing = (b'{"not":', b"}") if form == "not" else (b"[", b"]")
    depth = min(depth, 60_000 // len(opening + closing))
    inner = opening * depth + (b'{"key":"a","op":"exists"}' if form == "not" else b"1") + closing * depth
    body = b'{"match":' + (inner if form == "not" else b'{"key":"a","op":"eq","value":' + inner + b"}") + b"}"
    client = peer()
    client.send(body)
    answer = client.read()
    assert answer is not None
    assert (answer["kind"], answer["reason"]) == ("subscribe_rejected", "match")
    assert hub.stderr == ""


def test_a_predicate_leaves_less_room_in_the_queue(settings: Settings, unstarted_hub: HubProcess, peer: Peers) -> None:
    with open(settings.config_path, "w") as config:
        config.write('[hub]\nqueue_bytes = "128KiB"\n')
    unstarted_hub.start()
    client = peer()
    client.send({"match": {"any": [{"key": "a", "op": "eq", "value": n} for n in range(64)]}})
    answer = client.read()
    assert answer is not None
    assert (answer["reason"], answer["supported"]) == ("match", None)
    assert "queue_bytes" in answer["remediation"]
    peer({"match": {"any": [{"key": "a", "op": "eq", "value": n} for n in range(8)]}})
