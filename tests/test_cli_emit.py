"""`waitbus emit`: flags, JSON lines, CloudEvents; what is refused, and that a live pipe is never held back."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import PATIENCE, Cli, HubProcess, Peer
from waitbus.cli.main import main
from waitbus.cloudevents import from_cloudevent, to_cloudevent
from waitbus.event import FIELD_COLUMNS, EventInsert
from waitbus.settings import Settings
from waitbus.store.fields import fields_of
from waitbus.ui.jsonl import MAX_LINE_BYTES
from waitbus.ulid import is_ulid

TellAndSay = Callable[..., tuple[int, str, str]]


@pytest.fixture
def emit(settings: Settings, capsys: pytest.CaptureFixture[str]) -> TellAndSay:
    """Runs the verb in this process: exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["emit", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def emitted(emit: TellAndSay, *words: str) -> dict[str, Any]:
    code, out, _ = emit("--source", "s", "--event-type", "t", *words, "--json")
    assert code == 0
    frame: dict[str, Any] = json.loads(out)["event"]
    return frame


def stored(settings: Settings, column: str) -> list[Any]:
    with sqlite3.connect(settings.db_path) as conn:
        found = [row[0] for row in conn.execute(f"SELECT {column} FROM events ORDER BY seq")]
    conn.close()
    return found


class TestFlags:
    def test_two_flags_are_enough_and_the_id_alone_comes_back(self, emit: TellAndSay) -> None:
        code, out, err = emit("--source", "s", "--event-type", "t")
        assert (code, err) == (0, "")
        assert is_ulid(out.removesuffix("\n"))

    @pytest.mark.parametrize("words", [("--json",), ("--source", "s"), ("--event-type", "t")])
    def test_fewer_are_not(self, words: tuple[str, ...], emit: TellAndSay) -> None:
        code, out, err = emit(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "see waitbus emit --help" in err

    def test_every_column_has_a_flag(self, emit: TellAndSay) -> None:
        words, wanted = [], {}
        for number, (name, kind) in enumerate(FIELD_COLUMNS.items()):
            wanted[name] = kind(number)
            words += [f"--{name.replace('_', '-')}", str(number)]
        frame = emitted(emit, *words, "--owner", "o", "--repo", "r", "--ingest-method", "m", "--summary", "S")
        assert frame["fields"].items() >= wanted.items()
        assert (frame["owner"], frame["repo"], frame["summary"]) == ("o", "r", "S")
        assert frame["fields"]["ingest_method"] == "m"

    def test_received_at_in_any_form(self, emit: TellAndSay) -> None:
        assert emitted(emit, "--received-at", "1763337600")["received_at"] == 1763337600 * 10**9
        assert emitted(emit, "--received-at=2025-11-17T00:00:00.5Z")["received_at"] == 1763337600_500_000_000
        assert emit("--source", "s", "--event-type", "t", "--received-at", "noon")[0] == 2

    def test_fields_are_json_and_bare_words_text(self, emit: TellAndSay) -> None:
        words = [
            "n=1",
            "f=1.5",
            "b=true",
            "z=null",
            't="1"',
            "w=lint",
            "s=two words",
            "l=[1,2]",
            "e=",
            "q=a=b",
            "x=1.2.3",
        ]
        frame = emitted(emit, *[word for field in words for word in ("--field", field)])
        wanted = {"n": 1, "f": 1.5, "b": True, "z": None, "t": "1", "w": "lint", "s": "two words", "l": [1, 2]}
        assert frame["fields"].items() >= {**wanted, "e": "", "q": "a=b", "x": "1.2.3"}.items()

    def test_a_field_with_a_column_goes_there(self, emit: TellAndSay, settings: Settings) -> None:
        emitted(emit, "--field", "conclusion=failure", "--field", "run_id=7")
        assert stored(settings, "conclusion") == ["failure"]
        assert stored(settings, "run_id") == [7]

    @pytest.mark.parametrize(
        ("words", "hint"),
        [
            (["--field", "ok=True"], "write ok=true"),
            (["--field", "ok"], "NAME=JSON"),
            (["--field", "=1"], "NAME=JSON"),
            (["--field", "l=[1,"], "no JSON"),
            (["--field", 'l="'], "no JSON"),
            (["--field", "l=[NaN]"], "no JSON"),
            (["--field", "l=1e400"], "too large"),
            (["--field", 'l={"a":1,"a":1}'], "'a' is there twice"),
            (["--field", "l=" + "1" * 5000], "too many digits"),
            (["--field", "source=x"], "use --source"),
            (["--field", "run_id=x"], "run_id takes int"),
            (["--run-id", "x"], "whole number"),
            (["--run-id", str(1 << 63)], "64 bits"),
            (["--owner", ""], "owner takes non-empty text"),
            (["--summary", "a\0b"], "zero byte"),
            (["--summary", "\udcff"], "UTF-8"),
            (["--payload-json", "@/nowhere"], "cannot read the payload /nowhere"),
            (["--payload-json", "{bad"], "--payload-json is not JSON: Expecting property name"),
            (["--payload-json", "any text"], "--payload-json is not JSON"),
            (["--payload-json", "[NaN]"], "NaN is not JSON"),
            (["--payload-json", "[" * 100_000], "nested too deep"),
            (["--format", "xml"], "choose from"),
            (["stray"], "takes flags"),
        ],
    )
    def test_what_cannot_be_is_one_line_and_nothing_is_written(
        self, words: list[str], hint: str, emit: TellAndSay, settings: Settings
    ) -> None:
        code, out, err = emit("--source", "s", "--event-type", "t", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert hint in err
        if Path(settings.db_path).exists():
            assert stored(settings, "seq") == []

    def test_the_payload_as_it_is_from_a_file_or_from_standard_input(
        self, emit: TellAndSay, settings: Settings, cli: Cli, bus_dir: Path
    ) -> None:
        file = bus_dir / "payload"
        file.write_text('{"é": 1 }\n')
        base = ("--source", "s", "--event-type", "t", "--payload-json")
        assert emit(*base, '{"a":  1}')[0] == 0
        assert emit(*base, f"@{file}")[0] == 0
        assert cli("emit", *base, "-", stdin='{"b": 2}').returncode == 0
        assert cli("emit", *base, "@-", stdin='[1e999, {"a": 1, "a": 2}]').returncode == 0
        assert stored(settings, "payload_json") == ['{"a":  1}', '{"é": 1 }\n', '{"b": 2}', '[1e999, {"a": 1, "a": 2}]']
        file.write_bytes(b"\xff")
        assert emit(*base, f"@{file}")[0] == 2

    def test_the_same_delivery_id_again_writes_nothing_and_says_so(self, emit: TellAndSay, settings: Settings) -> None:
        base = ("--source", "s", "--event-type", "t", "--delivery-id", "once")
        _, first, _ = emit(*base)
        code, again, err = emit(*base, "--summary", "other")
        assert (code, again) == (0, first)
        assert err == f"waitbus: delivery_id 'once' was there already, as {first.strip()}: nothing was written\n"
        assert json.loads(emit(*base, "--json")[1])["inserted"] is False
        assert stored(settings, "summary") == ["s t"]

    @pytest.mark.parametrize("form", ["cloudevent", "cloudevents"])
    def test_as_a_cloudevent(self, form: str, emit: TellAndSay) -> None:
        code, out, _ = emit("--source", "s", "--event-type", "t", "--received-at", "1763337600", "--format", form)
        event = json.loads(out)
        assert code == 0
        assert (event["specversion"], event["source"], event["type"]) == ("1.0", "urn:waitbus:source:s", "t")
        assert event["time"] == "2025-11-17T00:00:00Z"
        assert is_ulid(event["id"])

    def test_a_hub_hears_it(self, hub: HubProcess, peer: Callable[..., Peer], cli: Cli) -> None:
        listener = peer({"proto": 1})
        event_id = cli("emit", "--source", "s", "--event-type", "t").stdout.strip()
        assert listener.event()["event_id"] == event_id


class TestLines:
    @pytest.mark.parametrize("words", [("-", "--format", "cloudevents"), ("--stdin", "--format", "cloudevent")])
    def test_lines_are_answered_with_counts_alone(self, words: tuple[str, ...], cli: Cli, settings: Settings) -> None:
        done = cli("emit", *words, stdin='{"source":"s","event_type":"t"}\n')
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "use --json" in done.stderr
        assert not Path(settings.db_path).exists()

    def lines(self, cli: Cli, *lines: object, words: tuple[str, ...] = ()) -> tuple[int, dict[str, Any], list[str]]:
        """Hand lines over: exit code, the summary, and what was said."""
        text = "".join([f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines])
        done = cli("emit", "-", *words, "--json", stdin=text)
        return done.returncode, json.loads(done.stdout), done.stderr.splitlines()

    def test_lines_of_every_kind_are_written_in_order(self, cli: Cli, settings: Settings) -> None:
        frame = json.loads(cli("emit", "--source", "s", "--event-type", "first", "--field", "x=1", "--json").stdout)[
            "event"
        ]
        code, summary, said = self.lines(
            cli,
            {"source": "s", "event_type": "second", "fields": {"y": [1]}, "run_id": 5, "received_at": 1763337600},
            "",
            {"specversion": "1.0", "id": "1", "source": "//x", "type": "third", "data": {"conclusion": "failure"}},
            {**frame, "delivery_id": "other", "event_type": "fourth"},
            frame,
            {"source": "s", "event_type": "fifth", "summary": None, "received_at": "2025-11-17T00:00:00Z"},
        )
        assert (code, said) == (0, ["waitbus: 4 written, 1 there already, 0 bad"])
        assert summary.items() >= {"inserted": 4, "duplicates": 1, "bad": 0}.items()
        assert is_ulid(summary["last_event_id"])
        assert stored(settings, "event_type") == ["first", "second", "third", "fourth", "fifth"]
        assert stored(settings, "received_at")[1::3] == [1763337600 * 10**9] * 2
        assert stored(settings, "conclusion")[2] == "failure"
        assert json.loads(stored(settings, "fields_json")[3]) == {"x": 1}

    def test_a_bad_line_is_named_and_the_rest_goes_on(self, cli: Cli, settings: Settings) -> None:
        good = {"source": "s", "event_type": "t"}
        bad = [
            "{",
            "[]",
            {"source": "s"},
            {**good, "x": 1},
            {**good, "run_id": "1"},
            {**good, "fields": 1},
            '{"source":"s","event_type":"t","fields":{"x":NaN}}',
            {**good, "summary": "a\0"},
            {**good, "fields": {"x": "\ud800"}},
            {**good, "run_id": 1 << 70},
            {**good, "received_at": 1763337600123},
            {"specversion": "0.3", "id": "1", "source": "s", "type": "t"},
            {"specversion": "1.0", "id": 1, "source": "s", "type": "t"},
            {"kind": "event", "fields": None},
            '{"source":"s","event_type":"t","summary":"' + "x" * MAX_LINE_BYTES + '"}',
        ]
        mixed = [line for one in bad for line in (one, good)]
        code, summary, said = self.lines(cli, *mixed)
        assert code == 1
        assert summary.items() >= {"inserted": len(bad), "bad": len(bad)}.items()
        assert sorted(int(line.split()[2].rstrip(":")) for line in said[:-1]) == [2 * at + 1 for at in range(len(bad))]
        assert stored(settings, "event_type") == ["t"] * len(bad)

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ('{"source":"s","event_type":"t","source":"u"}', "the key 'source' is there twice in one object"),
            ('{"source":"s","event_type":"t","fields":{"a":[{"b":1,"c":2,"b":1}]}}', "the key 'b' is there twice"),
            ('{"specversion":"1.0","id":"1","source":"s","type":"t","type":"t"}', "the key 'type' is there twice"),
            ('{"source":"s","event_type":"t","fields":{"x":1e400}}', "the number 1e400 is too large"),
            ('{"source":"s","event_type":"t","fields":{"x":%s}}' % ("1" * 5000), "a number has too many digits"),
            ("[" * 100_000, "it is not JSON: it is nested too deep"),
            ('{"source":"s","event_type":"t","payload_json":"{bad"}', "payload_json is text that is not JSON"),
        ],
    )
    def test_what_parsers_disagree_about_is_a_bad_line(self, line: str, reason: str, cli: Cli) -> None:
        code, summary, said = self.lines(cli, line, {"source": "s", "event_type": "t"})
        assert (code, summary["inserted"], summary["bad"]) == (1, 1, 1)
        assert reason in said[0]

    def test_bytes_that_are_not_utf_8_are_a_bad_line(self, cli: Cli, settings: Settings) -> None:
        good = b'{"source":"s","event_type":"t","summary":"%s"}'
        lines = [
            b"\xef\xbb\xbf" + good % b"mark" + b"\r",
            good % b"\xff",
            good % b"\xed\xa0\x80",
            (good % b"x").replace(b"s", b"\0"),
        ]
        lines += ["{}".encode("utf-16"), good % "\u2028\u00fc".encode() + b"\r"]
        done = subprocess.run(
            [sys.executable, "-m", "waitbus", "emit", "-"],
            input=b"\n".join(lines),
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == b"waitbus: 2 written, 0 there already, 4 bad"
        assert stored(settings, "summary") == ["mark", "\u2028\u00fc"]

    def test_a_reason_is_short_and_controls_nothing(self, cli: Cli) -> None:
        key = "\x1b[31m" * 50_000
        _, _, said = self.lines(cli, {key: 1}, f'{{"{key[1:]}":1,"{key[1:]}":2}}', {"specversion": key})
        assert len(said) == 4
        assert all(len(line) < 300 and line.isprintable() for line in said)

    def test_a_flood_of_bad_lines_is_counted(self, cli: Cli) -> None:
        code, summary, said = self.lines(cli, *["junk"] * 50)
        assert (code, summary["bad"]) == (1, 50)
        assert said[20:] == ["waitbus: 30 more bad lines", "waitbus: 0 written, 0 there already, 50 bad"]

    def test_flags_stand_in_for_what_a_line_lacks(self, cli: Cli, settings: Settings) -> None:
        words = ("--source", "ci", "--event-type", "step", "--field", "host=a", "--owner", "o")
        code, _, _ = self.lines(cli, {}, {"source": "x"}, {"fields": {"host": "b", "n": 1}}, words=words)
        assert code == 0
        assert stored(settings, "source") == ["ci", "x", "ci"]
        assert stored(settings, "owner") == ["o"] * 3
        assert [json.loads(text) for text in stored(settings, "fields_json")] == [
            {"host": "a"}, {"host": "a"}, {"host": "b", "n": 1},
        ]  # fmt: skip

    def test_one_delivery_id_for_all_is_refused(self, cli: Cli) -> None:
        done = cli("emit", "--stdin", "--delivery-id", "x", stdin="{}\n")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)

    def test_thousands_in_batches_without_a_newline_at_the_end(self, cli: Cli, settings: Settings) -> None:
        text = "\n".join([json.dumps({"source": "s", "event_type": "t", "run_id": n}) for n in range(2500)])
        done = cli("emit", "-", stdin=text)
        assert (done.returncode, done.stdout) == (0, "")
        assert stored(settings, "run_id") == list(range(2500))

    def test_a_live_pipe_is_not_held_back(self, hub: HubProcess, peer: Callable[..., Peer], cli: Cli) -> None:
        listener = peer({"proto": 1})
        child = cli.spawn("emit", "-")
        assert child.stdin is not None
        for number in range(3):
            child.stdin.write(json.dumps({"source": "s", "event_type": "t", "run_id": number}) + "\n")
            child.stdin.flush()
            assert listener.event()["fields"]["run_id"] == number
        assert child.communicate(timeout=PATIENCE) == ("", "waitbus: 3 written, 0 there already, 0 bad\n")

    def test_a_store_that_fails_is_one_line_and_the_count_is_told(
        self, settings: Settings, bus_dir: Path, cli: Cli
    ) -> None:
        (bus_dir / "state").write_text("in the way")
        done = cli("emit", "-", stdin='{"source":"s","event_type":"t"}\n')
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == "waitbus: 0 written, 0 there already, 0 bad"
        assert "is not a directory" in done.stderr.splitlines()[1]

    def test_what_tail_prints_can_be_written_elsewhere(self, cli: Cli, settings: Settings, bus_dir: Path) -> None:
        for number in range(3):
            cli("emit", "--source", "s", "--event-type", "t", "--run-id", str(number), "--field", "x=[1]")
        there = {"WAITBUS_STATE_DIR": str(bus_dir / "other")}
        for form in ("json", "cloudevents"):
            printed = cli("replay", "--format", form).stdout
            assert cli("emit", "-", stdin=printed, **there).returncode == 0
        again = [json.loads(line) for line in cli("replay", "--json", **there).stdout.splitlines()]
        here = [json.loads(line) for line in cli("replay", "--json").stdout.splitlines()]
        assert len(here) == 3
        for frame in (*again, *here):
            del frame["event_id"]
        assert again == here


NAMES = st.text(min_size=1, max_size=8).filter(lambda name: "\0" not in name)
COLUMN_VALUES = {int: st.integers(-(1 << 63), (1 << 63) - 1), str: st.text(max_size=8)}
INSERTS = st.fixed_dictionaries(
    {"source": NAMES, "event_type": NAMES, "owner": NAMES, "repo": NAMES, "ingest_method": NAMES},
    optional={
        **{name: COLUMN_VALUES[kind] for name, kind in FIELD_COLUMNS.items()},
        "fields": st.dictionaries(NAMES, st.none() | st.integers() | st.text() | st.lists(st.booleans()), max_size=3),
    },
)


def frame_of(event: EventInsert, **more: Any) -> dict[str, Any]:
    names = ("source", "event_type", "owner", "repo", "ingest_method", *FIELD_COLUMNS)
    fields = fields_of({name: getattr(event, name) for name in names}, event.fields)
    return {"event_type": event.event_type, "owner": event.owner, "repo": event.repo, "fields": fields, **more}


class TestCloudEvents:
    @given(INSERTS, st.integers(0, (1 << 63) - 1), st.text(), NAMES)
    def test_what_we_write_we_read_again(self, given_: dict[str, Any], at: int, summary: str, delivery_id: str) -> None:
        more = {"event_id": "0" * 26, "received_at": at, "summary": summary, "delivery_id": delivery_id}
        frame = frame_of(EventInsert(**given_), **more)
        wire = json.loads(json.dumps(to_cloudevent(frame)))
        again = EventInsert(**from_cloudevent(wire))
        assert frame_of(again, **more) == frame
        assert (again.received_at, again.summary, again.delivery_id) == (at, summary, delivery_id)

    def test_somebody_elses_is_taken_with_its_identity_its_data_and_its_extensions(self) -> None:
        event = {
            "specversion": "1.0",
            "id": "A234",
            "source": "https://ci.example/x",
            "type": "com.example.build.finished",
            "subject": "build 7",
            "time": "2025-11-17T00:00:00Z",
            "datacontenttype": "application/json",
            "traceparent": "00-1",
            "data": {"conclusion": "failure", "status": 200, "step": {"n": 1}, "source": "not this"},
        }
        insert = EventInsert(**from_cloudevent(event))
        assert (insert.source, insert.event_type) == ("https://ci.example/x", "com.example.build.finished")
        assert insert.delivery_id == "https://ci.example/x#A234"
        assert (insert.summary, insert.conclusion, insert.status) == ("build 7", "failure", None)
        assert insert.fields == {"traceparent": "00-1", "step": {"n": 1}, "data": {"status": 200}}
        assert json.loads(insert.payload_json) == event

    @pytest.mark.parametrize("data", ["text", [1, 2], 5, None])
    def test_data_that_are_no_object(self, data: object) -> None:
        event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": data}
        insert = EventInsert(**from_cloudevent(event))
        assert insert.fields == ({} if data is None else {"data": data})
