"""The asyncio face on a real hub: the same promises, and a cancelled wait loses nothing and keeps its connection."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, HubProcess, hub_pid, stop_hub
from tests.test_client_autostart import held
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


def test_a_cancelled_wait_loses_nothing_and_keeps_its_connection(hub: HubProcess) -> None:
    async def main() -> None:
        tell(0)  # the bell's own socket is there from now on
        before = sockets()
        events = asubscribe(timeout=PATIENCE)
        await events.__aenter__()
        ours = sockets() - before
        assert len(ours) == 1
        for patience in (0, 0.001, 0.05):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), patience)
            assert sockets() - before == ours
        tell(1, 2)
        numbers = []
        for step in range(3, 12):  # cut off at any point: while nothing comes, while something does
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
        assert sockets() - before == ours
        events.close()
        assert sockets() == before

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(6))
def test_one_cancelled_before_it_is_subscribed_loses_nothing_from_then_on(hub: HubProcess, turns: int) -> None:
    async def main() -> None:
        events = asubscribe(since="start", timeout=PATIENCE)
        waiting = asyncio.ensure_future(anext(events))
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        tell(1, 2)
        await asyncio.wait([waiting])
        got = [] if waiting.cancelled() else [waiting.result().fields["n"]]
        assert got + await take(events, 2 - len(got)) == [1, 2]
        events.close()

    asyncio.run(main())


def test_a_time_out_ends_the_iteration_and_keeps_the_connection(hub: HubProcess) -> None:
    async def main() -> None:
        tell(0)
        before = sockets()
        async with asubscribe(timeout=0.05) as events:
            ours = sockets() - before
            assert [event async for event in events] == []
            tell(1)
            assert [event.fields["n"] async for event in events] == [1]
            assert sockets() - before == ours

    asyncio.run(main())


def test_a_cancelled_task_that_is_gone_leaves_no_socket_open(hub: HubProcess) -> None:
    async def loop() -> None:
        async for _ in asubscribe():
            pass

    async def main() -> None:
        before = sockets()
        task = asyncio.create_task(loop())
        while not sockets() - before:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        gc.collect()
        assert sockets() == before

    asyncio.run(main())


async def until_it_rests(events: AsyncSubscription) -> None:
    """The other task's wait is in the socket: it has subscribed, and nothing comes."""
    while not (events.state.live and events._wake):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)


class TestClose:
    """From another task, while one waits for an event."""

    def test_the_one_who_waits_gets_the_end_of_the_iteration(self, hub: HubProcess) -> None:
        async def main() -> None:
            events = asubscribe()
            waiting = asyncio.ensure_future(anext(events, None))
            await until_it_rests(events)
            await events.aclose()
            assert await asyncio.wait_for(waiting, PATIENCE) is None
            with pytest.raises(StopAsyncIteration):
                await anext(events)
            await events.aclose()

        asyncio.run(main())

    def test_a_loop_over_events_ends(self, hub: HubProcess) -> None:
        async def consume(events: AsyncSubscription) -> list[int]:
            return [event.fields["n"] async for event in events]

        async def main() -> None:
            tell(1)
            events = asubscribe(since="start")
            task = asyncio.create_task(consume(events))
            await until_it_rests(events)
            await events.aclose()
            assert await asyncio.wait_for(task, PATIENCE) == [1]

        asyncio.run(main())

    def test_one_that_is_cancelled_at_the_same_time_is_cancelled(self, hub: HubProcess) -> None:
        async def main() -> None:
            events = asubscribe()
            waiting = asyncio.ensure_future(anext(events))
            await until_it_rests(events)
            await events.aclose()
            waiting.cancel()
            await asyncio.wait([waiting], timeout=PATIENCE)
            assert waiting.cancelled()

        asyncio.run(main())

    def test_a_number_that_is_given_to_another_socket_stays_its_own(self, hub: HubProcess) -> None:
        """Between the close and the turn of the one who waited, somebody else opens and waits."""

        async def main() -> None:
            events = asubscribe()
            waiting = asyncio.ensure_future(anext(events, None))
            await until_it_rests(events)
            assert events._socket is not None
            number = events._socket.fileno()
            events.close()
            mine, other = socket.socketpair()
            assert number in (mine.fileno(), other.fileno())
            mine, other = (mine, other) if mine.fileno() == number else (other, mine)
            readable = asyncio.Event()
            asyncio.get_running_loop().add_reader(mine.fileno(), readable.set)
            assert await asyncio.wait_for(waiting, PATIENCE) is None
            other.send(b"x")
            await asyncio.wait_for(readable.wait(), PATIENCE)
            asyncio.get_running_loop().remove_reader(mine.fileno())
            mine.close()
            other.close()

        asyncio.run(main())

    def test_it_ends_the_wait_for_a_hub_that_is_gone(self, hub: HubProcess) -> None:
        async def main() -> None:
            events = asubscribe()
            waiting = asyncio.ensure_future(anext(events, None))
            await until_it_rests(events)
            hub.stop(signal.SIGKILL)
            while events.state.connected:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            await events.aclose()
            assert await asyncio.wait_for(waiting, PATIENCE) is None

        asyncio.run(main())

    def test_it_ends_the_wait_for_a_hub_that_starts(self, settings: Settings) -> None:
        async def main() -> None:
            events = asubscribe(autostart=True)
            waiting = asyncio.ensure_future(anext(events, None))
            while not (events._start and events._wake):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            await events.aclose()
            assert await asyncio.wait_for(waiting, PATIENCE) is None

        os.makedirs(settings.state_dir, mode=0o700)
        with held(settings.autostart_lock):  # another client starts one, and does not get done
            asyncio.run(main())

    def test_on_entering_too(self, settings: Settings) -> None:
        """A hub that accepts and does not answer."""
        os.makedirs(settings.runtime_dir, mode=0o700)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(settings.broadcast_socket)
        os.chmod(settings.broadcast_socket, 0o600)
        listener.listen(1)

        async def main() -> None:
            events = asubscribe()
            entering = asyncio.ensure_future(events.__aenter__())
            while not events._wake:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            events.close()
            assert await asyncio.wait_for(entering, PATIENCE) is events
            assert await anext(events, None) is None

        asyncio.run(main())
        listener.close()


def test_two_tasks_on_one_subscription_are_told_so(hub: HubProcess) -> None:
    async def main() -> None:
        async with asubscribe(timeout=PATIENCE) as events:
            waiting = asyncio.ensure_future(anext(events))
            await until_it_rests(events)
            with pytest.raises(RuntimeError, match="give each task its own"):
                await anext(events)
            tell(1)
            assert (await waiting).fields["n"] == 1

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
