"""The blocking face on a real hub: every event comes once, in order, whatever happens to the hub or the consumer."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.conftest import PATIENCE, ROOT, HubProcess
from waitbus import wire
from waitbus.client.bookmark import Bookmark, BookmarkError
from waitbus.client.core import HubError
from waitbus.client.emit import emit, emit_many
from waitbus.client.subscribe import Subscription, subscribe
from waitbus.event import Event, EventInsert
from waitbus.settings import Settings, SettingsError, load


def make(number: int, **fields: Any) -> EventInsert:
    return EventInsert(source="test", event_type="test", fields={"n": number, **fields})


def tell(*numbers: int, **more: Any) -> list[Event]:
    return [emit(EventInsert(source="test", event_type="test", fields={"n": n}, **more)).event for n in numbers]


def take(events: Subscription, count: int) -> list[int]:
    return [next(events).fields["n"] for _ in range(count)]


def test_it_is_subscribed_when_it_returns(hub: HubProcess) -> None:
    tell(0)
    with subscribe(timeout=PATIENCE) as events:
        (told,) = tell(1)
        assert next(events) == told


def test_predicates_and_source_choose(hub: HubProcess) -> None:
    with subscribe("n=2", "n=3", "n<3", source="test", timeout=PATIENCE) as events:
        emit(EventInsert(source="other", event_type="test", fields={"n": 2}))
        tell(1, 3, 2)
        assert take(events, 1) == [2]


@pytest.mark.parametrize("since", ["start", "1h"])
def test_since_begins_in_the_past(hub: HubProcess, since: str) -> None:
    tell(1, 2)
    with subscribe(since=since, timeout=PATIENCE) as events:
        tell(3)
        assert take(events, 3) == [1, 2, 3]


def test_since_an_event_is_strictly_after_it(hub: HubProcess) -> None:
    first, *_ = tell(1, 2)
    with subscribe(since=first.event_id, timeout=PATIENCE) as events:
        assert take(events, 1) == [2]


def test_it_ends_when_nothing_came_for_the_time_and_keeps_its_connection(hub: HubProcess) -> None:
    tell(1, 2)
    events = subscribe(since="start", timeout=0.05)
    number = events.fileno()
    assert [event.fields["n"] for event in events] == [1, 2]
    assert next(events, None) is None
    tell(3)
    assert [event.fields["n"] for event in events] == [3]
    assert events.fileno() == number
    events.close()
    assert next(events, None) is None
    assert events.fileno() == -1


class TestClose:
    """From another thread, while one waits for an event."""

    def test_the_one_who_waits_gets_the_end_of_the_iteration(self, hub: HubProcess) -> None:
        tell(1)
        events = subscribe(since="start")
        seen: list[int] = []
        waiting = threading.Thread(target=lambda: seen.extend(event.fields["n"] for event in events))
        waiting.start()
        while not seen:
            waiting.join(0.01)
        events.close()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
        assert seen == [1]
        assert events.fileno() == -1
        events.close()

    def test_it_ends_the_wait_for_a_hub_that_is_gone(self, hub: HubProcess) -> None:
        events = subscribe()
        waiting = threading.Thread(target=lambda: next(events, None))
        waiting.start()
        hub.stop(signal.SIGKILL)
        while events.state.connected:
            waiting.join(0.01)
        events.close()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()

    def test_it_may_come_from_a_signal_handler(self, hub: HubProcess) -> None:
        events = subscribe()
        before = signal.signal(signal.SIGUSR1, lambda *_: events.close())
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1))
        timer.start()
        try:
            assert next(events, None) is None
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)
        assert events.fileno() == -1

    def test_in_a_forked_child_it_leaves_the_parent_alone(self, hub: HubProcess) -> None:
        """Even when the fork came while a thread of the parent waited in the socket."""
        events = subscribe(timeout=PATIENCE)
        seen: list[int] = []
        waiting = threading.Thread(target=lambda: seen.append(next(events).fields["n"]))
        waiting.start()
        while not events._busy:
            waiting.join(0.001)
        child = os.fork()
        if child == 0:
            events.close()
            os._exit(0)
        os.waitpid(child, 0)
        tell(1)
        waiting.join(PATIENCE)
        assert seen == [1]
        events.close()

    def test_asked_for_more_it_says_that_it_was_closed(self, hub: HubProcess) -> None:
        events = subscribe()
        events.close()
        with pytest.raises(HubError, match="was closed"):
            events.receive()
        with pytest.raises(HubError, match="was closed"):
            events.open()

    def test_at_any_moment_it_ends_every_wait(self, hub: HubProcess) -> None:
        for _ in range(50):
            events = subscribe(since="start")
            waiting = threading.Thread(target=lambda events=events: list(events))
            waiting.start()
            events.close()
            waiting.join(PATIENCE)
            assert not waiting.is_alive()
            assert events.fileno() == -1


def test_a_large_backlog_comes_whole_and_in_order(hub: HubProcess) -> None:
    emit_many(make(number) for number in range(3000))
    with subscribe(since="start", timeout=PATIENCE) as events:
        assert take(events, 3000) == list(range(3000))


def test_an_event_too_large_for_a_frame_comes_from_the_store(hub: HubProcess) -> None:
    with subscribe("n=1", timeout=PATIENCE) as events:
        emit(make(1, blob="x" * 70_000))
        tell(1)
        assert [len(next(events).fields.get("blob", "")) for _ in range(2)] == [70_000, 0]


@pytest.mark.parametrize("number", range(0, 60, 3))
def test_an_interrupt_anywhere_loses_nothing(hub: HubProcess, number: int) -> None:
    """An exception is raised at any line between asking for an event and getting it, as a signal handler may."""
    tell(1, 2, 3)
    events = subscribe(since="start", timeout=PATIENCE)
    assert take(events, 1) == [1]
    lines = 0

    def interrupt(frame: FrameType, kind: str, argument: object) -> Any:
        nonlocal lines
        if kind == "line" and "waitbus/client" in frame.f_code.co_filename:
            lines += 1
            if lines == number:
                raise InterruptedError
        return interrupt

    before = sys.gettrace()  # the coverage's
    sys.settrace(interrupt)
    try:
        got = take(events, 1)
    except InterruptedError:
        got = []
    finally:
        sys.settrace(before)
    assert got + take(events, 2 - len(got)) == [2, 3]
    events.close()


class TestRestart:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_it_comes_back_without_gap_or_repeat(self, hub: HubProcess, number: int) -> None:
        with subscribe(timeout=PATIENCE) as events:
            tell(0, 1)
            assert take(events, 1) == [0]
            for step in (2, 4, 6):
                hub.stop(number)
                tell(step)
                hub.start()
                tell(step + 1)
            assert take(events, 7) == [1, 2, 3, 4, 5, 6, 7]

    def test_before_the_first_event_nothing_is_lost_and_nothing_old_comes(self, hub: HubProcess) -> None:
        tell(0)
        with subscribe(timeout=PATIENCE) as events:
            hub.stop(signal.SIGKILL)
            tell(1)
            hub.start()
            assert take(events, 1) == [1]

    def test_a_predicate_that_never_matched_comes_back_to_where_it_was(self, hub: HubProcess) -> None:
        with subscribe("n>=100", timeout=PATIENCE) as events:
            tell(1, 2, 3)
            hub.stop(signal.SIGKILL)
            tell(4, 100)
            hub.start()
            assert take(events, 1) == [100]

    def test_an_evicted_laggard_misses_nothing(self, settings: Settings, unstarted_hub: HubProcess) -> None:
        Path(settings.config_path).write_text('[hub]\nqueue_bytes = "128KiB"\n')
        unstarted_hub.start()
        text = "x" * 1000
        with subscribe(timeout=PATIENCE) as events:
            emit_many(make(number, text=text) for number in range(2000))
            assert take(events, 2000) == list(range(2000))


class Daemon:
    """A daemon of the test's own making: each connection gets what the next script says, then the end or silence."""

    def __init__(self, settings: Settings) -> None:
        os.makedirs(settings.runtime_dir, mode=0o700, exist_ok=True)
        self.firsts: list[dict[str, Any]] = []
        self.scripts: list[tuple[bytes, bool]] = []
        self.open: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(settings.broadcast_socket)
        os.chmod(settings.broadcast_socket, 0o600)
        self.listener.listen(8)
        self.thread = threading.Thread(target=self.serve)

    def says(self, *frames: dict[str, Any], end: bool) -> None:
        self.scripts.append((b"".join(map(wire.encode, frames)), end))

    def start(self) -> None:
        self.thread.start()

    def serve(self) -> None:
        for raw, end in self.scripts:
            connection, _ = self.listener.accept()
            (body,) = wire.Decoder().feed(connection.recv(65536))
            self.firsts.append(wire.decode(body))
            connection.sendall(raw)
            if end:
                connection.close()
            else:
                self.open.append(connection)

    def close(self) -> None:
        self.thread.join(PATIENCE)
        for connection in (*self.open, self.listener):
            connection.close()


@pytest.fixture
def daemon(settings: Settings) -> Iterator[Daemon]:
    made = Daemon(settings)
    yield made
    made.close()


OLD_ACK = {key: value for key, value in wire.ack_frame(None).items() if key != "features"}
EVENTS = [
    {**Event(f"{n:026d}", "test", "o", "r", n, str(n), "", {"source": "test", "n": n}).as_frame()} for n in range(9)
]


class TestOddDaemons:
    def test_a_daemon_of_0_2_0_is_filtered_here(self, daemon: Daemon) -> None:
        daemon.says(OLD_ACK, *EVENTS, end=False)
        daemon.start()
        with subscribe("n>=4", source="test", timeout=PATIENCE) as events:
            assert take(events, 2) == [4, 5]

    def test_one_that_falls_silent_is_left_after_two_and_a_half_heartbeats(self, daemon: Daemon) -> None:
        daemon.says({**OLD_ACK, "heartbeat_sec": 0.02}, EVENTS[1], end=False)
        daemon.says(OLD_ACK, EVENTS[2], end=False)
        daemon.start()
        with subscribe(timeout=PATIENCE) as events:
            assert take(events, 2) == [1, 2]
        assert [first.get("since") for first in daemon.firsts] == [None, EVENTS[1]["event_id"]]

    def test_one_that_evicts_is_returned_to_with_the_cursor(self, daemon: Daemon) -> None:
        daemon.says(OLD_ACK, EVENTS[1], wire.lag_frame(), end=True)
        daemon.says(OLD_ACK, EVENTS[2], end=False)
        daemon.start()
        with subscribe(timeout=PATIENCE) as events:
            assert take(events, 2) == [1, 2]
        assert daemon.firsts[1]["since"] == EVENTS[1]["event_id"]

    def test_one_that_refuses_is_an_error(self, daemon: Daemon) -> None:
        daemon.says(wire.Rejected("version", "speak protocol 7", [7]).frame, end=True)
        daemon.start()
        with pytest.raises(HubError, match="speak protocol 7"):
            subscribe()

    def test_one_that_has_too_large_an_event_in_another_store_is_listened_to_all_the_same(self, daemon: Daemon) -> None:
        daemon.says(OLD_ACK, wire.truncated_frame(EVENTS[1]["event_id"], None), EVENTS[2], end=False)
        daemon.start()
        with subscribe(timeout=PATIENCE) as events:
            assert take(events, 1) == [2]

    def test_one_that_ends_without_an_answer_is_tried_again(self, daemon: Daemon) -> None:
        daemon.says(end=True)
        daemon.says(OLD_ACK, EVENTS[1], end=False)
        daemon.start()
        with subscribe(timeout=PATIENCE) as events:
            assert take(events, 1) == [1]


class TestRefusals:
    def test_no_hub(self, settings: Settings) -> None:
        with pytest.raises(HubError, match="no hub is running and autostart is off"):
            subscribe()

    def test_a_socket_open_to_others(self, hub: HubProcess, settings: Settings) -> None:
        os.chmod(settings.broadcast_socket, 0o666)
        with pytest.raises(SettingsError, match=f"chmod 600 {settings.broadcast_socket}"):
            subscribe()

    def test_a_file_in_its_place(self, settings: Settings) -> None:
        os.makedirs(settings.runtime_dir, mode=0o700)
        Path(settings.broadcast_socket).touch()
        with pytest.raises(SettingsError, match="not a socket"):
            subscribe()

    def test_a_since_that_is_none(self, settings: Settings) -> None:
        with pytest.raises(SettingsError, match="since takes"):
            subscribe(since="tomorrow")


class TestBookmark:
    def test_it_goes_on_where_it_was(self, hub: HubProcess, settings: Settings) -> None:
        tell(1, 2, 3)
        with subscribe(since="start", bookmark="mine", timeout=PATIENCE) as events:
            assert take(events, 2) == [1, 2]
        # 2 was handed out, but nobody asked for what comes after it: it comes again.
        with subscribe(since="start", bookmark="mine", timeout=PATIENCE) as events:
            assert take(events, 2) == [2, 3]

    def test_a_crash_repeats_and_never_loses(self, hub: HubProcess, settings: Settings) -> None:
        tell(1, 2, 3)
        script = (
            "import os, sys; from waitbus import subscribe\n"
            "for event in subscribe(since='start', bookmark='mine', timeout=20):\n"
            "    print(event.fields['n'], flush=True)\n"
            "    if event.fields['n'] == int(sys.argv[1]): os._exit(9)\n"
        )
        seen = [
            subprocess.run(
                [sys.executable, "-c", script, str(last)], capture_output=True, text=True, timeout=PATIENCE
            ).stdout.split()
            for last in (2, 2, 3)
        ]
        assert seen == [["1", "2"], ["2"], ["2", "3"]]

    def test_a_new_one_holds_where_it_began(self, hub: HubProcess) -> None:
        tell(0)
        subscribe(bookmark="mine").close()
        tell(1)
        with subscribe(bookmark="mine", timeout=PATIENCE) as events:
            assert take(events, 1) == [1]

    def test_it_follows_although_nothing_matches(self, hub: HubProcess, settings: Settings) -> None:
        *_, told = tell(1, 2)
        with subscribe("n=9", since="start", bookmark="mine", timeout=PATIENCE) as events:
            tell(9)
            take(events, 1)  # the place named where live began was on the way
        kept = Bookmark(settings, "mine").load()
        assert kept is not None
        assert kept >= told.event_id

    def test_the_file_is_private_and_replaced_in_one_step(self, hub: HubProcess, settings: Settings) -> None:
        tell(1)
        events = subscribe(since="start", bookmark="mine", timeout=PATIENCE)
        (event,) = [next(events)]
        kept = Path(settings.state_dir) / "bookmarks" / "mine"
        before = kept.open()  # nobody else gets its inode
        tell(2)
        next(events)
        events.close()
        assert kept.read_text().split()[0] == event.event_id
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
        with before:
            assert kept.stat().st_ino != os.fstat(before.fileno()).st_ino
        assert [path.name for path in kept.parent.iterdir()] == ["mine"]

    def test_history_is_no_news_to_one_that_was_live(self, hub: HubProcess) -> None:
        """As it is none to a subscriber that stays connected while it is imported."""
        subscribe(bookmark="mine").close()
        tell(1, ingest_method="import", received_at=time.time_ns())
        tell(2)
        with subscribe(bookmark="mine", timeout=PATIENCE) as events:
            assert take(events, 1) == [2]

    @pytest.mark.parametrize(("since", "expected"), [("start", [1, 2, 3, 4]), ("1h", [1, 3, 4])])
    def test_history_that_was_asked_for_is_given_to_the_end(
        self, hub: HubProcess, since: str, expected: list[int]
    ) -> None:
        tell(1)
        tell(2, ingest_method="backfill", received_at=1)
        tell(3, ingest_method="backfill", received_at=time.time_ns())
        tell(4)
        for place in range(len(expected) - 1):
            with subscribe(since=since, bookmark="mine", timeout=PATIENCE) as events:
                assert take(events, 2) == expected[place : place + 2]

    def test_a_path_is_taken_as_it_is(self, hub: HubProcess, settings: Settings, bus_dir: Path) -> None:
        path = bus_dir / "elsewhere"
        subscribe(since="start", bookmark=path).close()
        assert Bookmark(settings, path).load() is not None

    @pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a b", "x\0", "ü", "n" * 65, "a\n"])
    def test_other_names_are_refused(self, settings: Settings, name: str) -> None:
        with pytest.raises(BookmarkError, match="no bookmark: write a name"):
            subscribe(bookmark=name)

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 100])
    def test_a_damaged_one_is_told(self, settings: Settings, content: bytes) -> None:
        bookmark = Bookmark(settings, "mine")
        Path(bookmark.path).write_bytes(content)
        with pytest.raises(BookmarkError, match="remove it to begin anew"):
            subscribe(bookmark="mine")

    def test_one_that_cannot_be_read_or_written_is_told(self, settings: Settings, bus_dir: Path) -> None:
        with pytest.raises(BookmarkError, match="cannot write the bookmark"):
            Bookmark(settings, bus_dir / "nowhere" / "x").save("0" * 26)
        with pytest.raises(BookmarkError, match="cannot read the bookmark"):
            Bookmark(settings, bus_dir).load()


def test_after_a_fork_parent_and_child_each_go_on(hub: HubProcess) -> None:
    events = subscribe(timeout=PATIENCE)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr(take(events, 2)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    tell(1, 2)
    assert take(events, 2) == [1, 2]
    with os.fdopen(reader) as said:
        assert said.read() == "[1, 2]"
    os.waitpid(child, 0)
    events.close()


@pytest.mark.parametrize("has_runtime_dir", [True, False], ids=["XDG_RUNTIME_DIR", "no XDG_RUNTIME_DIR"])
def test_a_client_from_the_contract_alone_receives_events(
    bus_dir: Path, monkeypatch: pytest.MonkeyPatch, unstarted_hub: HubProcess, settings: Settings, has_runtime_dir: bool
) -> None:
    """The script printed in docs/wire.md, in a process that never imports the package."""
    page = ROOT / "docs" / "wire.md"
    if not page.exists():
        pytest.skip("the docs are not part of the sdist")
    script = next(
        block for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "socket" in block
    )
    assert len(script.splitlines()) <= 12
    if has_runtime_dir:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(bus_dir))
        monkeypatch.setenv("WAITBUS_RUNTIME_DIR", str(bus_dir / "waitbus"))
    else:  # not where a hub of this user may listen at this moment
        assert script.count("/tmp/waitbus-") == 1
        script = script.replace("/tmp/waitbus-", f"{bus_dir}/waitbus-")
        monkeypatch.setenv("WAITBUS_RUNTIME_DIR", str(bus_dir / f"waitbus-{os.getuid()}"))
    unstarted_hub.start()
    command = [sys.executable, "-I", "-u", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as client:
        said = client.stdout
        assert said is not None
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.append(said.readline()))
        reader.start()
        while reader.is_alive():  # it is live when it hears one
            emit(EventInsert(source="pytest", event_type="pytest_session", summary="2 failed"), settings=load())
            reader.join(0.05)
        client.kill()
    assert lines[0].endswith(b" 2 failed\n")
