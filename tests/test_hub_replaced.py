"""A store that is replaced under a hub, and rows of the past in it: what is news is told, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess, Peer
from tests.test_hub_server import in_process_hub
from tests.test_store_import import make_old
from tests.test_store_replaced import Other
from waitbus import wire
from waitbus.client.emit import emit, emit_many
from waitbus.event import HISTORY_METHODS, EventInsert
from waitbus.hub.server import Hub
from waitbus.settings import Settings
from waitbus.store.append import Appender
from waitbus.store.open import open_writer
from waitbus.ulid import ULID_MIN

YEAR_NS = 365 * 86_400 * 10**9


def event(name: str, **more: Any) -> EventInsert:
    return EventInsert(source="s", event_type="t", delivery_id=name, **more)


def next_name(peer: Peer) -> str:
    name: str = peer.event()["delivery_id"]
    return name


def remove(settings: Settings, *endings: str) -> None:
    for ending in endings:
        Path(f"{settings.db_path}{ending}").unlink()


def test_a_live_subscriber_follows_to_the_new_file(
    hub: HubProcess, settings: Settings, peer: Callable[..., Peer]
) -> None:
    live = peer({"proto": 1})
    for number in range(2):
        emit(event(f"before {number}"))
        assert next_name(live) == f"before {number}"
        remove(settings, "", "-wal", "-shm")
        emit_many([event("first"), event("second")])
        assert [next_name(live), next_name(live)] == ["first", "second"]


@pytest.mark.parametrize("endings", [("-wal", "-shm"), ("-shm",)])
def test_a_live_subscriber_hears_on_when_the_log_alone_is_deleted(
    hub: HubProcess, settings: Settings, peer: Callable[..., Peer], endings: tuple[str, ...]
) -> None:
    live = peer({"proto": 1})
    emit(event("before"))
    assert next_name(live) == "before"
    remove(settings, *endings)
    emit(event("after"))
    assert next_name(live) == "after"
    emit(event("last"))
    assert next_name(live) == "last"
    assert "its log" in hub.stderr or "the log of" in hub.stderr


@pytest.mark.parametrize("endings", [("-wal", "-shm"), ("", "-wal", "-shm")])
def test_upkeep_of_an_idle_hub_leaves_what_others_write_meanwhile(
    settings: Settings, bus_dir: Path, endings: tuple[str, ...]
) -> None:
    """Nobody is connected, so that nothing looks whether the store was replaced."""
    other = Other(settings, bus_dir)
    for name in ("old", "young"):
        other.write(name)

    async def scenario(hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        remove(settings, *endings)
        other.write("other")
        ended = loop.create_future()

        def look() -> None:
            if hub.reader._prune_timer is None:
                ended.set_result(None)
            else:
                loop.call_later(0.01, look)

        hub.reader.maintain(loop)
        look()
        await ended
        assert other.rows()[-1] == "other"

    in_process_hub(settings, scenario)
    assert other.rows()[-1] == "other"


def test_upkeep_makes_no_store_where_one_was_removed(settings: Settings) -> None:
    async def scenario(hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        remove(settings, "", "-wal", "-shm")
        for _ in range(3):
            hub.reader.maintain(loop)
            await asyncio.sleep(0)
        found.extend(os.listdir(settings.state_dir))

    found: list[str] = []
    in_process_hub(settings, scenario)
    assert "hub.lock" in found
    assert "waitbus.db" not in found


def old_store(path: Path, ages_ns: list[int]) -> None:
    """A store of another life, with events of so long ago, their ids of then."""
    now = time.time_ns()
    with contextlib.closing(sqlite3.connect(path)) as store:
        for age in ages_ns:
            store.execute(
                "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, ingest_method, "
                "payload_json) VALUES (?, 's', 't', 'o', 'r', ?, 'manual', '{}')",
                (f"old {age}", now - age),
            )
        store.execute("UPDATE schema_migrations SET applied_at_ns = ?", (now - 2 * YEAR_NS,))
        store.commit()


def test_what_a_restored_backup_holds_is_not_told_as_news(
    hub: HubProcess, settings: Settings, bus_dir: Path, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = peer({"proto": 1})
    emit(event("before"))
    assert next_name(live) == "before"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(settings, "db_path", str(bus_dir / "state" / "backup.db"))
        open_writer(settings).close()
    backup = bus_dir / "state" / "backup.db"
    old_store(backup, [YEAR_NS, YEAR_NS // 2])
    remove(settings, "", "-wal", "-shm")
    backup.rename(settings.db_path)
    emit(event("after"))
    assert next_name(live) == "after"


# History.


@pytest.mark.parametrize("method", HISTORY_METHODS)
def test_history_is_replayed_and_never_told_live(
    hub: HubProcess, settings: Settings, peer: Callable[..., Peer], method: str
) -> None:
    live = peer({"proto": 1})
    emit(event("past", ingest_method=method, received_at=1))
    emit(event("news"))
    assert next_name(live) == "news"
    past = peer({"proto": 1, "since": "0" * 26})
    assert [next_name(past), next_name(past)] == ["past", "news"]
    # The same subscriber, now that it is live.
    emit(event("more past", ingest_method=method, received_at=time.time_ns()))
    emit(event("more news"))
    assert next_name(past) == "more news"


@pytest.mark.parametrize("asked", [{}, {"since": ULID_MIN}])
def test_history_is_not_told_to_a_live_subscriber_that_is_served_from_the_store(
    settings: Settings, asked: dict[str, str]
) -> None:
    """As one is that fell behind."""

    async def scenario(hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        reader, writer = await asyncio.open_unix_connection(settings.broadcast_socket)

        async def read() -> dict[str, Any]:
            size = int.from_bytes(await reader.readexactly(4), "big")
            frame: dict[str, Any] = json.loads(await reader.readexactly(size))
            return frame

        writer.write(wire.encode({"proto": 1, "caught_up": True, **asked}))
        assert [(await read())["kind"] for _ in range(2)] == ["subscribe_ack", "daemon_heartbeat"]
        (connection,) = hub._connections
        place = hub.reader.cursor
        appender = Appender(settings)
        appender.append_many([event("past", ingest_method="import"), event("news")])
        appender.close()
        hub._fanout.discard(connection)
        hub.pump()
        hub._replay.fall_behind(connection, place)
        assert (await read())["delivery_id"] == "news"
        writer.close()

    in_process_hub(settings, scenario)


def test_an_import_ends_no_wait_for_news(hub: HubProcess, settings: Settings, cli: Cli) -> None:
    """Seven events of last year come in, a failed run of pytest among them."""
    make_old(settings)
    live = cli.spawn("wait", "--source", "pytest", "--verdict", "--timeout", f"{PATIENCE}s", "--json")
    lately = cli.spawn(
        "wait", "--source", "pytest", "--verdict", "--since", "5m", "--timeout", f"{PATIENCE}s", "--json"
    )
    with contextlib.closing(sqlite3.connect(settings.db_path)) as store:
        store.execute("DELETE FROM meta WHERE key LIKE 'import%'")
        store.commit()
    done = cli("init", "--json")
    assert json.loads(done.stdout)["import"]["imported"] == 7
    assert cli("wait", "--source", "pytest", "--verdict", "--since", "start", "--timeout", "0").returncode == 1
    emit(EventInsert(source="pytest", event_type="pytest_session", conclusion="success"))
    for waiting in (live, lately):
        out, err = waiting.communicate(timeout=PATIENCE)
        assert waiting.returncode == 0, err
        assert json.loads(out)["fields"]["ingest_method"] == "manual"
