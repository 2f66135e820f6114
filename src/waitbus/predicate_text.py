"""Predicates for people: writes an object form as text, and suggests what an invalid text may have meant.

Pure: no I/O, no clock, no module state. A verb that only waits does not load this file.
"""

from __future__ import annotations

import json
import re

from waitbus.json_text import from_json
from waitbus.matching import BARE_WORD, NEAR_LITERALS, QUOTED, SYMBOLS, path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_SYMBOL_OF = {operator: symbol for symbol, operator in SYMBOLS.items()}
# Patterns that need no quotes.
_PATTERN = re.compile(r"[A-Za-z0-9_./:@+*?\[\]!-]+")
_BEGINS_KEY = re.compile(r'[A-Za-z_"]')

# Matches a quoted text, or what people write between two predicates: `&&` without spaces, a comma, a word, a space.
_BETWEEN = re.compile(rf"({QUOTED})|\s*(?:&&?|[,;])\s*|\s+(?:and|AND|And)\s+|\s+", re.DOTALL)
_EITHER = re.compile(rf"({QUOTED})|\s*\|\|?\s*|\s+(?:or|OR|Or)\s+", re.DOTALL)
_ROUND_OPERATORS = re.compile(rf"({QUOTED})|\s*(!=|<=|>=|==?|~|<|>)\s*", re.DOTALL)


def text_of(node: Mapping[str, Any]) -> str:
    """Write the object form of a checked predicate as text.

    A leaf, or an `all` of leaves, becomes a text that can be parsed again. Other forms have no such text and are
    written with words: `(a=1 or b=2)`, `not (a=1)`.
    """
    if "all" in node:
        return " && ".join([_inner(child) for child in node["all"]])
    if "any" in node:
        return " or ".join([f"({text_of(child)})" if "all" in child else text_of(child) for child in node["any"]])
    if "not" in node:
        return f"not ({text_of(node['not'])})"
    key = key_text(node["key"])
    if node["op"] == "exists":
        return f"{key}?"
    return f"{key}{_SYMBOL_OF[node['op']]}{value_text(node['value'], pattern=node['op'] == 'glob')}"


def _inner(node: Mapping[str, Any]) -> str:
    return f"({text_of(node)})" if len(node.get("any", ())) > 1 else text_of(node)


def key_text(key: str) -> str:
    """Return a key without its `fields.` if it means the same without."""
    bare = key.removeprefix("fields.")
    return bare if _BEGINS_KEY.match(bare) and path_of(bare) == path_of(key) else key


def value_text(value: object, *, pattern: bool = False) -> str:
    """Write a value as it stands in a predicate's text: as a bare word if that means the same, else as JSON."""
    if isinstance(value, str) and (_PATTERN if pattern else BARE_WORD).fullmatch(value) and not _means_json(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _means_json(word: str) -> bool:
    """Whether the parser would take a bare word for something else than this text, or reject it."""
    if word in NEAR_LITERALS:
        return True
    try:
        from_json(word)
    except (ValueError, RecursionError):
        return False
    return True


def suggestion(text: str, is_leaf: Callable[[str], bool]) -> str | None:
    """Return a hint what to write instead of the invalid `text`, or None if there is no good guess.

    `is_leaf` tells whether a text is a valid predicate without `&&`.
    """
    if "&&" in text and not all(part.strip() for part in _split(_AND, text)):
        return "a predicate is missing beside &&"
    either = _split(_EITHER, text)
    if len(either) > 1 and all(map(is_leaf, either)):
        return "there is no `or`: give each a predicate of its own (the same key again ORs), or use wait --first-of"
    meant = [part for part in _split(_BETWEEN, _ROUND_OPERATORS.sub(_tight, text)) if part]
    meant = [part if is_leaf(part) else _COLON.sub(_of_source, part, 1) for part in meant]
    if meant and all(is_leaf(part) for whole in meant for part in whole.split(" && ")):
        return f"write {_quoted(' && '.join(meant))}"
    return None


_COLON = re.compile(r"([A-Za-z0-9_.-]+):(?=(.))", re.DOTALL)


def _of_source(found: re.Match[str]) -> str:
    """Rewrite the colon in `SOURCE:KEY=VALUE` or `KEY:VALUE`, which other tools use."""
    rest = found.string[found.end() :]
    return f"source={found[1]} && " if any(symbol in rest for symbol in "=~<>?") else f"{found[1]}="


_AND = re.compile(rf"({QUOTED})|&&", re.DOTALL)


def _split(separator: re.Pattern[str], text: str) -> list[str]:
    """Split `text` at every match of `separator`, except where the match is a quoted text (the first group)."""
    parts, start = [], 0
    for found in separator.finditer(text):
        if found[1] is None:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def _tight(found: re.Match[str]) -> str:
    return found[1] or ("=" if found[2] == "==" else found[2])


def _quoted(text: str) -> str:
    """Quote `text` as one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"
