"""No wait outlasts its time-out, whatever state the hub and the locks are in."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess
from tests.test_client_autostart import held
from waitbus.client.aio import asubscribe
from waitbus.client.emit import emit
from waitbus.client.subscribe import subscribe
from waitbus.client.wait import wait_for
from waitbus.event import EventInsert
from waitbus.settings import Settings


def make(number: int) -> EventInsert:
    return EventInsert(source="test", event_type="test", fields={"n": number})


@contextmanager
def stopped(hub: HubProcess) -> Iterator[None]:
    os.kill(hub.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(hub.pid, signal.SIGCONT)


@pytest.fixture(params=["stopped hub", "another client starts one", "a hub does not listen yet", "lost its socket"])
def trouble(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """A hub that does not answer, each for another reason, for as long as the test runs."""
    emit(make(1))
    if "hub does not" in request.param or "client" in request.param:
        with held(settings.hub_lock if "hub does not" in request.param else settings.autostart_lock):
            yield request.param
        return
    hub: HubProcess = request.getfixturevalue("hub")
    with stopped(hub):
        if "lost" in request.param:
            shutil.rmtree(settings.runtime_dir)
        yield request.param


# What a time-out of a fifth of a second may take, on a machine as busy as it likes: the faults took 14 to 81.
BOUND_SEC = 8.0


def timely(act: Callable[[], object]) -> object:
    begun = time.monotonic()
    result = act()
    assert time.monotonic() - begun < BOUND_SEC
    return result


def test_every_verb_keeps_its_time_out(trouble: str, cli: Cli) -> None:
    verbs = [
        (("wait", "--timeout", "0.2"), 124),
        (("wait", "--match", "n=2", "--since", "start", "--timeout", "0"), 124),
        (("wait", "--match", "n=1", "--since", "start", "--timeout", "0"), 0),
        (("tail", "--timeout", "0.2", "--count", "1"), 124),
        (("on", "--timeout", "0.2", "--", "true"), 124),
        (("on", "--restart", "--timeout", "0.2", "--", "true"), 124),
    ]
    started = [(cli.spawn(*words, WAITBUS_AUTOSTART="1"), words, code) for words, code in verbs]
    if "client" not in trouble:  # nobody waits for that client who may not start a hub
        started += [(cli.spawn(*words, WAITBUS_AUTOSTART="0"), words, code) for words, code in verbs[:3]]
    for child, words, code in started:
        assert timely(child.wait) == code, words


def test_every_face_of_the_library_keeps_its_time_out(trouble: str) -> None:
    async def first() -> object:
        async with asubscribe(timeout=0.2, autostart=True) as events:
            return await anext(events, None)

    async def cancelled() -> object:
        events = asubscribe(autostart=True)
        try:
            return await asyncio.wait_for(anext(events, None), 0.2)
        except TimeoutError:
            return None

    assert timely(lambda: wait_for(timeout=0.2, autostart=True)) is None
    assert timely(lambda: next(subscribe(timeout=0.2, autostart=True), None)) is None
    assert timely(lambda: asyncio.run(first())) is None
    assert timely(lambda: asyncio.run(cancelled())) is None  # and no thread keeps the loop from ending
    found = timely(lambda: wait_for("n=1", since="start", timeout=0, autostart=True))
    assert getattr(found, "fields", {}).get("n") == 1


def test_a_subscription_without_a_hub_in_time_goes_on_when_there_is_one(hub: HubProcess) -> None:
    with stopped(hub):
        events = subscribe(timeout=0.05)
        assert next(events, None) is None
    events._timeout = PATIENCE
    with events:
        while not events.state.ready:
            events.receive(time.monotonic() + PATIENCE)
        told = emit(make(1)).event
        assert next(events) == told


def test_status_and_doctor_say_what_is_so(trouble: str, settings: Settings, cli: Cli) -> None:
    words = {
        "stopped hub": "is stopped: kill -CONT",
        "another client starts one": "no hub runs",
        "a hub does not listen yet": "does not listen yet",
        "lost its socket": "is stopped, and its socket is gone: kill -CONT",
    }
    looked = timely(lambda: cli("status"))
    assert isinstance(looked, subprocess.CompletedProcess)
    assert (looked.returncode, looked.stderr) == (1, "")
    assert words[trouble] in looked.stdout
    diagnosed = timely(lambda: cli("doctor"))
    assert isinstance(diagnosed, subprocess.CompletedProcess)
    assert diagnosed.returncode == 1
    assert (words[trouble] if "client" not in trouble else "none runs") in diagnosed.stdout
