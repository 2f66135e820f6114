"""The wire: any bytes, in any chunking, give frames or one typed error; first frames get what 0.2.0 answered."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus import wire
from waitbus.predicate import Predicate

VECTORS = [json.loads(line) for line in (Path(__file__).parent / "vectors/wire-v1.jsonl").read_text().splitlines()]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def decode_in(chunks: list[bytes]) -> list[bytes]:
    decoder, bodies = wire.Decoder(), []
    try:
        for chunk in [*chunks, b""]:
            bodies += decoder.feed(chunk)
    except wire.WireError as error:
        bodies.append(str(error).encode())
    return bodies


@given(st.data(), st.binary(max_size=300) | st.lists(st.binary(min_size=1, max_size=60), max_size=5))
def test_any_bytes_in_any_chunking_give_the_same(data: st.DataObject, raw: bytes | list[bytes]) -> None:
    stream = raw if isinstance(raw, bytes) else b"".join(len(b).to_bytes(4, "big") + b for b in raw)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode_in(chunks) == decode_in([stream])


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=4))
def test_what_is_encoded_decodes_to_itself(frames: list[dict[str, Any]]) -> None:
    bodies = wire.Decoder().feed(b"".join(map(wire.encode, frames)))
    assert [wire.decode(body) for body in bodies] == frames


@given(st.binary(max_size=200))
def test_any_body_is_an_object_or_a_wire_error(body: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        assert isinstance(wire.decode(body), dict)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"[]",
        b"1",
        b'"x"',
        b'{"a":NaN}',
        b"[" * 60_000,
        b'{"a":\x00}',
        b"",
        b'{"a":1}x',
        b'{"a":' + b"9" * 9000 + b"}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(body)


@pytest.mark.parametrize("length", [0, 65537, 2**32 - 1])
def test_a_length_outside_the_cap_is_refused_at_once(length: int) -> None:
    with pytest.raises(wire.WireError, match="length"):
        wire.Decoder().feed(length.to_bytes(4, "big"))


def test_the_cap_itself_passes() -> None:
    body = b"x" * wire.MAX_FRAME_BYTES
    assert wire.Decoder().feed(len(body).to_bytes(4, "big") + body) == [body]


def test_a_frame_as_long_as_the_cap_can_be_said_and_no_longer_one() -> None:
    fits = {"x": "y" * (wire.MAX_FRAME_BYTES - len('{"x":""}'))}
    (body,) = wire.Decoder().feed(wire.encode(fits))
    assert len(body) == wire.MAX_FRAME_BYTES
    assert wire.decode(body) == fits
    with pytest.raises(wire.WireError, match="65537 bytes exceeds the limit"):
        wire.encode({"x": fits["x"] + "y"})


@pytest.mark.parametrize("vector", [v for v in VECTORS if "raw_hex" not in v], ids=lambda v: v["about"])
def test_first_frames_get_the_answer_that_was_seen(vector: dict[str, Any]) -> None:
    body = vector["first"].encode() if "first" in vector else bytes.fromhex(vector["first_hex"])
    if vector["answer"] == "end":
        with pytest.raises(wire.WireError):
            wire.parse_subscribe_request(wire.decode(body))
    elif vector["answer"] == "subscribe_rejected":
        with pytest.raises(wire.Rejected) as caught:
            wire.parse_subscribe_request(wire.decode(body))
        frame = caught.value.frame
        assert {"reason": vector["reason"], "supported": vector["supported"]}.items() <= frame.items()
    else:
        assert vector["answer"] == "subscribe_ack"
        wire.parse_subscribe_request(wire.decode(body))


@pytest.mark.parametrize(
    ("frame", "event", "expected"),
    [
        ({}, {}, True),
        ({"filters": ["o/r"]}, {"owner": "o", "repo": "r"}, True),
        ({"filters": ["o/r"]}, {"owner": "o", "repo": "x"}, False),
        ({"filters": ["o/*", "p/q"]}, {"owner": "o", "repo": "x"}, True),
        ({"filters": ["o/r", "*"]}, {"owner": "z", "repo": "z"}, True),
        ({"filters": []}, {"owner": "z", "repo": "z"}, True),
        ({"event_types": []}, {"event_type": "t"}, True),
        ({"event_types": ["t", "u"]}, {"event_type": "u"}, True),
        ({"event_types": ["t"]}, {"event_type": "u"}, False),
        ({"match": {"key": "pid", "op": "gt", "value": 3}}, {"fields": {"pid": 4}}, True),
        (
            {"event_types": ["t"], "match": {"key": "pid", "op": "gt", "value": 3}},
            {"event_type": "u", "fields": {"pid": 4}},
            False,
        ),
    ],
)
def test_what_a_subscription_asks_for(frame: dict[str, Any], event: dict[str, Any], expected: bool) -> None:
    predicate = wire.parse_subscribe_request(frame).predicate
    event = {"owner": "local", "repo": "local", "event_type": "x", "fields": {}, **event}
    assert (predicate is None or predicate(event)) is expected


@pytest.mark.parametrize(
    "frame",
    [
        {"filters": "o/r"},
        {"filters": ["o/r"] * 65},
        {"filters": ["o/r/x"]},
        {"filters": [5]},
        {"event_types": "x"},
        {"since": "01jzabc123def456ghj789kmnp"},
        {"envelope": None},
    ],
)
def test_a_malformed_first_frame_is_silent(frame: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_subscribe_request(frame)


def test_a_bad_match_is_answered() -> None:
    with pytest.raises(wire.Rejected) as caught:
        wire.parse_subscribe_request({"match": {"key": "a", "op": "like", "value": 1}})
    assert caught.value.frame["reason"] == "match"
    assert caught.value.frame["supported"] is None
    assert caught.value.frame["remediation"]


def test_sixty_four_filters_fit_whatever_the_match() -> None:
    frame = {"filters": ["o/r"] * 64, "match": {"key": "pid", "op": "exists"}}
    assert wire.parse_subscribe_request(frame).predicate is not None


def test_an_oversize_event_goes_as_truncated() -> None:
    event = {"event_id": "0" * 26, "fields": {"msg_correlation_id": "c", "msg_body": "x" * 70_000}}
    (body,) = wire.Decoder().feed(wire.encode_event(event))
    frame = wire.decode(body)
    assert frame["kind"] == "truncated"
    assert frame["correlation_id"] == "c"
    assert frame["max_frame_bytes"] == 65536


def test_a_lone_surrogate_does_not_hide_an_event() -> None:
    (body,) = wire.Decoder().feed(wire.encode_event({"event_id": "0" * 26, "fields": {"x": "\ud800"}, "kind": "event"}))
    assert wire.decode(body)["fields"]["x"] == "\ud800"


def test_a_client_s_first_frame_is_understood() -> None:
    frame = wire.subscribe_frame(since="0" * 26, match=Predicate.parse("pid=3"), event_types=["t"], caught_up=True)
    parsed = wire.parse_subscribe_request(wire.decode(wire.Decoder().feed(wire.encode(frame))[0]))
    assert parsed.since == "0" * 26
    assert parsed.caught_up
    assert parsed.predicate is not None
    assert parsed.predicate.terms == Predicate.parse("pid=3").terms
