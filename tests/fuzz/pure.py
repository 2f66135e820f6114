"""Targets without I/O: the wire, the first frame, predicates, a subscription's state of bytes."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.engine import Target
from tests.fuzz.shapes import encoded, event_frames, json_values, predicates, spoilt, texts, ulids, values
from waitbus import wire
from waitbus.client.core import HubError, SubscriptionState
from waitbus.event import Event
from waitbus.matching import Index, freeze, is_same
from waitbus.predicate import Predicate, PredicateError, all_of

# --- the wire: any bytes in any pieces give the same frames, or one typed error --------------------------------------


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


streams_in_pieces = st.tuples(
    spoilt(st.lists(encoded(values).map(framed), max_size=4).map(b"".join)),
    st.lists(st.integers(0, 200), max_size=5).map(sorted),
)


def decode_all(chunks: list[bytes]) -> list[bytes]:
    decoder, bodies = wire.Decoder(), []
    try:
        for chunk in [*chunks, b""]:
            bodies += decoder.feed(chunk)
    except wire.WireError as error:
        bodies.append(str(error).encode())
    assert decoder.pending <= wire.MAX_FRAME_BYTES + wire.HEADER_BYTES + max(map(len, chunks), default=0)
    return bodies


def check_wire(example: tuple[list[bytes], list[int]]) -> int:
    variants, cuts = example
    for state in variants:
        bodies = decode_all([state[begin:end] for begin, end in pairwise([0, *cuts, max(200, len(state))])])
        assert bodies == decode_all([state])
        for body in bodies:
            with contextlib.suppress(wire.WireError):
                frame = wire.decode(body)
                assert wire.decode(wire.encode(frame)[wire.HEADER_BYTES :]) == frame
    return len(variants)


# --- the first frame: a subscription, an answer, or the silent error; and a subscription can be used ------------------

first_frames = st.fixed_dictionaries(
    {},
    optional={
        "proto": st.just(1) | values,
        "filters": st.lists(st.sampled_from(["*", "o/r", "o/*", "o/", "*/r"]) | texts, max_size=4) | values,
        "event_types": st.lists(texts, max_size=4) | values,
        "since": ulids | values,
        "envelope": st.just("diffs") | values,
        "match": predicates | values,
        "caught_up": st.booleans() | values,
        "agent": values,
    },
)


def check_first_frame(example: tuple[list[bytes], dict[str, Any]]) -> int:
    variants, frame = example
    for body in variants:
        try:
            subscription = wire.parse_subscribe_request(wire.decode(body))
        except wire.Rejected as rejected:
            wire.encode(rejected.frame)
            continue
        except wire.WireError:
            continue
        if subscription.predicate is not None:
            subscription.predicate(frame)
            agrees_with_index(subscription.predicate, frame)
    return len(variants)


def agrees_with_index(predicate: Predicate, frame: dict[str, Any]) -> None:
    """The index may give too many, never too few."""
    index = Index()
    index.add("it", predicate.terms)
    if predicate(frame):
        assert "it" in index.candidates(frame)
    index.discard("it")
    assert not index.candidates(frame)


# --- predicates as text and as object ---------------------------------------------------------------------------------

predicate_texts = st.builds(
    "{}{}{}".format,
    st.sampled_from(["conclusion", "fields.n", "a.b.0", "n", "received_at", ""]) | texts,
    st.sampled_from(["=", "!=", "~", "<", "<=", ">", ">=", "?", "", "=="]),
    st.sampled_from(
        ["failure", '"failure"', "null", "None", "1", "1e999", "NaN", "[1,2]", '{"a":1}', "[[", '"\\ud800"']
    )
    | values.map(json.dumps)
    | texts,
)


def check_predicate_text(example: tuple[str, str, dict[str, Any]]) -> None:
    text, other, frame = example
    try:
        predicate = Predicate.parse(text)
    except PredicateError as error:
        one_line(error)
        return
    assert Predicate.from_object(predicate.as_object) == predicate
    assert Predicate.from_object(json.loads(json.dumps(predicate.as_object))) == predicate
    predicate(frame)
    agrees_with_index(predicate, frame)
    with contextlib.suppress(PredicateError):
        both = all_of([text, other])
        assert both is not None
        both(frame)
        agrees_with_index(both, frame)


def check_predicate_object(example: tuple[Any, dict[str, Any]]) -> None:
    value, frame = example
    try:
        predicate = Predicate.from_object(value)
    except PredicateError as error:
        one_line(error)
        return
    again = Predicate.from_object(predicate.as_object)
    assert again(frame) == predicate(frame)
    assert Predicate({"not": predicate.as_object})(frame) != predicate(frame)
    agrees_with_index(predicate, frame)
    with contextlib.suppress(wire.WireError):  # over the cap, or text that UTF-8 cannot say
        wire.encode({"match": predicate.as_object})


def one_line(error: Exception) -> None:
    text = str(error)
    assert text
    assert "\n" not in text, f"an error of several lines: {text!r}"


# --- equality: `freeze` and `is_same` know when two JSON values are -------------------------------------------------


def check_freeze(pair: tuple[Any, Any]) -> None:
    one, other = pair
    assert (freeze(one) == freeze(other)) == same(one, other) == is_same(one, other) == is_same(other, one)
    assert freeze(one) == freeze(json.loads(json.dumps(one)))
    hash(freeze(one))


def same(one: Any, other: Any) -> bool:
    """JSON equality by definition: kinds first, then contents."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return bool((numbers or type(one) is type(other)) and one == other)


# --- a client's state: whatever a daemon sends, the cursor is an event_id and items are events ----------------------

hub_frames = (
    event_frames
    | st.just(wire.ack_frame(None))
    | st.fixed_dictionaries(
        {"kind": st.sampled_from(["subscribe_ack", "daemon_heartbeat", "truncated", "subscribe_rejected", "event"])},
        optional={
            "features": values | st.lists(st.sampled_from(["match", "caught_up"])),
            "heartbeat_sec": values,
            "caught_up": values,
            "caught_up_at": ulids | values,
            "cursor": ulids | values,
            "event_id": ulids | values,
            "correlation_id": values,
            "reason": st.just("lag_limit_exceeded") | values,
            "remediation": values,
            "fields": values,
        },
    )
)
ACK = wire.encode(wire.ack_frame(None))
streams = st.tuples(
    st.none() | ulids,
    spoilt(st.lists(encoded(hub_frames).map(framed), max_size=6).map(b"".join)),
    st.integers(0, 400),
)


def check_stream(example: tuple[str | None, list[bytes], int]) -> int:
    """Each variant comes over two connections, wherever the first one breaks."""
    since, variants, cut = example
    for data in variants:
        try:
            use_subscription_state(
                SubscriptionState(Predicate.parse("n=1"), since), [ACK + data[:cut], ACK + data[cut:]]
            )
        except HubError as error:
            one_line(error)
    return len(variants)


def use_subscription_state(state: SubscriptionState, connections: list[bytes]) -> None:
    now = 0.0
    for data in connections:
        now += 10
        state.first_frame(now, int(now * 1e9))
        for item in state.feed(data, now):
            if isinstance(item, Event):
                hash(item)
                json.dumps(item.as_frame())
        state.feed(b"", now)
        assert not state.connected
        assert now <= state.retry_at <= now + 1
        wire.parse_subscribe_request(wire.decode(state.first_frame(now, int(now * 1e9))[wire.HEADER_BYTES :]))
        state.hang_up()


TARGETS = [
    Target("wire", "bytes in any pieces", streams_in_pieces, check_wire),
    Target(
        "first-frame",
        "what a peer subscribes with",
        st.tuples(spoilt(encoded(first_frames | json_values())), event_frames),
        check_first_frame,
    ),
    Target(
        "predicate-text",
        "what a person writes after --match",
        st.tuples(predicate_texts, predicate_texts, event_frames),
        check_predicate_text,
    ),
    Target(
        "predicate-object",
        "the wire form of a predicate",
        st.tuples(predicates | values, event_frames),
        check_predicate_object,
    ),
    Target("equality", "two JSON values", st.tuples(values, values), check_freeze),
    Target("state", "what a daemon sends", streams, check_stream),
]
