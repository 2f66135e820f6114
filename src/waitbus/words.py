"""What was meant by a word that nothing is called: by what it means, by its parts, and then by its letters.

Pure: no I/O, no clock, no state of the module's own. Needed when something is wrong, and never while all is well.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# What others call the fields of an event, and its conclusions.
FIELDS = {
    "branch": "head_branch",
    "body": "msg_body",
    "code": "exit_code",
    "cmd": "argv",
    "command": "argv",
    "commit": "head_sha",
    "file": "path",
    "from": "msg_from",
    "kind": "event_type",
    "message": "msg_body",
    "outcome": "conclusion",
    "rc": "exit_code",
    "result": "conclusion",
    "returncode": "exit_code",
    "sender": "msg_from",
    "sha": "head_sha",
    "state": "status",
    "text": "msg_body",
    "thread": "msg_thread",
    "to": "msg_to",
    "type": "event_type",
    "verdict": "conclusion",
    "workflow": "workflow_name",
}
CONCLUSIONS = {
    **dict.fromkeys(("good", "green", "ok", "okay", "pass", "passed", "passing", "succeeded", "successful"), "success"),
    **dict.fromkeys(("bad", "broken", "crashed", "error", "errored", "fail", "failed", "ko", "red"), "failure"),
    **dict.fromkeys(("abort", "aborted", "canceled", "interrupted"), "cancelled"),
    "skip": "skipped",
    "timeout": "timed_out",
}
# How much of the letters must agree, as `difflib` counts it.
_LIKENESS = 0.7


def meant(word: str, known: Iterable[str], meanings: Mapping[str, str] = {}) -> str | None:
    """Which of `known` was meant by `word`; None where that is a guess. `meanings` says what others call them."""
    names = list(known)
    bare = _bare(word)
    if not bare or word in names:
        return None
    by_meaning = next((name for other, name in meanings.items() if _bare(other) == bare and name in names), None)
    if by_meaning is not None:
        return by_meaning
    same = [name for name in names if _bare(name) == bare]
    if same:
        return same[0]
    holding = [name for name in names if bare in _parts(name)]
    if len(holding) == 1:
        return holding[0]
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), names, n=1, cutoff=_LIKENESS)
    return near[0] if near else None


def _bare(word: str) -> str:
    return "".join(_parts(word))


def _parts(word: str) -> list[str]:
    return word.lower().replace("-", "_").replace(" ", "_").replace(".", "_").split("_")
