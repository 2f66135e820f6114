"""Commit, then ring: from any thread, through any fork, with any hub or none."""

from __future__ import annotations

import os
import select
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, HubProcess
from waitbus.client.emit import Bell, emit, emit_many
from waitbus.client.subscribe import subscribe
from waitbus.event import EventInsert
from waitbus.settings import Settings, load


def make(number: int, **more: Any) -> EventInsert:
    return EventInsert(source="test", event_type="test", fields={"n": number}, **more)


def test_without_a_hub_the_row_waits_for_one(settings: Settings, unstarted_hub: HubProcess) -> None:
    result = emit(make(1))
    assert result.inserted
    unstarted_hub.start()
    with subscribe(since="start", timeout=PATIENCE) as events:
        assert next(events) == result.event


def test_the_same_delivery_again_changes_nothing_and_says_so(hub: HubProcess) -> None:
    with subscribe(timeout=PATIENCE) as events:
        first = emit(make(1, delivery_id="key"))
        again = emit(make(2, delivery_id="key"))
        last = emit(make(3))
        assert (first.inserted, again.inserted) == (True, False)
        assert again.event == first.event
        assert [next(events), next(events)] == [first.event, last.event]


def test_eight_threads_at_once(hub: HubProcess) -> None:
    with subscribe(timeout=PATIENCE) as events:
        ids: list[list[str]] = [[] for _ in range(8)]

        def work(mine: list[str]) -> None:
            mine.extend(emit(make(number)).event.event_id for number in range(50))

        threads = [threading.Thread(target=work, args=(mine,)) for mine in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        received = [next(events).event_id for _ in range(400)]
    assert len(set(received)) == 400
    for mine in ids:
        assert [event_id for event_id in received if event_id in set(mine)] == mine


def test_a_fork_after_an_emit_leaves_both_able_to(hub: HubProcess) -> None:
    with subscribe(timeout=PATIENCE) as events:
        emit(make(0))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for number in range(100, 110):
                    emit(make(number))
                code = 0
            finally:
                os._exit(code)
        for number in range(1, 10):
            emit(make(number))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        numbers = [next(events).fields["n"] for _ in range(20)]
    assert [number for number in numbers if number < 100] == list(range(10))
    assert [number for number in numbers if number >= 100] == list(range(100, 110))


def test_a_fork_while_other_threads_emit(hub: HubProcess) -> None:
    stop = threading.Event()
    counts = [0, 0]

    def work(index: int) -> None:
        while not stop.is_set():
            emit(make(0))
            counts[index] += 1

    with subscribe("n>0", timeout=PATIENCE) as events:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        # Forking a process with threads is what this is about; the child does nothing but emit.
        script = (
            "import os, threading, warnings; warnings.simplefilter('ignore')\n"
            "from waitbus import EventInsert, emit\n"
            "stop = threading.Event()\n"
            "def say(n): return emit(EventInsert(source='test', event_type='test', fields={'n': n}))\n"
            "def work():\n"
            "    while not stop.is_set(): say(0)\n"
            "threads = [threading.Thread(target=work) for _ in range(2)]\n"
            "[thread.start() for thread in threads]\n"
            "for n in range(1, 9):\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        say(n); os._exit(0)\n"
            "    assert os.waitpid(child, 0)[1] == 0\n"
            "stop.set()\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
        stop.set()
        for thread in threads:
            thread.join()
        assert (done.returncode, done.stderr) == (0, "")
        assert [next(events).fields["n"] for _ in range(8)] == list(range(1, 9))
    assert min(counts) > 0


def test_many_come_from_any_iterable_in_order(hub: HubProcess) -> None:
    with subscribe(timeout=PATIENCE) as events:
        result = emit_many(make(number, delivery_id=f"k{number}") for number in range(2500))
        assert (result.inserted, result.duplicates) == (2500, 0)
        received = [next(events) for _ in range(2500)]
        assert [event.fields["n"] for event in received] == list(range(2500))
        assert result.last_event_id == received[-1].event_id
        again = emit_many([make(0, delivery_id="k7"), make(1)])
        assert (again.inserted, again.duplicates) == (1, 1)


def test_many_ring_after_each_chunk_committed(hub: HubProcess) -> None:
    """What was committed is delivered while the producer of the rest still thinks."""
    with subscribe(timeout=PATIENCE) as events:

        def slow() -> Iterator[EventInsert]:
            for number in range(1000):
                yield make(number)
            assert [next(events).fields["n"] for _ in range(1000)] == list(range(1000))
            yield make(1000)

        assert emit_many(slow()).inserted == 1001


def test_what_cannot_be_stored_is_told_before_anything_is_written(settings: Settings, hub: HubProcess) -> None:
    for bad in (make(1, summary="a\0b"), EventInsert(source="t", event_type="t", fields={"x": float("nan")})):
        with pytest.raises(ValueError, match=r"zero byte|JSON"):
            emit(bad)
    told = emit(make(2)).event
    with subscribe(since="start", timeout=PATIENCE) as events:
        assert next(events) == told


def test_the_environment_is_read_once_and_settings_given_win(
    settings: Settings, bus_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit(make(1))
    monkeypatch.setenv("WAITBUS_STATE_DIR", str(bus_dir / "other"))
    emit(make(2))
    emit(make(3), settings=load())
    for place, expected in ((settings, 2), (load(), 1)):
        conn = sqlite3.connect(place.db_path)
        assert conn.execute("SELECT count(*) FROM events").fetchone() == (expected,)
        conn.close()


class TestBell:
    @pytest.fixture
    def runtime(self, settings: Settings) -> Settings:
        os.makedirs(settings.runtime_dir, mode=0o700)
        return settings

    @pytest.fixture
    def bind(self, runtime: Settings) -> Iterator[Callable[[str, int], socket.socket]]:
        made = []

        def bind(path: str, kind: int) -> socket.socket:
            listener = socket.socket(socket.AF_UNIX, kind)
            listener.bind(path)
            if kind == socket.SOCK_STREAM:
                listener.listen(1)
            made.append(listener)
            return listener

        yield bind
        for listener in made:
            listener.close()

    def test_it_rings_by_datagram(self, runtime: Settings, bind: Callable[[str, int], socket.socket]) -> None:
        listener = bind(runtime.bell_socket, socket.SOCK_DGRAM)
        bell = Bell(runtime)
        bell.ring()
        assert listener.recv(8) == b"."

    def test_a_hub_that_came_later_is_found(self, runtime: Settings, bind: Callable[[str, int], socket.socket]) -> None:
        bell = Bell(runtime)
        bell.ring()
        for _ in range(2):
            listener = bind(runtime.bell_socket, socket.SOCK_DGRAM)
            bell.ring()
            assert listener.recv(8) == b"."
            os.unlink(runtime.bell_socket)

    def test_a_daemon_that_knows_only_the_doorbell_is_rung_there(
        self, runtime: Settings, bind: Callable[[str, int], socket.socket]
    ) -> None:
        listener = bind(runtime.doorbell_socket, socket.SOCK_STREAM)
        Bell(runtime).ring()
        assert select.select([listener], [], [], PATIENCE)[0]
        ringer, _ = listener.accept()
        with ringer:
            assert ringer.recv(8) == b"."

    def test_a_hub_that_does_not_look_holds_nobody_up(
        self, runtime: Settings, bind: Callable[[str, int], socket.socket]
    ) -> None:
        bell = Bell(runtime)
        bind(runtime.bell_socket, socket.SOCK_DGRAM)
        for _ in range(5000):
            bell.ring()
        os.unlink(runtime.bell_socket)
        bind(runtime.doorbell_socket, socket.SOCK_STREAM)
        for _ in range(50):
            bell.ring()

    def test_nobody_there_is_no_error(self, runtime: Settings, bind: Callable[[str, int], socket.socket]) -> None:
        bell = Bell(runtime)
        bell.ring()
        bind(runtime.bell_socket, socket.SOCK_DGRAM).close()
        bind(runtime.doorbell_socket, socket.SOCK_STREAM).close()
        bell.ring()
        bell.close()
        bell.ring()


def test_the_public_names_are_these() -> None:
    import waitbus
    from waitbus._types import EventInsert as OldPath

    assert waitbus.emit is emit
    assert waitbus.emit_many is emit_many
    assert OldPath is EventInsert


def test_emit_brings_no_more_than_it_needs() -> None:
    script = (
        "import sys; from waitbus import EventInsert, emit; import waitbus.client.emit\n"
        "heavy = {'asyncio', 'typing', 'dataclasses', 'pathlib', 'subprocess', 'logging', 'tempfile', 'shutil',\n"
        "         'inspect', 'hashlib', 'tomllib', 'argparse', 'random'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(src())!r})\n{script}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def src() -> Path:
    import waitbus

    return Path(waitbus.__file__).parent.parent
