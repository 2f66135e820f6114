"""The subscriber's side, sans-I/O: whatever the connections do, every event comes once, in order."""

from __future__ import annotations

import inspect
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus import wire
from waitbus.client.core import (
    CAUGHT_UP,
    CLOSE_HEARTBEAT_SEC,
    GRACE_SEC,
    CaughtUp,
    HubError,
    SubscriptionState,
    Truncated,
)
from waitbus.event import HISTORY_METHODS, Event
from waitbus.predicate import Predicate
from waitbus.ulid import ULID_MIN, encode_ulid, ulid_at

if TYPE_CHECKING:
    from waitbus.client.core import Item

NOW_NS = 1_800_000_000_000_000_000


def event_id(number: int) -> str:
    return encode_ulid((1 << 100) + number)


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": event_id(number),
        "event_type": "test",
        "owner": "local",
        "repo": "local",
        "received_at": number,
        "delivery_id": str(number),
        "summary": f"event {number}",
        "fields": {"source": "test", "n": number, **fields},
        "kind": "event",
    }


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def said(*frames: dict[str, Any]) -> bytes:
    return b"".join(wire.encode(frame) for frame in frames)


def old_ack(caught_up_at: str | None = None) -> dict[str, Any]:
    """As 0.2.0 answers: no features."""
    frame = wire.ack_frame(caught_up_at)
    del frame["features"]
    return frame


def asked(first_frame: bytes) -> dict[str, Any]:
    (body,) = wire.Decoder().feed(first_frame)
    return wire.decode(body)


def opened(state: SubscriptionState, *frames: dict[str, Any], now: float = 0.0) -> list[Item]:
    """Connect, answer, say frames."""
    state.first_frame(now, NOW_NS)
    return state.feed(said(wire.ack_frame(None), *frames), now)


MARKER = wire.heartbeat_frame(0, 0, caught_up=True)


def ids(items: list[Item]) -> list[str]:
    return [item.event_id for item in items if isinstance(item, Event)]


class TestFirstFrame:
    def test_it_asks_for_what_matches_and_for_the_marker(self) -> None:
        predicate = Predicate.parse("n=1")
        frame = asked(SubscriptionState(predicate, event_id(1)).first_frame(0, NOW_NS))
        assert frame == {"proto": 1, "since": event_id(1), "match": predicate.as_object, "caught_up": True}

    def test_it_asks_to_hear_the_hub_often_where_one_that_hangs_must_be_noticed(self) -> None:
        state = SubscriptionState(heartbeat_sec=CLOSE_HEARTBEAT_SEC)
        assert asked(state.first_frame(100, NOW_NS))["heartbeat_sec"] == CLOSE_HEARTBEAT_SEC
        state.feed(said(wire.ack_frame(None, CLOSE_HEARTBEAT_SEC)), 100)
        assert 100 < state.read_until <= 110

    def test_without_since_it_is_live_only(self) -> None:
        assert "since" not in asked(SubscriptionState().first_frame(0, NOW_NS))

    def test_it_comes_back_with_the_last_event(self) -> None:
        state = SubscriptionState(since=event_id(1))
        opened(state, event(2), event(3))
        state.lost(1.0)
        assert asked(state.first_frame(1, NOW_NS))["since"] == event_id(3)

    def test_lost_before_the_first_event_it_comes_back_with_the_time_it_was_reached(self) -> None:
        state = SubscriptionState()
        state.first_frame(0, NOW_NS - 5_000_000_000)
        state.lost(0)
        state.first_frame(0, NOW_NS)
        state.feed(said(wire.ack_frame(None)), 0)
        state.lost(1)
        assert asked(state.first_frame(1, NOW_NS + 9_000_000_000))["since"] == ulid_at(NOW_NS)
        assert state.began_at == state.resume_at == ulid_at(NOW_NS)

    def test_never_answered_it_stays_live_only(self) -> None:
        state = SubscriptionState()
        state.first_frame(0, NOW_NS)
        state.feed(b"", 0)
        assert "since" not in asked(state.first_frame(1, NOW_NS))

    def test_a_hub_that_names_its_place_is_taken_at_its_word(self) -> None:
        state = SubscriptionState(Predicate.parse("n=0"))
        opened(state, {**MARKER, "cursor": event_id(7)})
        state.lost(1)
        assert asked(state.first_frame(1, NOW_NS))["since"] == event_id(7)
        state.feed(said(wire.ack_frame(None), {**wire.heartbeat_frame(0, 0), "cursor": event_id(9)}), 1)
        assert state.resume_at == event_id(9)

    def test_where_it_began_is_the_place_named_unless_an_event_came_before(self) -> None:
        marker = {**MARKER, "cursor": event_id(7)}
        state = SubscriptionState()
        opened(state)
        before = state.ready
        state.feed(said(marker), 0)
        assert (before, state.ready) == (False, True)
        assert state.began_at == event_id(7)
        state.feed(said({**marker, "cursor": event_id(8)}), 0)
        assert (state.began_at, state.resume_at) == (event_id(7), event_id(8))
        state = SubscriptionState()
        opened(state, event(7), marker)
        assert state.began_at == ulid_at(NOW_NS)
        state = SubscriptionState(since=event_id(1))
        opened(state, marker)
        assert state.began_at == event_id(1)

    def test_rewound_it_has_again_what_came_after(self) -> None:
        state = SubscriptionState()
        opened(state, event(1), event(2), event(3))
        state.rewind(event_id(1))
        assert asked(state.first_frame(1, NOW_NS))["since"] == event_id(1)
        assert ids(state.feed(said(wire.ack_frame(None), event(2), event(3)), 1)) == [event_id(2), event_id(3)]


class TestItems:
    def test_events_and_the_marker_come_in_order(self) -> None:
        state = SubscriptionState(since=ULID_MIN)
        first, marker, second = opened(state, event(1), MARKER, event(2))
        assert isinstance(first, Event)
        assert first.as_frame() == event(1)
        assert marker is CAUGHT_UP
        assert ids([second]) == [event_id(2)]
        assert state.live

    def test_a_truncated_event_is_the_cursor_too(self) -> None:
        state = SubscriptionState()
        (item,) = opened(state, wire.truncated_frame(event_id(5), "c-1"))
        assert isinstance(item, Truncated)
        assert (item.event_id, item.correlation_id) == (event_id(5), "c-1")
        assert state.cursor == event_id(5)

    def test_a_repeat_is_dropped(self) -> None:
        state = SubscriptionState()
        assert len(opened(state, event(1), event(2), event(1))) == 2
        state.lost(0)
        assert ids(opened(state, event(2), event(3))) == [event_id(3)]

    @pytest.mark.parametrize(
        "frame",
        [
            {"kind": "event"},
            {**event(1), "event_id": "not a ulid"},
            {**event(1), "event_id": 7},
            {**event(1), "fields": None},
            {key: value for key, value in event(1).items() if key != "summary"},
            {"kind": "truncated"},
            {"kind": "something new", "event_id": event_id(1)},
            {"kind": None},
            {},
        ],
    )
    def test_a_frame_that_tells_nothing_is_passed_over(self, frame: dict[str, Any]) -> None:
        state = SubscriptionState()
        assert ids(opened(state, frame, event(2))) == [event_id(2)]
        assert state.connected

    @given(st.data(), st.lists(st.sampled_from([1, 2, 3, 4, 5]), max_size=8))
    def test_chunks_do_not_matter(self, data: st.DataObject, numbers: list[int]) -> None:
        raw = said(wire.ack_frame(None), *map(event, numbers), MARKER)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
        state = SubscriptionState()
        state.first_frame(0, NOW_NS)
        items: list[Item] = []
        for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            if begin < end:
                items += state.feed(raw[begin:end], 0)
        assert ids(items) == [event_id(number) for number in dict.fromkeys(numbers)]
        assert items[-1] is CAUGHT_UP


class TestHistory:
    """What was imported or back-filled is no news, whatever connection replays it."""

    def replayed(self, since: str | None, happened_ns: int, method: str) -> bool:
        state = SubscriptionState(since=since)
        opened(state, MARKER)
        state.lost(0)
        past = event(5, ingest_method=method) | {"received_at": happened_ns}
        got = ids(opened(state, past, event(6)))
        assert got[-1] == event_id(6)
        assert state.cursor == event_id(6)
        return got[:-1] == [event_id(5)]

    @pytest.mark.parametrize("method", HISTORY_METHODS)
    def test_it_is_given_where_the_past_was_asked_for_and_goes_by_its_own_time(self, method: str) -> None:
        hour = 3600 * 1_000_000_000
        assert not self.replayed(None, NOW_NS, method)
        assert not self.replayed(None, NOW_NS - hour, method)
        assert not self.replayed(ulid_at(NOW_NS - hour), NOW_NS - 2 * hour, method)
        assert self.replayed(ulid_at(NOW_NS - 2 * hour), NOW_NS - hour, method)
        assert self.replayed(ULID_MIN, 0, method)
        assert self.replayed(event_id(1), 0, method)

    def test_nothing_else_goes_by_its_own_time(self) -> None:
        assert self.replayed(None, 0, "manual")
        assert self.replayed(ulid_at(NOW_NS), 0, "webhook")


class TestOldDaemon:
    """0.2.0's: no `match`, no marker."""

    def test_the_predicate_is_checked_here(self) -> None:
        state = SubscriptionState(Predicate.parse("n=2"), since=ULID_MIN)
        state.first_frame(0, NOW_NS)
        items = state.feed(said(old_ack(event_id(3)), event(1), event(2), event(3)), 0)
        assert ids(items) == [event_id(2)]
        assert state.cursor == event_id(3)

    def test_replay_ends_at_the_event_the_ack_names(self) -> None:
        state = SubscriptionState(Predicate.parse("n=9"), since=ULID_MIN)
        state.first_frame(0, NOW_NS)
        assert state.feed(said(old_ack(event_id(2)), event(1)), 0) == []
        assert not state.live
        assert state.feed(said(event(2)), 0) == [CAUGHT_UP]

    @pytest.mark.parametrize("goal", [None, event_id(5), event_id(4), 7])
    def test_with_nothing_to_replay_it_is_live_at_once(self, goal: Any) -> None:
        state = SubscriptionState(since=event_id(5))
        state.first_frame(0, NOW_NS)
        assert state.feed(said(old_ack(goal)), 0) == [CAUGHT_UP]

    def test_a_heartbeat_ends_a_replay_that_never_reached_its_goal(self) -> None:
        state = SubscriptionState(since=ULID_MIN)
        state.first_frame(0, NOW_NS)
        items = state.feed(said(old_ack(event_id(2)), wire.heartbeat_frame(0, 0)), 0)
        assert items == [CAUGHT_UP]


class TestTime:
    def test_two_and_a_half_heartbeats_without_a_byte_are_the_end(self) -> None:
        state = SubscriptionState()
        state.first_frame(100, NOW_NS)
        assert state.read_until == 100 + wire.FIRST_FRAME_SEC
        state.feed(said({**wire.ack_frame(None), "heartbeat_sec": 4}), 101)
        assert state.read_until == 111
        state.feed(said(wire.heartbeat_frame(0, 0)), 110)
        assert state.read_until == 120
        state.feed(b"", 120)
        assert not state.connected

    @pytest.mark.parametrize("heartbeat", [None, 0, -1, "60", 1e300])
    def test_a_heartbeat_that_makes_no_sense_does_no_harm(self, heartbeat: Any) -> None:
        state = SubscriptionState()
        state.first_frame(0, NOW_NS)
        state.feed(said({**wire.ack_frame(None), "heartbeat_sec": heartbeat}), 0)
        assert 100 < state.read_until < 10_000

    def test_it_comes_back_at_once_after_a_connection_of_use_then_slower_and_slower(self) -> None:
        state = SubscriptionState()
        opened(state, event(1))
        state.lost(10)
        assert state.retry_at == 10
        delays = []
        for _ in range(9):
            state.later(10)
            delays.append(state.retry_at - 10)
        assert delays == sorted(delays)
        assert delays[0] > 0
        assert delays[-1] == delays[-2] == 1
        opened(state, event(2))
        state.lost(20)
        assert state.retry_at == 20

    def test_an_answer_alone_is_of_no_use(self) -> None:
        state = SubscriptionState()
        for _ in range(20):
            opened(state)
            state.lost(0)
        assert state.retry_at == 1

    @pytest.mark.parametrize(
        "frame",
        [
            MARKER,
            wire.heartbeat_frame(0, 0),
            event(1),
            wire.truncated_frame(event_id(1), None),
            wire.lag_frame(),
        ],
        ids=lambda frame: frame["kind"],
    )
    def test_any_word_of_a_hub_makes_its_connection_one_of_use(self, frame: dict[str, Any]) -> None:
        state = SubscriptionState()
        for _ in range(6):
            state.later(0)
        opened(state, frame)
        if state.connected:
            state.lost(50)
        assert state.retry_at in (0, 50)
        assert state.retry_at == (0 if frame["kind"] == "subscribe_rejected" else 50)

    def test_jitter_spreads_the_returns(self) -> None:
        state = SubscriptionState(jitter=1.0)
        state.later(0)
        state.later(0)
        assert 0 < state.retry_at < 0.02


class TestTrouble:
    def test_an_evicted_subscriber_comes_back_at_once_with_its_cursor(self) -> None:
        state = SubscriptionState()
        items = opened(state, event(1), wire.lag_frame(), event(2), now=5)
        assert ids(items) == [event_id(1)]
        assert not state.connected
        assert state.retry_at == 5
        assert asked(state.first_frame(5, NOW_NS))["since"] == event_id(1)

    @pytest.mark.parametrize(
        ("reason", "remediation"), [("version", "update waitbus"), ("match", "op is one of …"), (None, None)]
    )
    def test_a_refusal_is_for_good(self, reason: str | None, remediation: str | None) -> None:
        state = SubscriptionState()
        state.first_frame(0, NOW_NS)
        frame = {"reason": reason, "remediation": remediation, "supported": None, "kind": "subscribe_rejected"}
        with pytest.raises(HubError, match=remediation or "no reason given"):
            state.feed(said(frame), 0)

    @pytest.mark.parametrize("raw", [b"\0\0\0\0", b"\0\1\0\1x", b"\0\0\0\1{", said(event(1)), said({})])
    def test_nonsense_ends_the_connection_not_the_subscription(self, raw: bytes) -> None:
        state = SubscriptionState()
        state.first_frame(0, NOW_NS)
        assert state.feed(raw, 0) == []
        assert not state.connected
        assert ids(opened(state, event(1))) == [event_id(1)]

    def test_what_came_before_the_nonsense_is_kept(self) -> None:
        state = SubscriptionState()
        state.first_frame(0, NOW_NS)
        items = state.feed(said(wire.ack_frame(None), event(1)), 0)
        assert state.feed(b"\0\0\0\0", 0) == []
        assert ids(items) == [event_id(1)]
        assert not state.connected

    @pytest.mark.parametrize(
        "body",
        [
            json.dumps({**event(2), "deep": nested(100)}).encode(),
            (json.dumps(event(2))[:-1] + ', "deep":' + "[" * 20_000 + "]" * 20_000 + "}").encode(),
            json.dumps(event(2)).encode().replace(b"event 2", b"\xff"),
            json.dumps({**event(2), "n": float("nan")}).encode(),
            json.dumps(event(2)).encode()[:-1],
            b' { "event_id" : "%s", ' % event_id(2).encode(),
            json.dumps({**event(2), "fields": [1]}).encode(),
            json.dumps({key: value for key, value in event(2).items() if key != "summary"}).encode(),
        ],
        ids=["deep", "very deep", "not UTF-8", "NaN", "cut", "cut early", "no fields", "no summary"],
    )
    def test_a_frame_that_cannot_be_read_is_a_fault_of_that_frame(self, body: bytes) -> None:
        state = SubscriptionState()
        raw = said(wire.ack_frame(None), event(1)) + len(body).to_bytes(4, "big") + body + said(event(3))
        state.first_frame(0, NOW_NS)
        first, second, third = state.feed(raw, 0)
        assert ids([first, third]) == [event_id(1), event_id(3)]
        assert isinstance(second, Truncated)
        assert second.event_id == event_id(2)
        assert state.connected

    @pytest.mark.parametrize("body", [b"[]", b"x", b'{"kind": "event", ', b'{"fields": {"event_id": "x"}', b"[" * 9000])
    def test_one_that_names_no_event_is_passed(self, body: bytes) -> None:
        state = SubscriptionState()
        opened(state)
        items = state.feed(len(body).to_bytes(4, "big") + body + said(event(3)), 0)
        assert ids(items) == [event_id(3)]
        assert state.connected

    def test_little_stack_loses_no_event(self) -> None:
        """However deep the caller stands, an event comes, or is told to be in the store, or the caller hears of it."""
        deep = event(1)
        deep["fields"]["deep"] = nested(63)
        raw = said(wire.ack_frame(None), deep, event(2))

        def standing(levels: int, state: SubscriptionState) -> list[Item]:
            return standing(levels - 1, state) if levels else state.feed(raw, 0)

        used = len(inspect.stack(0))
        came = set()
        for left in range(sys.getrecursionlimit() - used, 0, -1):
            state = SubscriptionState()
            state.first_frame(0, NOW_NS)
            try:
                items = standing(left, state)
            except RecursionError:
                continue
            if state.connected:  # else not even the answer could be read: it is asked for again
                first, second = items
                assert not isinstance(first, CaughtUp)
                assert first.event_id == event_id(1)
                assert ids([second]) == [event_id(2)]
                came.add(type(first))
            if Event in came:
                break
        assert Event in came

    def test_a_store_that_cannot_be_read_for_a_moment_is_waited_for_by_who_was_answered(self) -> None:
        state = SubscriptionState()
        busy, damaged = wire.store_frame("it is busy", damaged=False), wire.store_frame("it is broken", damaged=True)
        opened(state, event(1), busy, now=5)
        assert not state.connected
        assert asked(state.first_frame(5, NOW_NS))["since"] == event_id(1)
        with pytest.raises(HubError, match="it is broken"):
            state.feed(said(wire.ack_frame(None), damaged), 5)
        fresh = SubscriptionState()
        fresh.first_frame(0, NOW_NS)
        with pytest.raises(HubError, match="it is busy"):
            fresh.feed(said(busy), 0)

    def test_bytes_after_the_end_are_nobodys(self) -> None:
        state = SubscriptionState()
        assert state.feed(said(event(1)), 0) == []

    def test_never_an_answer_is_an_error_after_a_while(self) -> None:
        state = SubscriptionState()
        for _ in range(7):
            state.first_frame(0, NOW_NS)
            state.feed(b"", 0)
        state.first_frame(0, NOW_NS)
        with pytest.raises(HubError, match="without an answer"):
            state.feed(b"", 0)

    def test_once_answered_it_never_gives_up(self) -> None:
        state = SubscriptionState()
        opened(state)
        for _ in range(100):
            state.first_frame(0, NOW_NS)
            state.feed(b"", 0)
        assert state.retry_at == 1


class TestAbsence:
    def test_nobody_there_and_nobody_to_be_started_is_an_error(self) -> None:
        with pytest.raises(HubError, match="waitbus serve hub"):
            SubscriptionState().absent(0, may_start=False)

    def test_a_first_connection_starts_a_hub_at_once(self) -> None:
        assert SubscriptionState().absent(0, may_start=True)

    def test_a_hub_that_went_away_is_given_a_moment_to_come_back(self) -> None:
        state = SubscriptionState()
        opened(state, MARKER, now=100)
        state.lost(100)
        assert not state.absent(100, may_start=True)
        assert state.retry_at == 100.02
        assert not state.absent(100 + GRACE_SEC / 2, may_start=True)
        assert state.absent(100 + GRACE_SEC, may_start=True)

    def test_without_autostart_it_waits_for_the_hub_however_long_it_takes(self) -> None:
        state = SubscriptionState()
        opened(state, MARKER, now=100)
        state.lost(100)
        assert not any(state.absent(100 + n, may_start=False) for n in range(1000))

    def test_a_hub_that_dies_with_every_start_is_started_a_few_times_only(self) -> None:
        state = SubscriptionState()
        assert all(state.absent(0, may_start=True) for _ in range(3))
        with pytest.raises(HubError, match=r"hub\.log"):
            state.absent(0, may_start=True)

    def test_an_answer_allows_as_many_starts_again(self) -> None:
        """A hub that is killed now and then in the course of a long wait is started as often as it takes."""
        state = SubscriptionState()
        for day in range(20):
            now = 1000.0 * day
            assert state.absent(now, may_start=True)
            opened(state, now=now)
            state.lost(now)


@given(st.data())
def test_any_breaks_and_restarts_give_every_event_once_and_in_order(data: st.DataObject) -> None:
    """A model hub with a store: connections end after any number of bytes; the hub may say where it is, or not."""
    store = [event(number) for number in data.draw(st.permutations(range(12)))]  # commit order is not id order
    state = SubscriptionState(since=ULID_MIN)
    received: list[str] = []
    names_its_place = data.draw(st.booleans())
    for last in (*[False] * data.draw(st.integers(0, 6)), True):
        since = asked(state.first_frame(0, NOW_NS))["since"]
        known = [frame["event_id"] for frame in store]
        frames = store[known.index(since) + 1 :] if since in known else store
        marker = {**MARKER, "cursor": known[-1]} if names_its_place else MARKER
        raw = said(wire.ack_frame(event_id(11)), *frames, marker)
        sent = raw if last else raw[: data.draw(st.integers(0, len(raw)))]
        received += ids(state.feed(sent, 0) if sent else [])
        if not last:
            state.feed(b"", 0)
    assert received == [frame["event_id"] for frame in store]
