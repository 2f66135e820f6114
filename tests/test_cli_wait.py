"""`waitbus wait`, as a process on a real hub: its exit codes, its words, what it costs."""

from __future__ import annotations

import importlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Cli, HubProcess, hub_pid, stop_hub
from tests.test_client_subscribe import Daemon
from waitbus import wire
from waitbus.cli.parser import make_parser
from waitbus.client.core import CLOSE_HEARTBEAT_SEC
from waitbus.client.emit import emit
from waitbus.event import Event, EventInsert
from waitbus.settings import Settings

SHA = "0123456789abcdef0123456789abcdef01234567"


def tell(source: str = "test", event_type: str = "test", **more: Any) -> Event:
    return emit(EventInsert(source=source, event_type=event_type, **more)).event


def tell_run(workflow: str, run_id: int, conclusion: str | None = None, **more: Any) -> Event:
    status = "completed" if conclusion else "in_progress"
    return tell(
        "github",
        more.pop("event_type", "workflow_run"),
        owner=more.pop("owner", "o"),
        repo="r",
        workflow_name=workflow,
        run_id=run_id,
        status=status,
        conclusion=conclusion,
        head_sha=more.pop("head_sha", SHA),
        **more,
    )


def now(cli: Cli, *flags: str) -> tuple[int, str, str]:
    """Look at what is there, and end."""
    done = cli("wait", *flags, "--since", "start", "--timeout", "0")
    return done.returncode, done.stdout, done.stderr


def code(cli: Cli, *flags: str) -> int:
    return now(cli, *flags)[0]


class TestMatch:
    def test_a_match_ends_it_with_0_and_without_a_word(self, hub: HubProcess, cli: Cli) -> None:
        tell(conclusion="failure")
        assert now(cli, "--match", "conclusion=failure") == (0, "", "")

    def test_nothing_that_matches_is_124(self, hub: HubProcess, cli: Cli) -> None:
        tell(conclusion="success")
        exit_code, out, err = now(cli, "--match", "conclusion=failure")
        assert (exit_code, out) == (124, "")
        assert err.startswith("waitbus: timed out after 0 s")

    def test_source_repo_and_workflow_narrow(self, hub: HubProcess, cli: Cli) -> None:
        tell_run("CI", 1, "success")
        assert code(cli, "--source", "github", "--repo", "o/r", "--workflow", "CI") == 0
        assert code(cli, "--repo", "o/*", "--workflow", "CI", "--workflow", "Docs") == 0
        for flags in (["--source", "x"], ["--repo", "o/x"], ["--repo", "x/*"], ["--workflow", "Docs"]):
            assert code(cli, *flags) == 124

    def test_a_match_on_the_same_key_does_not_widen_what_narrows(self, hub: HubProcess, cli: Cli) -> None:
        tell("a")
        assert code(cli, "--source", "b", "--match", 'source="a"') == 124

    def test_event_type_narrows_and_several_are_either(self, hub: HubProcess, cli: Cli) -> None:
        tell("a", "begun")
        assert code(cli, "--event-type", "begun") == 0
        assert code(cli, "--source", "a", "--event-type", "ended", "--event-type", "begun") == 0
        assert code(cli, "--source", "b", "--source", "a") == 0
        assert code(cli, "--event-type", "ended", "--match", "event_type=begun") == 124
        assert code(cli, "--all-of", "a", "--event-type", "ended") == 124
        assert code(cli, "--event-type", "ended", "--fail-if", "source=a") == 124

    def test_several_and_across_keys_and_or_on_one(self, hub: HubProcess, cli: Cli) -> None:
        tell(conclusion="failure", fields={"n": 1})
        assert code(cli, "--match", "conclusion=success", "--match", "conclusion=failure", "--match", "n=1") == 0
        assert code(cli, "--match", "conclusion=failure", "--match", "n=2") == 124

    def test_no_condition_is_any_event(self, hub: HubProcess, cli: Cli) -> None:
        assert code(cli) == 124
        tell()
        assert code(cli) == 0

    @pytest.mark.parametrize("flag", ["--print", "--json"])
    def test_it_prints_what_matched(self, hub: HubProcess, cli: Cli, flag: str) -> None:
        event = tell(summary="ünï \x1b[31mred", fields={"n": 1})
        exit_code, out, err = now(cli, "--match", "n=1", flag)
        assert (exit_code, err) == (0, "")
        assert out.count("\n") == 1
        assert "\x1b" not in out
        assert json.loads(out) == event.as_frame()

    def test_it_prints_an_event_too_large_for_a_frame(self, hub: HubProcess, cli: Cli) -> None:
        tell(fields={"n": 1, "blob": "x" * 70_000})
        assert len(json.loads(now(cli, "--match", "n=1", "--print")[1])["fields"]["blob"]) == 70_000

    def test_a_duration_and_an_event_begin_in_the_past_too(self, hub: HubProcess, cli: Cli) -> None:
        first, second = tell(), tell()
        assert cli("wait", "--timeout", "0", "--since", "1h").returncode == 0
        assert cli("wait", "--timeout", "0", "--since", first.event_id).returncode == 0
        assert cli("wait", "--timeout", "0", "--since", second.event_id).returncode == 124
        assert cli("wait", "--timeout", "0").returncode == 124


class TestLive:
    """Without --since: what is committed after it subscribed."""

    def test_an_event_wakes_it(self, hub: HubProcess, cli: Cli) -> None:
        tell(conclusion="failure", summary="old")
        child = waiting(cli, "--match", "conclusion=failure", "--print", "--timeout", "60")
        tell(conclusion="success")
        event = tell(conclusion="failure", summary="new")
        out, err = child.communicate(timeout=PATIENCE)
        assert (child.returncode, err) == (0, "")
        assert json.loads(out) == event.as_frame()

    def test_time_runs_out_with_124(self, hub: HubProcess, cli: Cli) -> None:
        done = cli("wait", "--timeout", "100ms")
        assert (done.returncode, done.stdout) == (124, "")
        assert done.stderr.startswith("waitbus: timed out after 0.1 s")
        assert done.stderr.count("\n") == 1

    def test_ctrl_c_ends_it_with_130_and_without_a_word(self, hub: HubProcess, cli: Cli) -> None:
        child = waiting(cli)
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=PATIENCE) == ("", "")
        assert child.returncode == 130

    def test_a_hub_that_restarts_is_returned_to(self, hub: HubProcess, cli: Cli) -> None:
        child = waiting(cli, "--match", "n=1", "--timeout", "60", "--print")
        hub.stop(signal.SIGKILL)
        event = tell(fields={"n": 1})
        hub.start()
        out, err = child.communicate(timeout=PATIENCE)
        assert (child.returncode, err) == (0, "")
        assert json.loads(out)["event_id"] == event.event_id

    def test_it_starts_a_hub_and_leaves_it(self, settings: Settings, cli: Cli) -> None:
        try:
            emit(EventInsert(source="test", event_type="test"))
            done = cli("wait", "--since", "start", "--timeout", str(PATIENCE), WAITBUS_AUTOSTART="1")
            assert done.returncode == 0
            assert hub_pid(settings)
        finally:
            stop_hub(settings)


def waiting(cli: Cli, *flags: str) -> subprocess.Popen[str]:
    """A `waitbus wait` that has subscribed."""
    reader, writer = os.pipe()
    child = cli.spawn("wait", *flags, "--ready-fd", str(writer), pass_fds=(writer,))
    os.close(writer)
    with os.fdopen(reader, "rb") as ready:
        assert select.select([ready], [], [], PATIENCE)[0]
        assert ready.read() == b"ready\n"
    return child


class TestVerdict:
    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            ("success", 0),
            *[(word, 1) for word in ("failure", "cancelled", "timed_out", "startup_failure")],
            *[(word, 124) for word in ("skipped", "neutral", "action_required", "stale")],
        ],
    )
    def test_the_conclusion_is_the_exit_code(self, hub: HubProcess, cli: Cli, word: str, expected: int) -> None:
        tell(conclusion=word, summary="the tests")
        exit_code, _, err = now(cli, "--source", "test", "--verdict")
        assert exit_code == expected
        assert err.startswith(
            {0: "", 1: f"waitbus: {word}: the tests\n", 124: "waitbus: timed out after 0 s"}[expected]
        )
        assert err.count("\n") == (expected != 0)

    def test_it_goes_on_past_what_is_none(self, hub: HubProcess, cli: Cli) -> None:
        for word in (None, "skipped", "success", "failure"):
            tell(conclusion=word)
        assert code(cli, "--verdict") == 0

    def test_without_it_the_conclusion_does_not_matter(self, hub: HubProcess, cli: Cli) -> None:
        tell(conclusion="failure")
        assert code(cli, "--source", "test") == 0


class TestConditions:
    def test_all_of(self, hub: HubProcess, cli: Cli) -> None:
        tell("pytest", conclusion="success")
        flags = ["--all-of", "pytest:conclusion=success", "docker"]
        assert code(cli, *flags) == 124
        tell("docker")
        exit_code, out, _ = now(cli, *flags, "--print")
        assert exit_code == 0
        assert [json.loads(line)["fields"]["source"] for line in out.splitlines()] == ["pytest", "docker"]

    def test_all_of_joined_predicates_tell_the_end_from_the_start(self, hub: HubProcess, cli: Cli) -> None:
        flags = ["--all-of", "process:name=build && event_type=process_exited", "agent:msg_from=reviewer"]
        tell("process", "process_started", status="in_progress", fields={"name": "build"})
        tell("agent", "agent_message", msg_from="reviewer")
        assert code(cli, *flags) == 124
        assert code(cli, "--all-of", "process:name=build", "agent", "--verdict") == 124
        tell("process", "process_exited", status="completed", conclusion="success", fields={"name": "build"})
        assert code(cli, *flags) == 0
        assert code(cli, "--all-of", "process:name=build", "agent", "--verdict") == 0
        assert code(cli, "--first-of", "process:name=x", "process:name=build && exit_code?") == 124
        assert code(cli, "--match", "name=build && status=completed", "--fail-if", "name=build && signal?") == 0

    def test_first_of(self, hub: HubProcess, cli: Cli) -> None:
        tell("docker", fields={"image": "a:1"})
        assert code(cli, "--first-of", "pytest", "--first-of", 'docker:image="a:1"') == 0
        assert code(cli, "--first-of", "pytest", "docker:image=b") == 124
        assert code(cli, "--first-of", "*:image?") == 0

    def test_all_of_by_verdict(self, hub: HubProcess, cli: Cli) -> None:
        tell("pytest", conclusion="success")
        tell("docker", conclusion="failure")
        assert code(cli, "--all-of", "pytest", "docker", "--verdict") == 1

    def test_fail_if(self, hub: HubProcess, cli: Cli) -> None:
        tell("other", conclusion="failure")
        assert code(cli, "--source", "test", "--match", "n=1", "--fail-if", "conclusion=failure") == 124
        tell(conclusion="failure", summary="broken")
        exit_code, out, err = now(
            cli, "--source", "test", "--match", "n=1", "--fail-if", "n=7", "--fail-if", "conclusion=failure"
        )
        assert (exit_code, out, err) == (1, "", "waitbus: --fail-if matched: broken\n")

    def test_quiet(self, hub: HubProcess, cli: Cli) -> None:
        assert cli("wait", "--source", "test", "--quiet", "50ms").returncode == 0
        tell()
        done = cli("wait", "--source", "test", "--quiet", "1h", "--since", "2h", "--timeout", "50ms")
        assert done.returncode == 124
        assert cli("wait", "--source", "x", "--quiet", "1h", "--since", "2h", "--timeout", "1m").returncode == 0


class TestSha:
    def test_a_run_that_ended_answers_at_once(self, hub: HubProcess, cli: Cli) -> None:
        tell_run("CI", 1)
        tell_run("CI", 1, "success")
        tell_run("CI", 2, "failure", head_sha="f" * 40)
        for sha in (SHA, SHA[:7], SHA[:12].upper()):
            assert cli("wait", "--sha", sha, "--timeout", "0").returncode == 0
        done = cli("wait", "--sha", "fffffff", "--timeout", "0")
        assert done.returncode == 1
        assert done.stderr.startswith("waitbus: failure: ")

    def test_a_run_that_runs_is_waited_for(self, hub: HubProcess, cli: Cli) -> None:
        tell_run("CI", 1)
        child = waiting(cli, "--sha", SHA, "--timeout", "60")
        tell_run("CI", 1, "failure")
        assert child.wait(PATIENCE) == 1

    def test_nothing_known_is_124(self, hub: HubProcess, cli: Cli) -> None:
        tell_run("CI", 1, "success", head_sha="e" * 40)
        assert cli("wait", "--sha", SHA, "--timeout", "0").returncode == 124

    def test_a_job_is_no_run_but_may_fail_it(self, hub: HubProcess, cli: Cli) -> None:
        tell_run("CI", 1, "failure", event_type="workflow_job")
        assert cli("wait", "--sha", SHA, "--timeout", "0").returncode == 124
        flags = ["--fail-if", "conclusion=failure", "--timeout", "0"]
        assert cli("wait", "--sha", SHA, *flags).returncode == 1
        assert cli("wait", "--sha", "eeeeeee", *flags).returncode == 124

    def test_a_rerun_replaces_the_verdict(self, hub: HubProcess, cli: Cli) -> None:
        tell_run("CI", 1, "failure")
        tell_run("CI", 1)
        assert cli("wait", "--sha", SHA, "--timeout", "0").returncode == 124
        tell_run("CI", 1, "success")
        assert cli("wait", "--sha", SHA, "--timeout", "0").returncode == 0

    def test_a_cancelled_run_is_held_for_a_newer_one(self, hub: HubProcess, cli: Cli) -> None:
        tell_run("CI", 1, "cancelled")
        assert cli("wait", "--sha", SHA, "--timeout", "0", "--settle", "1h").returncode == 124
        assert cli("wait", "--sha", SHA, "--timeout", "60", "--settle", "50ms").returncode == 1
        tell_run("CI", 2)
        assert cli("wait", "--sha", SHA, "--timeout", "200ms", "--settle", "0").returncode == 124

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"workflow_id": 1}, {"workflow_id": 2}),
            ({"path": ".github/workflows/a.yml"}, {"path": ".github/workflows/b.yml"}),
            ({"event": "push"}, {"event": "pull_request"}),
        ],
    )
    def test_another_workflow_of_that_name_or_another_trigger_takes_no_failure_back(
        self, hub: HubProcess, cli: Cli, one: dict[str, Any], other: dict[str, Any]
    ) -> None:
        tell_run("CI", 1, "failure", fields=one)
        tell_run("CI", 2, "success", fields=other)
        assert cli("wait", "--sha", SHA, "--all-runs", "--timeout", "60").returncode == 1

    @pytest.mark.parametrize("event_type", ["agent_message", "check_run", "docker_container", "pytest_session"])
    def test_what_else_names_the_commit_is_no_run(self, hub: HubProcess, cli: Cli, event_type: str) -> None:
        tell_run("CI", 1, "success")
        tell("agent", event_type, head_sha=SHA, msg_body="look at this")
        assert cli("wait", "--sha", SHA, "--all-runs", "--settle", "50ms", "--timeout", "60").returncode == 0

    def test_the_story_of_a_run_can_be_told_by_hand(self, hub: HubProcess, cli: Cli) -> None:
        """The example of docs/cli.md."""
        page = Path(__file__).parent.parent / "docs" / "cli.md"
        if not page.exists():
            pytest.skip("the docs are not part of the sdist")
        example = (
            page.read_text().partition("waitbus emit --source ci --event-type workflow_run")[2].partition("```")[0]
        )
        words = shlex.split(example.replace("\\\n", " ").replace("$(git rev-parse HEAD)", SHA))
        done = cli("emit", "--source", "ci", "--event-type", "workflow_run", *words, "--json")
        fields = json.loads(done.stdout)["event"]["fields"]
        assert (fields["workflow_id"], fields["run_attempt"], fields["run_id"]) == (7, 1, 1)
        assert (fields["event"], fields["path"]) == ("push", ".github/workflows/ci.yml")
        for name in ("CI", "ci.yml", "7"):
            flags = ["--sha", SHA, "--all-runs", "--settle", "50ms", "--workflow", name]
            assert cli("wait", *flags, "--timeout", "60").returncode == 0
            assert code(cli, "--workflow", name, "--fail-if", "conclusion=success") == 1
        assert code(cli, "--workflow", "docs.yml") == 124

    def test_repo_and_workflow_choose(self, hub: HubProcess, cli: Cli) -> None:
        tell_run("CI", 1, "failure", owner="fork")
        tell_run("Docs", 2, "failure")
        tell_run("CI", 3, "success")
        assert cli("wait", "--sha", SHA, "--repo", "o/r", "--workflow", "CI", "--timeout", "0").returncode == 0

    def test_all_runs(self, hub: HubProcess, cli: Cli) -> None:
        flags = ["--sha", SHA, "--all-runs", "--settle", "50ms"]
        tell_run("CI", 1, "success")
        tell_run("Docs", 2)
        assert cli("wait", *flags, "--timeout", "200ms").returncode == 124
        tell_run("Docs", 2, "skipped")
        assert cli("wait", *flags, "--timeout", "60").returncode == 0
        assert cli("wait", *flags, "--workflow", "Deploy", "--timeout", "200ms").returncode == 124
        tell_run("CI", 3, "timed_out")
        assert cli("wait", *flags, "--timeout", "60").returncode == 1


class TestSilence:
    """A hub that hangs says nothing either."""

    @pytest.fixture
    def stopped(self, hub: HubProcess) -> Iterator[Callable[[], None]]:
        yield lambda: os.kill(hub.pid, signal.SIGSTOP)
        os.kill(hub.pid, signal.SIGCONT)

    def test_of_matches_while_matches_are_committed(
        self, hub: HubProcess, cli: Cli, stopped: Callable[[], None]
    ) -> None:
        child = waiting(cli, "--source", "test", "--quiet", "500ms", "--timeout", "60")
        stopped()
        tell()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.0)
        os.kill(hub.pid, signal.SIGCONT)
        assert child.wait(PATIENCE) == 0

    def test_of_matches_lets_it_time_out(self, hub: HubProcess, cli: Cli, stopped: Callable[[], None]) -> None:
        child = waiting(cli, "--source", "test", "--quiet", "500ms", "--timeout", "1s")
        stopped()
        assert child.wait(PATIENCE) == 124

    def test_of_runs_settles_nothing(self, hub: HubProcess, cli: Cli, stopped: Callable[[], None]) -> None:
        tell_run("CI", 1, "success")
        child = waiting(cli, "--sha", SHA, "--all-runs", "--settle", "1s", "--timeout", "60")
        stopped()
        tell_run("Deploy", 2, "failure")
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.2)
        os.kill(hub.pid, signal.SIGCONT)
        assert child.wait(PATIENCE) == 1

    def test_a_hub_that_was_away_meanwhile_tells_what_it_missed(self, hub: HubProcess, cli: Cli) -> None:
        child = waiting(cli, "--source", "test", "--quiet", "500ms", "--fail-if", "n=1", "--timeout", "60")
        hub.stop(signal.SIGKILL)
        tell(fields={"n": 1})
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.7)
        hub.start()
        assert child.wait(PATIENCE) == 1

    def test_a_wait_for_silence_asks_to_hear_the_hub_often(self, settings: Settings, cli: Cli) -> None:
        daemon = Daemon(settings)
        for _ in range(2):
            daemon.says(wire.ack_frame(None), wire.heartbeat_frame(0, 0, caught_up=True), end=False)
        daemon.start()
        assert cli("wait", "--quiet", "0", "--timeout", "60").returncode == 0
        assert cli("wait", "--timeout", "0").returncode == 124
        daemon.close()
        assert [first.get("heartbeat_sec") for first in daemon.firsts] == [CLOSE_HEARTBEAT_SEC, None]


class TestUsage:
    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--sha", "123456"], "7 to 40 hexadecimal digits"),
            (["--sha", "g" * 40], "7 to 40 hexadecimal digits"),
            (["--sha", "a" * 41], "7 to 40 hexadecimal digits"),
            (["--match", "conclusion"], "write KEY=VALUE"),
            (["--match", "ok=True"], "write ok=true"),
            (["--fail-if", "x='y'"], "write 'x=\"y\"'"),
            (["--repo", "o"], "write OWNER/NAME"),
            (["--repo", "o/r/x"], "write OWNER/NAME"),
            (["--repo", "/r"], "write OWNER/NAME"),
            (["--timeout", "soon"], "write 90, 90s"),
            (["--timeout", "-1"], "--timeout"),
            (["--since", "soon"], "start, an event_id"),
            (["--all-of", "conclusion=success"], "write SOURCE:conclusion=success or, for any source, *:conclusion"),
            (["--all-of", ":n=1"], "names no source: write SOURCE or SOURCE:PREDICATE"),
            (["--all-of", "a:n=1 b?"], "write 'n=1 && b?'"),
            (["--match", "n=1 && s=1", "--match", "n=2 && s=1"], "can never both hold"),
            (["--match", "n=1&&s=1"], "write 'n=1 && s=1'"),
            (["--source", ""], "is a variable of the shell unset?"),
            (["--event-type", ""], "is a variable of the shell unset?"),
            (["--workflow", ""], "is a variable of the shell unset?"),
            (["--sha", SHA, "--event-type", "workflow_job"], "--sha and --event-type contradict"),
            (["--all-of", "a:n"], "write KEY=VALUE"),
            (["--all-of", "a", "--first-of", "b"], "--all-of and --first-of contradict"),
            (["--all-of", "a", "--sha", SHA], "--all-of and --sha contradict"),
            (["--all-of", "a", "--source", "b"], "--all-of and --source contradict"),
            (["--first-of", "a", "--match", "n=1"], "--first-of and --match contradict"),
            (["--quiet", "0", "--sha", SHA], "--quiet and --sha contradict"),
            (["--quiet", "1m", "--verdict"], "--quiet and --verdict contradict"),
            (["--all-runs"], "--all-runs goes with --sha"),
            (["--settle", "0"], "--settle goes with --sha"),
            (["--pid", "1"], "unrecognized arguments"),
            (["conclusion=failure"], "unrecognized arguments"),
            (["--match", *["n=1", "--match"] * 70, "n=2"], "more than 64"),
        ],
    )
    def test_what_cannot_be_is_one_line_and_2(self, settings: Settings, cli: Cli, flags: list[str], words: str) -> None:
        done = cli("wait", *flags)
        assert done.returncode == 2
        assert done.stdout == ""
        assert words in done.stderr
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("flags", [[], ["--no-autostart"]])
    def test_no_hub_is_one_line_and_2(self, settings: Settings, cli: Cli, flags: list[str]) -> None:
        environ = {"WAITBUS_AUTOSTART": "1"} if flags else {}
        done = cli("wait", *flags, **environ)
        assert (done.returncode, done.stdout) == (2, "")
        assert "start one with `waitbus serve hub`" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_help_tells_the_exit_codes(self, cli: Cli) -> None:
        done = cli("wait", "--help")
        assert done.returncode == 0
        assert "exit codes:" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 100


def test_on_a_terminal_it_says_how_it_ended(hub: HubProcess, cli: Cli) -> None:
    event = tell(summary="all is well\x1b[2J")
    leader, follower = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "waitbus", "wait", "--since", "start", "--timeout", "0"],
        stderr=follower,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    os.close(follower)
    said = os.read(leader, 4096)
    os.close(leader)
    assert done.returncode == 0
    assert said == f"waitbus: matched: {event.summary}".replace("\x1b", "\\x1b").encode() + b"\r\n"


def test_waiting_brings_no_more_than_it_needs(hub: HubProcess, settings: Settings) -> None:
    """Memory while it waits is a budget; the modules are what it goes for. A time-out may load more, at the end."""
    tell_run("CI", 1, "success", fields={"n": 1})
    script = (
        # What argparse brings is Python's to say.
        "import sys, argparse, json, socket; argparse.ArgumentParser().add_argument('x'); floor = set(sys.modules)\n"
        "from waitbus.cli.main import main\n"
        f"code = main(['wait', '--match', 'n=1', '--sha', '{SHA}', '--timeout', '60'])\n"
        "heavy = {'sqlite3', 'asyncio', 'typing', 'dataclasses', 'subprocess', 'logging', 'pathlib', 'tomllib',\n"
        "         'threading', 'signal', 'shutil', 'datetime', 'contextlib', 'hashlib', 'random', 'inspect'}\n"
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


@pytest.mark.parametrize("verb", ["wait", "on"])
def test_the_examples_of_the_help_are_understood(verb: str) -> None:
    module = importlib.import_module(f"waitbus.cli.verbs.{verb}")
    examples = [line.strip() for line in module.EPILOG.splitlines() if line.strip().startswith(f"waitbus {verb} ")]
    assert len(examples) >= 4
    for line in examples:
        words = shlex.split(line.partition(" | ")[0].replace("$(git rev-parse HEAD)", SHA))
        args = make_parser(verb, "", module).parse_args(words[2:])
        if verb == "wait":
            module._check(args)
        else:
            assert args.command
