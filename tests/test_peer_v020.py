"""Programs of 0.2.0 beside our daemon: its subscribers hear us, its producers are heard, its command line works."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, HubProcess, Peer
from waitbus.client.emit import emit
from waitbus.event import EventInsert
from waitbus.settings import Settings
from waitbus.ulid import ULID_MIN

OLD = Path(__file__).parent.parent / ".venvs" / "0.2.0"

pytestmark = pytest.mark.skipif(
    not (OLD / ".ready").exists(), reason="waitbus 0.2.0 is not laid in .venvs/0.2.0: run make test"
)

SUBSCRIBE = """
import sys
from waitbus import subscribe
for frame in subscribe(sys.argv[2:] or None, socket_path=sys.argv[1], since="{since}"):
    print(frame.event_id, flush=True)
    break
"""
WAIT_FOR = """
import sys
from waitbus import wait_for
frame = wait_for('fields.conclusion="failure"', socket_path=sys.argv[1], timeout=20, since="{since}")
print(frame.event_id)
"""
EMIT = """
import sys, time
from pathlib import Path
from waitbus import emit
from waitbus._types import EventInsert
emit(EventInsert(delivery_id="old-1", source="pytest", event_type="pytest_session", owner="local", repo="local",
                 received_at=time.time_ns(), payload_json="{}", ingest_method="manual", conclusion="failure"),
     db_path=Path(sys.argv[1]), doorbell_path=Path(sys.argv[2]))
"""


@pytest.fixture
def old_environ(bus_dir: Path) -> dict[str, str]:
    """An environment in which 0.2.0 finds nothing of ours by itself."""
    home = bus_dir / "home"
    home.mkdir(mode=0o700)
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_RUNTIME_DIR": str(home),
    }


def run_old(environ: dict[str, str], script: str, *argv: str) -> str:
    ran = subprocess.run(
        [str(OLD / "bin" / "python"), "-c", script, *argv],
        capture_output=True,
        text=True,
        env=environ,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize("script", [SUBSCRIBE, WAIT_FOR], ids=["subscribe", "wait_for"])
def test_its_subscriber_hears_our_events(
    hub: HubProcess, settings: Settings, old_environ: dict[str, str], script: str
) -> None:
    emit(EventInsert(source="docker", event_type="docker_container", conclusion="success"))
    failed = emit(EventInsert(source="docker", event_type="docker_container", conclusion="failure")).event
    predicate = ['fields.conclusion="failure"'] if script is SUBSCRIBE else []
    heard = run_old(old_environ, script.format(since=ULID_MIN), settings.broadcast_socket, *predicate)
    assert heard == failed.event_id


def test_its_event_is_heard_by_our_subscriber(
    hub: HubProcess, settings: Settings, old_environ: dict[str, str], peer: Any
) -> None:
    listener: Peer = peer({})
    emit(EventInsert(source="s", event_type="t"))  # makes the store, which 0.2.0 then writes to
    assert listener.event()["event_type"] == "t"
    run_old(old_environ, EMIT, settings.db_path, settings.doorbell_socket)
    frame = listener.event()
    assert frame["delivery_id"] == "old-1"
    assert frame["fields"]["conclusion"] == "failure"


def test_its_command_line_replays_from_our_daemon(
    hub: HubProcess, settings: Settings, old_environ: dict[str, str]
) -> None:
    sent = [emit(EventInsert(source="fs", event_type="fs_change")).event.event_id for _ in range(3)]
    runtime = Path(old_environ["XDG_RUNTIME_DIR"]) / "waitbus"
    runtime.mkdir(mode=0o700)
    (runtime / "broadcast.sock").symlink_to(settings.broadcast_socket)
    command = [str(OLD / "bin" / "waitbus"), "replay", sent[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=old_environ) as replay:
        try:
            assert replay.stdout is not None
            assert [json.loads(replay.stdout.readline())["event_id"] for _ in range(2)] == sent[1:]
        finally:
            replay.kill()
