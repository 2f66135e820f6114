"""`waitbus on`, as a process on a real hub: what it runs, with what around it, and what is left when it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import PATIENCE, Cli, HubProcess
from waitbus.cli import reaction
from waitbus.cli.reaction import event_environ
from waitbus.client.emit import emit
from waitbus.event import Event, EventInsert
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
            (["--since", "soon", "--", "x"], "an event_id, or start"),
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
        made = event_environ(frame, {"PATH": "/bin"})
        assert made == {
            "PATH": "/bin",
            "WAITBUS_EVENT_ID": "E" * 26,
            "WAITBUS_EVENT_TYPE": "t",
            "WAITBUS_OWNER": "o",
            "WAITBUS_REPO": "r",
            "WAITBUS_RECEIVED_AT": "7",
            "WAITBUS_DELIVERY_ID": "d",
            "WAITBUS_SUMMARY": "sum",
            "WAITBUS_SOURCE": "s",
            "WAITBUS_PID": "3",
        }

    def test_what_an_outer_event_left_is_taken_out(self) -> None:
        frame = Event("E" * 26, "t", "o", "r", 7, "d", "", {}).as_frame()
        outer = {"WAITBUS_CONCLUSION": "failure", "WAITBUS_FIELD_X": "1", "WAITBUS_EVENT_FILE": "/x"}
        made = event_environ(frame, {**outer, "WAITBUS_DB": "/mine"})
        assert not outer.keys() & made.keys()
        assert made["WAITBUS_DB"] == "/mine"

    names = st.text(max_size=12) | st.sampled_from(["db", "state_dir", "autostart", "event_file", "PATH", "a=b"])
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("x" * 40_000),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )

    @given(st.dictionaries(names, values, max_size=6))
    def test_no_event_sets_what_waitbus_or_anyone_else_reads(self, fields: dict[str, Any]) -> None:
        frame = Event("E" * 26, "t", "o", "r", 7, "d", "", fields).as_frame()
        before = {"PATH": "/bin", "WAITBUS_DB": "/mine", "WAITBUS_STATE_DIR": "/mine", "WAITBUS_AUTOSTART": "0"}
        made = event_environ(frame, before)
        assert before.items() <= made.items()
        for name, value in made.items():
            assert name in before or name.startswith("WAITBUS_")
            assert name.isascii()
            assert "=" not in name
            os.fsencode(value).decode()
            assert "\0" not in value
            assert len(os.fsencode(value)) <= 32 * 1024
        new = {name for name in made if name not in before and not name.startswith("WAITBUS_FIELD_")}
        assert new <= {f"WAITBUS_{name.upper()}" for name in reaction._OWN_NAMES}


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
print("hello", os.environ["WAITBUS_FIELD_N"], os.getpid(), flush=True)
while True: signal.pause()
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
            "import sys, waitbus.cli.reaction as r; r.GRACE_SEC = 0.1\n"
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
        assert child.communicate(timeout=reaction.GRACE_SEC) == ("", "")
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
