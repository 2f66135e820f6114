"""Predicates: text or object in, one compiled matcher out; and an index, so that who does not match costs nothing.

Pure: no I/O, no clock, no state of the module's own. A matcher reads event frames as `wire` decodes them (plain JSON
values) and never runs anything that came in with them. Rules: section 5 of the contract.
"""

from __future__ import annotations

import json
import re

from waitbus.event import FRAME_KEYS, WaitbusError, from_json, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Test = Callable[[Mapping[str, Any]], bool]
    # An index term: a path and the frozen value it must have. See `Predicate.terms`.
    Term = tuple[tuple[str, ...], tuple[Any, ...]]

MAX_TEXT_BYTES = 256
MAX_DEPTH = 8
MAX_LEAVES = 64
OPERATORS = ("eq", "ne", "glob", "lt", "le", "gt", "ge", "exists")

_SYMBOLS = {"!=": "ne", "<=": "le", ">=": "ge", "=": "eq", "~": "glob", "<": "lt", ">": "gt"}
_TEXT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.-]*?)\s*(!=|<=|>=|=|~|<|>)(.*)", re.DOTALL)
_EXISTS = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.-]*)\?\s*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_BARE_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./:@+-]*")
_NEAR_LITERALS = {
    **dict.fromkeys(("True", "TRUE"), "true"),
    **dict.fromkeys(("False", "FALSE"), "false"),
    **dict.fromkeys(("None", "NONE", "Null", "NULL", "nil", "undefined"), "null"),
}
# Keys with few values: an index over them separates little, so any other equality is preferred.
_COARSE = frozenset({"source", "event_type", "conclusion", "status", "owner", "repo", "ingest_method", "action"})
_MISSING = object()


class PredicateError(WaitbusError, ValueError):
    """A predicate that cannot be read. The text names the right form."""


class Predicate:
    """A compiled predicate. Make one with `Predicate.parse(text)`, `Predicate.from_object(object)` or `all_of(...)`.

    Calling it with an event frame (or an `Event`'s `as_frame()`) says whether it matches. `as_object` is its wire form.
    """

    __slots__ = ("_test", "as_object", "terms")

    def __init__(self, node: dict[str, Any]) -> None:
        self.as_object = node
        self._test = _compile(node)
        # If the predicate matches a frame, at least one of these terms holds in it; None: nothing can be said.
        self.terms: frozenset[Term] | None = _terms(node)

    def __call__(self, frame: Mapping[str, Any]) -> bool:
        return self._test(frame)

    @classmethod
    def parse(cls, text: str) -> Predicate:
        """One text, such as ``conclusion="failure"``. Raises `PredicateError` with the right form."""
        return cls(parse_text(text))

    @classmethod
    def from_object(cls, value: object) -> Predicate:
        """The wire form. Raises `PredicateError` on another shape, on depth over 8, on more than 64 leaves."""
        budget = [MAX_LEAVES]
        return cls(_checked(value, 1, budget))

    def __repr__(self) -> str:
        return f"Predicate({json.dumps(self.as_object)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predicate) and self.as_object == other.as_object

    def __hash__(self) -> int:
        return hash(json.dumps(self.as_object, sort_keys=True))


def all_of(texts: Iterable[str | Predicate], source: str | None = None) -> Predicate | None:
    """Several predicates as one: across keys they AND; `=` and `~` on the same key OR. None when there is none.

    Restrictions (`!=`, `<`, `<=`, `>`, `>=`, `key?`) AND even on one key: `pid>1` with `pid<9` is a range.
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
    nodes = [node["any"][0] if len(node.get("any", ())) == 1 else node for node in nodes]
    if not nodes:
        return None
    return Predicate.from_object(nodes[0] if len(nodes) == 1 else {"all": nodes})


def parse_text(text: str) -> dict[str, Any]:
    """One predicate text as a leaf of the wire form."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise PredicateError(f"predicate over {MAX_TEXT_BYTES} bytes: {one_line(text, 40)}")
    exists = _EXISTS.fullmatch(text)
    if exists:
        return {"key": exists[1], "op": "exists"}
    parts = _TEXT.fullmatch(text)
    if not parts or not _KEY.fullmatch(parts[1]):
        raise PredicateError(f'cannot read predicate {text!r}: write KEY=VALUE, such as conclusion="failure"')
    key, symbol, raw = parts[1], parts[2], parts[3].strip()
    operator = _SYMBOLS[symbol]
    value = _literal(key, symbol, raw)
    _check_value(key, operator, value)
    return {"key": key, "op": operator, "value": value}


def _literal(key: str, symbol: str, raw: str) -> Any:
    if raw in _NEAR_LITERALS:
        raise PredicateError(
            f'{raw} is not JSON: write {key}{symbol}{_NEAR_LITERALS[raw]}, or {key}{symbol}"{raw}" for the text'
        )
    try:
        return from_json(raw)
    except (ValueError, RecursionError):
        if _BARE_WORD.fullmatch(raw) or (symbol == "~" and raw and '"' not in raw):
            return raw
    hint = json.dumps(raw.strip("='\""), ensure_ascii=False) if raw else '"…"'
    raise PredicateError(
        f"{one_line(raw) or 'an empty value'} is no JSON value: write '{key}{symbol}{hint}' (quoted for the shell)"
    )


def _check_value(key: str, operator: str, value: object) -> None:
    if operator == "glob" and not isinstance(value, str):
        raise PredicateError(f'{key}~ takes a pattern, such as {key}~"release-*"')
    if operator in ("lt", "le", "gt", "ge") and not _is_number(value):
        raise PredicateError(f"{key}: <, <=, > and >= compare numbers, such as {key}>=1")


def path_of(key: str) -> tuple[str, ...]:
    """The path a key walks in a frame: an undotted key that is not the frame's own means `fields.KEY`."""
    parts = tuple(key.split("."))
    return ("fields", *parts) if len(parts) == 1 and parts[0] not in FRAME_KEYS else parts


def _checked(value: object, depth: int, leaves: list[int]) -> dict[str, Any]:
    """The object form with its shape checked; `leaves` is the budget left, in a list so that it is shared."""
    if depth > MAX_DEPTH:
        raise PredicateError(f"predicate deeper than {MAX_DEPTH}")
    if not isinstance(value, dict):
        raise PredicateError("a predicate object is {all|any: […]}, {not: …} or {key, op, value}")
    for word in ("all", "any"):
        if word in value:
            children = value[word]
            if not isinstance(children, list) or not children or len(value) != 1:
                raise PredicateError(f"{word} stands alone and takes a list that is not empty")
            return {word: [_checked(child, depth + 1, leaves) for child in children]}
    if "not" in value:
        if len(value) != 1:
            raise PredicateError("not stands alone and takes one predicate")
        return {"not": _checked(value["not"], depth + 1, leaves)}
    leaves[0] -= 1
    if leaves[0] < 0:
        raise PredicateError(f"predicate with more than {MAX_LEAVES} leaves")
    return _checked_leaf(value)


def _checked_leaf(value: dict[str, Any]) -> dict[str, Any]:
    key, operator = value.get("key"), value.get("op", "eq")
    if not isinstance(key, str) or len(key) > MAX_TEXT_BYTES or not _KEY.fullmatch(key):
        raise PredicateError("a leaf names a dotted key")
    if operator not in OPERATORS:
        raise PredicateError(f"op is one of {' '.join(OPERATORS)}")
    if operator == "exists":
        return {"key": key, "op": operator}
    if "value" not in value:
        raise PredicateError(f"{key}: op {operator} takes a value")
    _check_value(key, operator, value["value"])
    return {"key": key, "op": operator, "value": value["value"]}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def freeze(value: object) -> tuple[Any, ...]:
    """A hashable stand-in that is equal exactly when two JSON values are: 1 is not "1" nor true, but it is 1.0."""
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
    raise TypeError(f"{type(value).__name__} is no JSON value")


def lookup(frame: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """What stands at `path`, or a private sentinel when a step is missing. List steps are decimal indexes."""
    value: Any = frame
    for step in path:
        if isinstance(value, dict):
            value = value.get(step, _MISSING)
        elif isinstance(value, list):
            value = value[int(step)] if step.isascii() and step.isdigit() and int(step) < len(value) else _MISSING
        else:
            return _MISSING
    return value


def _compile(node: Mapping[str, Any]) -> Test:
    for word, combine in (("all", all), ("any", any)):
        if word in node:
            tests = [_compile(child) for child in node[word]]
            return lambda frame: combine(test(frame) for test in tests)
    if "not" in node:
        negated = _compile(node["not"])
        return lambda frame: not negated(frame)
    path, operator, wanted = path_of(node["key"]), node["op"], node.get("value")
    test = _VALUE_TESTS[operator](wanted)

    def leaf(frame: Mapping[str, Any]) -> bool:
        value = lookup(frame, path)
        return value is not _MISSING and test(value)

    return leaf


def _equals(wanted: Any) -> Callable[[Any], bool]:
    frozen = freeze(wanted)
    if isinstance(wanted, str):
        return lambda value: bool(value == wanted)
    return lambda value: freeze(value) == frozen


def _differs(wanted: Any) -> Callable[[Any], bool]:
    equal = _equals(wanted)
    return lambda value: not equal(value)


def _globs(pattern: str) -> Callable[[Any], bool]:
    """`*`, `?` and `[…]`, as in `fnmatch`, but case always counts and no regular expression can run away."""
    return lambda value: isinstance(value, str) and glob_match(pattern, value)


def glob_match(pattern: str, text: str) -> bool:
    """Whether the whole of `text` fits a shell pattern. Linear in practice: it backtracks to the last `*` only."""
    p = t = 0
    star = mark = -1
    while t < len(text):
        step = _glob_step(pattern, p, text[t]) if p < len(pattern) else 0
        if step:
            p += step
            t += 1
        elif p < len(pattern) and pattern[p] == "*":
            star, mark = p, t
            p += 1
        elif star >= 0:
            mark += 1
            p, t = star + 1, mark
        else:
            return False
    return all(char == "*" for char in pattern[p:])


def _glob_step(pattern: str, at: int, char: str) -> int:
    """How many pattern characters match `char` at `at` as one unit; 0 when it does not match or is a `*`."""
    unit = pattern[at]
    if unit == "*":
        return 0
    if unit == "?":
        return 1
    close = pattern.find("]", at + 3 if pattern[at + 1 : at + 2] == "!" else at + 2) if unit == "[" else -1
    if close < 0:
        return int(unit == char)
    body = pattern[at + 1 : close]
    negate = body.startswith("!")
    return close + 1 - at if _in_class(body[negate:], char) != negate else 0


def _in_class(body: str, char: str) -> bool:
    i = 0
    while i < len(body):
        if body[i + 1 : i + 2] == "-" and i + 2 < len(body):
            if body[i] <= char <= body[i + 2]:
                return True
            i += 3
        else:
            if body[i] == char:
                return True
            i += 1
    return False


def _compares(compare: Callable[[Any, Any], bool]) -> Callable[[Any], Callable[[Any], bool]]:
    return lambda wanted: lambda value: _is_number(value) and compare(value, wanted)


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


def _terms(node: Mapping[str, Any]) -> frozenset[Term] | None:
    """Terms of which at least one must hold for `node` to match: from the most selective child of an `all`."""
    if "any" in node:
        branches = [_terms(child) for child in node["any"]]
        return None if None in branches else frozenset().union(*(b for b in branches if b is not None))
    if "all" in node:
        usable = [terms for child in node["all"] if (terms := _terms(child)) is not None]
        return min(usable, key=_coarseness) if usable else None
    if node.get("op") == "eq":
        return frozenset({(path_of(node["key"]), freeze(node["value"]))})
    return None


def _coarseness(terms: frozenset[Term]) -> tuple[int, int]:
    return sum(path[-1] in _COARSE for path, _ in terms), len(terms)


class Index:
    """Which subscriptions an event may concern, without asking those that wait on another value.

    Keys are any hashable objects; `add` files one under its predicate's terms, `candidates` gives all that may match.
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
        """A new set of keys: one look-up per indexed path, however many subscriptions there are."""
        found = set(self._any)
        for path, values in self._by_path.items():
            value = lookup(frame, path)
            if value is _MISSING:
                continue
            try:
                found |= values.get(freeze(value), _EMPTY)
            except RecursionError:  # deeper than any value that a predicate can name: nobody waits for it
                continue
        return found


_EMPTY: frozenset[Any] = frozenset()
