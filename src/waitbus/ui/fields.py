"""What each source says, as one table: `waitbus help fields` prints it, and a test holds docs/fields.md to it.

A source's fields are those that its events really carry: a test compares them. Durations are in seconds.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    # A field's name, its type as JSON names it, and what it means.
    Field = tuple[str, str, str]


class SourceFields:
    """What one source says: its event types, the fields they carry, and which words its conclusion takes when."""

    __slots__ = ("conclusions", "event_types", "fields", "name", "status", "title")

    def __init__(
        self,
        name: str,
        title: str,
        event_types: tuple[tuple[str, str], ...],
        fields: tuple[Field, ...],
        conclusions: str,
        status: str,
    ) -> None:
        self.name = name
        self.title = title
        self.event_types = event_types
        self.fields = fields
        self.conclusions = conclusions
        self.status = status


EVERY_EVENT: tuple[Field, ...] = (
    ("event_id", "text", "its identity: a ULID; --since takes it"),
    ("delivery_id", "text", "the producer's own key; the same key again writes nothing"),
    ("source", "text", "who saw it"),
    ("event_type", "text", "what kind it is"),
    ("owner, repo", "text", "GitHub's names, or local and a label"),
    ("received_at", "number", "nanoseconds since 1970"),
    ("ingest_method", "text", "manual, run, plugin, …; import and backfill are history"),
    ("summary", "text", "one line for a person"),
    ("status", "text or null", "queued, in_progress or completed; null if it has no such thing"),
    ("conclusion", "text or null", "how it ended; null while under way, or if nothing can fail"),
)
CONCLUSION_WORDS = (
    ("success", "a verdict: the wait ends 0"),
    ("failure cancelled timed_out startup_failure", "a verdict: the wait ends 1"),
    ("skipped neutral action_required stale", "not a verdict: the wait goes on"),
)
SOURCES: tuple[SourceFields, ...] = (
    SourceFields(
        "pytest",
        "a pytest run; it speaks only when asked: pytest --waitbus, or -p waitbus.pytest",
        (("pytest_session", "once at the first failure, once at the end"),),
        (
            ("passed", "number", "tests passed so far"),
            ("failed", "number", "tests failed"),
            ("errors", "number", "errors in set-up, teardown or collection"),
            ("skipped", "number", "tests skipped"),
            ("xfailed, xpassed", "number", "tests expected to fail that did, that did not"),
            ("duration_s", "number", "seconds since the session began"),
            ("nodeids_failed", "list", "which tests failed; the first 20"),
            ("exit_status", "number or null", "pytest's exit code; null at the first failure"),
            ("rootdir", "text", "pytest's root directory; repo is its name"),
            ("session_id", "text", "the same in both events of one run"),
        ),
        "success, failure, cancelled (Ctrl-C), startup_failure (never ran), neutral (no test)",
        "in_progress at the first failure, completed at the end",
    ),
    SourceFields(
        "process",
        "a command under waitbus run -- CMD",
        (("process_started", "when CMD starts"), ("process_exited", "when CMD has ended")),
        (
            ("name", "text", "--name, else the program's name"),
            ("pid", "number", "its process id; missing if it did not start"),
            ("argv", "list", "its words; with --no-argv the program's name alone"),
            ("exit_code", "number", "once it has ended: 0 to 255, 128+n after signal n"),
            ("signal", "number", "the signal that killed it, if one did"),
            ("duration_s", "number", "how long it ran, once it has ended"),
            ("tail", "text", "its last lines, once it has ended; --tail says how many"),
        ),
        "success (exit 0), failure (another exit code, or a signal); null when it starts",
        "in_progress when it starts, completed when it has ended",
    ),
    SourceFields(
        "agent",
        "an agent or a person: waitbus emit --source agent",
        (("agent_message", "a message"), ("agent_task_failed", "its task failed")),
        (
            ("msg_from, msg_to", "text", "who speaks, and to whom"),
            ("msg_body", "text", "what is said"),
            ("msg_thread", "text", "which conversation it belongs to"),
            ("msg_correlation_id", "text", "ties a reply to its request"),
            ("msg_reply_to", "text", "the event it answers, or where to answer"),
        ),
        "what the sender says; usually null",
        "what the sender says; usually null",
    ),
    SourceFields(
        "github",
        "CI runs; this release asks nobody for them: tell them with waitbus emit",
        (("workflow_run", "one run of a workflow; what wait --sha looks at"), ("workflow_job", "one job of a run")),
        (
            ("head_sha", "text", "the commit"),
            ("head_branch", "text", "the branch"),
            ("run_id", "number", "which run; a higher one is newer"),
            ("run_attempt", "number", "which attempt of the run"),
            ("workflow_id", "number", "which workflow"),
            ("workflow_name", "text", "its display name"),
            ("path", "text", "its file"),
            ("event", "text", "what triggered it: push, pull_request, …"),
            ("job_id, job_name", "number, text", "which job"),
            ("head_repo", "text", "the repository that the commit is from"),
            ("html_url", "text", "its page"),
        ),
        "GitHub's words, see above",
        "queued, in_progress or completed; conclusion counts once it is completed",
    ),
)


def lines() -> Iterator[str]:
    """The table as text for a terminal, at most 100 characters wide."""
    yield "every event:"
    yield from _rows(EVERY_EVENT)
    yield ""
    yield "conclusion words:"
    for words, meaning in CONCLUSION_WORDS:
        yield f"  {words:<44} {meaning}"
    for source in SOURCES:
        yield ""
        yield f"{source.name}: {source.title}"
        for event_type, when in source.event_types:
            yield f"  event_type {event_type:<24} {when}"
        yield from _rows(source.fields)
        yield f"  conclusion: {source.conclusions}"
        yield f"  status: {source.status}"
    yield ""
    yield "your own source: any name; emit --field NAME=VALUE adds fields, and --match NAME=VALUE reads them."


def _rows(fields: tuple[Field, ...]) -> Iterator[str]:
    for name, kind, meaning in fields:
        yield f"  {name:<19} {kind:<15} {meaning}"


def markdown() -> str:
    """The table as a page of docs/."""
    out = [
        "# Fields",
        "",
        "`waitbus help fields` prints this page's content.",
        "",
        "## Every event",
        *_table(EVERY_EVENT),
    ]
    out += ["", "`conclusion` takes these words:", "", "| words | meaning |", "|---|---|"]
    out += [f"| {' '.join(f'`{word}`' for word in words.split())} | {meaning} |" for words, meaning in CONCLUSION_WORDS]
    for source in SOURCES:
        out += ["", f"## {source.name}", f"{source.title[0].upper()}{source.title[1:]}.", ""]
        out += [f"- `event_type` `{event_type}`: {when}" for event_type, when in source.event_types]
        out += [f"- `conclusion`: {source.conclusions}", f"- `status`: {source.status}", *_table(source.fields)]
    return "\n".join([*out, ""])


def _table(fields: tuple[Field, ...]) -> list[str]:
    return ["", "| field | type | meaning |", "|---|---|---|"] + [
        f"| {', '.join(f'`{one}`' for one in name.split(', '))} | {kind} | {meaning} |"
        for name, kind, meaning in fields
    ]
