"""A predicate as a WHERE condition, as far as columns go: SQLite passes over rows that cannot match, at its own speed.

The condition is implied by the predicate and never decides alone: what SQLite lets through, the predicate still judges.
It speaks of stored values alone. What a reader derives (an id that was not given, text of a blob, a mended number, the
summary) is let through and judged as it is read. Column names come from our own table, values are bound; nothing that
came over a wire becomes SQL.
"""

from __future__ import annotations

from waitbus.event import FIELD_COLUMNS
from waitbus.matching import path_of
from waitbus.store.frames import derived_seq
from waitbus.ulid import is_ulid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Condition = tuple[str, tuple[Any, ...]]

_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("source", "event_type", "owner", "repo", "ingest_method", "delivery_id"), str),
    **FIELD_COLUMNS,
}
_TOP = frozenset({"event_type", "owner", "repo", "delivery_id"})
# A pattern is left to SQLite when it is no longer than this, and then for texts of at most so many bytes.
_PATTERN_CHARS = 64
_GLOB_BYTES = 256


def condition_of(node: Mapping[str, Any]) -> Condition | None:
    """A condition that every row which matches `node` (a predicate's object form) meets; None when none can be said."""
    if "all" in node:
        said = [condition for child in node["all"] if (condition := condition_of(child)) is not None]
        return _join(said, " AND ") if said else None
    if "any" in node:
        branches = [condition_of(child) for child in node["any"]]
        return _join([branch for branch in branches if branch is not None], " OR ") if None not in branches else None
    if node.get("op") not in ("eq", "glob"):
        return None
    return _leaf(path_of(node["key"]), node["op"], node["value"])


def _leaf(path: tuple[str, ...], operator: str, value: object) -> Condition | None:
    name = path[-1]
    if path == ("event_id",):
        return _event_id(value) if operator == "eq" and isinstance(value, str) else None
    column = len(path) == 2 and path[0] == "fields" and name in _COLUMNS and name != "delivery_id"
    if not (column or (len(path) == 1 and name in _TOP)) or type(value) is not _COLUMNS[name]:
        return None
    if type(value) is int:
        # A foreign program may have stored a number that reads as this one, such as 5.5 for 5.
        said = f"({name} = ? OR typeof({name}) NOT IN ('integer', 'null'))"
        return (said, (value,)) if abs(value) < 1 << 63 else None
    text = str(value)
    # Bytes that are not UTF-8 are read as U+FFFD, and only plain ASCII means the same to SQLite and to us.
    if "\0" in text or not text.isascii():
        return None
    if operator == "eq":
        # A foreign program may have stored a blob that reads as this text.
        return f"({name} = ? OR typeof({name}) = 'blob')", (text,)
    if "[" in text or len(text) > _PATTERN_CHARS:
        return None
    # GLOB stops at a zero byte, reads bytes that are not UTF-8 in its own way, and may take the pattern's length times
    # the text's: only short and plain ASCII is left to it.
    size = f"length(CAST({name} AS BLOB))"
    return (
        f"(typeof({name}) = 'blob' OR {size} > {_GLOB_BYTES} OR length({name}) <> {size} OR {name} GLOB ?)",
        (text,),
    )


def _event_id(value: str) -> Condition | None:
    """The row that stores this id, or the one at the place that an id made by a reader names."""
    if not is_ulid(value):
        return "0", ()  # every event is read with a ULID
    derived = derived_seq(value)
    return ("event_id = ?", (value,)) if derived is None else ("(event_id = ? OR seq = ?)", (value, derived))


def _join(conditions: list[Condition], word: str) -> Condition:
    return f"({word.join(sql for sql, _ in conditions)})", tuple(value for _, values in conditions for value in values)
