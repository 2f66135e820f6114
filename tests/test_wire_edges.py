"""The wire to the letter: what each frame of ours holds, where each bound lies, and what a first frame asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from waitbus import wire
from waitbus.event import MAX_FIELDS_DEPTH, MAX_NAME_BYTES
from waitbus.predicate import MAX_DEPTH, Predicate

ULID = "01JZABC123DEF456GHJ789KMNP"


def body_of(data: bytes) -> bytes:
    (body,) = wire.Decoder().feed(data)
    return body


def test_the_figures_of_the_contract() -> None:
    figures = (wire.PROTO, wire.HEARTBEAT_SEC, wire.FIRST_FRAME_SEC, wire.MAX_FRAME_BYTES, wire.MAX_FILTERS)
    assert figures == (1, 60, 10, 65536, 64)


def test_an_answer_to_the_letter() -> None:
    assert wire.ack_frame(None) == {
        "proto": 1,
        "caught_up_at": None,
        "heartbeat_sec": 60,
        "max_frame_bytes": 65536,
        "features": list(wire.FEATURES),
        "kind": "subscribe_ack",
    }
    assert {"match", "caught_up", "heartbeat_sec"} <= set(wire.FEATURES)
    said = wire.ack_frame(ULID, 5, served=("/store", "1.2"))
    assert (said["caught_up_at"], said["heartbeat_sec"], said["store"], said["version"]) == (ULID, 5, "/store", "1.2")
    assert list(said)[-1] == "kind"


@pytest.mark.parametrize(
    ("more", "added"),
    [
        ({}, {}),
        ({"cursor": ULID}, {"cursor": ULID}),
        ({"caught_up": True}, {"caught_up": True}),
        ({"cursor": ULID, "caught_up": True}, {"cursor": ULID, "caught_up": True}),
    ],
)
def test_a_heartbeat_to_the_letter(more: dict[str, Any], added: dict[str, Any]) -> None:
    said = wire.heartbeat_frame(7, 3, **more)
    assert said == {"ts": 7, "uptime_sec": 3, **added, "kind": "daemon_heartbeat"}


def test_what_stands_for_an_event_and_the_last_words_to_the_letter() -> None:
    assert wire.truncated_frame(ULID, "c") == {
        "event_id": ULID,
        "reason": "frame_too_large",
        "correlation_id": "c",
        "max_frame_bytes": 65536,
        "kind": "truncated",
    }
    lag = wire.lag_frame()
    assert (lag["kind"], lag["reason"], lag["supported"]) == ("subscribe_rejected", "lag_limit_exceeded", None)
    assert "since" in str(lag["remediation"])
    reasons = [wire.store_frame("look\nthere", damaged=damaged)["reason"] for damaged in (True, False)]
    assert reasons == ["store_damaged", "store_unreadable"]
    assert wire.store_frame("look\nthere", damaged=True)["remediation"] == "look there"


@pytest.mark.parametrize(
    ("asked", "frame"),
    [
        ({}, {"proto": 1}),
        ({"since": ULID}, {"proto": 1, "since": ULID}),
        ({"filters": ["o/r"], "event_types": ["t"]}, {"proto": 1, "filters": ["o/r"], "event_types": ["t"]}),
        ({"match": Predicate.parse("pid?")}, {"proto": 1, "match": {"key": "pid", "op": "exists"}}),
        ({"caught_up": True, "heartbeat_sec": 0}, {"proto": 1, "caught_up": True, "heartbeat_sec": 0}),
    ],
)
def test_what_a_client_asks_for_to_the_letter(asked: dict[str, Any], frame: dict[str, Any]) -> None:
    assert wire.subscribe_frame(**asked) == frame


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (1, 1),
        (5, 5),
        (2.9, 2),
        (60, 60),
        (61, 60),
        (0, 1),
        (-5, 1),
        (0.5, 1),
        (10**400, 60),
        (None, 60),
        ("5", 60),
        (True, 60),
    ],
)
def test_heartbeats_come_as_often_as_asked_within_bounds(asked: object, given: int) -> None:
    assert wire.parse_subscribe_request({"heartbeat_sec": asked}).heartbeat_sec == given


def test_only_true_asks_for_the_end_of_the_replay() -> None:
    asked = [wire.parse_subscribe_request({"caught_up": value}).caught_up for value in (True, False, None, 1, "true")]
    assert asked == [True, False, False, False, False]


@pytest.mark.parametrize("proto", [0, 2, True, 1.0, "1", None])
def test_another_version_is_answered(proto: object) -> None:
    with pytest.raises(wire.Rejected) as caught:
        wire.parse_subscribe_request({"proto": proto})
    assert caught.value.frame["reason"] == "version"
    assert caught.value.frame["supported"] == [1]
    assert str(caught.value).startswith("version: ")


def test_what_nests_too_deep_is_answered_where_a_predicate_does_and_silent_elsewhere() -> None:
    deep = b"[" * 100 + b"]" * 100
    with pytest.raises(wire.Rejected) as caught:
        wire.first_frame(b'{"match":' + deep + b"}")
    assert caught.value.frame["reason"] == "match"
    assert str(MAX_DEPTH) in str(caught.value)
    with pytest.raises(wire.TooDeep):
        wire.first_frame(b'{"agent":' + deep + b"}")


@pytest.mark.parametrize(
    ("filters", "owner", "repo", "expected"),
    [
        (["a/b", "c/d"], "c", "d", True),
        (["a/b", "c/d"], "a", "d", False),
        (["a/*"], "a", "x", True),
        (["a/*"], "b", "x", False),
        (["a/b", "*"], "z", "z", True),
        (["a.b-c_D9/e.f-g_H9"], "a.b-c_D9", "e.f-g_H9", True),
    ],
)
def test_what_filters_let_through(filters: list[str], owner: str, repo: str, expected: bool) -> None:
    predicate = wire.parse_subscribe_request({"filters": filters}).predicate
    frame = {"owner": owner, "repo": repo, "event_type": "t", "fields": {}}
    assert (predicate is None or predicate(frame)) is expected


def test_a_subscription_is_one_predicate_as_simple_as_it_can_be() -> None:
    match = {"key": "pid", "op": "exists"}
    asked: list[dict[str, Any]] = [{"match": match}, {}, {"match": match, "filters": ["a/*"]}]
    only, nothing, both = (wire.parse_subscribe_request(frame).predicate for frame in asked)
    assert nothing is None
    assert only is not None
    assert only.as_object == match
    assert both is not None
    assert list(both.as_object) == ["all"]


@pytest.mark.parametrize(("depth", "fits"), [(MAX_FIELDS_DEPTH, True), (MAX_FIELDS_DEPTH + 1, False)])
def test_a_frame_holds_fields_as_deep_as_they_may_be(depth: int, fits: bool) -> None:
    body = b'{"fields":' + b"[" * depth + b"]" * depth + b"}"
    if fits:
        assert wire.decode(body)["fields"]
    else:
        with pytest.raises(wire.TooDeep):
            wire.decode(body)


@pytest.mark.parametrize("item", ["", "a", "a/", "/b", "*/b", "**", "a/b/c", "a b/c", "é/b", "a/b\n", "a/**"])
def test_what_is_no_filter(item: str) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_subscribe_request({"filters": [item]})


def test_event_types_are_bounded_and_the_same_one_counts_once() -> None:
    most, longest = wire.MAX_EVENT_TYPES, MAX_NAME_BYTES
    types = [f"t{n}" for n in range(most)]
    assert wire.parse_subscribe_request({"event_types": [*types, *types]}).predicate is not None
    assert wire.parse_subscribe_request({"event_types": ["x" * longest]}).predicate is not None
    for bad in ([*types, "one more"], ["x" * (longest + 1)]):
        with pytest.raises(wire.WireError):
            wire.parse_subscribe_request({"event_types": bad})


def test_a_header_in_two_pieces_after_a_whole_frame() -> None:
    decoder = wire.Decoder()
    frame = b"\x00\x00\x00\x02{}"
    for cut in range(1, len(frame)):
        assert decoder.feed(frame + frame[:cut]) == [b"{}"]
        assert decoder.pending == cut
        assert decoder.feed(frame[cut:]) == [b"{}"]
        assert decoder.pending == 0


def test_frames_before_a_bad_length_are_given_first_and_then_it_raises() -> None:
    decoder = wire.Decoder()
    assert decoder.feed(b"\x00\x00\x00\x02{}" + b"\x00\x00\x00\x00") == [b"{}"]
    with pytest.raises(wire.WireError, match=r"frame length 0 is outside 1\.\.65536"):
        decoder.feed(b"")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1, 2}, "\ud800\ud800"])
def test_what_json_cannot_say_is_one_error_and_a_surrogate_is_escaped(value: object) -> None:
    frame = {"x": value, "y": 1}
    if isinstance(value, str):
        assert body_of(wire.encode(frame)) == b'{"x":"\\ud800\\ud800","y":1}'
        return
    for told in (frame, {**frame, "z": "\ud800"}):
        with pytest.raises(wire.WireError):
            wire.encode(told)


def test_a_circle_is_one_error() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(wire.WireError):
        wire.encode(circle)


def test_a_frame_is_compact_and_not_escaped_beyond_need() -> None:
    assert body_of(wire.encode({"a": [1, 2], "b": "é"})) == '{"a":[1,2],"b":"é"}'.encode()


@pytest.mark.parametrize(
    ("body", "event_id"),
    [
        (f'{{"event_id":"{ULID}","x":[', ULID),
        (f' {{ "event_id" : "{ULID}" ', ULID),
        (f'{{"x":1,"event_id":"{ULID}"}}', None),
        (f'{{"event_id":"{ULID.lower()}"}}', None),
        (f'{{"event_id":"{ULID[:-1]}"}}', None),
        ("", None),
    ],
)
def test_whose_frame_it_is_though_it_cannot_be_decoded(body: str, event_id: str | None) -> None:
    assert wire.event_id_in(body.encode()) == event_id


@pytest.mark.parametrize("correlation", ["x" * 66_000, "é" * 40_000, "\x01" * 20_000, 5, None])
def test_whatever_an_event_correlates_to_it_is_told_as_truncated(correlation: object) -> None:
    event = {"event_id": ULID, "fields": {"msg_correlation_id": correlation, "fat": "x" * 70_000}, "kind": "event"}
    frame = json.loads(body_of(wire.encode_event(event)))
    assert (frame["kind"], frame["event_id"], frame["correlation_id"]) == ("truncated", ULID, None)


def test_what_the_store_gives_as_truncated_is_told_so() -> None:
    event = {"event_id": ULID, "fields": {"msg_correlation_id": "c"}, "kind": "truncated"}
    frame = json.loads(body_of(wire.encode_event(event)))
    assert (frame["kind"], frame["correlation_id"]) == ("truncated", "c")
