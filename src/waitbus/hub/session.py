"""One subscriber as a state machine. Sans-I/O: it knows no socket, no clock and no store.

The rules
- The first frame must be good. Until it came, nothing is sent but one refusal.
- A subscriber that asked for the past is served from the store until it has all that live has read; then it is live.
- A live subscriber that falls behind is served from the store again, until it has caught up.
- Who is ended gets what is queued, and then a last word; who is lost gets nothing more.
- Every byte held for a peer is charged to that peer. Past its bound the session is evicted, at a frame boundary.

The theory
`State` says where a session is, `Cue` what happened to it, and `TRANSITIONS` where that leads. Only `Session._on`
changes the state. A cue that the table does not name for a state is a fault of ours: it raises `IllegalCue` and changes
nothing.

Bytes from the peer go in through `receive`, frames for it through `push`; `buffers` gives what to send, and `sent`
takes the count of bytes that went out.
"""

from __future__ import annotations

from enum import Enum

from waitbus import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from waitbus.predicate import Predicate
    from waitbus.wire import SubscribeRequest


class State(Enum):
    """Where a session is."""

    AWAITING = "its first frame has not come whole"
    REPLAYING = "it is served from the store"
    LIVE = "it is sent what is committed, as it is committed"
    CLOSING = "what is queued goes out, then it ends"
    CLOSED = "nothing more goes out"


class Cue(Enum):
    """What happens to a session."""

    SUBSCRIBED = "its first frame is good"
    CAUGHT_UP = "it has all that live has read"
    FELL_BEHIND = "live has gone on without it"
    ENDED = "it is to end after what is queued"
    EMPTIED = "all that was queued is sent"
    LOST = "the peer is gone, or is not to get anything more"


TRANSITIONS: dict[State, dict[Cue, State]] = {
    State.AWAITING: {Cue.SUBSCRIBED: State.REPLAYING, Cue.ENDED: State.CLOSING, Cue.LOST: State.CLOSED},
    State.REPLAYING: {Cue.CAUGHT_UP: State.LIVE, Cue.ENDED: State.CLOSING, Cue.LOST: State.CLOSED},
    State.LIVE: {Cue.FELL_BEHIND: State.REPLAYING, Cue.ENDED: State.CLOSING, Cue.LOST: State.CLOSED},
    State.CLOSING: {Cue.EMPTIED: State.CLOSED, Cue.LOST: State.CLOSED},
    State.CLOSED: {Cue.LOST: State.CLOSED},
}
_SERVED = (State.REPLAYING, State.LIVE)

# How many buffers one send may gather: the kernel's IOV_MAX is 1,024 on Linux and macOS.
_GATHER = 512


class IllegalCue(Exception):
    """The hub did something to a session that its state does not allow: a fault of ours, never of the peer."""


class Session:
    """What the hub holds for one connection: its state, its place in the store, its queue of bytes not yet sent."""

    __slots__ = (
        "_cursor",
        "_decoder",
        "_head_sent",
        "_held_bytes",
        "_limit",
        "_live_after_seq",
        "_queue",
        "_state",
        "_takes_history",
        "failures",
        "queued_bytes",
        "subscription",
    )

    def __init__(self, limit_bytes: int) -> None:
        self._state = State.AWAITING
        # What was asked for, until it has been answered.
        self.subscription: SubscribeRequest | None = None
        self._cursor = 0
        self._live_after_seq = 0
        self._takes_history = False
        # How many reads of the store for this session failed in a row.
        self.failures = 0
        self.queued_bytes = 0
        self._limit = limit_bytes
        self._decoder: wire.Decoder | None = wire.Decoder()
        self._queue: list[bytes] = []
        self._head_sent = 0
        self._held_bytes = 0

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_awaiting(self) -> bool:
        return self._state is State.AWAITING

    @property
    def is_replaying(self) -> bool:
        return self._state is State.REPLAYING

    @property
    def is_live(self) -> bool:
        return self._state is State.LIVE

    @property
    def is_served(self) -> bool:
        """Whether frames go to it: it is replaying or live."""
        return self._state in _SERVED

    @property
    def is_ending(self) -> bool:
        """Whether it is closing or closed."""
        return self._state is State.CLOSING or self._state is State.CLOSED

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    @property
    def cursor(self) -> int:
        """The seq up to which the store was read for this session while it replays."""
        return self._cursor

    @property
    def live_after_seq(self) -> int:
        """The newest seq when the subscription came: live begins no earlier than there."""
        return self._live_after_seq

    @property
    def takes_history(self) -> bool:
        """Whether the past was asked for and is still being told. Imported and back-filled rows are never news."""
        return self._takes_history

    def _on(self, cue: Cue) -> None:
        """Change the state as `TRANSITIONS` says. Raises `IllegalCue`, and changes nothing, where it says nothing."""
        after = TRANSITIONS[self._state].get(cue)
        if after is None:
            raise IllegalCue(f"a session that is {self._state.name} cannot be told {cue.name}")
        self._state = after

    def receive(self, data: bytes) -> SubscribeRequest | None:
        """Take bytes of the peer. Returns its subscription once, when the first frame is whole and good.

        A bad first frame ends the session, with an answer where the contract gives one. What comes after the first
        frame is dropped.
        """
        if self._state is not State.AWAITING or self._decoder is None:
            return None
        try:
            bodies = self._decoder.feed(data)
            if not bodies:
                return None
            self._decoder = None
            subscription = wire.first_frame(bodies[0])
            self._charge(subscription.predicate)
        except wire.Rejected as rejected:
            self._enqueue(wire.encode(rejected.frame))
            self._on(Cue.ENDED)
            return None
        except wire.WireError:
            self._on(Cue.LOST)
            return None
        self._on(Cue.SUBSCRIBED)
        self.subscription = subscription
        return subscription

    def _charge(self, predicate: Predicate | None) -> None:
        """Charge the predicate to the account. Raises `Rejected` when it leaves too little for events."""
        self._held_bytes = predicate.weight if predicate is not None else 0
        if self._held_bytes > self._limit // 2:
            raise wire.Rejected(
                "match", "the predicate takes more than half of [hub] queue_bytes: compare fewer values"
            )

    # --- its place in the store --------------------------------------------------------------------------------------

    def begin(self, live_after_seq: int, since_seq: int | None) -> None:
        """Serve it what comes after `since_seq`; None: no past, only what is committed after `live_after_seq`."""
        self._live_after_seq = live_after_seq
        self._takes_history = since_seq is not None
        self._cursor = live_after_seq if since_seq is None else since_seq
        self.failures = 0

    def advance(self, seq: int) -> None:
        """All up to `seq` was handed over, or knowingly passed."""
        self._cursor = seq

    def has_all_up_to(self, seq: int) -> bool:
        """Whether it is replaying and has all that live has read, which is up to `seq`."""
        return self._state is State.REPLAYING and self._cursor >= seq

    def go_live(self) -> None:
        """It has all that live has read."""
        self._on(Cue.CAUGHT_UP)
        self._takes_history = False

    def fall_behind(self, seq: int | None = None) -> None:
        """Live goes on without it; it has all up to `seq`. None: up to where its own cursor stands."""
        self._on(Cue.FELL_BEHIND)
        if seq is not None:
            self._cursor = seq

    def rebase(self, common: int, news: int) -> None:
        """The store was replaced by a file that holds the same rows up to `common`; those after `news` are new."""
        if self._takes_history:
            self._cursor = min(self._cursor, common)
        elif self._cursor > common or not common:
            self._cursor = news
        self._live_after_seq = min(self._live_after_seq, common)

    # --- its queue, and its end --------------------------------------------------------------------------------------

    def push(self, frame: bytes) -> bool:
        """Queue one frame. False when it is not served, or when that passes the bound: the session is then evicted."""
        if self._state not in _SERVED:
            return False
        if self._held_bytes + self.queued_bytes + len(frame) > self._limit:
            self._evict()
            return False
        self._enqueue(frame)
        return True

    def reject(self, frame: Mapping[str, Any]) -> None:
        """Say a last word after what is queued, then end."""
        if self._state in _SERVED:
            self._enqueue(wire.encode(frame))
            self._on(Cue.ENDED)

    def abort(self) -> None:
        """End at once; what is queued is dropped."""
        self._queue.clear()
        self.queued_bytes = self._head_sent = 0
        self._on(Cue.LOST)

    def lose(self) -> None:
        """The peer is gone, or its connection is closed."""
        self._on(Cue.LOST)

    def close(self) -> None:
        """Let what is queued go out, then end."""
        if not self.is_ending:
            self._on(Cue.ENDED if self._queue else Cue.LOST)

    def buffers(self) -> list[bytes | memoryview]:
        """What to send next, at most as many buffers as one gathering send takes."""
        gathered: list[bytes | memoryview] = list(self._queue[:_GATHER])
        if self._head_sent:
            gathered[0] = memoryview(self._queue[0])[self._head_sent :]
        return gathered

    def sent(self, count: int) -> None:
        """`count` bytes of `buffers()` went out."""
        self.queued_bytes -= count
        count += self._head_sent
        done = 0
        for frame in self._queue:
            if count < len(frame):
                break
            count -= len(frame)
            done += 1
        del self._queue[:done]
        self._head_sent = count
        if not self._queue and self._state is State.CLOSING:
            self._on(Cue.EMPTIED)

    def _enqueue(self, frame: bytes) -> None:
        self._queue.append(frame)
        self.queued_bytes += len(frame)

    def _evict(self) -> None:
        """Drop the backlog, but never half a frame: the one on its way is finished, then the reason follows."""
        del self._queue[1 if self._head_sent else 0 :]
        self.queued_bytes = sum(map(len, self._queue)) - self._head_sent
        self._enqueue(wire.encode(wire.lag_frame()))
        self._on(Cue.ENDED)
