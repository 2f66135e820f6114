"""Predicates: parses their text or object form, checks the limits that keep them cheap, and compiles them.

Pure: no I/O, no clock, no module state. The rules are in docs/contract.md, section 5. `matching` has the matchers.
"""

from __future__ import annotations

import json
import re

from waitbus.event import WaitbusError, one_line
from waitbus.json_text import from_json, is_deeper
from waitbus.matching import (
    BARE_WORD,
    NEAR_LITERALS,
    QUOTED,
    STEP,
    SYMBOLS,
    compile_node,
    freeze,
    is_number,
    is_plain,
    path_of,
    terms_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from waitbus.matching import Term

MAX_TEXT_BYTES = 256
MAX_DEPTH = 8
MAX_LEAVES = 64
# Limits of the object form: for one value, and for all keys and values together (what MAX_LEAVES texts can hold).
MAX_VALUE_BYTES = 1024
MAX_OBJECT_BYTES = MAX_LEAVES * MAX_TEXT_BYTES
# Matching a pattern with `?` or `[` can be slow, so all such patterns of a predicate together are limited.
MAX_PATTERN_CHARS = 256
OPERATORS = ("eq", "ne", "glob", "lt", "le", "gt", "ge", "exists")

_PATH = rf"(?:[A-Za-z_][A-Za-z0-9_-]*|{QUOTED})(?:\.(?:{STEP}))*"
_TEXT = re.compile(rf"\s*({_PATH})\s*(!=|<=|>=|=|~|<|>)(.*)", re.DOTALL)
_EXISTS = re.compile(rf"\s*({_PATH})\?\s*", re.DOTALL)
_KEY = re.compile(_PATH, re.DOTALL)
# Matches `&&` between predicates (the group), and quoted texts, in which `&&` has no meaning.
_AND = re.compile(rf"{QUOTED}|(\s+&&\s+)", re.DOTALL)


class PredicateError(WaitbusError, ValueError):
    """A predicate is invalid. The text shows the right form."""


class Predicate:
    """A compiled predicate. `Predicate.parse` makes one of text, `Predicate.from_object` of the form on the wire.

    >>> failed = Predicate.parse("exit_code>=1")
    >>> failed({"fields": {"exit_code": 2}}), failed({"fields": {"exit_code": "2"}})
    (True, False)

    Call it with an event frame, as `Event.as_frame()` returns it, to learn whether the event matches. The call never
    raises. `as_object` is the wire form. Two predicates are equal if they make the same tests in the same order.
    """

    __slots__ = ("_test", "as_object", "has_patterns", "terms")

    def __init__(self, node: dict[str, Any]) -> None:
        self.as_object = node
        self._test = compile_node(node)
        # Whether matching a long text may be slow.
        self.has_patterns = any(leaf["op"] == "glob" for leaf in leaves_of(node))
        # See `matching.terms_of`.
        self.terms: frozenset[Term] | None = terms_of(node)

    def __call__(self, frame: Mapping[str, Any]) -> bool:
        return self._test(frame)

    @classmethod
    def parse(cls, text: str) -> Predicate:
        """Parse one text, for example ``conclusion="failure"``. Raises `PredicateError`."""
        return cls(parse_text(text))

    @classmethod
    def from_object(cls, value: object) -> Predicate:
        """Make a predicate from its wire form. Raises `PredicateError` if it is invalid or exceeds a limit."""
        return cls(_checked(value, 1, _Budget()))

    def __repr__(self) -> str:
        return f"Predicate({json.dumps(self.as_object)})"

    @property
    def weight(self) -> int:
        """Roughly how many bytes of memory it takes in an index. The hub charges a subscriber for this."""
        return sum(_LEAF_WEIGHT + _CHAR_WEIGHT * _size(leaf) for leaf in leaves_of(self.as_object))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predicate) and _meaning(self.as_object) == _meaning(other.as_object)

    def __hash__(self) -> int:
        return hash(_meaning(self.as_object))


# Measured, in bytes: for a leaf with its closure, its term and its index entry, and for each byte of its key and value.
_LEAF_WEIGHT = 1536
_CHAR_WEIGHT = 12


def leaves_of(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The leaves of an object form, from left to right."""
    children = node.get("all") or node.get("any") or ([node["not"]] if "not" in node else [])
    for child in children:
        yield from leaves_of(child)
    if "key" in node:
        yield node


def _meaning(node: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a hashable value that is equal for two predicates exactly if they mean the same."""
    for word in ("all", "any"):
        if word in node:
            return (word, *map(_meaning, node[word]))
    if "not" in node:
        return ("not", _meaning(node["not"]))
    return ("leaf", path_of(node["key"]), node["op"], freeze(node.get("value")))


def all_of(texts: Iterable[str | Predicate], source: str | None = None) -> Predicate | None:
    """Combine predicates into one, or return None if there is none. Raises `PredicateError`.

    Predicates on different keys must all hold. Of several `=` and `~` on the same key one must hold. All other
    operators must all hold even on one key, so that `pid>1` and `pid<9` make a range. So must everything that one text
    joins with `&&`. `source` adds a test of `fields.source`. Also raises `PredicateError` if one text joins with `&&`
    what another one contradicts.
    """
    nodes: list[dict[str, Any]] = []
    positive: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    if source is not None:
        nodes.append({"key": "fields.source", "op": "eq", "value": source})
    for text in texts:
        node = text.as_object if isinstance(text, Predicate) else parse_text(text)
        if node.get("op") in ("eq", "glob"):
            alternatives = positive.setdefault(path_of(node["key"]), [])
            if not alternatives:
                nodes.append({"any": alternatives})
            alternatives.append(node)
        else:
            nodes.append(node)
    _check_agreement(nodes)
    nodes = [node["any"][0] if len(node.get("any", ())) == 1 else node for node in nodes]
    if not nodes:
        return None
    return Predicate.from_object(nodes[0] if len(nodes) == 1 else {"all": nodes})


def parse_text(text: str) -> dict[str, Any]:
    """Parse one text into the wire form: a leaf, or the `all` of those that `&&` joins. Raises `PredicateError`."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise PredicateError(f"predicate of more than {MAX_TEXT_BYTES} bytes: {one_line(text, 40)}")
    parts = _parts(text) if "&&" in text else [text]
    if len(parts) == 1:
        return _parse_part(text, text)
    node = {"all": [_parse_part(part, text) for part in parts]}
    _check_agreement([node])
    return node


def _parts(text: str) -> list[str]:
    """Split `text` at each `&&` that is outside quotes and has white space around it."""
    cuts = [found.span() for found in _AND.finditer(text) if found[1]]
    starts, ends = [0, *[end for _, end in cuts]], [*[start for start, _ in cuts], len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _parse_part(part: str, text: str) -> dict[str, Any]:
    """Parse a part of `text`. If it is invalid, the error suggests what the whole text may have meant."""
    try:
        return _parse_leaf(part)
    except PredicateError as error:
        from waitbus.predicate_text import suggestion  # only on an error, because a waiter has to start quickly

        hint = suggestion(text, _is_leaf)
        if hint is None:
            raise
        raise PredicateError(f"cannot read predicate {one_line(text, MAX_TEXT_BYTES)!r}: {hint}") from error


def _is_leaf(text: str) -> bool:
    try:
        _parse_leaf(text)
    except PredicateError:
        return False
    return True


def _check_agreement(nodes: Iterable[Mapping[str, Any]]) -> None:
    """Raise `PredicateError` if `&&` makes a predicate that never matches: one key must equal two different values."""
    nodes = list(nodes)
    required = [leaf for node in nodes if len(node.get("all", ())) > 1 for leaf in node["all"]]
    if required:
        required += [node["any"][0] for node in nodes if len(node.get("any", ())) == 1]
    first: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for leaf in required:
        if leaf.get("op") != "eq":
            continue
        other = first.setdefault(path_of(leaf["key"]), leaf)
        if freeze(other["value"]) != freeze(leaf["value"]):
            from waitbus.predicate_text import text_of

            raise PredicateError(
                f"{text_of(other)} and {text_of(leaf)} can never both hold: to match either, make them two predicates, "
                "or use wait --first-of"
            )


def _parse_leaf(text: str) -> dict[str, Any]:
    """Parse `KEY OP VALUE` or `KEY?` into a leaf of the wire form."""
    exists = _EXISTS.fullmatch(text)
    if exists:
        _check_key(exists[1])
        return {"key": exists[1], "op": "exists"}
    parts = _TEXT.fullmatch(text)
    if not parts:
        raise PredicateError(f'cannot read predicate {text!r}: write KEY=VALUE, for example conclusion="failure"')
    key, symbol, raw = parts[1], parts[2], parts[3].strip()
    _check_key(key)
    operator = SYMBOLS[symbol]
    value = _literal(one_line(key), symbol, raw)
    _check_value(key, operator, value)
    return {"key": key, "op": operator, "value": value}


def _literal(key: str, symbol: str, raw: str) -> Any:
    if raw in NEAR_LITERALS:
        raise PredicateError(
            f'{raw} is not JSON: write {key}{symbol}{NEAR_LITERALS[raw]}, or {key}{symbol}"{raw}" for the text'
        )
    if is_deeper(raw, MAX_DEPTH):
        raise PredicateError(f"{key}: the value is nested deeper than {MAX_DEPTH}: test a part of it: {key}.NAME=…")
    try:
        return from_json(raw)
    except (ValueError, RecursionError):
        if BARE_WORD.fullmatch(raw) or (symbol == "~" and raw and '"' not in raw):
            return raw
    hint = json.dumps(raw.strip("='\""), ensure_ascii=False) if raw else '"…"'
    raise PredicateError(
        f"{one_line(raw) or 'an empty value'} is not a JSON value: write '{key}{symbol}{hint}' (quoted for the shell)"
    )


def _check_key(key: str) -> None:
    """Raise `PredicateError` if a quoted step of the key has an invalid escape."""
    try:
        path_of(key)
    except ValueError:
        raise PredicateError(f"{one_line(key)}: a quoted name takes the escapes of JSON, like \\u00e9") from None


def _check_value(key: str, operator: str, value: object) -> None:
    if operator == "glob" and not isinstance(value, str):
        raise PredicateError(f'{one_line(key)}~ takes a pattern, for example {one_line(key)}~"release-*"')
    if operator in ("lt", "le", "gt", "ge") and not is_number(value):
        raise PredicateError(f"{one_line(key)}: <, <=, > and >= compare numbers, for example {one_line(key)}>=1")


class _Budget:
    """How much more a predicate may hold while it is checked."""

    __slots__ = ("leaves", "object_bytes", "pattern_chars")

    def __init__(self) -> None:
        self.leaves = MAX_LEAVES
        self.object_bytes = MAX_OBJECT_BYTES
        self.pattern_chars = MAX_PATTERN_CHARS

    def take(self, leaf: Mapping[str, Any]) -> None:
        """Count a leaf. Raises `PredicateError` if it exceeds the budget."""
        self.leaves -= 1
        if self.leaves < 0:
            raise PredicateError(f"predicate with more than {MAX_LEAVES} leaves")
        self.object_bytes -= _size(leaf)
        if self.object_bytes < 0:
            raise PredicateError(f"predicate with more than {MAX_OBJECT_BYTES} bytes of keys and values")
        if leaf["op"] == "glob" and not is_plain(leaf["value"]):
            self.pattern_chars -= len(leaf["value"])
            if self.pattern_chars < 0:
                raise PredicateError(f"predicate with more than {MAX_PATTERN_CHARS} characters of patterns with ? or [")


def _checked(value: object, depth: int, budget: _Budget) -> dict[str, Any]:
    """Return the object form with every other key removed. Raises `PredicateError` if it is invalid."""
    if depth > MAX_DEPTH:
        raise PredicateError(f"predicate deeper than {MAX_DEPTH}")
    if not isinstance(value, dict):
        raise PredicateError("a predicate object is {all|any: […]}, {not: …} or {key, op, value}")
    for word in ("all", "any"):
        if word in value:
            children = value[word]
            if not isinstance(children, list) or not children or len(value) != 1:
                raise PredicateError(f'"{word}" must be the only key and takes a non-empty list of predicates')
            return {word: [_checked(child, depth + 1, budget) for child in children]}
    if "not" in value:
        if len(value) != 1:
            raise PredicateError('"not" must be the only key and takes one predicate')
        return {"not": _checked(value["not"], depth + 1, budget)}
    leaf = _checked_leaf(value)
    budget.take(leaf)
    return leaf


def _checked_leaf(value: dict[str, Any]) -> dict[str, Any]:
    key, operator = value.get("key"), value.get("op", "eq")
    if not isinstance(key, str) or _bytes_of(key) > MAX_TEXT_BYTES or not _KEY.fullmatch(key):
        raise PredicateError(f"key must be a dotted key of at most {MAX_TEXT_BYTES} bytes")
    _check_key(key)
    if not isinstance(operator, str) or operator not in OPERATORS:
        raise PredicateError(f"op must be one of {' '.join(OPERATORS)}")
    if operator == "exists":
        return {"key": key, "op": operator}
    if "value" not in value:
        raise PredicateError(f"{one_line(key)}: op {operator} takes a value")
    _check_value(key, operator, value["value"])
    limit = MAX_TEXT_BYTES if operator == "glob" else MAX_VALUE_BYTES
    if _value_size(value["value"], MAX_DEPTH, limit) > limit:
        raise PredicateError(f"{one_line(key)}: the value has more than {limit} bytes")
    return {"key": key, "op": operator, "value": value["value"]}


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _size(leaf: Mapping[str, Any]) -> int:
    """Return the number of bytes in a checked leaf's key and value."""
    return _bytes_of(leaf["key"]) + _value_size(leaf.get("value"), MAX_DEPTH, MAX_VALUE_BYTES)


def _value_size(value: object, depth: int, limit: int) -> int:
    """Return roughly how many bytes a value has as JSON. This stops looking once the size exceeds `limit`.

    Raises `PredicateError` if the value is nested deeper than `depth` or is not a JSON value.
    """
    if isinstance(value, str):
        return _bytes_of(value) + 2
    if value is None or isinstance(value, bool):
        return 4
    if isinstance(value, int):
        return value.bit_length() // 3 + 1
    if isinstance(value, float) and abs(value) < float("inf"):
        return 8
    if not isinstance(value, list | dict) or not all(isinstance(key, str) for key in value if isinstance(value, dict)):
        raise PredicateError(f"a value must be JSON, not {type(value).__name__}")
    if not depth:
        raise PredicateError(f"a value must be nested at most {MAX_DEPTH} deep")
    size = 2
    for item in value:
        inner = value[item] if isinstance(value, dict) else item
        size += 1 + _value_size(inner, depth - 1, limit) + (_bytes_of(item) + 3 if isinstance(value, dict) else 0)
        if size > limit:
            break
    return size
