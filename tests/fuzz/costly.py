"""Targets of what is dear: events that no frame can hold, deep ones, predicates that could take long, quoted keys.

Whatever a peer or a producer makes of them, nothing raises, an event is given or stands as `truncated`, and one event
takes one predicate a bounded time.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.engine import Target
from tests.fuzz.pure import agrees_with_index, one_line
from tests.fuzz.shapes import event_frames, texts
from waitbus import wire
from waitbus.client.core import SubscriptionState, Truncated
from waitbus.event import FRAME_KEYS, Event
from waitbus.predicate import Predicate, PredicateError, all_of
from waitbus.store.prefilter import condition_of

# How deep on the stack a program may be when it asks.
STACK = 250
# What one look at one event may cost, on a machine that does other things, too; the hub's other peers wait for it.
LOOK_SEC = 0.5
BIG = 200_000
ACK = wire.encode(wire.ack_frame(None))


def from_below(act: Callable[[], Any], frames: int = STACK) -> Any:
    """Do it from deep on the stack."""
    return from_below(act, frames - 1) if frames else act()


def nested(depth: int, *, as_object: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if as_object else [value]
    return value


# --- events that no frame can hold ------------------------------------------------------------------------------------


def _monster(seed: int) -> dict[str, Any]:
    """A frame as the store's reader might give it, with some of it past every bound."""
    chance = random.Random(seed)
    frame: dict[str, Any] = {key: chance.choice(["", "a", "é", "\ud800", "\0"]) for key in FRAME_KEYS}
    frame |= {"event_id": "0" * 26, "received_at": chance.choice([0, 2**63 - 1]), "kind": "event"}
    fields: dict[str, Any] = {"source": "s"}
    frame["fields"] = fields
    for _ in range(chance.randint(1, 3)):
        big = chance.choice(["x", "é", "\x01", "\ud800", '"']) * chance.choice([60, 30_000, 65_300, 70_000, BIG])
        depth = chance.choice([1, 8, 64, 65, 500, 900, 3000])
        way = chance.randrange(5)
        if way == 0:
            fields["msg_correlation_id"] = chance.choice([big, 5, None])
        elif way == 1:
            fields["deep"] = nested(depth, as_object=chance.random() < 0.5)
        elif way == 2:
            fields[big] = 1
        elif way == 3:
            frame[chance.choice(["summary", "owner", "delivery_id", "event_type"])] = big
        else:
            fields["big"] = big
    return frame


def check_unsayable(seed: int) -> None:
    frame = _monster(seed)
    arrives(frame, wire.encode_event(frame))
    arrives(frame, from_below(lambda: wire.encode_event(frame)))
    Predicate.parse("deep.0.0=1")(frame)


def arrives(frame: dict[str, Any], said: bytes) -> None:
    """A client far down its stack takes the event in, whole or as `truncated`, and stays."""
    assert wire.HEADER_BYTES < len(said) <= wire.HEADER_BYTES + wire.MAX_FRAME_BYTES
    stream = SubscriptionState()
    stream.first_frame(0, 0)
    items = from_below(lambda: stream.feed(ACK + said, 0))
    assert stream.connected, "a client leaves the hub for what the hub said"
    assert stream.cursor == frame["event_id"]
    (item,) = [item for item in items if isinstance(item, Event | Truncated)]
    assert item.event_id == frame["event_id"]


# --- predicates that could take long ----------------------------------------------------------------------------------

letters = st.sampled_from(["a", "b", "*", "?", "**", "*a", "a*", "[ab]", "[!b]", "?*", "*?"])
patterns = st.lists(letters, min_size=1, max_size=400).map("".join)


def globs(pattern: str) -> dict[str, Any]:
    return {"key": "msg_body", "op": "glob", "value": pattern}


dear = st.one_of(
    patterns.map(globs),
    st.tuples(patterns, st.integers(1, 64), st.sampled_from(["any", "all"])).map(
        lambda drawn: {drawn[2]: [globs(drawn[0] + str(n)) for n in range(drawn[1])]}
    ),
    st.tuples(st.integers(0, 12), patterns).map(lambda drawn: _negated(*drawn)),
    st.tuples(st.integers(1, 2000), st.booleans()).map(
        lambda drawn: {"key": "deep", "op": "eq", "value": nested(drawn[0], as_object=drawn[1])}
    ),
    st.integers(1, 70).map(lambda n: {"any": [{"key": f"deep{'.a' * 100}", "op": "ne", "value": k} for k in range(n)]}),
    st.integers(1, 6000).map(lambda n: {"key": "deep", "op": "eq", "value": ["x" * 9] * n}),
)
bodies = st.tuples(st.sampled_from(["a", "ab", "ba", "aab", "é"]), st.sampled_from([10, 1000, BIG])).map(
    lambda drawn: (drawn[0] * drawn[1])[: drawn[1]]
)


def _negated(times: int, pattern: str) -> dict[str, Any]:
    node = globs(pattern)
    for _ in range(times):
        node = {"not": node}
    return node


def check_dear(example: tuple[dict[str, Any], str, int]) -> None:
    """A peer's match is refused, or answers for any event within a bound, and asks the store for nothing odd."""
    match, body, depth = example
    try:
        predicate = wire.parse_subscribe_request({"match": match}).predicate
    except wire.Rejected as rejected:
        one_line(rejected)
        wire.encode(rejected.frame)
        return
    assert predicate is not None
    frame = {"event_type": "t", "fields": {"msg_body": body, "deep": nested(depth, as_object=True)}, "kind": "event"}
    begin = time.process_time()
    predicate(frame)
    took = time.process_time() - begin
    assert took < LOOK_SEC, f"one look at one event took {took:.1f} s"
    from_below(lambda: predicate(frame))
    condition_of(predicate.as_object)


# --- deep events ------------------------------------------------------------------------------------------------------


def check_deep(example: tuple[str, int, bool]) -> None:
    """Wherever the stack stands, a text says yes or no of a deep event, and the index hides no match."""
    text, depth, as_object = example
    frame = {"event_type": "t", "fields": {"a": nested(depth, as_object=as_object), "n": 1}, "kind": "event"}
    predicate = Predicate.parse(text)
    found = predicate(frame)
    assert found == from_below(lambda: predicate(frame))
    agrees_with_index(predicate, frame)
    assert Predicate({"not": predicate.as_object})(frame) != found


deep_texts = st.sampled_from(
    ["a=1", "a!=1", "a=[1]", 'a={"a":1}', "a?", "a.0.0=1", "a.a.a=1", "n=1", "a>1", "a~x", "a!=[]"]
)

# --- quoted keys ------------------------------------------------------------------------------------------------------

steps = st.sampled_from(
    ["com.docker.compose.project", "a.b", ".", "a b", "", '"', "\\", "é", "a=b", "a && b", "x", "0"]
)
some_steps = st.lists(steps | texts.filter(lambda text: len(text) < 9), min_size=1, max_size=4)


def check_quoted(example: tuple[list[str], str, dict[str, Any]]) -> None:
    """Whatever a field is named, a text can name it, means that field and no other, and survives the wire."""
    path, value, frame = example
    key = ".".join(json.dumps(step, ensure_ascii=False) for step in ["labels", *path])
    try:
        predicate = Predicate.parse(f"{key}={json.dumps(value)}")
    except PredicateError as error:
        one_line(error)
        assert len(key.encode("utf-8", "surrogatepass")) > 200, f"a key that no text can name: {key}"
        return
    inner: Any = value
    for step in reversed(path):
        inner = {step: inner}
    frame["fields"]["labels"] = inner
    assert predicate(frame), f"{key} does not find its field"
    agrees_with_index(predicate, frame)
    again = Predicate.from_object(json.loads(json.dumps(predicate.as_object)))
    assert again == predicate
    assert again(frame)
    both = all_of([f"{key}?", f"{key}={json.dumps(value)}"])
    assert both is not None
    assert both(frame)
    frame["fields"]["labels"] = {"other": value}
    with contextlib.suppress(KeyError):
        del frame["fields"]["labels"][path[0]]
    assert not predicate(frame)
    assert condition_of(predicate.as_object) is None, "no column is named so"


TARGETS = [
    Target("unsayable", "events that no frame can hold", st.integers(0, 2**32), check_unsayable),
    Target("dear", "predicates that could take long", st.tuples(dear, bodies, st.integers(0, 900)), check_dear),
    Target("deep", "deep events", st.tuples(deep_texts, st.integers(0, 2000), st.booleans()), check_deep),
    Target(
        "quoted",
        "keys of any name",
        st.tuples(some_steps, st.sampled_from(["web", "", "1"]), event_frames),
        check_quoted,
    ),
]
