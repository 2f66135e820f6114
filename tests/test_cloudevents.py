"""Every CloudEvent that waitbus prints is valid by the specification, whatever its event holds."""

from __future__ import annotations

import json
import sqlite3
import string
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Cli
from waitbus.client.emit import emit
from waitbus.cloudevents import URN, from_cloudevent, to_cloudevent
from waitbus.event import EventInsert
from waitbus.settings import Settings

jsonschema = pytest.importorskip("jsonschema", reason="on the main interpreter only")

TEXT = {"type": "string", "minLength": 1}
# What https://github.com/cloudevents/spec (1.0.2, JSON event format) asks of an event as JSON.
SCHEMA = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": TEXT,
        "source": {**TEXT, "format": "uri-reference"},
        "type": TEXT,
        "time": {**TEXT, "format": "date-time"},
        "subject": TEXT,
        "datacontenttype": TEXT,
        "dataschema": {**TEXT, "format": "uri"},
        "data": True,
        "data_base64": {"type": "string"},
    },
    # Attribute names, extensions included.
    "propertyNames": {"pattern": "^([a-z0-9]+|data_base64)$"},
}
VALIDATOR = jsonschema.Draft7Validator(SCHEMA, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | st.text(
    string.printable, min_size=1
)


def frame(**more: Any) -> dict[str, Any]:
    fields = {"source": more.pop("source", "s"), "event_type": "t"}
    common = {"event_id": "0" * 26, "event_type": "t", "owner": "local", "repo": "local", "received_at": 0}
    return {**common, "delivery_id": "d", "summary": "", "fields": fields, **more}


def test_the_schema_refuses_what_is_no_cloudevent() -> None:
    good = to_cloudevent(frame())
    assert VALIDATOR.is_valid(good)
    for bad in ({"source": "urn:waitbus:source:my source"}, {"time": "1-1-1"}, {"id": ""}, {"type": ""}, {"Odd": 1}):
        assert not VALIDATOR.is_valid({**good, **bad}), bad


@given(NAMES)
def test_any_source_is_a_uri_and_comes_back(source: str) -> None:
    event = json.loads(json.dumps(to_cloudevent(frame(source=source))))
    VALIDATOR.validate(event)
    assert from_cloudevent(event)["source"] == source


@pytest.mark.parametrize(
    ("quoted", "name"),
    [("a%20b", "a b"), ("100%", "100%"), ("%zz", "%zz"), ("% 1", "% 1"), ("%C3%A9", "é"), ("a:b", "a:b")],
)
def test_a_source_of_ours_written_by_others_is_read(quoted: str, name: str) -> None:
    assert from_cloudevent({"specversion": "1.0", "id": "1", "source": URN + quoted, "type": "t"})["source"] == name


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_number_a_row_may_hold_is_a_time(received_at: int) -> None:
    VALIDATOR.validate(to_cloudevent(frame(received_at=received_at)))


def test_every_verb_that_prints_cloudevents_prints_valid_ones(settings: Settings, cli: Cli) -> None:
    printed = cli("emit", "--source", "my source", "--event-type", "a b", "--format", "cloudevents")
    emit(EventInsert(source="é/%?#", event_type="t", summary="a\x1bb\nc", fields={"deep": {"n": [1, None]}}))
    with sqlite3.connect(settings.db_path) as foreign:  # what a program of somebody else may write
        foreign.execute(
            "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, payload_json,"
            " ingest_method) VALUES ('d', '', '', 'o', 'r', 7, x'00', 5)"
        )
    foreign.close()
    format_ = ("--format", "cloudevents")
    outputs: list[subprocess.CompletedProcess[str]] = [
        printed,
        cli("replay", *format_),
        cli("events", *format_),
        cli("events", "SELECT seq FROM events", *format_),
        cli("tail", "--since", "start", "--count", "3", *format_, WAITBUS_AUTOSTART="1"),
    ]
    for done in outputs:
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(events) == (1 if done is printed else 3)
        for event in events:
            VALIDATOR.validate(event)
    assert json.loads(printed.stdout)["source"] == f"{URN}my%20source"
    again = cli("emit", "-", stdin=outputs[1].stdout)
    assert again.returncode == 0, again.stderr
