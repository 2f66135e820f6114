"""Targets of what people and scripts write: the config file, durations, JSON lines, CloudEvents, `emit`'s flags."""

from __future__ import annotations

import contextlib
import io
import json
import os
import string
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.engine import Target
from tests.fuzz.rows import place
from tests.fuzz.shapes import encoded, event_frames, json_values, names, spoilt, texts, values
from waitbus.cli.parser import make_parser
from waitbus.cli.verbs import emit as emit_verb
from waitbus.cloudevents import from_cloudevent, to_cloudevent
from waitbus.event import FIELD_COLUMNS, EventInsert
from waitbus.settings import SettingsError, load
from waitbus.store.rows import row_of
from waitbus.ui.jsonl import event_of, read_lines
from waitbus.units import parse_duration, parse_size

# --- the config file --------------------------------------------------------------------------------------------------

GOOD_CONFIG = b"""[store]
durability = "power-loss"
retention = true
max_age = "30d"
max_bytes = "1GiB"
max_rows = 1000
[hub]
queue_bytes = "4MiB"
idle_exit = 600
[client]
autostart = false
"""
keys = (
    st.sampled_from(["durability", "retention", "max_age", "max_bytes", "max_rows", "queue_bytes", "idle_exit"]) | texts
)
literals = ["true", "1", "-1", "0", "1e9", "inf", "nan", "'1h'", "'1GiB'", "''", "[]", "{}", "1979-05-27", "9" * 20]
toml_values = st.sampled_from(literals) | json_values().map(json.dumps)
sections = st.lists(
    st.tuples(
        st.sampled_from(["store", "hub", "client", "x", "store.x"]), st.lists(st.tuples(keys, toml_values), max_size=3)
    ),
    max_size=3,
)


def toml(tables: list[tuple[str, list[tuple[str, str]]]]) -> bytes:
    lines = []
    for name, pairs in tables:
        lines += [f"[{name}]", *[f"{json.dumps(key)} = {value}" for key, value in pairs]]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


configs = spoilt(st.just(GOOD_CONFIG) | st.binary(max_size=40) | sections.map(toml))


def check_config(variants: list[bytes]) -> int:
    for config in variants:
        check_one_config(config)
    return len(variants)


def check_one_config(config: bytes) -> None:
    path = os.path.join(place(), "config.toml")
    with open(path, "wb") as file:
        file.write(config)
    try:
        settings = load({"WAITBUS_CONFIG": path, "HOME": "/"})
    except SettingsError as error:
        one_line(error, path)
        return
    assert settings.durability in ("process", "power-loss")
    assert type(settings.retention) is type(settings.autostart) is bool
    assert settings.queue_bytes >= 128 * 1024
    for number in (settings.max_age_s, settings.max_bytes, settings.idle_exit_s, settings.max_rows or 0):
        assert type(number) in (int, float)
        assert 0 <= number < 1 << 63


def one_line(error: Exception, mention: str = "") -> None:
    text = str(error)
    assert text
    assert "\n" not in text, f"an error of several lines: {text!r}"
    assert mention in text


def sayable(text: str) -> bool:
    """Whether an environment can hold it."""
    return "\0" not in text and not any("\ud800" <= char < "\udc80" or "\udcff" < char <= "\udfff" for char in text)


environments = st.dictionaries(
    st.sampled_from(
        ["HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"]
        + [f"WAITBUS_{name}" for name in ("STATE_DIR", "RUNTIME_DIR", "CONFIG", "DB", "DOORBELL_SOCKET", "AUTOSTART")]
    ),
    texts.filter(sayable)
    | st.sampled_from(["/nowhere", "/\udcff", "relative", "/" + "x" * 200, "yes", "0", "TRUE", "2"]),
    max_size=4,
)


def check_environment(environ: dict[str, str]) -> None:
    try:
        settings = load({"WAITBUS_CONFIG": "/nowhere/config.toml", **environ})
    except SettingsError as error:
        one_line(error)
        return
    for name in ("state_dir", "runtime_dir", "db_path", "broadcast_socket", "doorbell_socket", "bell_socket"):
        assert os.path.isabs(getattr(settings, name))


measures = st.text(alphabet=string.digits + ".smhdwkKMGiB -e", max_size=12) | texts


def check_measure(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse_duration(text) <= 1e12
    with contextlib.suppress(ValueError):
        size = parse_size(text)
        assert type(size) is int
        assert 0 <= size < 1 << 63


# --- JSON lines and CloudEvents ---------------------------------------------------------------------------------------

ours = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("source", "event_type", "delivery_id", "owner", "repo", "ingest_method", "summary"), texts | values
        ),
        **dict.fromkeys(list(FIELD_COLUMNS)[:4], texts | values),
        "received_at": st.sampled_from(["2026-05-17T12:00:00Z", "1763337600", 1763337600]) | texts | values,
        "payload_json": values,
        "fields": st.dictionaries(names | texts, values, max_size=4) | values,
    },
)
cloudevents = st.fixed_dictionaries(
    {"specversion": st.just("1.0") | values},
    optional={
        **dict.fromkeys(("id", "type", "subject", "datacontenttype", "extension"), texts | values),
        "source": st.sampled_from(["urn:waitbus:source:", "urn:waitbus:source:pytest", "/ci"]) | values,
        "time": st.sampled_from(["2026-05-17T12:00:00.123456789+02:00", "0001-01-01T00:00:00Z"]) | texts | values,
        "data": st.dictionaries(names | texts, values, max_size=4) | values,
        "data_base64": values,
    },
)
lines = spoilt(encoded(ours | cloudevents | event_frames | values))
defaults = st.fixed_dictionaries(
    {}, optional={"source": st.just("s"), "event_type": st.just("t"), "fields": st.just({"n": 1})}
)


def check_line(example: tuple[list[bytes], dict[str, Any]]) -> int:
    """As `emit_lines` takes it: an event that can be stored, or one of the two errors it reports."""
    variants, given = example
    for line in variants:
        try:
            event = event_of(line, given)
            row_of(event)
        except (ValueError, TypeError) as error:
            one_line(error)
    return len(variants)


def check_cloudevent(frame: dict[str, Any]) -> None:
    """What we write we read again without loss."""
    frame["event_type"] = frame["event_type"] or "t"
    frame["fields"]["source"] = frame["event_type"]
    again = from_cloudevent(json.loads(json.dumps(to_cloudevent(frame))))
    assert again["source"] == frame["fields"]["source"]
    assert again["fields"] == frame["fields"]
    for key in ("event_type", "owner", "repo", "delivery_id", "summary"):
        assert again[key] == frame[key]
    assert again["received_at"] == frame["received_at"]


def check_read_lines(data: bytes) -> None:
    """Whatever the pieces, the same lines as `split` gives."""
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        found = [line for item in read_lines(reader) if item is not None for _, line in [item]]
    finally:
        os.close(reader)
    whole = data.split(b"\n")
    assert found == (whole[:-1] if not whole[-1] else whole)


# --- emit's flags: an event's arguments, or an error of ours ----------------------------------------------------------

PARSER = make_parser("emit", "emit", emit_verb)
flag_words = st.lists(
    st.sampled_from(
        ["--source", "--event-type=t", "--json", "--stdin", "--field", "--format", "-", "--", "--run-id", "--x", "-h"]
    )
    | st.sampled_from(["a=1", "json", "text", "-1", "s", "--source=s", "--field=a=b", "--format=json", "--run-id=1"])
    | texts,
    max_size=6,
)


def check_flags(words: list[str]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            given = emit_verb._given(PARSER.parse_args(words))
        except SystemExit as error:
            if error.code not in (0, 2) or not said.getvalue():
                raise AssertionError(f"argparse ended with {error.code}, saying {said.getvalue()!r}") from error
            return
        except emit_verb.EmitError:
            return
    with contextlib.suppress(ValueError):
        EventInsert(**{"source": "s", "event_type": "t", **given})


TARGETS = [
    Target("config", "the config file", configs, check_config),
    Target("environment", "WAITBUS_* and XDG_*", environments, check_environment),
    Target("measures", "durations and sizes", measures, check_measure),
    Target("lines", "a line on emit's standard input", st.tuples(lines, defaults), check_line),
    Target("split", "emit's standard input as a whole", st.binary(max_size=200), check_read_lines),
    Target("cloudevents", "events out as CloudEvents and back", event_frames, check_cloudevent),
    Target("flags", "emit's flags", flag_words, check_flags),
]
