"""Why nothing matched, in one line: from the predicate and what the store holds. Pure: no socket, no clock, no file.

A line names the first thing that was missing, in this order: a match that does not count yet, a match of just before,
the source, the type, a field, and last the value by which the nearest event missed.
"""

from __future__ import annotations

import json

from waitbus.event import ALWAYS_FIELDS, FIELD_COLUMNS, FRAME_KEYS, NATURAL_FIELDS, one_line
from waitbus.matching import MISSING, is_same, lookup, path_of
from waitbus.predicate import Predicate, leaves_of
from waitbus.predicate_text import key_text, text_of, value_text
from waitbus.requirements import SOURCE, TYPE, requirements_of, values_of, wanted_of
from waitbus.verdict import CONCLUSIONS, standing, verdict
from waitbus.words import CONCLUSIONS as SAID_OF_CONCLUSIONS
from waitbus.words import FIELDS as SAID_OF_FIELDS
from waitbus.words import meant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    Frame = Mapping[str, Any]
    Node = Mapping[str, Any]

# What makes a source speak, where it does not by itself.
VOICES = {
    "pytest": "pytest speaks only when asked: pytest --waitbus",
    "process": "a process speaks when it is started by waitbus run -- COMMAND",
    "agent": "an agent speaks through waitbus emit --source agent",
    "github": "nothing here asks GitHub yet: tell a run with waitbus emit (waitbus help ci)",
}
_NAMES_MAX = 5
_MISSES_MAX = 2
_VALUE_CHARS = 60
# How long before its beginning a match is the likelier reason than anything that came meanwhile.
_JUST_BEFORE_SEC = 3600.0
_SPANS = (
    *((10, "10s"), (30, "30s"), (60, "1m"), (120, "2m"), (300, "5m"), (600, "10m"), (1800, "30m"), (3600, "1h")),
    *((7200, "2h"), (21600, "6h"), (43200, "12h"), (86400, "1d"), (172800, "2d"), (604800, "7d"), (2592000, "30d")),
)


class Evidence:
    """What the store holds that says why nothing matched one predicate.

    `frames` are the events of the time in question that agree with the predicate in source and type, the newest first.
    Where there are none, `came` counts what came at all in that time, by source and type, and `before` are events of
    earlier that agree. `is_cut` says that a bound ended the search in that time. `known` has the types of every source
    that was seen lately. `never` says that no event of the source was ever written; None: that is not known.
    `last_sec` and `earlier_sec` are how many seconds before the waiting began the last event of the source, and the
    last one that counts, were written; None: there is none, or it was not found.
    """

    __slots__ = ("before", "came", "earlier_sec", "frames", "is_cut", "known", "last_sec", "never")

    def __init__(self, frames: Sequence[Frame] = (), *, is_cut: bool = False) -> None:
        self.frames = list(frames)
        self.is_cut = is_cut
        self.before: list[Frame] = []
        self.came: dict[tuple[str, str], int] = {}
        self.known: dict[str, list[str]] = {}
        self.never: bool | None = None
        self.last_sec: float | None = None
        self.earlier_sec: float | None = None


def narrowing(predicate: Predicate | None, *, source_only: bool = False) -> Predicate | None:
    """What a predicate says of source and type alone (or of the source alone); None when it says nothing."""
    nodes = [
        node
        for node in requirements_of(predicate)
        if (values := values_of(node)) is not None and values[0] in ((SOURCE,) if source_only else (SOURCE, TYPE))
    ]
    return Predicate.from_object({"all": nodes}) if nodes else None


def counts(predicate: Predicate | None, frame: Frame, *, by_verdict: bool) -> bool:
    """Whether an event would have ended the wait."""
    return (predicate is None or predicate(frame)) and not (by_verdict and standing(frame["fields"]) == "pending")


def why(
    predicate: Predicate | None,
    evidence: Evidence,
    *,
    by_verdict: bool = False,
    since: str | None = None,
    looks_once: bool = False,
) -> str:
    """One line on why nothing matched `predicate` (None: any event), without a line break or a full stop.

    `since` is what was asked for as a beginning, if anything; `looks_once`: nothing was waited for.
    """
    matching = [frame for frame in evidence.frames if predicate is None or predicate(frame)]
    if matching:
        return _not_yet(matching) if by_verdict else "one that matches came too late"
    earlier = evidence.earlier_sec
    if earlier is not None and (earlier <= _JUST_BEFORE_SEC or not evidence.frames):
        return _too_early(earlier, since)
    if looks_once and since is None:
        return "without --since there is nothing to look at: add --since 10m, or a --timeout to wait for"
    rest = [node for node in requirements_of(predicate) if values_of(node, (SOURCE, TYPE)) is None]
    if not evidence.frames:
        missing = _missing_field(rest, evidence.before)
        lack = f"; none before has a {missing}" if missing else _strange_word(rest)
        return f"{_nothing_came(predicate, evidence)}{lack}"
    missing = _missing_field(rest, evidence.frames)
    if missing:
        return f"{_came(predicate, evidence)}, {'none has a' if len(evidence.frames) > 1 else 'it has no'} {missing}"
    return f"{_came(predicate, evidence)}, the nearest miss: {_nearest_miss(rest, evidence.frames)}"


# --- a match that does not count ------------------------------------------------------------------------------------


def _not_yet(matching: Sequence[Frame]) -> str:
    fields = matching[0]["fields"]
    status, conclusion = fields.get("status"), fields.get("conclusion")
    if status not in (None, "completed"):
        stands = f"is still under way: status {shown(status)}"
    elif conclusion is None:
        stands = f"has no conclusion: status {shown(status)}"
    else:
        other = meant(str(conclusion), CONCLUSIONS, SAID_OF_CONCLUSIONS)
        hint = f"; {other} would be one" if other and verdict(other) != "pending" else ""
        stands = f"has a conclusion that is not a verdict: {shown(conclusion)}{hint}"
    if len(matching) == 1:
        return f"1 matched, and it {stands}"
    return f"{len(matching)} matched, and the newest {stands}"


def _too_early(seconds: float, since: str | None) -> str:
    begun = "this wait began" if since is None else f"--since {one_line(since, 40)}"
    span = next((word for limit, word in _SPANS if limit > seconds + 1), "start")
    return f"something that matches was committed {_ago(seconds)} before {begun}: --since {span} would have seen it"


# --- nothing came from there ------------------------------------------------------------------------------------------


def _nothing_came(predicate: Predicate | None, evidence: Evidence) -> str:
    sources, types = wanted_of(predicate, SOURCE), wanted_of(predicate, TYPE)
    came = sum(evidence.came.values())
    more = "more than " * evidence.is_cut
    if not sources and not types:
        return "no event came meanwhile" if evidence.known else "no event was ever written to this store"
    if sources:
        of_source = sum(count for (source, _), count in evidence.came.items() if source in sources)
        if not of_source or not types:
            return _silent_source(sources, evidence)
        seen = sorted({name for source in sources for name in evidence.known.get(source, ())})
        came_from = f"{more}{_events(of_source)} came from {_either(sources)}"
        return f"{came_from}, {_none_of(of_source)} of type {_choice(types, seen)}"
    seen = sorted({name for names in evidence.known.values() for name in names})
    if not came:
        return f"no event came meanwhile; of type {_choice(types, seen)}" if seen else "no event came meanwhile"
    return f"{more}{_events(came)} came, {_none_of(came)} of type {_choice(types, seen)}"


def _silent_source(sources: list[str], evidence: Evidence) -> str:
    voice = "".join([f"; {VOICES[source]}" for source in sources if source in VOICES][:1])
    if evidence.never:
        if not evidence.known:
            return f"no event was ever written to this store{voice}"
        return f"no event was ever seen from source {_choice(sources, list(evidence.known), VOICES)}{voice}"
    text = f"no event came from {_either(sources)} meanwhile"
    came = sum(evidence.came.values())
    if came:
        text = f"{'more than ' * evidence.is_cut}{_events(came)} came, {_none_of(came)} from {_either(sources)}"
    if evidence.last_sec is not None:
        text += f"; the last one was {_ago(evidence.last_sec)} before"
    return text + voice


def _choice(wanted: list[str], seen: list[str], known: Iterable[str] = ()) -> str:
    """The names that were wanted, those that were seen, and which of them was meant."""
    text = _either(wanted)
    if seen:
        text += f"; seen: {', '.join([shown(name) for name in seen[:_NAMES_MAX]])}"
        text += ", …" if len(seen) > _NAMES_MAX else ""
    return text + _did_you_mean(wanted[0] if len(wanted) == 1 else "", dict.fromkeys([*seen, *known]))


# --- it came, and did not match ---------------------------------------------------------------------------------------


def _missing_field(rest: Sequence[Node], frames: Sequence[Frame]) -> str:
    """The field that none of the events has, and what was meant by it; empty when each is in some event."""
    for node in rest if frames else ():
        key = node.get("key")
        if key is None or any(lookup(frame, path_of(key)) is not MISSING for frame in frames):
            continue
        return f"field {key_text(key)}{_field_hint(path_of(key), frames)}"
    return ""


def _strange_word(rest: Sequence[Node]) -> str:
    """A conclusion that no source uses, when it is known what was meant."""
    for node in rest:
        found = values_of(node, (("fields", "conclusion"),))
        for value in found[1] if found is not None else ():
            if isinstance(value, str) and (hint := _did_you_mean(value, CONCLUSIONS, SAID_OF_CONCLUSIONS)):
                return f"; conclusion={shown(value)} is not one of the usual words{hint}"
    return ""


def _field_hint(path: tuple[str, ...], frames: Sequence[Frame]) -> str:
    """Which name was meant by the first step of a path that no event has."""
    for depth in range(1, len(path)):
        objects = [value for frame in frames if (value := lookup(frame, path[:depth])) is not MISSING]
        names = dict.fromkeys(name for value in objects if isinstance(value, dict) for name in value)
        if path[depth] in names:
            continue
        known = [*names, *FRAME_KEYS[:-1]] if depth == 1 else list(names)
        hint = _did_you_mean(path[depth], known, SAID_OF_FIELDS)
        if not hint and depth == 1:
            hint = _did_you_mean(path[depth], [*ALWAYS_FIELDS, *FIELD_COLUMNS, *NATURAL_FIELDS], SAID_OF_FIELDS)
        return hint
    return ""


def _nearest_miss(rest: Sequence[Node], frames: Sequence[Frame]) -> str:
    """In what the event missed that missed the least; of several the one that has more values, then the newest."""
    tests = [(node, Predicate.from_object(node)) for node in rest]

    def missed(frame: Frame) -> list[Node]:
        return [node for node, test in tests if not test(frame)]

    def distance(frame: Frame) -> tuple[int, int]:
        misses = missed(frame)
        values = [lookup(frame, path_of(node["key"])) for node in misses if "key" in node]
        return len(misses), sum(value is None or value is MISSING for value in values)

    nearest = min(frames, key=distance)
    return ", ".join([_miss(node, nearest) for node in missed(nearest)[:_MISSES_MAX]])


def _miss(node: Node, frame: Frame) -> str:
    """How an event missed one requirement."""
    if "not" in node:
        return f"{one_line(text_of(node['not']), _VALUE_CHARS)} held"
    leaves = list(leaves_of(node))
    if len({path_of(leaf["key"]) for leaf in leaves}) != 1 or ("any" not in node and len(leaves) != 1):
        return f"none of {one_line(text_of(node), 2 * _VALUE_CHARS)}"
    leaf = leaves[0]
    name, value = key_text(leaf["key"]), lookup(frame, path_of(leaf["key"]))
    if value is MISSING:
        return f"it has no {name}"
    text = f"{name} was {shown(value)}"
    wanted = leaf.get("value")
    if len(leaves) == 1 and leaf["op"] != "ne" and _is_other_type(wanted, value, leaf["op"]):
        return f"{text}, which is {_kind(value)}, not {_kind(wanted)}: write {_as_written(leaf, value)}"
    if name == "conclusion" and leaf["op"] == "eq" and isinstance(wanted, str) and wanted not in CONCLUSIONS:
        text += _did_you_mean(wanted, CONCLUSIONS, SAID_OF_CONCLUSIONS)
    return text


def _is_other_type(wanted: Any, value: Any, operator: str) -> bool:
    """Whether a value would match if it were not, say, a text that looks like the number."""
    if operator == "eq":
        return not is_same(wanted, value) and _plain(wanted) == _plain(value)
    return operator in ("lt", "le", "gt", "ge") and isinstance(value, str)


def _as_written(leaf: Node, value: Any) -> str:
    """What to write for the value as it is."""
    if leaf["op"] == "eq":
        return text_of({**leaf, "value": value})
    return f"{key_text(leaf['key'])}={value_text(one_line(str(value), _VALUE_CHARS))}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}.get(type(value), "null")


# --- several conditions -----------------------------------------------------------------------------------------------


def why_open(conditions: Sequence[tuple[Predicate | None, str]], total: int) -> str:
    """The same for a wait with `total` conditions, of which these are still open, each with its own reason."""
    if total == 1:
        return conditions[0][1]
    reasons = [f"{name_of(predicate)}: {reason}" for predicate, reason in conditions[:_NAMES_MAX]]
    more = f"; {len(conditions) - _NAMES_MAX} more" if len(conditions) > _NAMES_MAX else ""
    return f"{total - len(conditions)} of {total} met; still open: {'; '.join(reasons)}{more}"


def name_of(predicate: Predicate | None) -> str:
    """A condition as `SOURCE:PREDICATE`, at most some 100 characters of it."""
    nodes = list(requirements_of(predicate))
    sources = [node for node in nodes if values_of(node, (SOURCE,)) is not None]
    others = [text_of(node) for node in nodes if node not in sources]
    values = wanted_of(predicate, SOURCE)
    source = values[0] if len(values) == 1 else "*"
    if len(values) > 1:
        others.insert(0, text_of(sources[0]))
    return one_line(f"{source}:{' && '.join(others)}" if others else source, 100)


# --- the parts of a line ----------------------------------------------------------------------------------------------


def _came(predicate: Predicate | None, evidence: Evidence) -> str:
    count = len(evidence.frames)
    sources, types = wanted_of(predicate, SOURCE), wanted_of(predicate, TYPE)
    if sources and types:
        return f"{'more than ' * evidence.is_cut}{count} matched source and type"
    events = f"{'more than ' * evidence.is_cut}{_events(count)}"
    if sources:
        return f"{events} came from {_either(sources)}"
    return f"{events} of type {_either(types)} came" if types else f"{events} came"


def _did_you_mean(word: str, known: Iterable[str], meanings: Mapping[str, str] = {}) -> str:
    found = meant(word, known, meanings)
    return f"; did you mean {shown(found)}?" if found else ""


def _either(names: Sequence[str]) -> str:
    return " or ".join([shown(name) for name in names[:_NAMES_MAX]])


def _events(count: int) -> str:
    return f"{count} event{'s' if count != 1 else ''}"


def _none_of(count: int) -> str:
    return "none" if count != 1 else "not"


def shown(value: object) -> str:
    """A value of others in a line: short, and without what could control a terminal."""
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _VALUE_CHARS)


def _ago(seconds: float) -> str:
    if seconds < 1:
        return f"{max(0.001, seconds):.3g} s"
    for unit, size in (("days", 172_800), ("h", 7200), ("min", 120)):
        if seconds >= size:
            return f"{seconds / {'days': 86_400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
