"""Where examples come from: JSON of every kind, and good bytes spoilt a little, which reach further than noise."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from waitbus.event import FIELD_COLUMNS, FRAME_KEYS, NATURAL_FIELDS
from waitbus.ulid import encode_ulid

words = st.sampled_from(
    ["", "failure", "success", "a", "ab", "a*", "*", "[a]", "[!a-c]", "a?", "é", "\ud800", "\0", "\x1b[0m", "1", "null"]
)
texts = words | st.text(max_size=12)
whole = st.integers() | st.sampled_from([0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**40])
numbers = whole | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
names = st.sampled_from([*FRAME_KEYS, "source", "kind", *FIELD_COLUMNS, *NATURAL_FIELDS, "n", "a", "a-b", "0"])
ulids = st.integers(0, 2**128 - 1).map(encode_ulid)


def json_values(leaves: SearchStrategy[Any] = scalars) -> SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | texts, inner, max_size=4),
        max_leaves=8,
    )


values = json_values()


VARIANTS = 20
_PIECES = (
    b"\0",
    b"\xff",
    b'"',
    b"{",
    b"}",
    b"[" * 50,
    b"]",
    b",",
    b":",
    b"\\ud800",
    b"1e999",
    b"NaN",
    b"\n",
    b"9" * 30,
)


def spoilt(good: SearchStrategy[bytes]) -> SearchStrategy[list[bytes]]:
    """Good bytes and some variants of them, each with a few pieces cut out, doubled, overwritten or put in."""
    return st.tuples(good, st.integers(0, 2**32)).map(lambda pair: _variants(*pair))


def _variants(data: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    return [data, *[_spoil(data, chance) for _ in range(VARIANTS - 1)]]


def _spoil(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(data))
        to = min(len(data), at + chance.randint(0, 8))
        piece = chance.choice(_PIECES) if chance.random() < 0.5 else chance.randbytes(chance.randint(0, 6))
        data = chance.choice((data[:at] + piece + data[to:], data[:to] + data[at:], data[:at] + piece + data[at:]))
    return data


def encoded(strategy: SearchStrategy[Any]) -> SearchStrategy[bytes]:
    """JSON bytes, with and without escapes for what is not ASCII."""
    return st.tuples(strategy, st.booleans()).map(
        lambda pair: json.dumps(pair[0], ensure_ascii=pair[1]).encode("utf-8", "surrogatepass")
    )


leaf = st.fixed_dictionaries(
    {"key": names | names.map("fields.{}".format) | texts},
    optional={
        "op": st.sampled_from(["eq", "ne", "glob", "lt", "le", "gt", "ge", "exists"]) | texts,
        "value": values,
    },
)
predicates = st.recursive(
    leaf,
    lambda inner: (
        st.fixed_dictionaries({"all": st.lists(inner, max_size=4)})
        | st.fixed_dictionaries({"any": st.lists(inner, max_size=4)})
        | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=8,
)


# Frames as a predicate may meet them, whatever the fields hold: made by chance alone, which is quicker by far.
_WORDS = ("", "failure", "success", "a", "ab", "[a]", "é", "\ud800", "\0", "\x1b[0m", "1", "null", "t")
_NUMBERS = (0, 1, -1, 1.0, 1.5, -0.0, 2**53 + 1, 2.0**53, 2**63, 10**40, 1e300)
_NAMES = (*FRAME_KEYS, "source", "kind", *FIELD_COLUMNS, *NATURAL_FIELDS, "n", "a", "a-b", "0", "")


def _random_value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(7 if depth else 5)
    if kind < 3:
        return (chance.choice(_WORDS), chance.choice(_NUMBERS), chance.randint(-9, 9))[kind]
    if kind < 5:
        return chance.choice((None, True, False))
    if kind == 5:
        return [_random_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(_NAMES): _random_value(chance, depth - 1) for _ in range(chance.randrange(4))}


def _random_frame(seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    frame: dict[str, Any] = {key: chance.choice(_WORDS) for key in FRAME_KEYS}
    frame["event_id"] = encode_ulid(chance.getrandbits(128))
    frame["received_at"] = chance.choice((0, 1, 10**18, 2**63 - 1))
    frame["fields"] = {chance.choice(_NAMES): _random_value(chance, 3) for _ in range(chance.randrange(7))}
    frame["kind"] = "event"
    return frame


event_frames = st.integers(0, 2**32).map(_random_frame)
