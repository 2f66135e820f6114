"""One subscriber as a state machine. Sans-I/O: it uses no socket, no clock and no store.

The rules
- The first frame must be valid. Until it has arrived, the only thing the hub sends is a single refusal.
- A subscriber that asked for past events is served from the store until it has every row that live delivery has read;
  then it goes live.
- A live subscriber that falls behind is served from the store again until it has caught up.
- A session that is ended still sends its queue, then a last frame. A session whose peer is lost sends nothing more.
- Every byte held for a peer is charged to that peer. A session that exceeds its limit is evicted at a frame boundary.

The theory
`State` says where a session is, `Cue` says what happened to it, and `TRANSITIONS` gives the next state. Only
`Session._on` changes the state. A cue that the table does not list for the current state is a bug in waitbus:
`_on` raises `IllegalCue` and changes nothing.

`receive` takes bytes from the peer and `push` takes frames for it. `buffers` returns the bytes to send, and `sent`
is told how many of them went out.
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
    """Where a session is in its life."""

    AWAITING = "the first frame has not arrived completely"
    REPLAYING = "the session is served from the store"
    LIVE = "the session gets each event as it is committed"
    CLOSING = "the queue is being sent, then the session ends"
    CLOSED = "nothing more is sent"


class Cue(Enum):
    """What happens to a session."""

    SUBSCRIBED = "the first frame is valid"
    CAUGHT_UP = "the session has every row that live delivery has read"
    FELL_BEHIND = "live delivery has gone on without the session"
    ENDED = "the session must end once its queue is sent"
    EMPTIED = "the whole queue has been sent"
    LOST = "the peer is gone, or must not get anything more"


TRANSITIONS: dict[State, dict[Cue, State]] = {
    State.AWAITING: {Cue.SUBSCRIBED: State.REPLAYING, Cue.ENDED: State.CLOSING, Cue.LOST: State.CLOSED},
    State.REPLAYING: {Cue.CAUGHT_UP: State.LIVE, Cue.ENDED: State.CLOSING, Cue.LOST: State.CLOSED},
    State.LIVE: {Cue.FELL_BEHIND: State.REPLAYING, Cue.ENDED: State.CLOSING, Cue.LOST: State.CLOSED},
    State.CLOSING: {Cue.EMPTIED: State.CLOSED, Cue.LOST: State.CLOSED},
    State.CLOSED: {Cue.LOST: State.CLOSED},
}
_SERVED = (State.REPLAYING, State.LIVE)

# The most buffers that one send gathers. The kernel's limit, IOV_MAX, is 1,024 on Linux and macOS.
_GATHER = 512


class IllegalCue(Exception):
    """The hub did something to a session that the session's state does not allow. This is a bug, not a peer's error."""


class Session:
    """What the hub holds for one connection: its state, its cursor into the store, and its queue of unsent bytes."""

    __slots__ = (
        "_begun_seq",
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
        # The request, until the hub has answered it.
        self.subscription: SubscribeRequest | None = None
        self._begun_seq = self._cursor = 0
        self._live_after_seq = 0
        self._takes_history = False
        # How many store reads for this session have failed in a row.
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
        """Whether the session gets event frames: it is replaying or live."""
        return self._state in _SERVED

    @property
    def is_ending(self) -> bool:
        """Whether the session is closing or closed."""
        return self._state is State.CLOSING or self._state is State.CLOSED

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    @property
    def cursor(self) -> int:
        """While the session replays: the seq up to which the store has been read for it."""
        return self._cursor

    @property
    def live_after_seq(self) -> int:
        """The newest seq at the time of the subscription. The session does not go live before this row."""
        return self._live_after_seq

    @property
    def takes_history(self) -> bool:
        """Whether the session is still replaying past events that it asked for.

        Only such a session gets imported and back-filled rows: they are never sent as news.
        """
        return self._takes_history

    def _on(self, cue: Cue) -> None:
        """Move to the state that `TRANSITIONS` gives. Raises `IllegalCue`, and changes nothing, if it gives none."""
        after = TRANSITIONS[self._state].get(cue)
        if after is None:
            raise IllegalCue(f"a session that is {self._state.name} cannot be told {cue.name}")
        self._state = after

    def receive(self, data: bytes) -> SubscribeRequest | None:
        """Take bytes from the peer. Returns the subscription once, when the first frame is complete and valid.

        An invalid first frame ends the session. The peer gets an answer where docs/contract.md specifies one. Bytes
        after the first frame are dropped.
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
        """Charge the predicate's memory to this session. Raises `Rejected` if that leaves too little for events."""
        self._held_bytes = predicate.weight if predicate is not None else 0
        if self._held_bytes > self._limit // 2:
            raise wire.Rejected(
                "match", "the predicate takes more than half of [hub] queue_bytes: compare fewer values"
            )

    # --- the cursor into the store -----------------------------------------------------------------------------------

    def begin(self, live_after_seq: int, since_seq: int | None) -> None:
        """Start after row `since_seq`. With None there is no replay: start after row `live_after_seq`."""
        self._live_after_seq = live_after_seq
        self._takes_history = since_seq is not None
        self._begun_seq = self._cursor = live_after_seq if since_seq is None else since_seq
        self.failures = 0

    def advance(self, seq: int) -> None:
        """Note that every row up to `seq` was either queued for this session or does not concern it."""
        self._cursor = seq

    def has_all_up_to(self, seq: int) -> bool:
        """Whether the session is replaying and has every row up to `seq`."""
        return self._state is State.REPLAYING and self._cursor >= seq

    def go_live(self) -> None:
        """Go live: the session has every row that live delivery has read."""
        self._on(Cue.CAUGHT_UP)
        self._takes_history = False

    def fall_behind(self, seq: int | None = None) -> None:
        """Leave live delivery. The session has every row up to `seq`; with None, up to its own cursor."""
        self._on(Cue.FELL_BEHIND)
        if seq is not None:
            self._cursor = seq

    def rebase(self, common: int, news: int) -> None:
        """Adapt the cursor to a new store file.

        The new file holds the same rows as the old one up to seq `common`. Its rows after seq `news` count as new.
        """
        if self._takes_history:
            self._cursor = min(self._cursor, common)
        elif self._cursor > common or not common:
            self._cursor = news
        self._live_after_seq = min(self._live_after_seq, common)
        self._begun_seq = min(self._begun_seq, self._cursor)

    def passed(self, live_seq: int) -> int:
        """Roughly how many rows went by since it began, whether they matched or not. Live has read up to `live_seq`."""
        return max(0, (live_seq if self._state is State.LIVE else self._cursor) - self._begun_seq)

    # --- the queue and the end ---------------------------------------------------------------------------------------

    def push(self, frame: bytes) -> bool:
        """Queue one frame. Returns whether it was queued.

        A session that is neither replaying nor live takes none. A frame that would exceed the limit evicts the session.
        """
        if self._state not in _SERVED:
            return False
        if self._held_bytes + self.queued_bytes + len(frame) > self._limit:
            self._evict()
            return False
        self._enqueue(frame)
        return True

    def reject(self, frame: Mapping[str, Any]) -> None:
        """Queue `frame` as the last one, then end once the queue is sent."""
        if self._state in _SERVED:
            self._enqueue(wire.encode(frame))
            self._on(Cue.ENDED)

    def abort(self) -> None:
        """End at once and drop the queue."""
        self._queue.clear()
        self.queued_bytes = self._head_sent = 0
        self._on(Cue.LOST)

    def lose(self) -> None:
        """End because the peer is gone or its connection was closed."""
        self._on(Cue.LOST)

    def close(self) -> None:
        """Send the queue, then end."""
        if not self.is_ending:
            self._on(Cue.ENDED if self._queue else Cue.LOST)

    def buffers(self) -> list[bytes | memoryview]:
        """Return the bytes to send next, in at most as many buffers as one gathering send takes."""
        gathered: list[bytes | memoryview] = list(self._queue[:_GATHER])
        if self._head_sent:
            gathered[0] = memoryview(self._queue[0])[self._head_sent :]
        return gathered

    def sent(self, count: int) -> None:
        """Note that the first `count` bytes of `buffers()` were sent."""
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
        """Drop the queue and end with the reason. A frame that was partly sent is still finished first."""
        del self._queue[1 if self._head_sent else 0 :]
        self.queued_bytes = sum(map(len, self._queue)) - self._head_sent
        self._enqueue(wire.encode(wire.lag_frame()))
        self._on(Cue.ENDED)
