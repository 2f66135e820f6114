"""Rows of an SQL answer on standard output: a table for eyes, tab-separated, CSV, or JSON an object a line."""

from __future__ import annotations

import math
import re

from waitbus.ui.output import has_colour, is_terminal, out, out_data, out_json, painted, safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Values = tuple[Any, ...]

CELL = 60  # characters of a table's cell


def print_rows(names: list[str], rows: Iterable[Values], form: str) -> None:
    """Print rows as they come; only a table, which is made for a terminal and a limit, is held whole."""
    if form == "json":
        for row in rows:
            out_json({name: json_value(value) for name, value in zip(names, row, strict=True)})
    elif form == "text" and is_terminal():
        _table(names, list(rows))
    else:
        line = _csv if form == "csv" else _tsv
        show = out if form == "text" else out_data
        show(line(names))
        for row in rows:
            show(line(row))


def json_value(value: object) -> object:
    """What JSON can say of an SQL value: a blob in hexadecimal, and no number that is not finite."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.hex() if isinstance(value, bytes) else str(value)


def _tsv(row: Iterable[object]) -> str:
    return "\t".join([safe(_text(value)) for value in row])


def _csv(row: Iterable[object]) -> str:
    """RFC 4180 with line feeds alone; control characters but line breaks and tabs are made visible."""
    cells = []
    for value in row:
        text = "".join([part if part in ("\n", "\t") else safe(part) for part in re.split(r"([\n\t])", _text(value))])
        cells.append('"' + text.replace('"', '""') + '"' if re.search(r'[",\n\t]', text) else text)
    return ",".join(cells)


def _table(names: list[str], rows: list[Values]) -> None:
    columns = range(len(names))
    numeric = [at for at in columns if all(isinstance(row[at], int | float | None) for row in rows)]
    print_table(names, [[_text(value) for value in row] for row in rows], numeric)


def print_table(names: list[str], rows: Iterable[list[str]], numeric: Sequence[int] = ()) -> None:
    """Columns under their names, those of `numeric` to the right; cells made safe, and cut where they are long."""
    head = [safe(name) for name in names]
    cells = [[_short(value) for value in row] for row in rows]
    widths = [max(len(row[at]) for row in [head, *cells]) for at in range(len(names))]

    def line(row: list[str]) -> str:
        pairs = enumerate(zip(row, widths, strict=True))
        return "  ".join([cell.rjust(width) if at in numeric else cell.ljust(width) for at, (cell, width) in pairs])

    out(painted(line(head).rstrip(), "bold") if has_colour() else line(head).rstrip())
    for row in cells:
        out(line(row).rstrip())


def _short(text: str) -> str:
    text = safe(text[: CELL * 2])
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
