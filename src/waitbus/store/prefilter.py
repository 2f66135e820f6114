"""A predicate as a WHERE condition, as far as columns go: SQLite passes over rows that cannot match, at its own speed.

The condition is implied by the predicate and never decides alone: what SQLite lets through, the predicate still judges.
Column names come from our own table, values are bound; nothing that came over a wire becomes SQL.
"""

from __future__ import annotations

from waitbus.event import FIELD_COLUMNS
from waitbus.predicate import path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Condition = tuple[str, tuple[Any, ...]]

_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("source", "event_type", "owner", "repo", "ingest_method", "event_id", "delivery_id"), str),
    **FIELD_COLUMNS,
}
_TOP = frozenset({"event_type", "owner", "repo", "event_id", "delivery_id"})


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
    column = len(path) == 2 and path[0] == "fields" and name in _COLUMNS and name not in ("event_id", "delivery_id")
    if not (column or (len(path) == 1 and name in _TOP)) or type(value) is not _COLUMNS[name]:
        return None
    if type(value) is int:
        # A foreign program may have stored a number that reads as this one, such as 5.5 for 5.
        return (f"({name} = ? OR typeof({name}) <> 'integer')", (value,)) if abs(value) < 1 << 63 else None
    if "\0" in str(value) or not str(value).isascii() or (operator == "glob" and "[" in str(value)):
        return None  # SQLite and we might read these differently
    # A foreign program may have stored a blob that reads as this text.
    if operator == "eq":
        return f"({name} = ? OR typeof({name}) = 'blob')", (value,)
    # GLOB stops at a zero byte, and reads bytes that are no UTF-8 in its own way: only plain ASCII is left to it.
    return f"({name} GLOB ? OR length({name}) <> length(CAST({name} AS BLOB)) OR typeof({name}) = 'blob')", (value,)


def _join(conditions: list[Condition], word: str) -> Condition:
    return f"({word.join(sql for sql, _ in conditions)})", tuple(value for _, values in conditions for value in values)
