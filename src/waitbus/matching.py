"""Tests events against checked predicates: a matcher for one predicate, and an index over many.

The index finds the subscriptions that may match, so that the others cost nothing. Pure: no I/O, no clock, no module
state. A matcher reads event frames as `wire` decodes them, which are plain JSON values. It raises for no frame, and it
looks no deeper into a value than the predicate's own value goes.
"""

from __future__ import annotations

import json
import re

from waitbus.event import FRAME_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Test = Callable[[Mapping[str, Any]], bool]
    # An index term: a path and the frozen value it must have. See `terms_of`.
    Term = tuple[tuple[str, ...], tuple[Any, ...]]

# The syntax of a predicate's text, for the modules that parse and write it.
SYMBOLS = {"!=": "ne", "<=": "le", ">=": "ge", "=": "eq", "~": "glob", "<": "lt", ">": "gt"}
BARE_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./:@+-]*")
# Words that other languages use for a JSON literal -> that literal. A predicate does not take them as bare words.
NEAR_LITERALS = {
    **dict.fromkeys(("True", "TRUE"), "true"),
    **dict.fromkeys(("False", "FALSE"), "false"),
    **dict.fromkeys(("None", "NONE", "Null", "NULL", "nil", "undefined"), "null"),
}
QUOTED = r'"(?:[^"\\]|\\.)*"'
STEP = rf"[A-Za-z0-9_-]+|{QUOTED}"
_STEPS = re.compile(STEP, re.DOTALL)
# A quoted step may hold unescaped control characters.
_STEP_DECODER = json.JSONDecoder(strict=False)
# Keys that have few different values. An index over one of them excludes little, so another key is preferred.
_COARSE = frozenset({"source", "event_type", "conclusion", "status", "owner", "repo", "ingest_method", "action"})
# What `lookup` gives where there is nothing.
MISSING = object()


def path_of(key: str) -> tuple[str, ...]:
    """Return the path of a key in a frame. A key that does not start with one of `FRAME_KEYS` means `fields.KEY`.

    A step in double quotes may hold any characters, with the escapes of JSON: ``labels."com.example.name"``.
    Raises ``ValueError`` for an invalid escape.
    """
    if '"' not in key:
        parts = key.split(".")
    else:
        parts = [_STEP_DECODER.decode(step) if step[0] == '"' else step for step in _STEPS.findall(key)]
    return tuple(parts) if parts[0] in FRAME_KEYS else ("fields", *parts)


def is_number(value: object) -> bool:
    """Whether a JSON value is a number. Booleans do not count."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def freeze(value: object) -> tuple[Any, ...]:
    """Return a hashable value that is equal for two JSON values exactly if they are: 1 equals 1.0, not "1" nor true."""
    if isinstance(value, bool) or value is None:
        return ("const", value)
    if isinstance(value, str):
        return ("text", value)
    if isinstance(value, int | float):
        return ("number", value)
    if isinstance(value, list):
        return ("list", *map(freeze, value))
    if isinstance(value, dict):
        return ("object", *sorted((key, freeze(item)) for key, item in value.items()))
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def lookup(frame: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return the value at `path`, or `MISSING` if a step is missing. A step into a list is a decimal index."""
    value: Any = frame
    for step in path:
        if isinstance(value, dict):
            value = value.get(step, MISSING)
        elif isinstance(value, list):
            value = value[int(step)] if step.isascii() and step.isdigit() and int(step) < len(value) else MISSING
        else:
            return MISSING
    return value


def compile_node(node: Mapping[str, Any]) -> Test:
    """Compile the object form of a checked predicate into a matcher."""
    for word, combine in (("all", all), ("any", any)):
        if word in node:
            tests = [compile_node(child) for child in node[word]]
            return lambda frame: combine(test(frame) for test in tests)
    if "not" in node:
        negated = compile_node(node["not"])
        return lambda frame: not negated(frame)
    path, operator, wanted = path_of(node["key"]), node["op"], node.get("value")
    test = _VALUE_TESTS[operator](wanted)

    def leaf(frame: Mapping[str, Any]) -> bool:
        value = lookup(frame, path)
        return value is not MISSING and test(value)

    return leaf


def _equals(wanted: Any) -> Callable[[Any], bool]:
    if isinstance(wanted, str):
        return lambda value: bool(value == wanted)
    return lambda value: is_same(wanted, value)


def is_same(wanted: Any, value: Any) -> bool:
    """Whether two JSON values are equal, including their types (but 1 equals 1.0). It looks no deeper than `wanted`."""
    if isinstance(wanted, bool) or wanted is None:
        return value is wanted
    if isinstance(wanted, list):
        return isinstance(value, list) and len(value) == len(wanted) and all(map(is_same, wanted, value))
    if isinstance(wanted, dict):
        if not isinstance(value, dict) or value.keys() != wanted.keys():
            return False
        return all(is_same(item, value[key]) for key, item in wanted.items())
    return isinstance(value, str) == isinstance(wanted, str) and not isinstance(value, bool) and bool(value == wanted)


def _differs(wanted: Any) -> Callable[[Any], bool]:
    equal = _equals(wanted)
    return lambda value: not equal(value)


def _globs(pattern: str) -> Callable[[Any], bool]:
    test = glob_test(pattern)
    return lambda value: isinstance(value, str) and test(value)


def is_plain(pattern: str) -> bool:
    """Whether the only wildcard in a pattern is `*`."""
    return "?" not in pattern and "[" not in pattern


def glob_test(pattern: str) -> Callable[[str], bool]:
    """Return a test whether a whole text matches a pattern: `*`, `?` and `[…]` as in `fnmatch`, always case-sensitive.

    A plain pattern takes time proportional to the length of the text, any other at most to that times its own length.
    """
    if not is_plain(pattern):
        from fnmatch import translate

        match = re.compile(translate(pattern)).match
        return lambda text: match(text) is not None
    head, *inner = pattern.split("*")
    if not inner:
        return pattern.__eq__
    tail = inner.pop()
    shortest = len(pattern) - pattern.count("*")

    def test(text: str) -> bool:
        if len(text) < shortest or not text.startswith(head) or not text.endswith(tail):
            return False
        at, end = len(head), len(text) - len(tail)
        for part in inner:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return test


def _compares(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Callable[[Any], bool]]:
    return lambda wanted: lambda value: is_number(value) and compare(value, wanted)


_VALUE_TESTS: dict[str, Callable[[Any], Callable[[Any], bool]]] = {
    "eq": _equals,
    "ne": _differs,
    "glob": _globs,
    "lt": _compares(lambda a, b: a < b),
    "le": _compares(lambda a, b: a <= b),
    "gt": _compares(lambda a, b: a > b),
    "ge": _compares(lambda a, b: a >= b),
    "exists": lambda _wanted: lambda _value: True,
}


def terms_of(node: Mapping[str, Any]) -> frozenset[Term] | None:
    """Return terms of which at least one holds in every frame that matches `node`, or None if there are none.

    A term is an equality with a single value. Of an `all` only the most selective child gives terms.
    """
    if "any" in node:
        branches = [terms_of(child) for child in node["any"]]
        return None if None in branches else frozenset().union(*(b for b in branches if b is not None))
    if "all" in node:
        usable = [terms for child in node["all"] if (terms := terms_of(child)) is not None]
        return min(usable, key=_coarseness) if usable else None
    if node.get("op") == "eq" and not isinstance(node["value"], list | dict):
        return frozenset({(path_of(node["key"]), freeze(node["value"]))})
    return None


def _coarseness(terms: frozenset[Term]) -> tuple[int, int]:
    return sum(path[-1] in _COARSE for path, _ in terms), len(terms)


class Index:
    """Finds the subscriptions that an event may match without evaluating those that wait for another value.

    A subscription is any hashable key. `add` files it under its predicate's terms; `candidates` returns all keys that
    may match.
    """

    __slots__ = ("_any", "_by_path", "_terms")

    def __init__(self) -> None:
        self._any: set[Any] = set()
        self._by_path: dict[tuple[str, ...], dict[tuple[Any, ...], set[Any]]] = {}
        self._terms: dict[Any, frozenset[Term]] = {}

    def add(self, key: Any, terms: frozenset[Term] | None) -> None:
        if terms is None:
            self._any.add(key)
            return
        self._terms[key] = terms
        for path, value in terms:
            self._by_path.setdefault(path, {}).setdefault(value, set()).add(key)

    def discard(self, key: Any) -> None:
        self._any.discard(key)
        for path, value in self._terms.pop(key, ()):
            values = self._by_path[path]
            values[value].discard(key)
            if not values[value]:
                del values[value]
            if not values:
                del self._by_path[path]

    def candidates(self, frame: Mapping[str, Any]) -> set[Any]:
        """Return a new set of the keys that may match. This takes one look-up for each path, not for each key."""
        found = set(self._any)
        for path, values in self._by_path.items():
            value = lookup(frame, path)
            if value is not MISSING and not isinstance(value, list | dict):
                found |= values.get(freeze(value), _EMPTY)
        return found


_EMPTY: frozenset[Any] = frozenset()
