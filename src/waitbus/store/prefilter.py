"""Turns a predicate into a WHERE condition on columns, so that SQLite quickly skips most rows that cannot match.

Every row that matches the predicate meets the condition, but not the other way round: the predicate still judges each
row that SQLite returns. The condition only tests stored values. Rows whose values a reader derives or converts (a
missing id, a blob read as text, a mended number, the summary) pass it and are judged after reading. Column names come
from the table below and values are bound, so nothing that came over a wire becomes SQL.
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
# SQLite gets a pattern only if the pattern has at most this many characters, and only for texts of at most this many
# bytes.
_PATTERN_CHARS = 64
_GLOB_BYTES = 256


def condition_of(node: Mapping[str, Any]) -> Condition | None:
    """Return a condition that every row matching `node` (a predicate's object form) meets, or None if there is none."""
    if "all" in node:
        conditions = [condition for child in node["all"] if (condition := condition_of(child)) is not None]
        return _join(conditions, " AND ") if conditions else None
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
        # A foreign program may have stored another value that is read as this number: 5.5 is read as 5.
        sql = f"({name} = ? OR typeof({name}) NOT IN ('integer', 'null'))"
        return (sql, (value,)) if abs(value) < 1 << 63 else None
    text = str(value)
    # Invalid UTF-8 is read as U+FFFD, so only ASCII is sure to compare in SQLite as it does here.
    if "\0" in text or not text.isascii():
        return None
    if operator == "eq":
        # A foreign program may have stored a blob that is read as this text.
        return f"({name} = ? OR typeof({name}) = 'blob')", (text,)
    if "[" in text or len(text) > _PATTERN_CHARS:
        return None
    # GLOB stops at a zero byte, treats invalid UTF-8 in its own way, and may take time proportional to the length of
    # the pattern times that of the text. So it only gets short ASCII texts.
    size = f"length(CAST({name} AS BLOB))"
    return (
        f"(typeof({name}) = 'blob' OR {size} > {_GLOB_BYTES} OR length({name}) <> {size} OR {name} GLOB ?)",
        (text,),
    )


def _event_id(value: str) -> Condition | None:
    """Return the condition for the row that stores this id, or whose `seq` is in it if `derived_id` made it."""
    if not is_ulid(value):
        return "0", ()  # no row matches: every event has a ULID when it is read
    derived = derived_seq(value)
    return ("event_id = ?", (value,)) if derived is None else ("(event_id = ? OR seq = ?)", (value, derived))


def _join(conditions: list[Condition], word: str) -> Condition:
    return f"({word.join(sql for sql, _ in conditions)})", tuple(value for _, values in conditions for value in values)
