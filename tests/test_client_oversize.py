"""An event too large for a frame is fetched from the store: what interrupts the fetch does not lose the event."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, HubProcess
from waitbus.client import fetch
from waitbus.client.aio import asubscribe
from waitbus.client.emit import emit
from waitbus.client.subscribe import subscribe
from waitbus.event import Event, EventInsert
from waitbus.settings import Settings

FETCH = fetch.from_store


def tell() -> list[str]:
    """One event that is too large, and one that is not."""
    return [
        emit(EventInsert(source="test", event_type="test", fields={"tail": tail})).event.event_id
        for tail in ("x" * 70_000, "y")
    ]


def test_a_wait_cancelled_while_the_event_is_fetched_loses_nothing(
    hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(settings: Settings, event_id: str) -> Event | None:
        begun.set()
        assert go_on.wait(PATIENCE)
        return FETCH(settings, event_id)

    async def consume() -> list[str]:
        async with asubscribe(timeout=PATIENCE) as events:
            told = tell()
            monkeypatch.setattr(fetch, "from_store", slow)
            waiting = asyncio.ensure_future(anext(events))
            assert await asyncio.to_thread(begun.wait, PATIENCE)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            go_on.set()
            assert [(await anext(events)).event_id for _ in told] == told
        return told

    asyncio.run(consume())


def test_an_interrupted_fetch_loses_nothing_and_moves_no_bookmark(
    hub: HubProcess, bus_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(settings: Settings, event_id: str) -> Event | None:
        raise KeyboardInterrupt

    bookmark = bus_dir / "bookmark"
    told = tell()
    with subscribe(since="start", bookmark=bookmark, timeout=PATIENCE) as events:
        began = bookmark.read_text()
        with monkeypatch.context() as patched:
            patched.setattr(fetch, "from_store", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(events)
        assert bookmark.read_text() == began
        assert [next(events).event_id for _ in told] == told


@pytest.mark.parametrize(("since", "given"), [("start", True), ("1h", False)])
def test_history_that_was_not_asked_for_is_not_given_however_large(hub: HubProcess, since: str, given: bool) -> None:
    """A frame that says only that there is an event does not say of when it is."""
    large = emit(
        EventInsert(source="test", event_type="t", fields={"tail": "x" * 70_000}, ingest_method="import", received_at=1)
    )
    news = emit(EventInsert(source="test", event_type="t"))
    expected = [large.event.event_id, news.event.event_id][0 if given else 1 :]

    async def consume() -> list[str]:
        async with asubscribe(since=since, timeout=PATIENCE) as events:
            return [(await anext(events)).event_id for _ in expected]

    with subscribe(since=since, timeout=PATIENCE) as events:
        assert [next(events).event_id for _ in expected] == expected
    assert asyncio.run(consume()) == expected


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_an_event_whose_store_was_taken_away_ends_no_subscription(
    hub: HubProcess, settings: Settings, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """A file is empty between its making and its first transaction."""

    def taken_away(settings: Settings, event_id: str) -> Event | None:
        kept = Path(settings.db_path).rename(f"{settings.db_path}.kept")
        try:
            if left == "an empty file":
                Path(settings.db_path).touch(0o600)
            with monkeypatch.context() as patch:
                patch.setattr("os.path.exists", lambda path: True)
                return FETCH(settings, event_id)
        finally:
            kept.rename(settings.db_path)

    with subscribe(timeout=PATIENCE) as events:
        _, small = tell()
        monkeypatch.setattr(fetch, "from_store", taken_away)
        assert next(events).event_id == small
