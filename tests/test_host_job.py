"""A command under us is a shell's job like any other: asked of a real shell on a terminal, and signal by signal."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess
from waitbus.client.emit import emit
from waitbus.event import EventInsert
from waitbus.host.job import ending_signals
from waitbus.settings import Settings

WAITBUS = f"{sys.executable} -m waitbus"
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed here")

# Says what becomes of it. It leaves when it is told to.
TELLER = """
import os, signal, sys
def say(word): os.write(1, b"[" + word + b"]\\n")
def stop(number, frame):
    say(b"stops")
    os.kill(os.getpid(), signal.SIGSTOP)
def end(number, frame):
    say(b"ends by %d" % number)
    os._exit(7)
signal.signal(signal.SIGTSTP, stop)
signal.signal(signal.SIGCONT, lambda *_: say(b"goes on"))
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM): signal.signal(number, end)
ours, theirs = os.pipe()
os.set_blocking(theirs, False)
signal.set_wakeup_fd(theirs)
say(b"runs as %d" % os.getpid())
while True: os.read(ours, 1)  # unlike pause(), it misses no signal that comes just before it
"""
# Stops by itself, as an editor does that has the terminal in raw mode.
EDITOR = """
import os, signal
os.write(1, b"[edits]\\n")
os.kill(os.getpid(), signal.SIGSTOP)
os.write(1, b"[edits on]\\n")
"""


class Shell:
    """An interactive bash on a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.shown = ""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update({"PS1": "", "PS2": "", "HISTFILE": "", "TERM": "dumb"})
            os.chdir(folder)
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        self.say("bind 'set enable-bracketed-paste off' 2>/dev/null; stty -echo; echo READY=")
        self.until("READY=\r\n")

    def say(self, line: str) -> None:
        self.press(f"{line}\n")

    def press(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def until(self, wanted: str) -> str:
        """Read on until this was shown: what came before it."""
        while wanted not in self.shown:
            assert select.select([self.terminal], [], [], PATIENCE)[0], self.shown
            self.shown += os.read(self.terminal, 4096).decode(errors="replace")
        before, _, self.shown = self.shown.partition(wanted)
        return before

    def close(self) -> None:
        os.close(self.terminal)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def shell(hub: HubProcess, tmp_path: Path) -> Iterator[Shell]:
    for name, text in (("teller", TELLER), ("editor", EDITOR)):
        (tmp_path / f"{name}.py").write_text(text)
    emit(EventInsert(source="a", event_type="b"))
    made = Shell(tmp_path)
    yield made
    made.close()


USES = {
    "run": "run --",
    "run with its own streams": "run --tail 0 --",
    "on": "on --since start --",
    "on, looping": "on --since start --loop --",
    "on, restarting": "on --since start --restart --",
}


@needs_bash
class TestTerminal:
    @pytest.mark.parametrize("use", USES)
    def test_it_stops_and_goes_on_with_us_and_ends_with_us(self, use: str, shell: Shell) -> None:
        shell.say(f"{WAITBUS} {USES[use]} {sys.executable} teller.py")
        shell.until("[runs as ")
        pid = int(shell.until("]"))
        for _ in range(2):
            shell.press("\x1a")
            shell.until("Stopped")
            shell.say("fg")
            shell.until("[goes on]")
        shell.press("\x1c")
        shell.until(f"[ends by {signal.SIGQUIT}]")
        shell.say("echo CODE=$?=")
        shell.until("CODE=7=" if use.startswith("run") else f"CODE={128 + signal.SIGQUIT}=")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    @pytest.mark.parametrize("use", USES)
    def test_ctrl_c_ends_both(self, use: str, shell: Shell) -> None:
        shell.say(f"{WAITBUS} {USES[use]} {sys.executable} teller.py")
        shell.until("[runs as ")
        pid = int(shell.until("]"))
        shell.press("\x03")
        shell.until(f"[ends by {signal.SIGINT}]")
        shell.say("echo CODE=$?=")
        shell.until("CODE=7=" if use.startswith("run") else "CODE=130=")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    @pytest.mark.parametrize("use", ["run", "run with its own streams", "on", "on, looping"])
    def test_one_that_stops_by_itself_gives_the_terminal_back(self, use: str, shell: Shell) -> None:
        shell.say(f"{WAITBUS} {USES[use]} {sys.executable} editor.py")
        shell.until("[edits]")
        shell.until("Stopped")
        shell.say("fg")
        shell.until("[edits on]")

    @pytest.mark.parametrize("use", USES)
    def test_a_command_that_reads_has_the_terminal_or_nothing(self, use: str, shell: Shell) -> None:
        shell.say(f"{WAITBUS} {USES[use]} sh -c 'echo READS; read line; echo \"<$line>\"'")
        shell.until("READS")
        if "restarting" not in use:
            shell.say("a line")
            shell.until("<a line>")
        else:
            shell.until("<>")

    def test_one_that_wants_the_terminal_and_has_it_not_is_told(self, shell: Shell) -> None:
        shell.say(f"{WAITBUS} {USES['on, restarting']} sh -c 'echo READS; read line </dev/tty'")
        shell.until("READS")
        shell.until("waitbus: the command was stopped: it wants the terminal")
        shell.press("\x03")
        shell.say("echo CODE=$?=")
        shell.until("CODE=130=")

    def test_in_the_background_it_is_a_job_like_any_other(self, shell: Shell) -> None:
        shell.say(f"{WAITBUS} {USES['on']} {sys.executable} teller.py &")
        shell.until("[runs as ")
        shell.say("kill -TSTP %1")
        shell.until("[stops]")
        # The command has stopped; our process stops after it, and the shell hears of that one only.
        shell.say("until jobs -s | grep -q .; do :; done; bg")
        shell.until("[goes on]")
        shell.say("kill %1; wait %1; echo CODE=$?=")
        shell.until(f"[ends by {signal.SIGTERM}]")
        shell.until("CODE=143=")


# Catches whatever can be caught, and says which it was.
CATCHER = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, lambda number, frame: os.write(1, b"%d\\n" % number))
ours, theirs = os.pipe()
os.set_blocking(theirs, False)
signal.set_wakeup_fd(theirs)
os.write(1, b"ready\\n")
while True: os.read(ours, 1)
"""
ENDS_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], PATIENCE)[0]
    return child.stdout.readline().rstrip("\n")


class TestSignals:
    def test_it_is_the_system_that_says_which_they_are(self) -> None:
        """Each one ends a program that leaves it alone; no other one that can be handled does."""
        everything = signal.valid_signals() - {signal.SIGKILL}
        left_alone = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
        for number in everything - left_alone:
            pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {}, setsigdef=everything, setpgroup=0)
            os.kill(pid, number)
            if number not in ending_signals():
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
            ended_by = -os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert (ended_by == number) == (number in ending_signals()), number

    def test_run_passes_on_every_signal_that_would_end_it(self, cli: Cli, settings: Settings) -> None:
        child = cli.spawn("run", "--", sys.executable, "-c", CATCHER)
        assert line(child) == "ready"
        for number in ending_signals():
            child.send_signal(number)
            assert line(child) == str(int(number))

    @pytest.mark.parametrize("flag", ["--loop", "--restart"])
    def test_on_ends_by_four_and_passes_on_the_others(self, flag: str, hub: HubProcess, cli: Cli) -> None:
        emit(EventInsert(source="a", event_type="b"))
        child = cli.spawn("on", flag, "--since", "start", "--", sys.executable, "-c", CATCHER)
        assert line(child) == "ready"
        for number in ending_signals():
            if number not in ENDS_ON:
                child.send_signal(number)
                assert line(child) == str(int(number))
        child.send_signal(signal.SIGWINCH)  # the terminal tells it to our group alone
        assert line(child) == str(int(signal.SIGWINCH))
        child.send_signal(signal.SIGQUIT)
        assert line(child) == str(int(signal.SIGQUIT))
        child.send_signal(signal.SIGQUIT)  # a second time: no more patience
        assert child.wait(PATIENCE) == 128 + signal.SIGQUIT

    @pytest.mark.parametrize(
        "number", [signal.SIGUSR1, signal.SIGALRM, signal.SIGQUIT, getattr(signal, "SIGRTMAX", 15)]
    )
    def test_a_signal_ends_on_while_nothing_runs(
        self, number: int, hub: HubProcess, cli: Cli, settings: Settings
    ) -> None:
        child = cli.spawn("on", "--loop", "--since", "start", "--", "false")
        emit(EventInsert(source="a", event_type="b"))
        assert child.stderr is not None
        assert child.stderr.readline() == "waitbus: the command ended with 1; waiting for the next event\n"
        child.send_signal(number)
        assert child.wait(PATIENCE) == 128 + number

    @pytest.mark.parametrize("use", ["run", "on"])
    def test_what_is_ignored_stays_ignored(self, use: str, hub: HubProcess, cli: Cli) -> None:
        emit(EventInsert(source="a", event_type="b"))
        words = "run --" if use == "run" else "on --since start --"
        inner = "kill -USR1 $PPID; kill -USR1 $$; kill -QUIT $PPID; kill -QUIT $$; echo alive"
        script = f"trap '' USR1 QUIT; exec {WAITBUS} {words} sh -c '{inner}'"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
