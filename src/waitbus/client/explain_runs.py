"""Why the runs of a commit gave no verdict, in one line. Pure: no socket, no clock, no file."""

from __future__ import annotations

from waitbus.client.explain import VOICES, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from waitbus.verdict import CommitRuns, Run

    Frame = Mapping[str, Any]

_NAMES_MAX = 5


def why_no_verdict(runs: CommitRuns, settle: float) -> str:
    """How the runs of a commit stand that were seen, and which workflow was not."""
    seen = runs.counting()
    parts = [_run_text(run) for run in seen[:_NAMES_MAX]]
    if len(seen) > _NAMES_MAX:
        parts.append(f"{len(seen) - _NAMES_MAX} more")
    text = f"seen of this commit: {', '.join(parts)}" if parts else "no run of a workflow that was asked for"
    missing = sorted(runs.missing)
    if missing:
        others = [name for name in runs.seen() if name not in {run.workflow for run in seen}]
        text += f"; {' and '.join([f'--workflow {shown(name)}' for name in missing[:_NAMES_MAX]])} was not seen"
        if others:
            text += f" (seen: {', '.join([shown(name) for name in others[:_NAMES_MAX]])})"
        return text
    words = {run.conclusion for run in seen}
    if runs.all_well() or "cancelled" in words:
        return f"{text}; a newer run may still come for {settle:g} s after the last (--settle)"
    if None not in words and "success" not in words:
        return f"{text}; none of that is a verdict"
    return text


def _run_text(run: Run) -> str:
    status = run.mark.event.fields.get("status") if run.conclusion is None else run.conclusion
    return f"{shown(run.workflow)} {shown(status or 'under way')}"


def why_no_run(sha: str, frames: Sequence[Frame], others: Mapping[str, int]) -> str:
    """No run of commit `sha` was seen: `frames` are the newest runs of any, `others` counts events of it by type."""
    if others:
        counted = ", ".join([f"{count} {shown(name)}" for name, count in list(others.items())[:_NAMES_MAX]])
        return f"no run of this commit was ever seen; what names it is {counted}, and a run is a workflow_run"
    if not frames:
        return f"no run was ever seen, of any commit; {VOICES['github']}"
    known: dict[str, Frame] = {}
    for frame in frames:
        known.setdefault(str(frame["fields"].get("head_sha"))[:7], frame)
    newest = [f"{shown(short)} ({shown(_standing_of(frame))})" for short, frame in list(known.items())[:_NAMES_MAX]]
    return f"no run of commit {sha[:12]} was ever seen; the newest are of {', '.join(newest)}"


def _standing_of(frame: Frame) -> str:
    fields = frame["fields"]
    name = fields.get("workflow_name") or fields.get("path") or fields.get("workflow_id") or "a run"
    return f"{name} {fields.get('conclusion') or fields.get('status') or 'under way'}"
