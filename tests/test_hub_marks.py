"""How far each subscriber has come: joining live, heartbeats, the end. The bell. A store that cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Cli, HubProcess, Peer
from tests.test_hub_delivery import Client, Loop, Scenario, connections, insert, scene, tick, until
from waitbus.client.emit import emit, emit_many
from waitbus.hub import doorbell, replay, sweep
from waitbus.hub.server import Hub
from waitbus.settings import Settings
from waitbus.store import read
from waitbus.store.errors import StoreError
from waitbus.store.open import open_writer
from waitbus.ulid import ULID_MIN

Peers = Callable[..., Peer]
Run = Callable[[Scenario], None]
__all__ = ["scene"]  # the fixture


# --- from the store to live -------------------------------------------------------------------------------------------


def test_who_comes_before_live_has_read_what_was_committed_is_not_told_it(scene: Run) -> None:
    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        first, second = client(), client()
        await first.subscribe()
        insert(store, "past")  # nobody rang
        await second.subscribe()
        emit(tick(1))
        assert await first.ids("1") == ["past", "1"]
        assert await second.ids("1") == ["1"]

    scene(scenario)


def test_rows_that_were_pruned_before_live_read_them_are_waited_for_by_nobody(
    scene: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        first, second = client(), client()
        await first.subscribe()
        insert(store, "past")
        newest = hub.reader.newest_seq

        def pruned() -> int:
            seq = newest()
            store.execute("DELETE FROM events")
            return seq

        monkeypatch.setattr(hub.reader, "newest_seq", pruned)
        await second.subscribe(caught_up=True)
        assert (await second.frame() or {})["caught_up"] is True
        emit(tick(1))
        assert await first.ids("1") == await second.ids("1") == ["1"]

    scene(scenario)


def test_the_answer_names_the_newest_event_as_the_end_of_the_replay(hub: HubProcess, peer: Peers) -> None:
    ids = [emit(tick(n)).event.event_id for n in range(3)]
    for since, caught_up_at in ((ULID_MIN, ids[-1]), (ids[0], ids[-1]), (ids[-1], ids[-1]), (None, None)):
        client = peer()
        client.send({"since": since})
        assert (client.read() or {})["caught_up_at"] == caught_up_at


def test_only_who_has_everything_is_told_a_place_by_heartbeats(scene: Run) -> None:
    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        emit_many([tick(n, msg_body="x" * 10_000) for n in range(300)])
        slow, quick = client(), client()
        await slow.subscribe(since=ULID_MIN)
        await quick.subscribe()
        hub._beat(connections(hub))
        (behind,) = [one for one in connections(hub) if one.session.is_replaying]
        heartbeat = await quick.frame() or {}
        assert heartbeat["cursor"] == read.event_id_at(store, 300)
        while (frame := await slow.frame() or {})["kind"] != "daemon_heartbeat":
            assert frame["kind"] == "event"
        assert "cursor" not in frame
        assert (await slow.ids("299"))[-1] == "299"
        await until(lambda: behind.session.is_live)
        hub._beat(connections(hub))
        assert (await slow.frame() or {})["cursor"] == heartbeat["cursor"]

    scene(scenario)


def test_a_backlog_longer_than_the_queue_reaches_who_does_not_read_yet(scene: Run, settings: Settings) -> None:
    """A replay reads ahead of its subscriber only a little, whatever its page holds."""
    settings.queue_bytes = 128 << 10

    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        # A control character takes six as JSON: a page of little text is a long one on the wire.
        emit_many([tick(n, msg_body="\x01" * 1500) for n in range(300)])
        late = client()
        await late.subscribe(since=ULID_MIN)
        (connection,) = connections(hub)
        await until(lambda: connection._writing)
        for _ in range(300):  # turns of the loop: it reads no row more while the subscriber takes none
            await asyncio.sleep(0)
        assert await late.ids("299") == [str(n) for n in range(300)]

    scene(scenario)


def test_what_was_committed_is_delivered_before_the_end(scene: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        one = client()
        await one.subscribe()
        insert(store, "last")  # nobody rang
        ended = asyncio.ensure_future(hub.drain())
        assert await one.ids("last") == ["last"]
        assert await one.frame() is None
        await ended

        async def already() -> None: ...

        monkeypatch.setattr(hub, "drain", already)

    scene(scenario)


def test_no_mark_of_a_store_outlives_it(scene: Run, settings: Settings) -> None:
    """Wherever a subscriber stands when the file is replaced, it is told what the new one holds, once and in order."""

    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        emit_many([tick(n, msg_body="x" * 10_000) for n in range(300)])
        slow, ended, live, costly = client(), client(), client(), client()
        await slow.subscribe(since=ULID_MIN)  # stays in the middle of its replay: it does not read
        await live.subscribe()
        await ended.subscribe(since=ULID_MIN, match={"key": "n", "op": "ge", "value": 299})
        assert await ended.ids("299") == ["299"]
        await costly.subscribe(match={"key": "delivery_id", "op": "glob", "value": "?"})
        for connection in connections(hub):
            if connection.predicate is not None and connection.predicate.has_patterns:
                connection.mark_slow()
                hub._fanout.discard(connection)
                hub._replay.fall_behind(connection, hub.reader.cursor)
        assert sum(one.session.is_replaying for one in connections(hub)) == 2
        for ending in ("", "-wal", "-shm"):
            os.unlink(settings.db_path + ending)
        emit_many([tick(1), tick(2), tick(300)])
        assert await live.ids("2") == await costly.ids("2") == ["1", "2"]
        assert await ended.ids("300") == ["300"]
        *before, first, second, _ = await slow.ids("300")
        assert (first, second) == ("1", "2")
        assert before == [str(n) for n in range(len(before))]

    scene(scenario)


# --- the bell and the look --------------------------------------------------------------------------------------------


def test_a_ringer_more_than_fit_lets_the_first_go_and_no_other(scene: Run, settings: Settings) -> None:
    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        one = client()
        await one.subscribe()
        with contextlib.ExitStack() as stack:
            ringers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(doorbell._MAX_OPEN + 1)]
            for ringer in ringers:
                ringer.setblocking(False)
                await loop.sock_connect(ringer, settings.doorbell_socket)
            assert await loop.sock_recv(ringers[0], 1) == b""
            for n, ringer in enumerate(ringers[1:]):
                insert(store, str(n))
                await loop.sock_sendall(ringer, b"!")
                assert await one.ids(str(n)) == [str(n)]

    scene(scenario)


def test_a_look_is_told_now_and_then_although_no_version_moved(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no version shows, such as a read that failed, is looked for at every fifth look."""
    open_writer(settings).close()
    version = sweep._Version(settings)
    try:
        assert [version.changed() for _ in range(11)] == [False, False, False, False, True] * 2 + [False]
        emit(tick(1))
        assert version.changed()
    finally:
        version.close()


# --- a store that cannot be read --------------------------------------------------------------------------------------


def damage(path: str, name: str) -> None:
    """Overwrite the first page of a table or an index."""
    with contextlib.closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = store.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        (size,) = store.execute("PRAGMA page_size").fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_a_damaged_store_is_never_answered_as_an_empty_one(
    unstarted_hub: HubProcess, settings: Settings, peer: Peers, cli: Cli
) -> None:
    emit_many([tick(n) for n in range(500)])
    damage(settings.db_path, "events_event_id")
    hub = unstarted_hub.start()
    live = peer({})
    done = cli("wait", "--since", "start", "--match", "n=499", "--timeout", "10")
    assert done.returncode == 2
    assert "is damaged or not an SQLite database" in done.stderr
    assert ".recover" in done.stderr
    assert done.stderr.count("\n") == 1
    refused = peer()
    refused.send({"since": ULID_MIN})
    answer = refused.read() or {}
    assert (answer["kind"], answer["reason"]) == ("subscribe_rejected", "store_damaged")
    assert refused.read() is None
    # The table itself is sound: who asks for nothing of the past is served on.
    with contextlib.closing(sqlite3.connect(settings.db_path)) as store:
        store.execute("PRAGMA writable_schema = ON")
        store.execute("DELETE FROM sqlite_master WHERE name = 'events_event_id'")
        store.commit()
    with contextlib.closing(sqlite3.connect(settings.db_path)) as store, store:
        insert(store, "next")
    assert live.event()["delivery_id"] == "next"
    assert hub.stderr.count("is damaged or not an SQLite database") == 1
    assert hub.stop() == 0


def test_damage_under_a_replay_and_under_live_is_told(hub: HubProcess, settings: Settings, peer: Peers) -> None:
    live = peer({})
    emit_many([tick(n, msg_body="x" * 2000) for n in range(500)])
    while live.event()["delivery_id"] != "499":
        pass
    damage(settings.db_path, "events")
    late = peer()
    late.send({"since": ULID_MIN})
    frames = []
    while (frame := late.read()) is not None:
        frames.append(frame)
    assert frames[-1]["reason"] == "store_damaged"
    with socket.socket(socket.AF_UNIX) as bell:  # live looks, and finds the same
        bell.connect(settings.doorbell_socket)
        bell.send(b"!")
        last = live.read() or {}
    assert (last["kind"], last["reason"]) == ("subscribe_rejected", "store_damaged")
    assert live.read() is None
    assert hub.stop() == 0


@pytest.mark.parametrize("method", ["skip", "newest_seq", "cursor_of", "id_at", "page"])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_store_that_cannot_be_read_is_tried_again_before_that_is_told(
    scene: Run, monkeypatch: pytest.MonkeyPatch, method: str, lasting: bool
) -> None:
    monkeypatch.setattr(replay, "RETRY_SEC", 0.001)

    async def scenario(hub: Hub, loop: Loop, client: Callable[[], Client], store: sqlite3.Connection) -> None:
        emit(tick(1))
        honest = getattr(hub.reader, method)
        tries: list[bool] = []

        def fails(*args: Any, **options: Any) -> Any:
            tries.append(True)
            if lasting or len(tries) < 5:
                raise StoreError("disk I/O error")
            return honest(*args, **options)

        monkeypatch.setattr(hub.reader, method, fails)
        one = client()
        answer = await one.subscribe(since=ULID_MIN, caught_up=True)
        if not lasting:
            assert answer["kind"] == "subscribe_ack"
            assert await one.ids("1") == ["1"]
            assert (await one.frame() or {})["caught_up"] is True
            return
        if method == "page":
            assert answer["kind"] == "subscribe_ack"
            answer = await one.frame() or {}
        assert (answer["kind"], answer["reason"]) == ("subscribe_rejected", "store_unreadable")
        assert "disk I/O error" in answer["remediation"]
        assert await one.frame() is None

    scene(scenario)
