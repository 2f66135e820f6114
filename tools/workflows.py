"""What a workflow of ours must be, read line by line: pinned, without rights, without a way to pass for a wrong reason.

Our workflows are written in one plain form of YAML: two spaces a level, bare keys, no anchors. What is written
otherwise is itself a fault, so that a rule can be missed only by text that already turned the check red.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(".github/workflows")

# Who may do more than read, and what. A job that is not named here has `contents: read` at most.
WRITERS: dict[tuple[str, str], set[str]] = {
    ("build.yml", "attest"): {"id-token", "attestations"},
    ("release.yml", "build"): {"id-token", "attestations"},  # a caller grants what the called workflow's jobs take
    ("release.yml", "publish"): {"id-token"},
    ("release.yml", "release"): {"contents"},
    ("codeql.yml", "analyze"): {"security-events"},
    ("scorecard.yml", "analysis"): {"security-events", "id-token"},
}
# What the job that publishes must have behind it, itself or through another.
BEFORE_PUBLISHING = {"tag", "test", "audit", "osv", "build"}

_PIN = re.compile(r"[\w.-]+(?:/[\w.-]+)+@[0-9a-f]{40} # v\d+(?:\.\d+)*")
_LOCAL = re.compile(r"\./\.github/workflows/[\w-]+\.yml")
_IMAGE = re.compile(r"docker://\S+@sha256:[0-9a-f]{64}(?: #.*)?")
_KEY = re.compile(r"^( *)(- )?([A-Za-z_][\w-]*):(?: (.*))?$")
_EXCUSES = re.compile(r"continue-on-error|\|\|\s*(?:true|:|exit 0)|\bset \+e|always\(\)|cancelled\(\)|failure\(\)")
_ODD = re.compile(r"\t|^\s*(?:- )?[\"'][^\"']*[\"']\s*:|^\s*\?\s|:\s+[&*!]\w|<<:")


@dataclass
class Job:
    """One job: its keys at the first level, and its lines."""

    name: str
    lines: list[str] = field(default_factory=list)

    def value(self, key: str) -> str | None:
        """What stands behind a key of the job on the same line; "" when it opens a block, None when missing."""
        for line in self.lines:
            if match := re.match(rf"^    {re.escape(key)}:(?: (.*))?$", line):
                return uncommented(match[1] or "")
        return None

    def block(self, key: str) -> dict[str, str]:
        """The plain mapping under a key of the job."""
        found: dict[str, str] = {}
        inside = False
        for line in self.lines:
            if re.match(rf"^    {re.escape(key)}:", line):
                inside = True
            elif inside and (match := re.match(r"^      ([\w-]+): (.*)$", line)):
                found[match[1]] = uncommented(match[2])
            elif inside and line.strip() and not line.startswith("      "):
                break
        return found

    def steps(self) -> Iterator[list[str]]:
        """The lines of each step."""
        step: list[str] = []
        for line in self.lines:
            if line.startswith("      - "):
                if step:
                    yield step
                step = [line]
            elif step and (line.startswith("        ") or not line.strip()):
                step.append(line)
        if step:
            yield step

    def needs(self) -> set[str]:
        """The jobs this one waits for."""
        return set(re.findall(r"[\w-]+", self.value("needs") or ""))


def uncommented(text: str) -> str:
    """The text before a comment."""
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()


def jobs(text: str) -> dict[str, Job]:
    """The jobs of a workflow by name."""
    found: dict[str, Job] = {}
    job: Job | None = None
    inside = False
    for line in text.splitlines():
        if re.match(r"^\S", line):
            inside = line.rstrip() == "jobs:"
            job = None
        elif inside and (match := re.match(r"^  ([\w-]+):\s*(?:#.*)?$", line)):
            job = found[match[1]] = Job(match[1])
        elif job is not None:
            job.lines.append(line)
    return found


def form(name: str, text: str) -> Iterator[str]:
    """Text that the rules below could misread."""
    for number, line in enumerate(text.splitlines(), 1):
        if _ODD.search(line):
            yield f"{name}:{number}: not in the plain form that is checked here: {line.strip()}"
    if not jobs(text):
        yield f"{name}: has no job that can be read"


def pins(name: str, text: str) -> Iterator[str]:
    """Every action by commit with its tag beside, every image by digest, every workflow of ours by its path."""
    for number, line in enumerate(text.splitlines(), 1):
        code = line if line.lstrip().startswith("#") is False else ""
        if not re.search(r"\b(?:uses|image)\b[\"']?\s*:", code):
            continue
        match = _KEY.match(code)
        value = match[4] if match and match[3] in ("uses", "image") else None
        if value is None or not any(shape.fullmatch(value) for shape in (_PIN, _LOCAL, _IMAGE)):
            yield f"{name}:{number}: not pinned by a full commit with its tag in a comment: {line.strip()}"


def permissions(name: str, text: str) -> Iterator[str]:
    """Nothing at the top; each job names what it needs, and only those of WRITERS may write."""
    top = [line for line in text.splitlines() if line.startswith("permissions:")]
    if top != ["permissions: {}"]:
        yield f"{name}: must begin with `permissions: {{}}`, not {top}"
    for job in jobs(text).values():
        granted = job.block("permissions")
        if job.value("permissions") is None or (job.value("permissions") and job.value("permissions") != "{}"):
            yield f"{name}: job {job.name} must name its permissions one by one"
        allowed = WRITERS.get((name, job.name), set())
        for scope, right in granted.items():
            if right != "read" and not (right == "write" and scope in allowed):
                yield f"{name}: job {job.name} may not have `{scope}: {right}`"
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\b(?:write|read)-all\b", uncommented(line)):
            yield f"{name}:{number}: asks for everything: {line.strip()}"


def credentials(name: str, text: str) -> Iterator[str]:
    """A checkout leaves no token behind; nobody is handed a secret; nothing a stranger triggers has rights."""
    for job in jobs(text).values():
        for step in job.steps():
            if any("uses: actions/checkout@" in line for line in step) and not any(
                line.strip() == "persist-credentials: false" for line in step
            ):
                yield f"{name}: job {job.name}: a checkout keeps its credentials"
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\bsecrets\b|pull_request_target|workflow_run", uncommented(line)):
            yield f"{name}:{number}: a secret, or a trigger that hands one to strangers: {line.strip()}"


def gates(name: str, text: str) -> Iterator[str]:
    """No step may fail unseen, no job may run although one before it failed."""
    for number, line in enumerate(text.splitlines(), 1):
        if _EXCUSES.search(uncommented(line)):
            yield f"{name}:{number}: lets a failure pass: {line.strip()}"
    for job in jobs(text).values():
        if job.value("uses") is None and job.value("timeout-minutes") is None:
            yield f"{name}: job {job.name} has no timeout"


def release(name: str, text: str) -> Iterator[str]:
    """The workflows behind a release: no cache, no condition, no run started by hand, nothing published untested."""
    if name not in ("release.yml", "build.yml"):
        return
    for number, line in enumerate(text.splitlines(), 1):
        code = uncommented(line)
        if re.search(r"\bcache\b", code):
            yield f"{name}:{number}: a cache lets an earlier run decide what is released: {line.strip()}"
        if re.search(r"^\s*(?:- )?if:|workflow_dispatch", code):
            yield f"{name}:{number}: a condition, or a run by hand: {line.strip()}"
    if name != "release.yml":
        return
    table = jobs(text)
    if "publish" not in table:
        yield f"{name}: has no job `publish`"
        return
    missing = BEFORE_PUBLISHING - _behind(table, "publish")
    if missing:
        yield f"{name}: publishing does not wait for {', '.join(sorted(missing))}"
    if "pypi" not in (table["publish"].value("environment"), table["publish"].block("environment").get("name")):
        yield f"{name}: publishing does not go through the protected environment"


def _behind(table: dict[str, Job], name: str) -> set[str]:
    """All that must have passed before a job starts."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for need in table[todo.pop()].needs() & set(table):
            if need not in found:
                found.add(need)
                todo.append(need)
    return found


RULES = (form, pins, permissions, credentials, gates, release)


def faults(workflows: dict[str, str], rules: Iterable[object] = RULES) -> list[str]:
    """All that is wrong with these workflows (file name to text), by every rule or by the given ones."""
    if not workflows:
        return ["there is no workflow to look at"]
    return [fault for rule in RULES if rule in rules for name, text in workflows.items() for fault in rule(name, text)]


def read(root: Path) -> dict[str, str]:
    """The workflows of a checkout."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted((root / FOLDER).glob("*.y*ml"))}
