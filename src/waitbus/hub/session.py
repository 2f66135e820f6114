"""One subscriber as a state machine. Sans-I/O: it may not know a socket, a clock, or the store.

Bytes from the peer go in through `receive`, frames for it through `push`; `buffers` gives what to send, `sent` takes
the count that went out. Every byte held for a peer is charged to that peer: past its bound the session is evicted.
"""

from __future__ import annotations

from waitbus import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from waitbus.predicate import Predicate
    from waitbus.wire import SubscribeRequest

# A session moves down this list. AWAITING its first frame; REPLAY from the store; LIVE, and back to REPLAY when it
# falls behind; CLOSING: what is queued goes out, then the connection ends; CLOSED: nothing more goes out.
AWAITING, REPLAY, LIVE, CLOSING, CLOSED = range(5)

# How many buffers one send may gather: the kernel's IOV_MAX is 1,024 on Linux and macOS.
_GATHER = 512


class Session:
    """What the hub holds for one connection: its state, its subscription, its queue of bytes not yet sent."""

    __slots__ = (
        "_decoder",
        "_head_sent",
        "_held_bytes",
        "_limit",
        "_queue",
        "cursor",
        "failures",
        "live_after_seq",
        "queued_bytes",
        "state",
        "subscription",
        "takes_history",
    )

    def __init__(self, limit_bytes: int) -> None:
        self.state = AWAITING
        self.subscription: SubscribeRequest | None = None
        # The seq up to which the store was read for this session while it replays.
        self.cursor = 0
        # The newest seq when the subscription came: live begins no earlier than there.
        self.live_after_seq = 0
        # Whether the past was asked for, and is still being told: imported and back-filled rows are never news.
        self.takes_history = False
        # How many reads of the store for this session failed in a row.
        self.failures = 0
        self.queued_bytes = 0
        self._limit = limit_bytes
        self._decoder: wire.Decoder | None = wire.Decoder()
        self._queue: list[bytes] = []
        self._head_sent = 0
        self._held_bytes = 0

    def receive(self, data: bytes) -> SubscribeRequest | None:
        """Take bytes of the peer. Returns its subscription once, when the first frame is whole and good.

        A bad first frame moves the session to CLOSING (with an answer queued where the contract gives one) or CLOSED.
        What comes after the first frame is dropped.
        """
        if self.state != AWAITING or self._decoder is None:
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
            self.state = CLOSING
            return None
        except wire.WireError:
            self.state = CLOSED
            return None
        self.state = REPLAY
        self.subscription = subscription
        return subscription

    def _charge(self, predicate: Predicate | None) -> None:
        """Charge the predicate to the account. Raises `Rejected` when it leaves too little for events."""
        self._held_bytes = predicate.weight if predicate is not None else 0
        if self._held_bytes > self._limit // 2:
            raise wire.Rejected(
                "match", "the predicate takes more than half of [hub] queue_bytes: compare fewer values"
            )

    def rebase(self, common: int, news: int) -> None:
        """The store was replaced by a file that holds the same rows up to `common`; those after `news` are new."""
        if self.takes_history:
            self.cursor = min(self.cursor, common)
        elif self.cursor > common or not common:
            self.cursor = news
        self.live_after_seq = min(self.live_after_seq, common)

    def push(self, frame: bytes) -> bool:
        """Queue one frame. False when that passes the bound: the session is then evicted and CLOSING."""
        if self.state not in (REPLAY, LIVE):
            return False
        if self._held_bytes + self.queued_bytes + len(frame) > self._limit:
            self._evict()
            return False
        self._enqueue(frame)
        return True

    def reject(self, frame: Mapping[str, Any]) -> None:
        """Say a last word after what is queued, then end."""
        if self.state in (REPLAY, LIVE):
            self._enqueue(wire.encode(frame))
            self.state = CLOSING

    def abort(self) -> None:
        """End at once: what is queued is dropped."""
        self._queue.clear()
        self.queued_bytes = self._head_sent = 0
        self.state = CLOSED

    def close(self) -> None:
        """Let what is queued go out, then end."""
        if self.state < CLOSING:
            self.state = CLOSING if self._queue else CLOSED

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
        if not self._queue and self.state == CLOSING:
            self.state = CLOSED

    def _enqueue(self, frame: bytes) -> None:
        self._queue.append(frame)
        self.queued_bytes += len(frame)

    def _evict(self) -> None:
        """Drop the backlog, but never half a frame: the one on its way is finished, then the reason follows."""
        del self._queue[1 if self._head_sent else 0 :]
        self.queued_bytes = sum(map(len, self._queue)) - self._head_sent
        self._enqueue(wire.encode(wire.lag_frame()))
        self.state = CLOSING
