"""`waitbus run`: the command runs as it would without us, and the bus hears how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import PATIENCE, Cli, HubProcess, Peer
from waitbus.cli.verbs.run import last_lines
from waitbus.settings import Settings
from waitbus.store.open import open_reader
from waitbus.store.read import read_after

PYTHON = sys.executable
RUN = [PYTHON, "-m", "waitbus", "run"]


def told(settings: Settings) -> list[dict[str, Any]]:
    """The event frames in the store."""
    conn = open_reader(settings)
    try:
        return [frame for _, frame in read_after(conn, 0, 100)]
    finally:
        conn.close()


def fields_of(cli: Cli, settings: Settings, *words: str, code: int | None = None) -> dict[str, Any]:
    """Run it; the fields of the event that says how it ended."""
    done = cli("run", *words)
    assert "the bus was not told" not in done.stderr
    if code is not None:
        assert done.returncode == code
    fields: dict[str, Any] = told(settings)[-1]["fields"]
    assert fields["event_type"] == "process_exited"
    return fields


def rest_of(terminal: int) -> bytes:
    """What a terminal shows until nobody holds it any more."""
    shown = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux says EIO where others say nothing
            data = b""
        if not data:
            return shown
        shown += data


class TestTheEnd:
    def test_success(self, cli: Cli, settings: Settings) -> None:
        done = cli("run", "--name", "build", "--", "sh", "-c", "echo out; echo err >&2")
        assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")
        started, exited = told(settings)
        assert started["event_type"] == "process_started"
        assert started["fields"].items() >= {"name": "build", "status": "in_progress", "conclusion": None}.items()
        assert exited["event_type"] == "process_exited"
        fields = exited["fields"]
        assert fields["pid"] == started["fields"]["pid"] > 0
        assert fields["argv"] == ["sh", "-c", "echo out; echo err >&2"]
        assert fields.items() >= {"source": "process", "name": "build", "status": "completed", "exit_code": 0}.items()
        assert fields["conclusion"] == "success"
        assert sorted(fields["tail"].split("\n")) == ["err", "out"]
        assert 0 <= fields["duration_s"] < PATIENCE
        assert "signal" not in fields
        assert exited["summary"].startswith("build succeeded after ")

    def test_failure(self, cli: Cli, settings: Settings) -> None:
        fields = fields_of(cli, settings, "sh", "-c", "exit 7", code=7)
        assert fields.items() >= {"name": "sh", "exit_code": 7, "conclusion": "failure", "tail": ""}.items()

    def test_killed_by_a_signal(self, cli: Cli, settings: Settings) -> None:
        fields = fields_of(cli, settings, "sh", "-c", "kill -KILL $$", code=137)
        assert fields.items() >= {"exit_code": 137, "signal": 9, "conclusion": "failure"}.items()
        assert "was killed by SIGKILL" in told(settings)[-1]["summary"]

    def test_no_such_command(self, cli: Cli, settings: Settings) -> None:
        fields = fields_of(cli, settings, "--name", "n", "no-such-command", code=127)
        assert fields.items() >= {"name": "n", "exit_code": 127, "conclusion": "failure"}.items()
        assert [frame["event_type"] for frame in told(settings)] == ["process_exited"]

    def test_a_command_that_cannot_be_run(self, cli: Cli, settings: Settings, bus_dir: Path) -> None:
        (bus_dir / "plain").write_text("text")
        done = cli("run", str(bus_dir / "plain"))
        assert done.returncode == 126
        assert done.stderr == f"waitbus: cannot run {bus_dir / 'plain'}: Permission denied\n"

    @pytest.mark.parametrize("words", [(), ("--",), ("--name", "n"), ("--tail", "-1", "true"), ("--", "")])
    def test_no_command_is_wrong_usage(self, words: tuple[str, ...], cli: Cli) -> None:
        done = cli("run", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)

    def test_who_waits_for_its_name_wakes(self, hub: HubProcess, cli: Cli) -> None:
        waiting = cli.spawn("wait", "--source", "process", "--match", 'name="N"', "--verdict", "--since", "start")
        assert cli("run", "--name", "other", "--", "true").returncode == 0
        assert cli("run", "--name", "N", "--", "false").returncode == 1
        assert waiting.wait(PATIENCE) == 1

    def test_a_broken_bus_is_one_warning_and_no_more(self, cli: Cli, bus_dir: Path) -> None:
        (bus_dir / "state").write_text("in the way")
        done = cli("run", "--", "sh", "-c", "echo out; exit 5")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (5, "out\n", 1)
        assert done.stderr.startswith("waitbus: the bus was not told: ")


@pytest.fixture
def locked(cli: Cli, settings: Settings) -> Iterator[None]:
    """A store that another process writes to, and does not stop."""
    assert cli("emit", "--source", "a", "--event-type", "b").returncode == 0
    holder = sqlite3.connect(settings.db_path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    yield
    holder.close()


class TestStuckBus:
    """The command's end is held up for a second at most, and every signal counts meanwhile."""

    def test_its_end_is_not_held_up(self, locked: None, cli: Cli) -> None:
        began = time.monotonic()
        done = cli("run", "--", "sh", "-c", "echo out; exit 5")
        # The store's own patience is 5 s for each event.
        assert time.monotonic() - began < 4
        assert (done.returncode, done.stdout) == (5, "out\n")
        assert (
            done.stderr
            == "waitbus: the bus was not told: its store is busy or does not answer: look at waitbus status\n"
        )

    def test_a_command_that_cannot_be_run_is_told_as_quickly(self, locked: None, cli: Cli) -> None:
        began = time.monotonic()
        done = cli("run", "--", "no-such-command")
        assert time.monotonic() - began < 4
        assert (done.returncode, done.stderr.count("\n")) == (127, 2)

    def test_a_signal_reaches_the_command(self, locked: None, cli: Cli) -> None:
        child = cli.spawn("run", "--", "sh", "-c", "trap 'exit 42' USR1; echo ready; read line")
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGUSR1)
        assert child.wait(PATIENCE) == 42

    def test_a_signal_ends_the_telling(self, locked: None, cli: Cli) -> None:
        script = "trap '' USR1; echo ready; exit 5"
        program = (
            "import sys, waitbus.cli.verbs.run as r; r.PATIENCE_SEC = 1000.0\n"
            f"from waitbus.cli.main import main; sys.argv[1:] = {['run', '--', 'sh', '-c', script]!r}; sys.exit(main())"
        )
        with subprocess.Popen([PYTHON, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            code = None
            while code is None:  # the first may still go to the command
                child.send_signal(signal.SIGUSR1)
                # Far apart: one that comes while the process ends, its handlers gone, would kill it.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = child.wait(5)
        assert code == 5

    def test_what_goes_on_in_the_background_holds_nothing_up(self, cli: Cli, settings: Settings) -> None:
        ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        # It writes for ever, until the other end of its socket is closed.
        flood = (
            f"import os, select\nwhile not select.select([{theirs.fileno()}], [], [], 0)[0]: os.write(1, b'y' * 4096)"
        )
        script = f"{PYTHON} -c '{flood}' & exit 3"
        child = subprocess.Popen(
            [*RUN, "--", "sh", "-c", script], stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        assert child.wait(PATIENCE) == 3
        ours.close()


class TestWords:
    def test_the_command_begins_at_its_first_word_or_after_two_dashes(self, cli: Cli, settings: Settings) -> None:
        show = "import sys; print(sys.argv[1:])"
        for words in (["--", PYTHON], [PYTHON], ["--name", "x", PYTHON]):
            done = cli("run", *words, "-c", show, "--name", "y", "--", "-z")
            assert done.stdout == "['--name', 'y', '--', '-z']\n"

    def test_its_words_can_be_left_out(self, cli: Cli, settings: Settings) -> None:
        assert fields_of(cli, settings, "--no-argv", "--", "echo", "secret")["argv"] == ["echo"]
        assert "secret" not in json.dumps(told(settings)[0])

    def test_very_many_words_do_not_crowd_the_event(self, cli: Cli, settings: Settings) -> None:
        argv = fields_of(cli, settings, "true", *["x" * 100] * 1000)["argv"]
        assert argv[-1] == "…"
        assert len(argv) < 50

    def test_words_that_are_no_text_are_told_somehow(self, cli: Cli, settings: Settings) -> None:
        done = subprocess.run([*RUN, "printf", "%s", b"\xff"], stdout=subprocess.PIPE, timeout=PATIENCE)
        assert (done.returncode, done.stdout) == (0, b"\xff")
        assert told(settings)[-1]["fields"]["argv"] == ["printf", "%s", "?"]


class TestOutput:
    def test_every_byte_passes_unchanged(self, cli: Cli, settings: Settings) -> None:
        code = "import os\nfor n in range(256): os.write(1, bytes([n]) * 999); os.write(2, bytes([255 - n]) * 999)"
        done = subprocess.run([*RUN, "--", PYTHON, "-c", code], capture_output=True, timeout=PATIENCE)
        assert done.stdout == b"".join([bytes([n]) * 999 for n in range(256)])
        assert done.stderr == b"".join([bytes([255 - n]) * 999 for n in range(256)])

    def test_two_streams_that_are_one_stay_in_order(self, cli: Cli) -> None:
        code = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done"
        done = subprocess.run(
            [*RUN, "--", "sh", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.stdout.split() == [f"{stream}{i}" for i in range(1, 10) for stream in "oe"]

    def test_it_is_live(self, cli: Cli) -> None:
        child = cli.spawn("run", "--", "sh", "-c", "echo first; read line; echo $line")
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "first\n"  # while it still waits for us
        child.stdin.write("second\n")
        child.stdin.flush()
        assert child.stdout.readline() == "second\n"
        assert child.wait(PATIENCE) == 0

    def test_the_tail_is_the_last_lines(self, cli: Cli, settings: Settings) -> None:
        assert fields_of(cli, settings, "--tail", "3", "seq", "20000")["tail"] == "19998\n19999\n20000"
        assert fields_of(cli, settings, "seq", "100")["tail"].split() == [str(n) for n in range(81, 101)]

    def test_without_a_tail_the_streams_are_its_own(self, cli: Cli, settings: Settings) -> None:
        reader, writer = os.pipe()
        with open(reader, "rb") as ours, open(writer, "wb") as theirs:
            show = f"import os, sys; sys.exit(os.fstat(1).st_ino != {os.fstat(theirs.fileno()).st_ino})"
            assert subprocess.run([*RUN, "--tail", "0", PYTHON, "-c", show], stdout=theirs).returncode == 0
            theirs.close()
            assert ours.read() == b""
        assert "tail" not in told(settings)[-1]["fields"]

    def test_a_reader_that_leaves_ends_it_as_it_would_without_us(self, cli: Cli, settings: Settings) -> None:
        child = cli.spawn("run", "--", "yes")
        assert child.stdout is not None
        assert child.stdout.readline() == "y\n"
        child.stdout.close()
        assert child.wait(PATIENCE) == 128 + signal.SIGPIPE
        child.stdout = None
        assert told(settings)[-1]["fields"]["signal"] == signal.SIGPIPE

    def test_what_it_left_in_the_background_is_not_waited_for(self, cli: Cli, settings: Settings) -> None:
        ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        code = f"import os\nif os.fork(): print('done', flush=True)\nelse: os.read({theirs.fileno()}, 1)"
        done = subprocess.run(
            [*RUN, "--", PYTHON, "-c", code], capture_output=True, pass_fds=[theirs.fileno()], timeout=PATIENCE
        )
        theirs.close()
        assert (done.returncode, done.stdout) == (0, b"done\n")
        ours.sendall(b"\n")  # it still reads, and may end now
        ours.close()

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_a_closed_stream_is_nowhere(self, closed: str, cli: Cli, settings: Settings) -> None:
        script = f"{PYTHON} -m waitbus run -- sh -c 'echo out && echo err >&2' {closed}"
        done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0
        assert done.stdout == (b"" if ">&-" in closed.split() else b"out\n")
        assert done.stderr == (b"" if "2>&-" in closed else b"err\n")
        assert told(settings)[-1]["fields"]["exit_code"] == 0


class TestTerminal:
    def run(self, *command: str, size: tuple[int, int] = (33, 77)) -> tuple[int, bytes]:
        """Run a command with all three streams on a terminal; its exit code and what the terminal got."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, size)
        child = subprocess.Popen([*RUN, "--", *command], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = rest_of(ours)
        os.close(ours)
        return child.wait(PATIENCE), shown

    def test_it_stays_a_terminal_of_the_same_size(self, cli: Cli, settings: Settings) -> None:
        code, shown = self.run("sh", "-c", "test -t 0 && test -t 1 && test -t 2 && stty size <&1")
        assert (code, shown) == (0, b"33 77\r\n")
        assert told(settings)[-1]["fields"]["tail"] == "33 77"

    def test_it_is_told_of_a_new_size(self, cli: Cli, settings: Settings) -> None:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (10, 20))
        code = "trap 'stty size <&1; exit' WINCH; echo ready; while read line; do :; done"
        child = subprocess.Popen([*RUN, "--", "sh", "-c", code], stdin=subprocess.PIPE, stdout=theirs)
        shown = b""
        while b"ready" not in shown:
            shown += os.read(ours, 1024)
        termios.tcsetwinsize(theirs, (30, 40))
        child.send_signal(signal.SIGWINCH)  # as the kernel does to who runs in the foreground
        os.close(theirs)
        shown += rest_of(ours)
        os.close(ours)
        child.communicate(timeout=PATIENCE)
        assert shown == b"ready\r\n30 40\r\n"

    def test_colours_pass_and_are_left_out_of_the_tail(self, cli: Cli, settings: Settings) -> None:
        _, shown = self.run("printf", "\\033[31mred\\033[0m\\n50%%\\r100%%\\n")
        assert shown == b"\x1b[31mred\x1b[0m\r\n50%\r100%\r\n"
        assert told(settings)[-1]["fields"]["tail"] == "red\n100%"

    def test_not_a_byte_of_much_is_lost_at_its_end(self, cli: Cli, settings: Settings) -> None:
        _, shown = self.run("seq", "30000")
        assert shown.split() == [str(n).encode() for n in range(1, 30001)]


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
    def test_a_signal_reaches_the_command_and_its_answer_counts(
        self, number: signal.Signals, cli: Cli, settings: Settings
    ) -> None:
        word = number.name.removeprefix("SIG")
        child = cli.spawn("run", "--name", "n", "--", "sh", "-c", f"trap 'exit 42' {word}; echo ready; read line")
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert child.wait(PATIENCE) == 42
        assert told(settings)[-1]["fields"]["exit_code"] == 42

    def test_one_it_does_not_catch_ends_it(self, cli: Cli, settings: Settings) -> None:
        child = cli.spawn("run", "--", "sh", "-c", "echo ready; exec cat")
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.terminate()
        assert child.wait(PATIENCE) == 128 + signal.SIGTERM
        assert told(settings)[-1]["fields"]["signal"] == signal.SIGTERM
        assert child.stderr is not None
        assert child.stderr.read() == ""

    def test_the_command_has_the_signals_of_a_fresh_start(self, cli: Cli) -> None:
        show = (
            "import signal; print([signal.getsignal(n).name for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)])"
        )
        assert cli("run", "--", PYTHON, "-S", "-c", show).stdout == "['SIG_DFL', 'SIG_DFL', 'SIG_DFL']\n"
        assert cli("run", "--", "sh", "-c", "kill -PIPE $$").returncode == 128 + signal.SIGPIPE

    def test_what_is_ignored_stays_ignored(self, cli: Cli) -> None:
        script = f"trap '' HUP; exec {PYTHON} -m waitbus run -- sh -c 'kill -HUP $PPID; kill -HUP $$; echo alive'"
        done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout) == (0, b"alive\n")

    def test_typed_at_the_terminal_it_comes_once(self, cli: Cli, settings: Settings) -> None:
        count = (
            "import signal, sys\n"
            "seen = []\n"
            "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "print('seen', len(seen), flush=True)\n"
        )
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(PYTHON, [*RUN, "--", PYTHON, "-c", count])
        with open(terminal, "r+b", buffering=0) as ours:
            shown = b""
            while b"ready" not in shown:
                shown += ours.read(1024)
            ours.write(b"\x03")
            while b"^C" not in shown:  # the terminal has sent the signal when it shows this
                shown += ours.read(1024)
            ours.write(b"\n")
            shown += rest_of(terminal)
        assert b"seen 1" in shown
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestLastLines:
    @given(st.binary(max_size=200), st.integers(1, 5), st.booleans())
    def test_whatever_was_printed_it_is_plain_text(self, output: bytes, lines: int, cut: bool) -> None:
        text = last_lines(output, lines, cut=cut)
        assert text.count("\n") < lines
        assert all(char.isprintable() or char in "\n\t" for char in text)

    def test_forms(self) -> None:
        assert last_lines(b"", 3) == ""
        assert last_lines(b"a\nb\nc", 2) == "b\nc"
        assert last_lines(b"rtial\nb\n", 9, cut=True) == "b"
        assert last_lines(b"10%\r20%\r\n\x1b[1;31mx\x1b[m\x1b]0;title\x07y\x1b]8;;u\x1b\\z\a\x1b(B\n", 9) == "20%\nxyz"
        assert last_lines("ü\xff".encode() + b"\xff", 1) == "ü\xff\ufffd"


def test_the_started_event_comes_while_it_runs(hub: HubProcess, peer: Callable[..., Peer], cli: Cli) -> None:
    listener = peer({"proto": 1})
    child = cli.spawn("run", "--name", "n", "--", "cat")
    assert listener.event()["event_type"] == "process_started"
    child.communicate(timeout=PATIENCE)
    assert listener.event()["event_type"] == "process_exited"
