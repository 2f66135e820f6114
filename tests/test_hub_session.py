"""One subscriber as a state machine, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus import wire
from waitbus.hub.session import TRANSITIONS, Cue, IllegalCue, Session, State


def framed(frame: Any) -> bytes:
    body = json.dumps(frame).encode()
    return len(body).to_bytes(4, "big") + body


def live_session(limit: int = 10_000) -> Session:
    session = Session(limit)
    assert session.receive(framed({})) is not None
    session.go_live()
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
        assert session.state is State.AWAITING
    assert session.receive(first[-1:]) is not None
    assert session.state is State.REPLAYING


def test_what_follows_the_first_frame_is_dropped() -> None:
    session = Session(1000)
    assert session.receive(framed({}) + b"\xff" * 100) is not None
    assert session.receive(b"\xff" * 100_000) is None
    assert session.state is State.REPLAYING


def test_a_bad_first_frame_closes_silently_and_a_bad_version_is_told() -> None:
    silent = Session(1000)
    silent.receive(framed([]))
    assert silent.state is State.CLOSED
    assert silent.buffers() == []
    told = Session(1000)
    told.receive(framed({"proto": 9}))
    assert told.state is State.CLOSING
    (body,) = wire.Decoder().feed(drain(told, 7))
    assert wire.decode(body)["reason"] == "version"
    assert told.is_closed


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
    assert session.state is State.CLOSING
    rest = drain(session, 11)
    *events, last = [wire.decode(body) for body in wire.Decoder().feed(first + rest)]
    assert all(event == {"x": "y" * 80} for event in events)
    assert last["kind"] == "subscribe_rejected"
    assert last["reason"] == "lag_limit_exceeded"
    assert session.is_closed
    assert session.queued_bytes == 0


def test_close_lets_the_queue_go_out_and_takes_no_more() -> None:
    session = live_session()
    session.push(b"\x00\x00\x00\x02{}")
    session.close()
    assert not session.push(b"\x00\x00\x00\x02{}")
    assert drain(session, 100) == b"\x00\x00\x00\x02{}"
    assert session.state is State.CLOSED


def test_more_frames_than_one_gathering_send_takes() -> None:
    session = live_session(10**6)
    for _ in range(2000):
        session.push(b"\x00\x00\x00\x02{}")
    assert len(session.buffers()) <= 1024
    assert len(drain(session, 10**6)) == 12_000


# --- the table of transitions -----------------------------------------------------------------------------------------


def session_in(state: State) -> Session:
    """A session that came to `state` by its own methods, with one frame still queued where it is closing."""
    session = Session(10_000)
    if state is not State.AWAITING:
        assert session.receive(framed({})) is not None
    if state in (State.LIVE, State.CLOSING):
        session.go_live()
    if state is State.CLOSING:
        session.push(wire.encode({"kind": "daemon_heartbeat"}))
        session.close()
    if state is State.CLOSED:
        session.lose()
    assert session.state is state
    return session


# Each method that changes the state, and the cue that it stands for.
METHODS: list[tuple[Cue, Callable[[Session], object]]] = [
    (Cue.CAUGHT_UP, Session.go_live),
    (Cue.FELL_BEHIND, Session.fall_behind),
    (Cue.LOST, Session.lose),
    (Cue.LOST, Session.abort),
]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(("cue", "method"), METHODS)
def test_a_method_does_what_the_table_says_or_raises_and_changes_nothing(
    state: State, cue: Cue, method: Callable[[Session], object]
) -> None:
    session = session_in(state)
    session.begin(7, 3)
    after = TRANSITIONS[state].get(cue)
    if after is None:
        with pytest.raises(IllegalCue, match=f"{state.name} cannot be told {cue.name}"):
            method(session)
        assert (session.state, session.cursor, session.live_after_seq, session.takes_history) == (state, 3, 7, True)
    else:
        method(session)
        assert session.state is after


def test_nothing_leads_out_of_closed_and_everything_leads_there() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set(TRANSITIONS[State.CLOSED].values()) == {State.CLOSED}
    assert all(TRANSITIONS[state][Cue.LOST] is State.CLOSED for state in State)


@pytest.mark.parametrize("state", [State.AWAITING, State.CLOSING, State.CLOSED])
def test_only_one_that_is_served_takes_frames_or_a_last_word(state: State) -> None:
    session = session_in(state)
    queued = session.queued_bytes
    assert not session.push(b"frame")
    session.reject({"kind": "subscribe_rejected"})
    assert (session.queued_bytes, session.state) == (queued, state)


def test_its_place_moves_with_what_was_handed_over() -> None:
    session = session_in(State.REPLAYING)
    session.begin(9, 4)
    assert not session.has_all_up_to(9)
    session.advance(9)
    assert session.has_all_up_to(9)
    session.go_live()
    assert not session.has_all_up_to(9)
    assert not session.takes_history
    session.fall_behind(12)
    assert (session.state, session.cursor) == (State.REPLAYING, 12)
    session.go_live()
    session.fall_behind()
    assert session.cursor == 12


@pytest.mark.parametrize("state", State)
def test_what_it_says_of_its_state(state: State) -> None:
    session = session_in(state)
    said = (session.is_awaiting, session.is_replaying, session.is_live, session.is_closed)
    assert said == tuple(state is one for one in (State.AWAITING, State.REPLAYING, State.LIVE, State.CLOSED))
    assert session.is_served is (state in (State.REPLAYING, State.LIVE))
    assert session.is_ending is (state in (State.CLOSING, State.CLOSED))


def test_its_limit_is_all_its_own_where_it_brought_no_predicate() -> None:
    session = Session(100)
    assert session.receive(framed({})) is not None
    assert session.push(b"x" * 100)
    assert not session.push(b"x")
    assert session.state is State.CLOSING
