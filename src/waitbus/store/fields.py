"""What readers see of a row: the `fields` object, and a default summary if its producer gave none. No I/O."""

from __future__ import annotations

from waitbus.event import ALWAYS_FIELDS, FIELD_COLUMNS, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def fields_of(columns: Mapping[str, Any], natural: Mapping[str, Any]) -> dict[str, Any]:
    """Build the `fields` object: `ALWAYS_FIELDS`, then the columns that are set, then the source's natural names.

    A natural name never replaces a column, so that SQL and the wire agree.
    """
    fields: dict[str, Any] = {name: columns.get(name) for name in ALWAYS_FIELDS}
    for name in FIELD_COLUMNS:
        value = columns.get(name)
        if value is not None:
            fields[name] = value
    for name, value in natural.items():
        fields.setdefault(name, value)
    return fields


def default_summary(fields: Mapping[str, Any]) -> str:
    """Build a summary, one line for a person, from the fields. It is used if the producer gave none."""
    get = fields.get
    name = (
        get("workflow_name")
        or get("job_name")
        or get("alert_name")
        or get("container_name")
        or get("path")
        or get("msg_body")
        or get("name")
        or ""
    )
    where = "" if get("owner") == "local" else f"{get('owner')}/{get('repo')}"
    words = [get("source"), get("event_type"), where, name, get("conclusion") or get("status") or get("action")]
    return one_line(" ".join([str(word) for word in words if word and word.__class__ not in _CONTAINERS]))


_CONTAINERS: frozenset[type] = frozenset({list, tuple, dict})
