"""From an `EventInsert` to an SQL statement and its values. No I/O and no clock.

A statement names only the columns that are set: to bind a null costs as much as to bind a value, and an event
leaves most of its columns empty. In a batch one statement takes `GROUP` rows. Both together halve the price.
"""

from __future__ import annotations

from itertools import compress
from operator import attrgetter, is_not

from waitbus.event import FIELD_COLUMNS, default_summary, fields_of, from_json, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waitbus.event import EventInsert

    # The statement for one row and for a group, and the columns that one row sets.
    Statement = tuple[str, str, tuple[str, ...]]
    # A statement, and the values: event_id, delivery_id and received_at first (the writer fills in what is missing).
    Row = tuple[Statement, list[Any]]

_ALWAYS = ("source", "event_type", "owner", "repo", "ingest_method", "payload_json")
_HEAD = ("event_id", "delivery_id", "received_at", "summary", *_ALWAYS)
_MAYBE = ("fields_json", *FIELD_COLUMNS)
_always_of = attrgetter("delivery_id", "received_at", "summary", "fields", *_ALWAYS)
_columns_of = attrgetter(*FIELD_COLUMNS)
_all_of = attrgetter("source", "event_type", "owner", "repo", "ingest_method", *FIELD_COLUMNS)
_ALL = ("source", "event_type", "owner", "repo", "ingest_method", *FIELD_COLUMNS)

_nones = (None,) * len(_MAYBE)

# Rows in one statement of a batch: with every column set, they take fewer than the 999 values of an old SQLite.
GROUP = 25
# Which of `_MAYBE` are set -> the statement. Few in practice; when there are more, they are made again.
_statements: dict[tuple[bool, ...], Statement] = {}
_STATEMENTS = 64


def row_of(event: EventInsert) -> Row:
    """The row that says `event`. Raises ``ValueError`` when it cannot be said in SQL or JSON."""
    delivery_id, received_at, summary, natural, *always = _always_of(event)
    fields_json = None
    if natural:
        try:
            fields_json = to_json(natural)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"fields hold what JSON cannot say: {error}") from None
    maybe = (fields_json, *_columns_of(event))
    key = tuple(map(is_not, maybe, _nones))
    values = [None, delivery_id, received_at, summary, *always, *compress(maybe, key)]
    statement = _statements.get(key) or _learn(key)
    if not summary:
        # What `fields_of` would give, as far as a summary reads it.
        values[3] = default_summary({**natural, **dict(zip(statement[2], values, strict=True))})
    for value in values:
        if value.__class__ is str and "\0" in value:
            raise ValueError(f"text holds a zero byte: {value[:40]!r}")
    return statement, values


def _learn(key: tuple[bool, ...]) -> Statement:
    if len(_statements) >= _STATEMENTS:
        _statements.clear()
    names = (*_HEAD, *compress(_MAYBE, key))
    one = "({})".format(", ".join("?" * len(names)))
    many = ", ".join([one] * GROUP)
    statement = (_INSERT.format(", ".join(names), one), _INSERT.format(", ".join(names), many), names)
    _statements[key] = statement
    return statement


_INSERT = "INSERT INTO events ({}) VALUES {} ON CONFLICT (delivery_id) DO NOTHING"


def fields_of_event(event: EventInsert) -> dict[str, Any]:
    """The `fields` object that readers of this event will see."""
    natural = event.fields
    if natural and not (_PLAIN.issuperset(map(type, natural.values())) and _TEXT.issuperset(map(type, natural))):
        natural = from_json(to_json(natural))  # a tuple reads as a list, and a number as a key reads as text
    return fields_of(dict(zip(_ALL, _all_of(event), strict=True)), natural)


_TEXT: frozenset[type] = frozenset({str})
_PLAIN: frozenset[type] = frozenset({str, int, float, bool, type(None)})
