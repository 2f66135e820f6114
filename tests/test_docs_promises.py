"""Every number and every list that the pages promise is read from the page and compared with the one in the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import PATIENCE
from tests.test_docs import sample, text_of
from tests.test_house import in_checkout
from waitbus import event, predicate, wire
from waitbus.cli import main as cli_main
from waitbus.cli.parser import make_parser
from waitbus.cli.verbs import events, init, run
from waitbus.client import autostart, connect, core, handler, rules
from waitbus.host import job
from waitbus.hub import replay, server, store_reader, sweep
from waitbus.settings import Settings, load
from waitbus.store import append
from waitbus.ui import jsonl
from waitbus.units import parse_duration, parse_size

pytestmark = in_checkout

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DAY = 86_400
DEFAULTS = load({"HOME": "/nonexistent", "WAITBUS_RUNTIME_DIR": "/nonexistent/run"})

# A page, the words around a number (the number is the group), and what it must be.
PROMISES: list[tuple[str, str, float]] = [
    ("docs/contract.md", r"arrive whole within (\d+) s", wire.FIRST_FRAME_SEC),
    ("docs/contract.md", r"were removed notices within (\d+) s", sweep.SWEEP_SEC),
    ("docs/contract.md", r"nobody rang for within (\d+) s", sweep.SWEEP_SEC),
    ("docs/contract.md", r"0 < N <= (\d+)", wire.MAX_FRAME_BYTES),
    ("docs/contract.md", r"`--settle` \((\d+) s\)", rules.SETTLE_SEC),
    ("docs/contract.md", r"leaves after (\d+) minutes with nobody connected", DEFAULTS.idle_exit_s / 60),
    ("docs/contract.md", r"is older than (\d+) days", DEFAULTS.max_age_s / DAY),
    ("docs/contract.md", r"first ones beyond (\d+) GiB", DEFAULTS.max_bytes / GIB),
    ("docs/contract.md", r"`fields` is at most (\d+) KiB as JSON", event.MAX_FIELDS_BYTES / KIB),
    ("docs/contract.md", r"and (\d+) levels deep, `payload_json`", event.MAX_FIELDS_DEPTH),
    ("docs/contract.md", r"`payload_json` at most (\d+) MiB", event.MAX_PAYLOAD_BYTES / MIB),
    ("docs/contract.md", r"`summary` at most (\d+) KiB", event.MAX_SUMMARY_BYTES / KIB),
    ("docs/contract.md", r"names at most (\d+) KiB", event.MAX_NAME_BYTES / KIB),
    ("docs/contract.md", r"`dotted.key=json_literal`, at most (\d+) bytes", predicate.MAX_TEXT_BYTES),
    ("docs/contract.md", r"at most (\d+) levels deep, at most \d+ leaves", predicate.MAX_DEPTH),
    ("docs/contract.md", r"at most \d+ levels deep, at most (\d+) leaves", predicate.MAX_LEAVES),
    ("docs/contract.md", r"sends what is queued for at most (\d+) s", server.DRAIN_SEC),
    ("docs/wire.md", r"0 < N ≤ (\d+)", wire.MAX_FRAME_BYTES),
    ("docs/wire.md", r"arrive whole within (\d+) s", wire.FIRST_FRAME_SEC),
    ("docs/wire.md", r"at most (\d+); empty means all", wire.MAX_FILTERS),
    ("docs/wire.md", r"at most (\d+), each at most 1 KiB", wire.MAX_EVENT_TYPES),
    ("docs/wire.md", r"this often, in seconds, from (\d+) to", wire.HEARTBEAT_MIN_SEC),
    ("docs/wire.md", r"this often, in seconds, from 1 to (\d+)", wire.HEARTBEAT_SEC),
    ("docs/wire.md", r"`heartbeat_sec` of the ack is (\d+)", wire.HEARTBEAT_SEC),
    ("docs/wire.md", r"silent for ([\d.]+) times that long", core.HEARTBEATS_MISSED),
    ("docs/wire.md", r"could not be read for (\d+) s", replay.TRIES * replay.RETRY_SEC),
    ("docs/wire.md", r"nested at most (\d+) levels", wire.MAX_FRAME_DEPTH),
    ("docs/wire.md", r"notices the row within (\d+) s", sweep.SWEEP_SEC),
    ("docs/predicates.md", r"joined by ` && `; at most (\d+) bytes", predicate.MAX_TEXT_BYTES),
    ("docs/predicates.md", r"depth of `all`, `any`, `not` and leaf \| (\d+)", predicate.MAX_DEPTH),
    ("docs/predicates.md", r"leaves \| (\d+)", predicate.MAX_LEAVES),
    ("docs/predicates.md", r"a key, a pattern \| (\d+) bytes", predicate.MAX_TEXT_BYTES),
    ("docs/predicates.md", r"a value \| (\d+) KiB as JSON", predicate.MAX_VALUE_BYTES / KIB),
    ("docs/predicates.md", r"all keys and values \| (\d+) KiB", predicate.MAX_OBJECT_BYTES / KIB),
    ("docs/predicates.md", r"that hold `\?` or `\[` \| (\d+) characters", predicate.MAX_PATTERN_CHARS),
    ("docs/predicates.md", r"the first ([\d,]+) bytes", event.MAX_NAME_BYTES),
    ("docs/architecture.md", r"finds the commit within (\d+) s", sweep.SWEEP_SEC),
    ("docs/architecture.md", r"prunes the store every (\d+) s", store_reader.PRUNE_EVERY_SEC),
    ("docs/architecture.md", r"to (\d+) days or 1 GiB", DEFAULTS.max_age_s / DAY),
    ("docs/architecture.md", r"to 30 days or (\d+) GiB", DEFAULTS.max_bytes / GIB),
    ("docs/architecture.md", r"exits after (\d+) minutes with nobody connected", DEFAULTS.idle_exit_s / 60),
    ("docs/architecture.md", r"sends its queues for at most (\d+) s", server.DRAIN_SEC),
    ("docs/cli.md", r"`--settle` \((\d+) s\)", rules.SETTLE_SEC),
    ("docs/cli.md", r"at most ([\d,]+) events or 1 MiB of payloads", append.CHUNK),
    ("docs/cli.md", r"at most ([\d,]+) events or 1 MiB of payloads", jsonl.BATCH),
    ("docs/cli.md", r"at most 1,000 events or (\d+) MiB of payloads", append.CHUNK_CHARS / MIB),
    ("docs/cli.md", r"at most (\d+) MiB each", jsonl.MAX_LINE_BYTES / MIB),
    ("docs/cli.md", r"delays the end of `run` by at most (\d+) s", run.PATIENCE_SEC),
    ("docs/cli.md", r"the last (\d+) lines or `--tail N`", run.TAIL_LINES),
    ("docs/cli.md", r"`--tail N`, and at most (\d+) KiB", run.TAIL_BYTES / KIB),
    ("docs/cli.md", r"of the arguments, (\d+) KiB", run.ARGV_BYTES / KIB),
    ("docs/cli.md", r"kills it if it still runs after (\d+) s", job.GRACE_SEC),
    ("docs/cli.md", r"\((\d+) KiB for one,", handler._ONE_MAX_BYTES / KIB),
    ("docs/cli.md", r"for one, (\d+) KiB for all", handler._ALL_MAX_BYTES / KIB),
    ("docs/cli.md", r"for all, (\d+) characters for a name", handler._NAME_MAX),
    ("docs/cli.md", r"stops after ([\d,]+) rows", events.LIMIT),
    ("docs/cli.md", r"and stops after (\d+) s unless", events._TIMEOUT_SEC),
    ("docs/cli.md", r"applies the limits every (\d+) s", store_reader.PRUNE_EVERY_SEC),
    ("docs/cli.md", r"`fields` may have (\d+) KiB", event.MAX_FIELDS_BYTES / KIB),
    ("docs/cli.md", r"`summary` (\d+) KiB", event.MAX_SUMMARY_BYTES / KIB),
    ("docs/cli.md", r"`payload_json` (\d+) MiB", event.MAX_PAYLOAD_BYTES / MIB),
    ("docs/cli.md", r"names and `delivery_id` (\d+) KiB", event.MAX_NAME_BYTES / KIB),
    ("docs/cli.md", r"would exceed (\d+) KiB", wire.MAX_FRAME_BYTES / KIB),
    ("README.md", r"exits after (\d+) minutes with nobody connected", DEFAULTS.idle_exit_s / 60),
    ("src/waitbus/client/emit.py", r"at most ([\d,]+) events or 1 MiB of payloads", append.CHUNK),
    ("src/waitbus/client/subscribe.py", r"or in ([\d.]+) s, if that is longer", connect.OPEN_SEC),
    ("src/waitbus/cli/verbs/prune.py", r"by default (\d+) days and", DEFAULTS.max_age_s / DAY),
    ("src/waitbus/cli/verbs/prune.py", r"days and (\d+) GiB", DEFAULTS.max_bytes / GIB),
]


@pytest.mark.parametrize(("page", "words", "value"), PROMISES, ids=[f"{page}: {words}" for page, words, _ in PROMISES])
def test_a_promised_number_is_the_one_in_the_code(page: str, words: str, value: float) -> None:
    text = re.sub(r"\s+", " ", text_of(page))
    found = re.findall(words, text)
    assert found, "the page does not say this any more"
    assert {float(number.replace(",", "")) for number in found} == {value}


def test_the_tables_of_the_wire_are_complete() -> None:
    page = text_of("docs/wire.md")
    first, frames = page.partition("## First frame")[2].split("## From the daemon")
    rows = dict(re.findall(r"^\| `(\w+)`( \*\(ours\)\*)? \|", first, re.MULTILINE))
    assert {name for name, ours in rows.items() if ours} == set(wire.FEATURES)
    everything = wire.subscribe_frame(
        since="0" * 26, match=predicate.Predicate.parse("a=1"), filters=["*"], event_types=["t"], caught_up=True,
        heartbeat_sec=1, status=True,
    )  # fmt: skip
    assert {*everything, "envelope"} == set(rows)
    told = {
        "subscribe_ack": wire.ack_frame(None, served=("store", "version")),
        "event": dict.fromkeys(event.FRAME_KEYS),
        "truncated": wire.truncated_frame("0" * 26, None),
        "hub_status": wire.status_frame(0, []),
        "daemon_heartbeat": wire.heartbeat_frame(0, 0, cursor="0" * 26, caught_up=True),
        "subscribe_rejected": wire.lag_frame(),
    }
    lines = dict(re.findall(r"^\| `(\w+)`[^|]*\| (.*) \|$", frames.partition("\n| `reason` |")[0], re.MULTILINE))
    assert set(lines) == set(told)
    for kind, frame in told.items():
        named = {word for span in re.findall(r"`([\w ]+)`", lines[kind]) for word in span.split()}
        assert set(frame) - {"kind"} <= named, kind
    reasons = set(re.findall(r"^\| `(\w+)`", frames.partition("\n| `reason` |")[2], re.MULTILINE))
    refused = [wire.store_frame("", damaged=True), wire.store_frame("", damaged=False), wire.lag_frame()]
    assert reasons == {"version", "match", *[str(frame["reason"]) for frame in refused]}
    cited = text_of("docs/contract.md").partition("## 4.")[2].partition("\n## ")[0]
    for name in (
        *wire.FEATURES,
        "features",
        "store",
        "version",
        "cursor",
        "hub_status",
        *reasons - {"match", "version"},
    ):
        assert f"`{name}`" in cited or f'"{name}"' in cited, name


def test_what_the_help_says_is_the_default() -> None:
    def help_of(verb: str) -> str:
        parser = make_parser(verb, cli_main.VERBS[verb], cli_main.module_of(verb))
        return " ".join(parser.format_help().split())

    assert f"(default: {rules.SETTLE_SEC:g}s)" in help_of("wait")
    assert f"(default: {events._TIMEOUT_SEC:g}s for the statement alone)" in help_of("events")
    assert f"newest {events.NEWEST} events" in help_of("events")
    assert f"(default: {events.LIMIT}; without SQL {events.NEWEST})" in help_of("events")
    assert f"(default: {run.TAIL_LINES}; 0: none)" in help_of("run")


def settings_in(page: str) -> dict[str, str]:
    return dict(re.findall(r"^\| `(\[\w+\] \w+)` \| `([^`]+)` \|", text_of(page), re.MULTILINE))


def test_the_settings_of_the_page_are_all_there_are_at_their_defaults() -> None:
    written = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", init.CONFIG, flags=re.MULTILINE))
    in_file = {f"[{section}] {key}": value for section, table in written.items() for key, value in table.items()}
    assert {name: tomllib.loads(f"x = {value}")["x"] for name, value in settings_in("docs/cli.md").items()} == in_file
    assert parse_duration(in_file["[store] max_age"]) == DEFAULTS.max_age_s
    assert parse_size(in_file["[store] max_bytes"]) == DEFAULTS.max_bytes
    assert (in_file["[store] max_rows"] or None) == DEFAULTS.max_rows
    assert parse_size(in_file["[hub] queue_bytes"]) == DEFAULTS.queue_bytes
    assert parse_duration(in_file["[hub] idle_exit"]) == DEFAULTS.idle_exit_s
    assert in_file["[store] durability"] == DEFAULTS.durability
    assert (in_file["[store] retention"], in_file["[client] autostart"]) == (DEFAULTS.retention, DEFAULTS.autostart)


def test_the_variables_of_on_are_all_there_are() -> None:
    table = text_of("docs/cli.md").partition("### The event in the environment")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(WAITBUS_[A-Z_]+)`", table))
    own = {handler._own_name(name) for name in handler._OWN_NAMES}
    assert listed == {*own, handler._FILE.decode(), f"{handler._OTHERS}NAME", f"{handler._OTHERS}STEP"} - {
        handler._own_name("fields")
    }


def test_the_variables_that_set_places_are_those_that_are_read() -> None:
    text = text_of("docs/cli.md")
    for variable in ("WAITBUS_STATE_DIR", "WAITBUS_RUNTIME_DIR", "WAITBUS_CONFIG", "WAITBUS_DB"):
        for page in ("docs/cli.md", "docs/contract.md"):
            assert f"`{variable}`" in text_of(page)
    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        assert variable in text
        assert variable in autostart._KEPT_VARIABLES


def test_the_names_of_systemds_sockets_are_those_that_the_hub_takes() -> None:
    code = text_of("src/waitbus/hub/listen.py")
    names = re.findall(r'\("(\w+)", settings\.\w+_socket', code)
    assert len(names) == 3
    for page in ("docs/contract.md", "docs/from-0.2.md"):
        assert "named `{}`, `{}` and `{}`".format(*names) in " ".join(text_of(page).split()), page


def test_the_names_of_the_contract_are_the_columns() -> None:
    table = text_of("docs/contract.md").partition("| source | natural names |")[2].partition("\n\n")[0]
    named = {name for names in re.findall(r"\| `([a-z_ ]+)`", table) for name in names.split()}
    assert named == set(event.NATURAL_FIELDS)
    words = text_of("docs/contract.md")
    assert all(f"`{name}`" in words or f" {name}" in words for name in event.FIELD_COLUMNS)


def test_the_page_for_users_of_0_2_0_names_what_is_and_is_not_there(settings: Settings) -> None:
    kept, gone = text_of("docs/from-0.2.md").split("## What is not in this release")
    for old, new in re.findall(r"^\| `waitbus ([^`]+)` \| `waitbus ([^`]+)`", kept, re.MULTILINE):
        words = cli_main._renamed(shlex.split(old))
        assert words[0] == shlex.split(new)[0]
    rows = [line.split("|")[1] for line in gone.splitlines() if line.startswith("| `")]
    verbs = {verb for row in rows for verb in re.findall(r"`([a-z-]+)`", row)}
    assert verbs - set(cli_main.VERBS) == {*cli_main._NOT_HERE, "listener"}
    done = subprocess.run(
        [sys.executable, "-m", "waitbus", "top"], capture_output=True, text=True, timeout=PATIENCE, env=os.environ
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "top of 0.2.0 is not part of this release; use waitbus tail" in done.stderr


def test_a_payload_is_read_back_as_the_page_says(settings: Settings) -> None:
    from waitbus import EventInsert, emit

    code = sample("docs/python.md", "python", "SELECT payload_json")
    names: dict[str, object] = {"result": emit(EventInsert(source="s", event_type="t", payload_json='{"a": 1}'))}
    exec(code, names)
    assert names["payload"] == '{"a": 1}'
