"""What must not type-check: each line is an error of the kind that its comment names.

`make lint` holds that: mypy complains of a comment that hides nothing (``warn_unused_ignores``), so that a mistake
which passes is an error, too. Nothing here is ever run.
"""

from __future__ import annotations

import waitbus
from waitbus import Event, EventInsert, Predicate, asubscribe, emit, emit_many, subscribe, wait_for


def events() -> None:
    EventInsert(source="a", event_type="b", conclusio="x")  # type: ignore[call-arg]
    EventInsert(source="a", event_type="b", temperature=20)  # type: ignore[call-arg]
    EventInsert(source="a", event_type="b", seq=1)  # type: ignore[call-arg]
    EventInsert(source="a", event_type="b", event_id="x")  # type: ignore[call-arg]
    EventInsert(source="a")  # type: ignore[call-arg]
    EventInsert(event_type="b")  # type: ignore[call-arg]
    EventInsert("a", "b")  # type: ignore[call-arg]
    EventInsert(source=None, event_type="b")  # type: ignore[arg-type]
    EventInsert(source="a", event_type=5)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", owner=None)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", received_at=1.5)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", payload_json={})  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", summary=b"x")  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", fields=[1])  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", fields={1: 2})  # type: ignore[dict-item]


def columns() -> None:
    """Each column of numbers refuses text, each column of text refuses numbers."""
    EventInsert(source="a", event_type="b", run_id="x")  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", job_id="x")  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", parent_run_id="x")  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", workflow_name=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", head_branch=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", head_sha=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", status=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", conclusion=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", job_name=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", alert_name=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", alert_severity=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", alert_fingerprint=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", msg_to=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", msg_from=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", msg_correlation_id=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", msg_reply_to=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", msg_thread=1)  # type: ignore[arg-type]
    EventInsert(source="a", event_type="b", msg_body=1)  # type: ignore[arg-type]


def writing(event: EventInsert, told: Event) -> None:
    emit(told)  # type: ignore[arg-type]
    emit([event])  # type: ignore[arg-type]
    emit({"source": "a", "event_type": "b"})  # type: ignore[arg-type]
    emit(event, timeout=1)  # type: ignore[call-arg]
    emit(event).duplicates  # type: ignore[attr-defined]
    emit(event).event_id  # type: ignore[attr-defined]
    emit_many(event)  # type: ignore[arg-type]
    emit_many([told])  # type: ignore[list-item]
    event.conclusio = "x"  # type: ignore[attr-defined]
    event.run_id = "x"  # type: ignore[assignment]


def waiting() -> None:
    wait_for(match="n=1")  # type: ignore[call-arg]
    wait_for("n=1", sources="a")  # type: ignore[call-arg]
    wait_for({"key": "n"})  # type: ignore[arg-type]
    wait_for("n=1", timeout="10m")  # type: ignore[arg-type]
    wait_for("n=1", since=600)  # type: ignore[arg-type]
    wait_for("n=1", bookmark="b")  # type: ignore[call-arg]
    wait_for("n=1").summary  # type: ignore[union-attr]
    subscribe(5)  # type: ignore[arg-type]
    subscribe(since=600)  # type: ignore[arg-type]
    subscribe(bookmark=b"b")  # type: ignore[arg-type]
    subscribe(retries=3)  # type: ignore[call-arg]
    next(subscribe()).sumary  # type: ignore[attr-defined]
    asubscribe(source=1)  # type: ignore[arg-type]
    iter(asubscribe())  # type: ignore[call-overload]
    Predicate("n=1")  # type: ignore[arg-type]
    Predicate.parse(1)  # type: ignore[arg-type]
    waitbus.emit_one()  # type: ignore[attr-defined]
    waitbus.wait_fro()  # type: ignore[attr-defined]
