"""Turns an `EventInsert` into an SQL statement and its values. No I/O and no clock.

A statement names only the columns that are set, because binding a null costs as much as binding a value and an event
leaves most columns empty. In a batch one statement inserts `GROUP` rows. Together this halves the cost.
"""

from __future__ import annotations

from itertools import compress
from operator import attrgetter, is_not

from waitbus.event import (
    FIELD_COLUMNS,
    MAX_FIELDS_BYTES,
    MAX_FIELDS_DEPTH,
    MAX_NAME_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SUMMARY_BYTES,
)
from waitbus.json_text import depth_of, from_json, to_json
from waitbus.store.fields import default_summary, fields_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waitbus.event import EventInsert

    # The SQL for one row, the SQL for `GROUP` rows, and the columns of a row.
    Statement = tuple[str, str, tuple[str, ...]]
    # A statement and its values. The first are event_id, delivery_id and received_at: the writer fills in missing ones.
    Row = tuple[Statement, list[Any]]

_ALWAYS = ("source", "event_type", "owner", "repo", "ingest_method", "payload_json")
_HEAD = ("event_id", "delivery_id", "received_at", "summary", *_ALWAYS)
_MAYBE = ("fields_json", *FIELD_COLUMNS)
_always_of = attrgetter("delivery_id", "received_at", "summary", "fields", *_ALWAYS)
_columns_of = attrgetter(*FIELD_COLUMNS)
_RESERVED = ("source", "event_type", "owner", "repo", "ingest_method")
_ALL = (*_RESERVED, *FIELD_COLUMNS)
_all_of = attrgetter(*_ALL)

_nones = (None,) * len(_MAYBE)

# Rows in one statement of a batch. Even with every column set they stay below the 999 values that an old SQLite allows.
GROUP = 25
# A cache: which of `_MAYBE` are set -> the statement. In practice there are few.
_statements: dict[tuple[bool, ...], Statement] = {}
_STATEMENTS = 64


# Texts that have at most this many characters together are within their limits in bytes.
_SURELY_NAMES = MAX_NAME_BYTES // 4
_SURELY_FIELDS = MAX_FIELDS_BYTES // 8
_SURELY_PAYLOAD = MAX_PAYLOAD_BYTES // 4


def row_of(event: EventInsert) -> Row:
    """Return the row for `event`. Raises ``ValueError`` if SQL or JSON cannot hold it or it exceeds a limit."""
    delivery_id, received_at, summary, natural, *always = _always_of(event)
    fields_json = None
    if natural:
        try:
            fields_json = to_json(natural)
        except RecursionError:
            raise _too_deep(_depth_met(natural)) from None
        except (ValueError, TypeError) as error:
            raise ValueError(f"fields hold a value that JSON cannot express: {error}") from None
        if fields_json.count("[") + fields_json.count("{") > MAX_FIELDS_DEPTH:
            depth = depth_of(fields_json)
            if depth > MAX_FIELDS_DEPTH:
                raise _too_deep(depth)
    maybe = (fields_json, *_columns_of(event))
    key = tuple(map(is_not, maybe, _nones))
    values = [None, delivery_id, received_at, summary, *always, *compress(maybe, key)]
    text = "".join([value for value in values if value.__class__ is str])
    if len(text) > _SURELY_NAMES:
        _check_sizes(event, len(text), fields_json)
    if "\0" in text:
        raise ValueError(f"text holds a zero byte: {text[max(0, text.index(chr(0)) - 20) :][:40]!r}")
    statement = _statements.get(key) or _learn(key)
    if not summary:
        # As much of `fields_of` as a summary uses.
        values[3] = default_summary({**natural, **dict(zip(statement[2], values, strict=True))})
    return statement, values


def _check_sizes(event: EventInsert, chars: int, fields_json: str | None) -> None:
    """Raise ``ValueError`` if a text is too long. `chars` is the length of all texts together."""
    names = (event.source, event.event_type, event.owner, event.repo, event.ingest_method, event.delivery_id or "")
    if sum(map(len, names)) > _SURELY_NAMES:
        for name, text in zip((*_RESERVED, "delivery_id"), names, strict=True):
            _check_size(name, text, MAX_NAME_BYTES)
    if fields_json is not None and len(fields_json) > _SURELY_NAMES:
        for text in map(str, event.fields):
            _check_size("the name of a field", text, MAX_NAME_BYTES)
    payload = len(event.payload_json)
    if payload > _SURELY_PAYLOAD:
        _check_size("payload_json", event.payload_json, MAX_PAYLOAD_BYTES)
    if chars - payload > _SURELY_FIELDS:
        _check_size("summary", event.summary or "", MAX_SUMMARY_BYTES)
        _check_size("fields as JSON", to_json(fields_of_event(event)), MAX_FIELDS_BYTES)


def _check_size(what: str, text: str, most: int) -> None:
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > most:
        more = ": put long content into payload_json" if most > MAX_NAME_BYTES else f": it begins with {text[:40]!r}"
        raise ValueError(f"{what}: {size} bytes, at most {most}{more}")


def _too_deep(depth: int) -> ValueError:
    return ValueError(f"fields are nested {depth} deep, at most {MAX_FIELDS_DEPTH}: put them into payload_json")


def _depth_met(value: object) -> int:
    """Return how deep a value is nested, at most `_DEPTH_SEEN`, which is also the answer if it contains itself."""
    level: dict[int, Any] = {id(value): value}
    depth = 0
    while level and depth < _DEPTH_SEEN:
        depth += 1
        inner = [item for held in level.values() for item in (held.values() if isinstance(held, dict) else held)]
        level = {id(item): item for item in inner if isinstance(item, dict | list | tuple)}
    return depth


_DEPTH_SEEN = 100_000


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
    """Return the `fields` object that readers of this event will see."""
    natural = event.fields
    if natural and not (_PLAIN.issuperset(map(type, natural.values())) and _TEXT.issuperset(map(type, natural))):
        natural = from_json(to_json(natural))  # as read back: a tuple becomes a list, a number as a key becomes text
    return fields_of(dict(zip(_ALL, _all_of(event), strict=True)), natural)


_TEXT: frozenset[type] = frozenset({str})
_PLAIN: frozenset[type] = frozenset({str, int, float, bool, type(None)})
