"""Readers that do not read: a time-out ends all the same, and nobody who waits for a reader holds the store open."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import PATIENCE, HubProcess
from waitbus.client.emit import emit_many
from waitbus.event import EventInsert, WaitbusError
from waitbus.settings import Settings
from waitbus.store.open import open_writer
from waitbus.ui import patience
from waitbus.ui.patience import Aside, OutputLate, Until
from waitbus.ui.streams import Outlet

ROWS = 3000  # far more text than a pipe takes


@pytest.fixture
def unread(settings: Settings) -> Iterator[Unread]:
    emit_many(EventInsert(source="s", event_type="t", msg_body="x" * 100, run_id=n) for n in range(ROWS))
    made = Unread()
    yield made
    made.close()


class Unread:
    """Runs waitbus with a standard output that nobody reads yet."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []

    def __call__(self, *words: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "waitbus", *words]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        self.children.append(child)
        return child

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.communicate(timeout=PATIENCE)


ASKED = [
    ("events", "--limit", "0", "SELECT * FROM events"),
    ("events", "--limit", "0", "--json"),
    ("replay", "--json"),
]


@pytest.mark.parametrize("words", ASKED)
def test_who_waits_for_a_reader_does_not_hold_the_store(
    unread: Unread, settings: Settings, words: tuple[str, ...]
) -> None:
    """A log that somebody reads cannot be taken back into the file, and grows."""
    child = unread(*words)
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], PATIENCE)[0]  # it has begun to print
    with contextlib.closing(open_writer(settings, timeout=PATIENCE)) as store:
        assert store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert child.poll() is None
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (0, b"")
    assert len(out.splitlines()) == ROWS + (words[-1].startswith("SELECT"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *[((*words, "--timeout", "300ms"), 124) for words in ASKED if words[0] == "events"],
        (("tail", "--since", "start", "--timeout", "1s"), 0),
        (("tail", "--since", "start", "--timeout", "1s", "--count", str(ROWS)), 124),
    ],
)
@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT])
def test_a_time_out_ends_although_nobody_reads(
    hub: HubProcess, unread: Unread, words: tuple[str, ...], code: int, stderr: int
) -> None:
    child = unread(*words, stderr=stderr)
    assert child.wait(PATIENCE) == code
    if stderr == subprocess.PIPE and words[0] == "events":
        assert b"was not read" in child.communicate()[1]


def test_a_reader_that_is_in_time_has_everything(hub: HubProcess, unread: Unread) -> None:
    for words in (*ASKED[:2], ("tail", "--since", "start", "--count", str(ROWS))):
        out, _ = unread(*words, "--timeout", f"{PATIENCE}s").communicate(timeout=PATIENCE)
        assert len(out.splitlines()) >= ROWS


# The two kinds by themselves.


@pytest.fixture
def pipe() -> Iterator[tuple[int, Outlet]]:
    reader, writer = os.pipe()
    yield reader, Outlet(writer)
    os.close(reader)
    os.close(writer)


def written(data: bytes, kind: Until | Aside) -> None:
    left = memoryview(data)
    while left:
        left = left[kind.write(left) :]


def test_until_its_time_it_waits(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    data = os.urandom(300_000)
    found = bytearray()

    def read() -> None:
        while len(found) < len(data):
            found.extend(os.read(reader, 65_536))

    thread = threading.Thread(target=read)
    thread.start()
    written(data, Until(outlet, time.monotonic() + PATIENCE))
    thread.join()
    assert found == data
    with pytest.raises(OutputLate):
        written(data, Until(outlet, time.monotonic()))
    assert outlet.write(b"the rest goes nowhere") == 21


@pytest.mark.parametrize("in_memory", [1000, 1 << 20])
def test_what_is_kept_aside_comes_in_order(
    pipe: tuple[int, Outlet], monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    reader, outlet = pipe
    monkeypatch.setattr(patience, "_IN_MEMORY", in_memory)
    data = os.urandom(500_000)
    aside = Aside(outlet)
    written(data, aside)
    found = bytearray()

    def read() -> None:
        while len(found) < len(data):
            found.extend(os.read(reader, 65_536))

    thread = threading.Thread(target=read)
    thread.start()
    assert aside.drain(None)
    thread.join()
    assert found == data
    aside = Aside(outlet)
    written(data, aside)
    assert not aside.drain(time.monotonic())
    assert outlet.write(b"the rest goes nowhere") == 21


def test_a_reader_that_leaves_is_no_error_there_either(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    left, right = os.pipe()
    os.dup2(left, reader)
    os.close(left)
    for kind in (Aside(outlet), Until(outlet, time.monotonic() + PATIENCE)):
        written(b"x" * 100_000, kind)
    assert isinstance(outlet.lost, BrokenPipeError)
    os.close(right)


def test_no_room_to_keep_it_is_told(pipe: tuple[int, Outlet], monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, max_size: int) -> None:
            assert max_size > 0

        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(WaitbusError, match=r"No space left.*write it to a file instead"):
        written(b"x" * 300_000, Aside(pipe[1]))


def test_an_event_without_an_id_is_found_by_its_place(settings: Settings) -> None:
    with contextlib.closing(open_writer(settings)) as store:
        store.execute(
            "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, ingest_method, "
            "payload_json) VALUES ('mine', 's', 't', 'o', 'r', 1, 'm', '{}')"
        )
    command = [sys.executable, "-m", "waitbus", "events", "--format", "cloudevents"]
    done = subprocess.run([*command, "SELECT seq, event_id FROM events"], capture_output=True, text=True, check=True)
    assert '"mine"' in done.stdout
