"""`tail`, `replay`, `events`: what was said on the bus, live, past and in SQL."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess
from waitbus.cli.main import main
from waitbus.client.emit import emit
from waitbus.event import Event, EventInsert
from waitbus.settings import Settings
from waitbus.ulid import is_ulid

Say = Callable[..., tuple[int, str, str]]
EVIL = "a\x1b[31mred\x9b\u202eb\nc"


def tell(source: str = "s", event_type: str = "t", **more: Any) -> Event:
    return emit(EventInsert(source=source, event_type=event_type, **more)).event


@pytest.fixture
def say(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a verb in this process: exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def on_a_terminal(*words: str, **environ: str) -> str:
    """What a verb prints when standard output is a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "waitbus", *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", **environ},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux says EIO where others say nothing
            data = b""
        if not data:
            break
        shown += data
    os.close(ours)
    assert child.wait(PATIENCE) == 0
    return shown.decode()


def lines_of(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    return iter(child.stdout)


class TestTail:
    def test_past_then_live_in_order(self, hub: HubProcess, cli: Cli) -> None:
        tell(run_id=1)
        tell(run_id=2, source="other")
        child = cli.spawn("tail", "--since", "start", "--source", "s", "--json")
        lines = lines_of(child)
        assert json.loads(next(lines))["fields"]["run_id"] == 1
        tell(run_id=3)
        frame = json.loads(next(lines))
        assert frame["fields"]["run_id"] == 3
        assert frame["kind"] == "event"
        assert set(frame) == {
            *("event_id", "event_type", "owner", "repo", "received_at", "delivery_id"),
            "summary",
            "fields",
            "kind",
        }

    def test_it_ends_after_so_many(self, hub: HubProcess, cli: Cli) -> None:
        for number in range(5):
            tell(run_id=number)
        done = cli("tail", "--since", "start", "--count", "2", "--match", "run_id>=1")
        assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 2, "")

    def test_it_is_narrowed_by_type(self, hub: HubProcess, cli: Cli) -> None:
        tell("a", "begun", run_id=1)
        tell("a", "ended", run_id=2)
        words = ["--since", "start", "--source", "a", "--event-type", "ended", "--count", "1", "--json"]
        assert json.loads(cli("tail", *words).stdout)["fields"]["run_id"] == 2

    def test_time_that_runs_out(self, hub: HubProcess, cli: Cli) -> None:
        assert cli("tail", "--timeout", "0").returncode == 0
        assert cli("tail", "--timeout", "50ms", "--count", "1").returncode == 124

    def test_a_hub_that_restarts_is_returned_to(self, hub: HubProcess, cli: Cli) -> None:
        child = cli.spawn("tail", "--since", "start", "--json")
        lines = lines_of(child)
        tell(run_id=1)
        assert json.loads(next(lines))["fields"]["run_id"] == 1
        hub.stop()
        tell(run_id=2)
        hub.start()
        assert json.loads(next(lines))["fields"]["run_id"] == 2

    def test_it_ends_when_nobody_reads_any_more(self, hub: HubProcess, cli: Cli) -> None:
        tell()
        child = cli.spawn("tail", "--since", "start")
        assert next(lines_of(child))
        assert child.stdout is not None
        child.stdout.close()
        assert child.wait(PATIENCE) == 0  # and no event had to come for it
        assert child.stderr is not None
        assert child.stderr.read() == ""
        child.stdout = None

    def test_ctrl_c_is_130_and_says_nothing(self, hub: HubProcess, cli: Cli) -> None:
        tell()
        child = cli.spawn("tail", "--since", "start")
        assert next(lines_of(child))
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert child.stderr is not None
        assert child.stderr.read() == ""

    def test_no_hub_and_none_to_be_started(self, cli: Cli) -> None:
        done = cli("tail", "--no-autostart")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "waitbus serve hub" in done.stderr

    def test_too_large_for_a_frame_is_shown_all_the_same(self, hub: HubProcess, cli: Cli) -> None:
        tell(fields={"big": "x" * 70_000})
        done = cli("tail", "--since", "start", "--count", "1", "--json")
        assert len(json.loads(done.stdout)["fields"]["big"]) == 70_000


class TestText:
    def test_a_line_an_event_with_tabs_for_programs(self, say: Say) -> None:
        tell("ci", "build", conclusion="failure", summary="lint failed", received_at=0)
        tell("ci", "build", status="queued")
        first, second = say("replay")[1].splitlines()
        assert first.split("\t")[1:] == ["ci/build", "failure", "lint failed"]
        assert second.split("\t")[1:] == ["ci/build", "queued", ""]

    def test_nothing_in_an_event_controls_a_terminal(self, say: Say) -> None:
        tell(EVIL, EVIL, conclusion=EVIL, summary=EVIL, fields={"x": EVIL})
        for words in (("replay",), ("events",), ("replay", "--json"), ("events", "SELECT * FROM events"), ("stats",)):
            _, out, _ = say(*words)
            assert not {"\x1b", "\x9b", "\u202e"} & set(out), words
            assert "[31mred" in out
        csv = say("events", "--format", "csv", "SELECT summary FROM events")[1]
        assert csv == 'summary\n"a\\x1b[31mred\\x9b\\u202eb\nc"\n'
        for words in (("replay",), ("events", "SELECT summary FROM events"), ("status",)):
            shown = on_a_terminal(*words, NO_COLOR="1") if words != ("status",) else say(*words)[1]
            assert "\x1b" not in shown
            assert "\x9b" not in shown

    def test_colour_is_for_a_terminal_that_has_it(self, settings: Settings) -> None:
        tell(conclusion="failure")
        assert "\x1b[31mfailure" in on_a_terminal("replay")
        assert "\x1b" not in on_a_terminal("replay", NO_COLOR="1")
        assert "\x1b" not in on_a_terminal("replay", TERM="dumb")


class TestReplay:
    def ids(self, say: Say, *words: str) -> list[int]:
        code, out, err = say("replay", *words, "--json")
        assert code == 0
        assert err == "" or not out
        return [json.loads(line)["fields"]["run_id"] for line in out.splitlines()]

    def test_no_store_yet_says_what_to_do(self, say: Say) -> None:
        code, out, err = say("replay")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "waitbus init" in err

    def test_from_the_start_or_from_an_event_or_a_time(self, say: Say) -> None:
        events = [tell(run_id=number) for number in range(4)]
        assert self.ids(say) == [0, 1, 2, 3]
        assert self.ids(say, "start") == [0, 1, 2, 3]
        assert self.ids(say, events[1].event_id) == [2, 3]
        assert self.ids(say, "--since", events[1].event_id.lower()) == [2, 3]
        assert self.ids(say, "1h") == [0, 1, 2, 3]
        assert self.ids(say, "0") == []
        assert say("replay", "soon")[0] == 2
        assert say("replay", "1h", "--since", "1h")[0] == 2

    def test_a_duration_goes_by_the_time_of_history_itself(self, say: Say) -> None:
        first = tell(run_id=0)
        words = ["--source", "s", "--event-type", "t", "--ingest-method", "backfill", "--run-id"]
        assert say("emit", *words, "1", "--received-at", "2001-02-03T04:05:06Z")[0] == 0
        assert say("emit", *words, "2")[0] == 0
        tell(run_id=3, received_at=1)
        assert self.ids(say, "1h") == [0, 2, 3]
        assert self.ids(say, "1h", "--coalesce") == [0, 2, 3]
        assert self.ids(say) == [0, 1, 2, 3]
        assert self.ids(say, first.event_id) == [1, 2, 3]

    def test_only_what_matches_and_not_all_of_it(self, say: Say) -> None:
        for number in range(1200):  # more than two pages
            tell("a" if number % 2 else "b", run_id=number)
        assert self.ids(say, "--source", "a") == list(range(1, 1200, 2))
        assert self.ids(say, "--source", "a", "--match", "run_id<7", "--match", "run_id!=3") == [1, 5]
        assert self.ids(say, "--limit", "3") == [0, 1, 2]
        assert self.ids(say, "--last", "3") == [1197, 1198, 1199]
        assert self.ids(say, "--source", "b", "--last", "1") == [1198]
        assert self.ids(say, "--source", "b", "--source", "a", "--match", "run_id<3 && run_id>1") == [2]
        assert self.ids(say, "--event-type", "t", "--last", "1", "--match", "event_type=x") == []
        assert say("replay", "--last", "1", "--limit", "1")[0] == 2

    def test_the_last_word_of_each_thing(self, say: Say) -> None:
        def about(summary: str, source: str = "github", **more: Any) -> None:
            tell(source, more.pop("event_type", "t"), summary=summary, **more)

        about("run 1 queued", run_id=1)
        about("no run")
        about("job 5 queued", run_id=1, job_id=5)
        about("run 2 queued", run_id=2)
        about("run 1 done", run_id=1)
        about("job 5 done", run_id=1, job_id=5)
        about("run 1 elsewhere", run_id=1, owner="o")
        about("no run again")
        about("firing", "alertmanager", alert_fingerprint="f")
        about("resolved", "alertmanager", alert_fingerprint="f")
        for _ in range(2):
            about("started", "process", event_type="process_started", fields={"pid": 9})
            about("exited", "process", event_type="process_exited", fields={"pid": 9})
        for summary, status in (("first failure", "in_progress"), ("2 failed", "completed")):
            about(summary, "pytest", event_type="pytest_session", status=status, fields={"session_id": "s"})
            about("a turn of an agent", "agent", event_type="hook", fields={"session_id": "s"})
        code, out, _ = say("replay", "--coalesce", "--json")
        assert code == 0
        assert [json.loads(line)["summary"] for line in out.splitlines()] == [
            *("no run", "run 2 queued", "run 1 done", "job 5 done", "run 1 elsewhere", "no run again"),
            *("resolved", "exited", "exited"),
            *("a turn of an agent", "2 failed", "a turn of an agent"),
        ]
        last = say("replay", "--coalesce", "--json", "--last", "1", "--source", "github")[1]
        assert json.loads(last)["summary"] == "no run again"

    def test_as_cloudevents(self, say: Say) -> None:
        event = tell(run_id=1)
        found = json.loads(say("replay", "--format", "cloudevents")[1])
        assert (found["specversion"], found["id"], found["data"]["fields"]["run_id"]) == ("1.0", event.event_id, 1)

    def test_what_a_foreign_program_wrote_is_shown_whatever_it_is(self, say: Say, settings: Settings) -> None:
        tell()
        with sqlite3.connect(settings.db_path) as conn:
            conn.execute(
                "INSERT INTO events (delivery_id, source, event_type, owner, repo, received_at, ingest_method, run_id, "
                "summary, fields_json, payload_json) "
                "VALUES (x'ff', x'fe', 1, 2.5, x'00', 'soon', '', 'x', x'ff1b', '{', x'ff')"
            )
        conn.close()
        for words in (
            *(("replay",), ("replay", "--json"), ("replay", "--format", "cloudevents"), ("replay", "--coalesce")),
            *(("events",), ("events", "SELECT * FROM events", "--json"), ("events", "SELECT * FROM events")),
            *(("stats",), ("stats", "--json"), ("events", "--format", "csv")),
        ):
            code, out, err = say(*words)
            assert (code, err) == (0, ""), words
            assert len(out.splitlines()) >= 1
            assert "\x1b" not in out


class TestEvents:
    def test_without_sql_the_newest(self, say: Say) -> None:
        for number in range(25):
            tell(run_id=number)
        found = [json.loads(line)["fields"]["run_id"] for line in say("events", "--json")[1].splitlines()]
        assert found == list(range(5, 25))
        assert len(say("events", "--limit", "3")[1].splitlines()) == 3
        assert len(say("events", "--limit", "0")[1].splitlines()) == 25
        csv = say("events", "--format", "csv", "--limit", "2")[1].splitlines()
        assert csv[0] == "event_id,received_at,source,event_type,owner,repo,conclusion,summary"
        assert len(csv) == 3
        assert is_ulid(csv[1].partition(",")[0])

    def test_an_empty_store(self, say: Say) -> None:
        main(["init"])
        say()
        assert say("events") == (0, "", "")
        assert say("events", "--format", "tsv")[1].count("\n") == 1

    def test_every_form(self, say: Say) -> None:
        event = tell(run_id=7, fields={"exit_code": 3}, summary='a,"b"', payload_json="{}")
        sql = "SELECT run_id, exit_code, summary, NULL AS n, x'ff' AS b, 9e999 AS f FROM events"
        assert json.loads(say("events", sql, "--json")[1]) == {
            "run_id": 7, "exit_code": 3, "summary": 'a,"b"', "n": None, "b": "ff", "f": None,
        }  # fmt: skip
        assert say("events", sql)[1] == 'run_id\texit_code\tsummary\tn\tb\tf\n7\t3\ta,"b"\t\tff\tinf\n'
        assert say("events", sql, "--format", "csv")[1] == 'run_id,exit_code,summary,n,b,f\n7,3,"a,""b""",,ff,inf\n'
        found = json.loads(say("events", "SELECT event_id FROM events", "--format", "cloudevents")[1])
        assert (found["specversion"], found["id"]) == ("1.0", event.event_id)
        assert say("events", sql, "--format", "cloudevents")[0] == 2

    def test_a_table_on_a_terminal(self, settings: Settings) -> None:
        tell(run_id=7, summary="x" * 500)
        tell(run_id=1234, summary="y")
        head, first, second = on_a_terminal("events", "SELECT run_id, summary FROM events", NO_COLOR="1").splitlines()
        assert head == "run_id  summary"
        assert first == f"     7  {'x' * 59}…"
        assert second == "  1234  y"

    def test_sql_on_standard_input(self, cli: Cli) -> None:
        tell(run_id=7)
        assert cli("events", "-", "--json", stdin="-- all\nSELECT run_id FROM events;\n").stdout == '{"run_id":7}\n'

    def test_an_answer_is_cut_and_says_so(self, say: Say) -> None:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT i FROM n"
        tell()
        code, out, err = say("events", numbers, "--json")
        assert (code, out.count("\n")) == (0, 1000)
        assert err == "waitbus: cut after 1000 rows: --limit 0 gives all\n"
        assert say("events", numbers, "--json", "--limit", "0")[1].count("\n") == 1500
        assert say("events", numbers, "--json", "--limit", "1500")[2] == ""
        assert say("events", numbers, "--limit", "-1")[0] == 2

    def test_json_functions_and_the_columns_can_be_asked(self, say: Say) -> None:
        tell(fields={"nodeids_failed": ["a", "b"]})
        sql = "SELECT j.value FROM events, json_each(nodeids_failed) AS j"
        assert say("events", sql)[1] == "value\na\nb\n"
        assert "fields_json\n" in say("events", "SELECT name FROM pragma_table_xinfo('events')")[1]

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM events",
            "",
            "-- SELECT 1",
            "/* SELECT */ DROP TABLE events",
            "PRAGMA user_version = 9",
            "EXPLAIN SELECT 1",
            "VALUES (1)",
            "SELECT 1; DELETE FROM events",
            "SELECT 1; SELECT 2",
            "WITH x AS (SELECT 1) DELETE FROM events",
            "WITH x AS (SELECT 1) INSERT INTO events (delivery_id) SELECT * FROM x",
            "WITH x AS (SELECT 1) UPDATE sqlite_master SET name = 'x'",
            "SELECT load_extension('x')",
            "SELECT * FROM pragma_journal_mode('off')",
            "SELECT * FROM nowhere",
            "SELECT ?",
            "SELECT '",
            "SELECT 'a\0b'",
            "ATTACH 'x' AS y",
        ],
    )
    def test_nothing_but_reading(self, sql: str, say: Say, settings: Settings) -> None:
        event = tell()
        before = Path(settings.db_path).read_bytes()
        code, out, err = say("events", sql)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert say("events", "SELECT event_id FROM events")[1].split() == ["event_id", event.event_id]
        assert Path(settings.db_path).read_bytes() == before

    def test_a_statement_that_never_ends_is_stopped(self, say: Say) -> None:
        tell()
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        code, out, err = say("events", endless, "--timeout", "10ms")
        assert (code, out) == (124, "")
        assert err.startswith("waitbus: stopped after 0.01 s")

    def test_ctrl_c_stops_a_statement(self, cli: Cli) -> None:
        tell()
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 3"
        child = cli.spawn("events", endless, PYTHONUNBUFFERED="1")
        lines = lines_of(child)
        assert [next(lines), next(lines)] == ["i\n", "1\n"]
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert child.stderr is not None
        assert child.stderr.read() == ""
