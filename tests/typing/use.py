"""What must type-check. The suite runs it, too: what is right for the type checker works."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

from waitbus import (
    EmitResult,
    Event,
    EventInsert,
    Predicate,
    WaitbusError,
    __version__,
    asubscribe,
    emit,
    emit_many,
    subscribe,
    wait_for,
)
from waitbus._types import EventInsert as OldEventInsert
from waitbus.settings import load

# A name or a path, each of which `bookmark` takes.
BOOKMARKS: list[str | os.PathLike[str]] = ["typed", Path("relative/typed")]


def made() -> list[EventInsert]:
    """Every keyword once: with its type, and as None where it may be left out."""
    row: dict[str, Any] = {"source": "agent", "event_type": "agent_message", "msg_to": "review"}
    return [
        EventInsert(source="agent", event_type="agent_message"),
        EventInsert(**row),
        OldEventInsert(source="agent", event_type="agent_message", msg_body="hello"),
        EventInsert(
            source="github",
            event_type="workflow_run",
            delivery_id="1",
            owner="me",
            repo="shop",
            received_at=1_800_000_000_000_000_000,
            payload_json=json.dumps({"raw": True}),
            ingest_method="manual",
            summary="CI failed",
            fields={"run_attempt": 2, "labels": ["a", "b"], "html_url": None},
            run_id=7,
            workflow_name="CI",
            head_branch="main",
            head_sha="0" * 40,
            status="completed",
            conclusion="failure",
            job_id=8,
            job_name="lint",
            parent_run_id=6,
            alert_name="DiskFull",
            alert_severity="page",
            alert_fingerprint="f",
            msg_to="a",
            msg_from="b",
            msg_correlation_id="c",
            msg_reply_to="d",
            msg_thread="e",
            msg_body="f",
        ),
        EventInsert(
            source="process",
            event_type="process_exited",
            delivery_id=None,
            received_at=None,
            summary=None,
            fields=None,
            run_id=None,
            conclusion=None,
        ),
    ]


def written() -> int:
    """One by one, from a list, and from a generator."""
    first, *rest = made()
    result = emit(first)
    assert_type(result, EmitResult)
    assert_type(result.inserted, bool)
    assert_type(result.event, Event)
    batch = emit_many(rest)
    assert_type(batch.inserted, int)
    assert_type(batch.duplicates, int)
    assert_type(batch.last_event_id, str | None)
    more = emit_many((EventInsert(source="agent", event_type="n", fields={"n": n}) for n in range(3)), settings=load())
    return batch.inserted + more.inserted


def described(event: Event) -> str:
    assert_type(event.event_id, str)
    assert_type(event.source, str)
    assert_type(event.conclusion, str | None)
    assert_type(event.received_at, int)
    assert_type(event.payload_json, str | None)
    assert_type(event.fields, dict[str, Any])
    assert_type(event.as_frame(), dict[str, Any])
    return f"{event.summary} {event.fields.get('n', '')}"


def awaited() -> str:
    exact = Predicate.parse("n=2")
    assert_type(exact, Predicate)
    assert_type(exact({"fields": {"n": 2}}), bool)
    event = wait_for(exact, "n<9", source="agent", since="start", timeout=10, settings=load(), autostart=False)
    assert_type(event, Event | None)
    return described(event) if event is not None else ""


def heard() -> Iterator[str]:
    with subscribe(Predicate.from_object({"key": "n", "op": "exists"}), since="1h", timeout=0.1) as events:
        for event in events:
            assert_type(event, Event)
            yield described(event)


def bookmarked() -> int:
    return sum(len(list(subscribe(bookmark=mark, since="start", timeout=0.1))) for mark in BOOKMARKS[:1])


async def heard_by_a_loop() -> list[str]:
    texts = []
    async with asubscribe("n?", source="agent", since="start", timeout=0.1) as events:
        async for event in events:
            assert_type(event, Event)
            texts.append(described(event))
    return texts


def refused() -> str:
    """Every error of ours is one class; `__version__` is text."""
    try:
        wait_for("conclusion=", timeout=0)
    except WaitbusError as error:
        return f"{__version__}: {error}"
    return ""
