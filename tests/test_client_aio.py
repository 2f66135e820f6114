"""The asyncio face on a real hub: the same promises, and a cancelled wait loses nothing and leaves nothing open."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, HubProcess
from tests.test_client_autostart import hub_pid, stop_hub
from waitbus.client.aio import AsyncSubscription, asubscribe
from waitbus.client.core import HubError
from waitbus.client.emit import emit, emit_many
from waitbus.event import Event, EventInsert
from waitbus.settings import Settings


def make(number: int, **fields: Any) -> EventInsert:
    return EventInsert(source="test", event_type="test", fields={"n": number, **fields})


def tell(*numbers: int) -> list[Event]:
    return [emit(make(number)).event for number in numbers]


async def take(events: AsyncSubscription, count: int) -> list[int]:
    return [(await anext(events)).fields["n"] for _ in range(count)]


def sockets() -> set[str]:
    """What sockets this process has open."""
    found = set()
    for fd in os.listdir("/dev/fd"):
        try:
            target = os.readlink(f"/dev/fd/{fd}")
        except OSError:  # the listing's own
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def test_it_is_subscribed_when_entered(hub: HubProcess) -> None:
    async def main() -> None:
        tell(0)
        async with asubscribe("n>0", source="test", timeout=PATIENCE) as events:
            (told,) = tell(1)
            assert await anext(events) == told

    asyncio.run(main())


def test_it_is_a_loop_over_the_past_and_what_comes(hub: HubProcess) -> None:
    async def main() -> list[int]:
        tell(1, 2)
        numbers = []
        async for event in asubscribe(since="start", timeout=PATIENCE):
            numbers.append(event.fields["n"])
            if len(numbers) == 3:
                break
            if len(numbers) == 2:
                tell(3)
        return numbers

    assert asyncio.run(main()) == [1, 2, 3]


def test_it_ends_when_nothing_came_for_the_time(hub: HubProcess) -> None:
    async def main() -> None:
        tell(1)
        events = asubscribe(since="start", timeout=0.05)
        assert [event.fields["n"] async for event in events] == [1]
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    asyncio.run(main())


def test_a_large_backlog_comes_whole_and_in_order(hub: HubProcess) -> None:
    emit_many(make(number) for number in range(3000))

    async def main() -> list[int]:
        async with asubscribe(since="start", timeout=PATIENCE) as events:
            return await take(events, 3000)

    assert asyncio.run(main()) == list(range(3000))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_comes_back_without_gap_or_repeat(hub: HubProcess, number: int) -> None:
    async def main() -> None:
        async with asubscribe(timeout=PATIENCE) as events:
            hub.stop(number)
            tell(1)
            hub.start()
            tell(2)
            assert await take(events, 2) == [1, 2]

    asyncio.run(main())


def test_an_event_too_large_for_a_frame_comes_from_the_store(hub: HubProcess) -> None:
    async def main() -> None:
        async with asubscribe(timeout=PATIENCE) as events:
            emit(make(1, blob="x" * 70_000))
            assert len((await anext(events)).fields["blob"]) == 70_000

    asyncio.run(main())


def test_a_cancelled_wait_loses_nothing_and_leaves_nothing_open(hub: HubProcess) -> None:
    async def main() -> None:
        tell(0)  # the bell's own socket is there from now on
        before = sockets()
        events = asubscribe(timeout=PATIENCE)
        # Waits are cut off at any point: before the answer, while nothing comes, while something does.
        for patience in (0, 0.001, 0.05):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), patience)
            assert sockets() == before
        tell(1, 2)
        numbers = []
        for step in range(3, 12):
            waiting = asyncio.ensure_future(anext(events))
            for _ in range(step):
                await asyncio.sleep(0)
            waiting.cancel()
            tell(step)
            await asyncio.wait([waiting])
            if not waiting.cancelled():  # it was done before it could be
                numbers.append(waiting.result().fields["n"])
        numbers += await take(events, 11 - len(numbers))
        assert numbers == list(range(1, 12))
        events.close()
        assert sockets() == before

    asyncio.run(main())


def test_a_cancelled_task_leaves_no_socket_open(hub: HubProcess) -> None:
    async def loop() -> None:
        async for _ in asubscribe():
            pass

    async def main() -> None:
        before = sockets()
        task = asyncio.create_task(loop())
        while not sockets() - before:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sockets() == before

    asyncio.run(main())


def test_many_waits_at_once(hub: HubProcess) -> None:
    async def waiter(number: int) -> int:
        async with asubscribe(f"n={number}", timeout=PATIENCE) as events:
            ready.release()
            return (await take(events, 1))[0]

    ready = asyncio.Semaphore(0)

    async def main() -> None:
        tasks = [asyncio.create_task(waiter(number)) for number in range(50)]
        for _ in tasks:
            await ready.acquire()
        tell(*range(50))
        assert await asyncio.gather(*tasks) == list(range(50))

    asyncio.run(main())


def test_a_bookmark_goes_on_where_it_was(hub: HubProcess) -> None:
    async def some(count: int) -> list[int]:
        async with asubscribe(since="start", bookmark="mine", timeout=PATIENCE) as events:
            return await take(events, count)

    tell(1, 2, 3)
    assert asyncio.run(some(2)) == [1, 2]
    assert asyncio.run(some(2)) == [2, 3]


def test_no_hub_is_told(settings: Settings) -> None:
    async def main() -> None:
        with pytest.raises(HubError, match="no hub is running"):
            await anext(asubscribe())
        with pytest.raises(HubError, match="no hub is running"):
            async with asubscribe():
                pass

    asyncio.run(main())


def test_the_loop_goes_on_while_a_hub_is_started(settings: Settings) -> None:
    async def main() -> int:
        turns = 0
        waiting = asyncio.ensure_future(anext(asubscribe(since="start", autostart=True, timeout=PATIENCE)))
        tell(1)
        while not waiting.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert waiting.result().fields["n"] == 1
        return turns

    try:
        assert asyncio.run(main()) > 1
        assert hub_pid(settings)
    finally:
        stop_hub(settings)


def test_a_daemon_that_falls_silent_is_left(settings: Settings, bus_dir: Path) -> None:
    from tests.test_client_subscribe import EVENTS, OLD_ACK, Daemon

    daemon = Daemon(settings)
    daemon.says({**OLD_ACK, "heartbeat_sec": 0.02}, EVENTS[1], end=False)
    daemon.says(end=True)
    daemon.says(OLD_ACK, EVENTS[2], end=False)
    daemon.start()

    async def main() -> None:
        async with asubscribe(timeout=PATIENCE) as events:
            assert await take(events, 2) == [1, 2]

    asyncio.run(main())
    daemon.close()
