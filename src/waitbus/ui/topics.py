"""The texts behind `waitbus help TOPIC`: the installed tool is its own reference.

Each fits on a screen or two, and a test parses every command in it.
"""

from __future__ import annotations

from waitbus.ui import fields

PREDICATES = """\
A predicate is one text: KEY OP VALUE.

  conclusion=failure            equal; a bare word is text
  exit_code=1                   types are exact: 1 is neither "1" nor true
  name!=build                   there, and different
  container_name~"web-*"        a shell pattern: * ? [a-z] [!a-z]
  duration_s>=60                < <= > >= compare numbers
  exit_code?                    there, even if null
  name=build && exit_code!=0    all of them, in one text

KEY is the name of a field: conclusion, exit_code, msg_from, your own (waitbus help fields).
A dot walks into objects and lists:   nodeids_failed.0~"tests/*"
A step that holds a dot is quoted:    labels."com.docker.compose.project"=web
VALUE is JSON ("text", 3, true, null) or a bare word. Quote the whole for the shell.
&& has a space on both sides, and joins nothing inside quotes. One text has at most 256 bytes.

Several predicates: all must hold, but `=` and `~` on the same key are alternatives:
  --match name=build --match conclusion=failure       both
  --match name=build --match name=deploy              either

Several conditions, each met by some event (--all-of) or one of them (--first-of):
  waitbus wait --all-of 'process:name=build && event_type=process_exited' agent:msg_from=reviewer
  waitbus wait --all-of process:name=build pytest --verdict    each ended well; 1 if one failed
--source and --event-type narrow all of it:
  waitbus wait --source process --event-type process_exited --match name=build
"""

EXIT_CODES = """\
waitbus wait:
  0    matched; with --sha or --verdict, the conclusion is also success; with --quiet, nothing did
  1    failure, cancelled, timed_out or startup_failure; or --fail-if matched
  2    wrong usage or set-up, or no hub; standard error says what to do
  70   a fault of waitbus itself; never taken for a verdict
  124  timed out; standard error says why nothing matched
  130  interrupted
waitbus run, on:
  the command's own; 126 cannot be run, 127 not found, 128+n killed by signal n
  on: 124 nothing matched for --timeout
waitbus emit:
  0 written, also if it was there already; 1 a line of standard input was bad
waitbus tail --count, events:
  124 the time-out came first
waitbus status, doctor:
  0 all is well, 1 something is wrong
waitbus verify-release, source verify:
  0    all that was asked for holds
  65   not a file of a release
  66   no such file
  76   verification failed
  78   not authenticated, or it could not be checked

In a shell:
  waitbus wait --source pytest --verdict --timeout 10m
  case $? in 0) echo good;; 1) echo failed;; 124) echo no news;; *) echo broken;; esac
"""

TIME = """\
A duration is 90 (seconds), 90s, 5m, 2h, 1d, 500ms or 1h30m.

--since says where to begin. Without it only what is committed from now on counts.
  10m                     so long ago
  today, yesterday        at midnight
  14:30, 14:30:05         when it was last that late
  2026-05-17              at midnight of that day; '2026-05-17 14:30' is exact
  2026-05-17T14:30:00Z    RFC 3339, with Z or an offset such as +02:00
  EVENT_ID                right after that event
  start                   with the first event in the store
A time without a zone is local. An empty --since is an error, so that an unset variable of the shell
cannot mean "from now"; so is a time that is still to come.

--since goes by when an event was written, and for history (ingest_method import or backfill) by its
own time, received_at. Retention (waitbus prune) goes by received_at.
Times are printed in local time; --json prints received_at in nanoseconds since 1970.

--timeout says when to give up: 124. --timeout 0, with --since, looks at what is there and ends:
  waitbus wait --source pytest --since 1h --timeout 0
A wait without --timeout waits for ever.
"""

AGENTS = """\
Do not poll. Block once; the exit code tells you.

Wait for what somebody else does:
  waitbus wait --source pytest --verdict --timeout 10m
  waitbus wait --match 'name=build && event_type=process_exited' --timeout 30m --print
  waitbus wait --sha "$(git rev-parse HEAD)" --all-runs --timeout 30m
Run it in the background: it ends exactly once, and its exit code is the answer.

Say what you do:
  waitbus run --name build -- make
  waitbus emit --source agent --event-type agent_message --msg-from me --msg-to you --msg-body done

Start something, then wait for it, without a gap: take the time first.
  begin=$(date -u +%Y-%m-%dT%H:%M:%SZ); ./start-it
  waitbus wait --since "$begin" --match name=it --verdict --timeout 10m

React to each of several events, and go on where you were after a restart:
  waitbus on --loop --bookmark mine conclusion=failure -- ./notify.sh

Why does my wait not return?
  --timeout 5s           its line at the end says what came, and by what it missed
  waitbus status         shows each waiter, what it has seen and matched
  waitbus replay 1h      shows what was said
  waitbus help fields    says which fields there are
"""

CI = """\
  waitbus wait --sha "$(git rev-parse HEAD)" --all-runs --timeout 30m

0  the newest run of every workflow seen for the commit has ended well, and none began or ended for
   --settle (5 s)
1  a run failed. A failure is final at once; --settle holds back only success and cancelled

- Name every workflow that must have been seen. One that has not begun is otherwise not waited for:
  waitbus wait --sha "$(git rev-parse HEAD)" --all-runs --workflow ci.yml --workflow release.yml
- After a failure is re-run, wait again: the newest attempt of the newest run counts.
- Runs by different triggers (push, pull_request) stand beside each other: each must end well.
- skipped alone is not success, and neither is having seen no run.
- Without --all-runs, the first run that ends decides.

A run is an event of type workflow_run whose head_sha is the commit. Anyone can tell it, as a CI job
or to try this out; a re-run has the same run_id and a higher run_attempt:
  waitbus emit --source ci --event-type workflow_run --head-sha "$(git rev-parse HEAD)" --run-id 1 \\
    --workflow-name CI --status completed --conclusion success \\
    --field path=.github/workflows/ci.yml --field event=push --field run_attempt=1
"""

TOPICS: dict[str, str] = {
    "predicates": "how to say what to wait for",
    "fields": "what each source says",
    "exit-codes": "what the exit code means",
    "time": "durations, --since, --timeout",
    "agents": "what a coding agent uses when",
    "ci": "waiting for CI runs of a commit",
}
_TEXTS = {"predicates": PREDICATES, "exit-codes": EXIT_CODES, "time": TIME, "agents": AGENTS, "ci": CI}


def text_of(topic: str) -> str:
    """The text of one of `TOPICS`, ending in a line break."""
    return "\n".join([*fields.lines(), ""]) if topic == "fields" else _TEXTS[topic]
