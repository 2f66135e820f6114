"""One subscriber as a state machine, without a socket."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from waitbus import wire
from waitbus.hub.session import AWAITING, CLOSED, CLOSING, LIVE, REPLAY, Session


def framed(frame: Any) -> bytes:
    body = json.dumps(frame).encode()
    return len(body).to_bytes(4, "big") + body


def live_session(limit: int = 10_000) -> Session:
    session = Session(limit)
    assert session.receive(framed({})) is not None
    session.state = LIVE
    return session


def drain(session: Session, piece: int) -> bytes:
    """Take what goes out, `piece` bytes a send."""
    out = b""
    while session.queued_bytes:
        data = b"".join(session.buffers())[:piece]
        out += data
        session.sent(len(data))
    return out


def test_a_byte_a_second_is_one_subscription_in_the_end() -> None:
    session = Session(1000)
    first = framed({"proto": 1})
    for byte in first[:-1]:
        assert session.receive(bytes([byte])) is None
        assert session.state == AWAITING
    assert session.receive(first[-1:]) is not None
    assert session.state == REPLAY


def test_what_follows_the_first_frame_is_dropped() -> None:
    session = Session(1000)
    assert session.receive(framed({}) + b"\xff" * 100) is not None
    assert session.receive(b"\xff" * 100_000) is None
    assert session.state == REPLAY


def test_a_bad_first_frame_closes_silently_and_a_bad_version_is_told() -> None:
    silent = Session(1000)
    silent.receive(framed([]))
    assert silent.state == CLOSED
    assert silent.buffers() == []
    told = Session(1000)
    told.receive(framed({"proto": 9}))
    assert told.state == CLOSING
    (body,) = wire.Decoder().feed(drain(told, 7))
    assert wire.decode(body)["reason"] == "version"
    assert told.state == CLOSED


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=40), st.integers(1, 120))
def test_frames_leave_whole_and_in_order_however_small_the_sends(bodies: list[bytes], piece: int) -> None:
    session = live_session()
    sent = [len(body).to_bytes(4, "big") + body for body in bodies]
    for frame in sent:
        assert session.push(frame)
    assert session.queued_bytes == sum(map(len, sent))
    assert drain(session, piece) == b"".join(sent)
    assert session.queued_bytes == 0


@given(st.integers(0, 200))
def test_eviction_comes_at_a_frame_boundary(already: int) -> None:
    session = live_session(limit=300)
    frame = wire.encode({"x": "y" * 80})
    for _ in range(3):
        assert session.push(frame)
    first = b"".join(session.buffers())[:already]
    session.sent(len(first))
    while session.push(frame):
        pass
    assert session.state == CLOSING
    rest = drain(session, 11)
    *events, last = [wire.decode(body) for body in wire.Decoder().feed(first + rest)]
    assert all(event == {"x": "y" * 80} for event in events)
    assert last["kind"] == "subscribe_rejected"
    assert last["reason"] == "lag_limit_exceeded"
    assert session.state == CLOSED
    assert session.queued_bytes == 0


def test_close_lets_the_queue_go_out_and_takes_no_more() -> None:
    session = live_session()
    session.push(b"\x00\x00\x00\x02{}")
    session.close()
    assert not session.push(b"\x00\x00\x00\x02{}")
    assert drain(session, 100) == b"\x00\x00\x00\x02{}"
    assert session.state == CLOSED


def test_more_frames_than_one_gathering_send_takes() -> None:
    session = live_session(10**6)
    for _ in range(2000):
        session.push(b"\x00\x00\x00\x02{}")
    assert len(session.buffers()) <= 1024
    assert len(drain(session, 10**6)) == 12_000
