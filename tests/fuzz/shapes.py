"""Where examples come from: JSON of every kind, and good bytes spoilt a little, which reach further than noise."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from waitbus.event import CROCKFORD, FIELD_COLUMNS, FRAME_KEYS, NATURAL_FIELDS, ULID_LENGTH

words = st.sampled_from(
    ["", "failure", "success", "a", "ab", "a*", "*", "[a]", "[!a-c]", "a?", "é", "\ud800", "\0", "\x1b[0m", "1", "null"]
)
texts = words | st.text(max_size=12)
whole = st.integers() | st.sampled_from([0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**40])
numbers = whole | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
names = st.sampled_from([*FRAME_KEYS, "source", "kind", *FIELD_COLUMNS, *NATURAL_FIELDS, "n", "a", "a-b", "0"])
ulids = st.text(alphabet=CROCKFORD, min_size=ULID_LENGTH, max_size=ULID_LENGTH)


def json_values(leaves: SearchStrategy[Any] = scalars) -> SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | texts, inner, max_size=4),
        max_leaves=12,
    )


values = json_values()


@st.composite
def spoilt(draw: DrawFn, good: SearchStrategy[bytes]) -> bytes:
    """Good bytes with a few pieces cut out, doubled, overwritten or put in."""
    data = draw(good)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 8)))
        piece = draw(
            st.binary(max_size=6)
            | st.sampled_from([b"\0", b"\xff", b'"', b"{", b"}", b"[" * 50, b"]", b",", b"\\ud800", b"1e999", b"NaN"])
        )
        data = draw(
            st.sampled_from([data[:at] + piece + data[to:], data[:to] + data[at:], data[:at] + piece + data[at:]])
        )
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
    max_leaves=10,
)
# Frames as a predicate may meet them: whatever the fields hold.
event_frames = st.fixed_dictionaries(
    {
        "event_id": ulids,
        "event_type": texts,
        "owner": texts,
        "repo": texts,
        "received_at": st.integers(0, 2**63 - 1),
        "delivery_id": texts,
        "summary": texts,
        "fields": st.dictionaries(names | texts, values, max_size=6),
        "kind": st.just("event"),
    }
)
