"""`waitbus on`, as a process on a real hub: what it runs, with what around it, and what is left when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import PATIENCE, Cli, HubProcess
from waitbus.client import handler
from waitbus.client.emit import emit
from waitbus.client.handler import event_variables, without_event
from waitbus.event import Event, EventInsert
from waitbus.host.job import GRACE_SEC
from waitbus.settings import Settings

PYTHON = (sys.executable, "-c")


def tell(number: int = 0, **more: Any) -> Event:
    fields = {"n": number, **more.pop("fields", {})}
    return emit(EventInsert(source="test", event_type="test", fields=fields, **more)).event


def on(cli: Cli, *words: str, flags: tuple[str, ...] = ("--since", "start", "--timeout", "60")) -> Any:
    return cli("on", *flags, *words)


def leftovers(settings: Settings) -> list[str]:
    return [path.name for path in Path(settings.runtime_dir).glob("event-*")]


class Line:
    """Lines that a process says, without waiting for more than is there."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        self.state = child.stdout

    def __call__(self) -> str:
        assert select.select([self.state], [], [], PATIENCE)[0]
        return self.state.readline().rstrip("\n")


class TestOnce:
    @pytest.mark.parametrize("code", [0, 3])
    def test_the_exit_code_is_the_commands(self, hub: HubProcess, cli: Cli, code: int) -> None:
        tell()
        done = on(cli, "--", *PYTHON, f"print('ran'); raise SystemExit({code})")
        assert (done.returncode, done.stdout, done.stderr) == (code, "ran\n", "")

    def test_one_killed_by_a_signal_is_128_and_its_number(self, hub: HubProcess, cli: Cli) -> None:
        tell()
        assert on(cli, "--", *PYTHON, "import os; os.kill(os.getpid(), 9)").returncode == 137

    def test_it_runs_for_the_first_match_only(self, hub: HubProcess, cli: Cli) -> None:
        for number in (1, 2, 3):
            tell(number)
        done = on(cli, "n>=2", "--source", "test", "--match", "n<9", "--", "sh", "-c", "echo $WAITBUS_FIELD_N")
        assert done.stdout == "2\n"

    def test_it_is_narrowed_by_type_and_by_joined_predicates(self, hub: HubProcess, cli: Cli) -> None:
        for number in (1, 2, 3):
            tell(number)
        assert on(cli, "--event-type", "other", "--", "true", flags=("--timeout", "0.1")).returncode == 124
        words = ["n>1 && n<3", "--event-type", "test", "--event-type", "other"]
        assert on(cli, *words, "--", "sh", "-c", "echo $WAITBUS_FIELD_N").stdout == "2\n"

    def test_no_event_in_time_is_124(self, hub: HubProcess, cli: Cli) -> None:
        done = on(cli, "--", "echo", "ran", flags=("--timeout", "50ms"))
        assert (done.returncode, done.stdout) == (124, "")

    def test_what_is_not_there_is_127_and_what_cannot_be_run_126(
        self, hub: HubProcess, cli: Cli, bus_dir: Path, settings: Settings
    ) -> None:
        tell()
        (bus_dir / "data").write_text("no program")
        for command, code in (
            ("/nowhere/at/all", 127),
            ("no-such-command-anywhere", 127),
            (str(bus_dir / "data"), 126),
        ):
            done = on(cli, "--", command)
            assert (done.returncode, done.stderr.count("\n")) == (code, 1)
        assert leftovers(settings) == []

    def test_its_words_reach_it_as_they_are(self, hub: HubProcess, cli: Cli) -> None:
        tell(summary="; echo pwned $(id)")
        words = ["$WAITBUS_SUMMARY", "*", "--", "a b", "--source", ""]
        done = on(cli, "--", *PYTHON, "import sys; print(sys.argv[1:])", *words)
        assert done.stdout == f"{words}\n"

    def test_the_event_is_in_a_private_file_that_is_gone_afterwards(
        self, hub: HubProcess, cli: Cli, settings: Settings
    ) -> None:
        event = tell(summary="ünï\ud7ff")
        script = "import os; p = os.environ['WAITBUS_EVENT_FILE']; print(p, os.stat(p).st_mode); print(open(p).read())"
        done = on(cli, "--", *PYTHON, script)
        place, raw = done.stdout.split("\n", 1)
        path, mode = place.rsplit(" ", 1)
        assert stat.S_IMODE(int(mode)) == 0o600
        assert os.path.dirname(path) == settings.runtime_dir
        assert json.loads(raw) == event.as_frame()
        assert not os.path.exists(path)

    def test_a_command_may_take_the_file_away(self, hub: HubProcess, cli: Cli) -> None:
        tell()
        assert on(cli, "--", "sh", "-c", 'rm "$WAITBUS_EVENT_FILE"').returncode == 0

    def test_an_event_too_large_for_a_frame_is_whole_in_the_file(self, hub: HubProcess, cli: Cli) -> None:
        tell(fields={"blob": "x" * 200_000})
        script = "import json, os; print(len(json.load(open(os.environ['WAITBUS_EVENT_FILE']))['fields']['blob']))"
        done = on(cli, "--", *PYTHON, script)
        assert (done.returncode, done.stdout) == (0, "200000\n")

    def test_it_has_signals_as_a_shell_would_give_them(self, hub: HubProcess, cli: Cli) -> None:
        tell()
        done = on(cli, "--", "sh", "-c", "grep -E 'SigBlk|SigIgn' /proc/self/status")
        if done.returncode:
            pytest.skip("only Linux tells")
        for line in done.stdout.splitlines():
            ignored = int(line.split()[1], 16)
            assert not ignored & sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM))


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "name the command after --"),
            (["n=1", "--"], "name the command after --"),
            (["n=True", "--", "x"], "write n=true"),
            (["n", "--", "x"], "write KEY=VALUE"),
            (["--since", "soon", "--", "x"], "since takes a duration such as 10m, start, an event_id"),
            (["--timeout", "soon", "--", "x"], "write 90, 90s"),
            (["--nonsense", "--", "x"], "unrecognized arguments: --nonsense"),
            (["n=1", "--", "x"], "no hub is running"),
        ],
    )
    def test_what_cannot_be_is_one_line_and_2(self, settings: Settings, cli: Cli, words: list[str], said: str) -> None:
        done = cli("on", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert said in done.stderr


class TestEnviron:
    def test_fields_of_the_vocabulary_have_names_of_their_own(self) -> None:
        frame = Event("E" * 26, "t", "o", "r", 7, "d", "sum", {"source": "s", "conclusion": None, "pid": 3}).as_frame()
        assert event_variables(frame) == (
            {
                b"WAITBUS_EVENT_ID": b"E" * 26,
                b"WAITBUS_EVENT_TYPE": b"t",
                b"WAITBUS_OWNER": b"o",
                b"WAITBUS_REPO": b"r",
                b"WAITBUS_RECEIVED_AT": b"7",
                b"WAITBUS_DELIVERY_ID": b"d",
                b"WAITBUS_SUMMARY": b"sum",
                b"WAITBUS_SOURCE": b"s",
                b"WAITBUS_PID": b"3",
            },
            [],
        )

    def test_what_an_outer_event_left_is_taken_out(self) -> None:
        outer = {b"WAITBUS_CONCLUSION": b"failure", b"WAITBUS_FIELD_X": b"1", b"WAITBUS_EVENT_FILE": b"/x"}
        assert without_event({**outer, b"WAITBUS_DB": b"/mine"}) == {b"WAITBUS_DB": b"/mine"}

    names = (
        st.text(max_size=12)
        | st.just("n" * 140_000)
        | st.sampled_from(["db", "state_dir", "autostart", "event_file", "PATH", "a=b"])
    )
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("x" * 40_000),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )

    @given(st.dictionaries(names, values, max_size=6))
    def test_no_event_sets_what_waitbus_or_anyone_else_reads(self, fields: dict[str, Any]) -> None:
        frame = Event("E" * 26, "t", "o", "r", 7, "d", "", fields).as_frame()
        made, left_out = event_variables(frame)
        own = {f"WAITBUS_{name.upper()}".encode() for name in handler._OWN_NAMES}
        for name, value in made.items():
            assert name in own or name.startswith(b"WAITBUS_FIELD_")
            assert name.isascii()
            assert b"=" not in name
            value.decode()
            assert b"\0" not in value
            assert len(name) + len(value) <= 32 * 1024
        wanted = sum(value is not None for value in frame["fields"].values()) + 7
        assert len(made) + len(left_out) <= wanted

    def test_all_of_it_is_bounded_and_what_comes_first_has_the_room(self) -> None:
        fields = {f"n{number}": "x" * 1000 for number in range(1000)} | {"conclusion": "failure", "small": 1}
        frame = Event("E" * 26, "t", "o", "r", 7, "d", "sum", fields).as_frame()
        made, left_out = event_variables(frame)
        assert sum(len(name) + len(value) for name, value in made.items()) < 100_000
        assert made[b"WAITBUS_CONCLUSION"] == b"failure"
        assert made[b"WAITBUS_SUMMARY"] == b"sum"
        assert b"WAITBUS_FIELD_N0" in made
        assert b"WAITBUS_FIELD_SMALL" in made  # what is small fits in after what did not
        assert left_out[-1] == "WAITBUS_FIELD_N999"


class TestBookmark:
    """It goes on where it was, whatever ended it, and no match is left out."""

    SAY = ("sh", "-c", 'echo "$WAITBUS_FIELD_N"')
    # It reads until it is killed: nobody writes.
    STAY = ("sh", "-c", 'echo "$WAITBUS_FIELD_N"; exec cat')

    def says(self, cli: Cli, *flags: str) -> list[str]:
        done = cli("on", "--bookmark", "b", "--timeout", "0.3", *flags, "--", *self.SAY)
        assert done.returncode in (0, 124), done.stderr
        return str(done.stdout).split()

    def killed_while_it_handles(self, cli: Cli, *flags: str) -> str:
        child = cli.spawn("on", "--bookmark", "b", *flags, "--", *self.STAY)
        number = Line(child)()
        child.kill()
        child.wait(PATIENCE)
        assert child.stdin is not None
        child.stdin.close()  # with it ends the command
        child.stdin = None
        return number

    @pytest.mark.parametrize("mode", ["--loop", "--restart"])
    def test_a_match_that_was_being_handled_comes_again(self, hub: HubProcess, cli: Cli, mode: str) -> None:
        tell(1)
        assert self.says(cli, "--since", "start", mode) == ["1"]
        tell(2)
        assert self.killed_while_it_handles(cli, mode) == "2"
        hub.stop(signal.SIGKILL)
        tell(3)
        hub.start()
        assert self.says(cli, mode) == (["2", "3"] if mode == "--loop" else ["3"])
        assert self.says(cli, mode, "--since", "start") == []

    def test_where_it_began_is_kept_before_anything_was_handled(self, hub: HubProcess, cli: Cli) -> None:
        tell(1)
        tell(2)
        assert self.killed_while_it_handles(cli, "--since", "start") == "1"
        assert self.says(cli, "--loop") == ["1", "2"]

    def test_once_at_a_time_it_leaves_the_next_one_to_the_next(
        self, hub: HubProcess, cli: Cli, settings: Settings
    ) -> None:
        events = [tell(number) for number in (1, 2, 3)]
        assert [self.says(cli, "--since", "start") for _ in events] == [["1"], ["2"], ["3"]]
        assert self.says(cli) == []
        mark = Path(settings.state_dir, "bookmarks", "b").read_text().split()[0]
        assert mark >= events[-1].event_id

    def test_an_exit_code_does_not_matter_and_a_command_that_cannot_be_run_does(
        self, hub: HubProcess, cli: Cli
    ) -> None:
        tell(1)
        tell(2)
        first = ("on", "--bookmark", "b", "--since", "start", "--timeout", "60")
        assert cli(*first, "--", "/nowhere/to/be/found").returncode == 127
        assert cli(*first, "--", "sh", "-c", "exit 3").returncode == 3
        assert self.says(cli) == ["2"]

    def test_what_a_newer_match_replaced_does_not_come_again(self, hub: HubProcess, cli: Cli) -> None:
        for number in (1, 2, 3):
            tell(number)
        assert self.killed_while_it_handles(cli, "--restart", "--since", "start") == "3"
        assert self.says(cli, "--restart") == ["3"]

    @pytest.mark.parametrize("name", ["", ".x", "a b", "x" * 65])
    def test_a_name_that_cannot_be_one_is_a_usage_error(self, cli: Cli, name: str) -> None:
        done = cli("on", "--bookmark", name, "--", "true")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "write a name of letters" in done.stderr


POISON: dict[str, dict[str, Any]] = {
    "a long name": {"n" * 1000: 1},
    "many names": {f"field_{number}": number for number in range(12_000)},
    "a long value": {"x": "v" * 140_000},
    "many values": {f"field_{number}": "v" * 20_000 for number in range(12)},
    "bytes that end a text": {"x": "a\0b", "a\0b": "c"},
    "an equals sign": {"a=b": 1, "": 2, "PATH": "/nowhere"},
    "a deep one": {"x": json.loads("[" * 60 + "]" * 60)},
}


class TestNoEventEndsIt:
    @pytest.mark.parametrize("mode", ["--loop", "--restart"])
    @pytest.mark.parametrize("kind", POISON)
    def test_the_command_is_run_for_it_and_for_the_next_one(
        self, kind: str, mode: str, hub: HubProcess, cli: Cli, settings: Settings
    ) -> None:
        script = "import json, os; print(len(json.load(open(os.environ['WAITBUS_EVENT_FILE']))['fields']), flush=True)"
        child = cli.spawn("on", mode, "--since", "start", "--", *PYTHON, script)
        line = Line(child)
        for _ in range(2):
            tell(fields=POISON[kind])
            assert line() == str(8 + len(POISON[kind]))
        child.terminate()
        said = child.communicate(timeout=PATIENCE)[1].splitlines()
        assert child.returncode == 143
        # What is missing in the environment is said, once.
        large = kind in ("a long name", "many names", "a long value", "many values")
        assert len([line for line in said if "in $WAITBUS_EVENT_FILE only" in line]) == large
        assert all(len(line) < 400 for line in said)
        assert leftovers(settings) == []

    def test_one_that_a_foreign_program_wrote_past_every_bound(
        self, hub: HubProcess, cli: Cli, settings: Settings
    ) -> None:
        child = cli.spawn("on", "--loop", "--since", "start", "--", "sh", "-c", "echo $WAITBUS_SUMMARY")
        line = Line(child)
        tell(summary="first")
        assert line() == "first"
        row = {
            "delivery_id": "d", "source": "s", "event_type": "t", "owner": "o", "repo": "r",
            "received_at": time.time_ns(),
            "ingest_method": "m", "payload_json": "{}", "summary": "poison",
            "fields_json": json.dumps({"n" * 140_000: 1}),
        }  # fmt: skip
        with contextlib.closing(sqlite3.connect(settings.db_path, isolation_level=None)) as store:
            places = ", ".join("?" * len(row))
            store.execute(f"INSERT INTO events ({', '.join(row)}) VALUES ({places})", [*row.values()])
        assert line() == "poison"
        tell(summary="next")
        assert line() == "next"

    def test_where_the_system_takes_less_the_file_alone_is_there(self, hub: HubProcess, cli: Cli) -> None:
        tell(fields={f"field_{number}": "v" * 7000 for number in range(12)})
        script = 'import os; print([name for name in os.environ if name.startswith("WAITBUS_E")])'
        # A small stack leaves 128 KiB for words and environment, of which the words take half.
        command = [*PYTHON, script, "x" * 60_000]
        done = subprocess.run(
            ["sh", "-c", 'ulimit -s 512; exec "$0" -m waitbus on --since start -- "$@"', sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout) == (0, "['WAITBUS_EVENT_FILE']\n"), done.stderr
        assert done.stderr.startswith("waitbus: too large for the command's environment")

    def test_an_event_whose_file_cannot_be_written_is_passed(
        self, hub: HubProcess, cli: Cli, settings: Settings
    ) -> None:
        tell(1)
        child = cli.spawn("on", "--loop", "--since", "start", "--", "sh", "-c", "echo $WAITBUS_FIELD_N")
        line = Line(child)
        assert line() == "1"
        os.chmod(settings.runtime_dir, 0o777)  # no place for anything private
        tell(2)
        assert child.stderr is not None
        assert select.select([child.stderr], [], [], PATIENCE)[0]
        assert "nothing was run for" in child.stderr.readline()
        os.chmod(settings.runtime_dir, 0o700)
        tell(3)
        assert line() == "3"


class TestLoop:
    def test_every_match_in_order_until_idle(self, hub: HubProcess, cli: Cli) -> None:
        for number in range(5):
            tell(number)
        done = on(
            cli,
            "--loop",
            "n!=3",
            "--",
            "sh",
            "-c",
            "echo $WAITBUS_FIELD_N",
            flags=("--since", "start", "--timeout", "100ms"),
        )
        assert (done.returncode, done.stdout, done.stderr) == (124, "0\n1\n2\n4\n", "")

    def test_what_comes_while_the_command_runs_is_not_lost(self, hub: HubProcess, cli: Cli) -> None:
        script = "import os, sys; print(os.environ['WAITBUS_FIELD_N'], flush=True); sys.stdin.readline()"
        child = cli.spawn("on", "--loop", "--since", "start", "--timeout", "60", "--", *PYTHON, script)
        line = Line(child)
        tell(0)
        assert line() == "0"
        for number in range(1, 4):
            tell(number)
        hub.stop(signal.SIGKILL)  # not by a hub that restarts meanwhile, either
        tell(4)
        hub.start()
        assert child.stdin is not None
        for number in range(1, 5):
            child.stdin.write("\n")
            child.stdin.flush()
            assert line() == str(number)

    def test_a_command_that_fails_is_told_and_the_loop_goes_on(self, hub: HubProcess, cli: Cli) -> None:
        tell(1)
        tell(2)
        done = on(
            cli, "--loop", "--", "sh", "-c", "exit $WAITBUS_FIELD_N", flags=("--since", "start", "--timeout", "100ms")
        )
        assert done.returncode == 124
        assert [line.partition(";")[0] for line in done.stderr.splitlines()] == [
            "waitbus: the command ended with 1",
            "waitbus: the command ended with 2",
        ]

    def test_one_that_cannot_be_run_ends_it(self, hub: HubProcess, cli: Cli) -> None:
        tell()
        assert on(cli, "--loop", "--", "/nowhere").returncode == 127


# Says its event, then runs until it is told to end, which it says, too.
STAYS = """
import os, signal, sys
def bye(number, frame):
    # Not by print, which may be at work where the signal came.
    os.write(1, b"bye " + os.environb[b"WAITBUS_FIELD_N"] + b"\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
signal.signal(signal.SIGINT, bye)
ours, theirs = os.pipe()
os.set_blocking(theirs, False)
signal.set_wakeup_fd(theirs)
print("hello", os.environ["WAITBUS_FIELD_N"], os.getpid(), flush=True)
while True: os.read(ours, 1)  # unlike pause(), it misses no signal that comes just before it
"""


class TestRestart:
    def test_a_newer_event_ends_the_running_command(self, hub: HubProcess, cli: Cli, settings: Settings) -> None:
        child = cli.spawn("on", "--restart", "--since", "start", "--timeout", "60", "--", *PYTHON, STAYS)
        line = Line(child)
        tell(1)
        assert line().startswith("hello 1")
        tell(2)
        assert line() == "bye 1"
        assert line().startswith("hello 2")
        child.send_signal(signal.SIGTERM)
        assert line() == "bye 2"
        assert child.wait(PATIENCE) == 143
        assert leftovers(settings) == []

    def test_only_the_newest_of_several_is_run(self, hub: HubProcess, cli: Cli) -> None:
        for number in range(50):
            tell(number)
        script = "echo $WAITBUS_FIELD_N"
        done = on(cli, "--restart", "--", "sh", "-c", script, flags=("--since", "start", "--timeout", "300ms"))
        assert done.returncode == 124
        assert done.stdout.splitlines()[-1] == "49"
        assert len(done.stdout.splitlines()) < 50

    def test_its_grandchildren_end_with_it(self, hub: HubProcess, cli: Cli) -> None:
        script = f"""{sys.executable} -c 'import signal; print("grandchild", flush=True); signal.pause()' & wait"""
        child = cli.spawn("on", "--restart", "--since", "start", "--timeout", "60", "--", "sh", "-c", script)
        line = Line(child)
        for number in (1, 2):
            tell(number)
            assert line() == "grandchild"
        child.send_signal(signal.SIGTERM)
        # The pipe ends only when nobody of them is left.
        assert child.communicate(timeout=PATIENCE) == ("", "")
        assert child.returncode == 143

    def test_one_that_does_not_want_to_end_is_killed(self, hub: HubProcess, cli: Cli) -> None:
        stubborn = (
            "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print(os.environ['WAITBUS_FIELD_N'], flush=True); signal.pause()"
        )
        program = (
            "import sys, waitbus.host.job as r; r.GRACE_SEC = 0.1\n"
            "from waitbus.cli.main import main; sys.exit(main(sys.argv[1:]))"
        )
        words = ["on", "--restart", "--since", "start", "--timeout", "60", "--", *PYTHON, stubborn]
        child = subprocess.Popen([*PYTHON, program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        cli.children.append(child)
        line = Line(child)
        for number in ("1", "2"):
            tell(int(number))
            assert line() == number
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=PATIENCE) == ("", "")

    def test_one_that_cannot_be_run_ends_it(self, hub: HubProcess, cli: Cli) -> None:
        tell()
        assert on(cli, "--restart", "--", "/nowhere").returncode == 127

    def test_idle_is_only_when_nothing_runs(self, hub: HubProcess, cli: Cli) -> None:
        tell()
        script = "import time; time.sleep(0.4); print('done')"
        done = on(cli, "--restart", "--", *PYTHON, script, flags=("--since", "start", "--timeout", "100ms"))
        assert (done.returncode, done.stdout) == (124, "done\n")

    def test_a_hub_that_restarts_is_returned_to(self, hub: HubProcess, cli: Cli) -> None:
        child = cli.spawn("on", "--restart", "--since", "start", "--timeout", "60", "--", *PYTHON, STAYS)
        line = Line(child)
        tell(1)
        assert line().startswith("hello 1")
        hub.stop(signal.SIGKILL)
        tell(2)
        hub.start()
        assert line() == "bye 1"
        assert line().startswith("hello 2")
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE) == 143


class TestSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    @pytest.mark.parametrize("mode", [[], ["--loop"]])
    def test_a_signal_to_it_ends_the_command_too(
        self, hub: HubProcess, cli: Cli, settings: Settings, mode: list[str], number: int, code: int
    ) -> None:
        child = cli.spawn("on", *mode, "--since", "start", "--", *PYTHON, STAYS.replace("SIGINT", "SIGHUP"))
        line = Line(child)
        tell(7)
        pid = int(line().split()[2])
        child.send_signal(number)
        out, err = child.communicate(timeout=PATIENCE)
        assert out == ("" if number == signal.SIGINT else "bye 7\n")
        assert child.returncode == code
        assert "Traceback (most recent call last)" not in err or number == signal.SIGINT  # the command's own
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert leftovers(settings) == []

    def test_a_signal_while_it_waits_for_an_event(self, hub: HubProcess, cli: Cli) -> None:
        child = cli.spawn("on", "--loop", "--since", "start", "--", "sh", "-c", "echo ran")
        tell()
        assert Line(child)() == "ran"
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=PATIENCE)[1] == ""
        assert child.returncode == 143

    def test_asked_a_second_time_it_does_not_wait(self, hub: HubProcess, cli: Cli) -> None:
        script = (
            "import os, signal\n"
            "signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'no\\n')); print('up', flush=True)\n"
            "while True: signal.pause()"
        )
        child = cli.spawn("on", "--since", "start", "--", *PYTHON, script)
        line = Line(child)
        tell()
        assert line() == "up"
        child.send_signal(signal.SIGTERM)
        assert line() == "no"
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=GRACE_SEC) == ("", "")
        assert child.returncode == 143

    def test_on_a_terminal_the_command_has_it_and_ctrl_c_ends_both(
        self, hub: HubProcess, settings: Settings, bus_dir: Path
    ) -> None:
        tell(5)
        mark = bus_dir / "interrupted"
        script = (
            "import os, sys\n"
            "try:\n"
            "    print('reads', os.tcgetpgrp(0) == os.getpgrp(), flush=True)\n"
            "    print('got', sys.stdin.readline().strip(), flush=True)\n"
            "    sys.stdin.readline()\n"
            f"except KeyboardInterrupt: open({str(mark)!r}, 'w'); sys.exit(7)\n"
        )
        pid, terminal = pty.fork()
        if pid == 0:
            words = ["on", "--since", "start", "--", *PYTHON, script]
            os.execv(sys.executable, [sys.executable, "-m", "waitbus", *words])
        said = b""
        for word, answer in ((b"reads True", b"hello\n"), (b"got hello", b"\x03")):
            while word not in said:
                assert select.select([terminal], [], [], PATIENCE)[0]
                said += os.read(terminal, 4096)
            os.write(terminal, answer)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
        os.close(terminal)
        assert mark.exists()
        assert leftovers(settings) == []


def test_nothing_heavy_is_brought_along(hub: HubProcess, settings: Settings) -> None:
    tell()
    script = (
        # What argparse brings is Python's to say.
        "import sys, argparse, json, socket; argparse.ArgumentParser().add_argument('x'); floor = set(sys.modules)\n"
        "from waitbus.cli.main import main\n"
        "code = main(['on', '--since', 'start', '--', 'true'])\n"
        "heavy = {'sqlite3', 'asyncio', 'typing', 'dataclasses', 'subprocess', 'logging', 'pathlib', 'tempfile'}\n"
        "print(code, sorted(heavy & (set(sys.modules) - floor)))"
    )
    root = str(Path(sys.modules["waitbus"].__file__ or "").parent.parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({root!r})\n{script}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "0 []\n"
