"""One subscription as its client sees it, whatever carries the bytes: what both faces share.

Sans-I/O: nothing here may know a socket, a clock or a file. Times are handed in: `now` in seconds of a monotonic clock,
`unix_ns` in nanoseconds since the epoch. The cursor rules: section 4 of docs/contract.md.
"""

from __future__ import annotations

from waitbus import wire
from waitbus.client.since import history_since
from waitbus.event import FRAME_KEYS, Event, WaitbusError, happened_ms, is_history, one_line
from waitbus.ulid import is_ulid, ulid_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from waitbus.predicate import Predicate

# A hub that lets this many heartbeats' time pass without a byte is taken for dead.
HEARTBEATS_MISSED = 2.5
# How often a client hears from the hub that must not take long to notice one that hangs: 7.5 s, by the above.
CLOSE_HEARTBEAT_SEC = 3
# A hub that went away is given this long to be brought back by whoever runs it, before a client starts one.
GRACE_SEC = 1.0
# How much a face reads at once.
RECV_BYTES = 65536
_FIRST_DELAY_SEC = 0.02
_LAST_DELAY_SEC = 1.0
# Past so many the delay grows no more.
_FAILURES_MAX = 10
# A subscription that was never answered gives up after so many connections that ended without a word.
_UNANSWERED_MAX = 8
# So many hubs in a row are started that are gone before they answer.
_STARTS_MAX = 3
_HEARTBEAT_MAX_SEC = 3600.0
# How much of a hub's last word is shown: it may hold a command with a long path in it twice.
_WORD_CHARS = 1000
_FRAME_KEYS = frozenset(FRAME_KEYS)
# How many event_ids are remembered against a repeat, when a cursor that was pruned is resolved by its time.
_RECENT_MAX = 256


NO_HUB = "no hub is running and autostart is off: start one with `waitbus serve hub`, or set WAITBUS_AUTOSTART=1"


class HubError(WaitbusError):
    """No hub can be reached or started, or it refused the subscription."""


class Truncated:
    """Stands for an event too large for a frame: it is in the store, under this `event_id`."""

    __slots__ = ("correlation_id", "event_id")

    def __init__(self, event_id: str, correlation_id: str | None) -> None:
        self.event_id = event_id
        self.correlation_id = correlation_id


class CaughtUp:
    """Stands where replay ends and live begins. There is one, `CAUGHT_UP`; it comes once a connection."""

    __slots__ = ()


CAUGHT_UP = CaughtUp()

if TYPE_CHECKING:
    Item = Event | Truncated | CaughtUp


class SubscriptionState:
    """The state of one subscription across all its connections.

    A face asks `retry_at` when to connect, sends `first_frame`, and hands every read to `feed` until `connected` is
    false. The end of the stream is a read of `b""`, and so is a `read_until` at which nothing had come.
    """

    __slots__ = (
        "_answered",
        "_born",
        "_catch_up_at",
        "_decoder",
        "_failures",
        "_heartbeat_sec",
        "_jitter",
        "_local",
        "_lost_at",
        "_recent",
        "_silence_sec",
        "_starts",
        "_unanswered",
        "acked",
        "asked_at",
        "cursor",
        "foreign",
        "history_from",
        "is_ours",
        "live",
        "predicate",
        "read_until",
        "retry_at",
        "strays",
    )

    def __init__(
        self,
        predicate: Predicate | None = None,
        since: str | None = None,
        jitter: float = 0.0,
        heartbeat_sec: int | None = None,
        history_from: float | None = None,
    ) -> None:
        self.predicate = predicate
        # The event_id after which the next connection replays; None before there is any: live only.
        self.cursor = since
        # Whether this connection was answered, and whether it has sent all that was committed before.
        self.acked = False
        self.live = False
        # When this connection asked: once it is live, all that was committed before then has come.
        self.asked_at = 0.0
        self.read_until = 0.0
        self.retry_at = 0.0
        # Whether the store that a hub names is the one that is meant; None: whatever it serves will do.
        self.is_ours: Callable[[str], bool] | None = None
        # How many hubs in a row were met that serve another store, and which one the last of them serves.
        self.strays = 0
        self.foreign = ""
        # Spreads the reconnects of many clients of one dead hub: a fraction of the delay, 0..1.
        self._jitter = jitter
        self._answered = False
        self._born: str | None = None
        self._catch_up_at: str | None = None
        self._decoder: wire.Decoder | None = None
        self._failures = 0
        # History of before this (in ms since the epoch) is not given, although a later connection replays it: all of it
        # where only news was asked for, none where an event says from which place on; a bookmark knows what was asked.
        self.history_from = history_since(since) if history_from is None else history_from
        # How often the hub is asked to be heard: see `CLOSE_HEARTBEAT_SEC`. None: as often as it likes.
        self._heartbeat_sec = heartbeat_sec
        self._local = False
        self._lost_at = 0.0
        self._recent: dict[str, None] = {}
        self._silence_sec = wire.HEARTBEAT_SEC * HEARTBEATS_MISSED
        self._starts = 0
        self._unanswered = 0

    @property
    def connected(self) -> bool:
        return self._decoder is not None

    @property
    def ready(self) -> bool:
        """Whether nothing that is committed from now on can be missed, and where this began is known."""
        return self.acked and (self.live or self.cursor is not None)

    @property
    def due(self) -> float:
        """When to act although nothing comes: to connect, or to take the connection for dead."""
        return self.retry_at if self._decoder is None else self.read_until

    def patience(self, now: float, deadline: float | None) -> float:
        """For how many seconds to wait at most, when the caller's `deadline` counts, too."""
        return max(0.0, (self.due if deadline is None else min(deadline, self.due)) - now)

    @property
    def resume_at(self) -> str | None:
        """The cursor to come back with. Before the first event, if the hub named no place: the time it was reached."""
        return self.cursor or self.began_at

    @property
    def began_at(self) -> str | None:
        """Where this subscription began: at `since`, at the place the hub named, else at the time it first answered."""
        return self._born if self._answered else None

    def first_frame(self, now: float, unix_ns: int) -> bytes:
        """A connection stands: the bytes to send on it."""
        if not self._answered:
            self._born = self.cursor or ulid_at(unix_ns)
        self.cursor = self.resume_at
        self._decoder = wire.Decoder()
        self.acked = self.live = False
        self.asked_at = now
        self.read_until = now + wire.FIRST_FRAME_SEC
        frame = wire.subscribe_frame(
            since=self.cursor, match=self.predicate, caught_up=True, heartbeat_sec=self._heartbeat_sec
        )
        return wire.encode(frame)

    def feed(self, data: bytes, now: float) -> list[Item]:
        """Take what was read in, give what it completes. Raises `HubError` when the hub refuses for good."""
        items: list[Item] = []
        if self._decoder is None:
            return items
        try:
            if not data:
                raise wire.WireError("end of stream")
            for body in self._decoder.feed(data):
                self._take(body, now, items)
                if not self.connected:
                    return items
            self.read_until = now + (self._silence_sec if self.acked else wire.FIRST_FRAME_SEC)
        except wire.WireError:  # a daemon that says what is no frame is left, as one that ended the stream
            self.lost(now)
        return items

    def lost(self, now: float) -> None:
        """The connection is over, however it ended. Raises `HubError` when none was ever answered and it is enough."""
        if self.acked:
            self._lost_at = now
        self.hang_up()
        self._unanswered += 1
        if not self._answered and self._unanswered >= _UNANSWERED_MAX:
            raise HubError("the daemon leaves every connection without an answer: look at it with `waitbus status`")
        self.later(now)

    def hang_up(self) -> None:
        """We end the connection ourselves; the next one goes on where this one was."""
        self._decoder = None
        self.acked = self.live = False

    def rewind(self, cursor: str | None) -> None:
        """Hang up, and have what came after `cursor` again; None: as it is."""
        self.hang_up()
        self._recent.clear()
        self.cursor = cursor or self.cursor

    def later(self, now: float) -> None:
        """Try again after a while that grows with every failure; at once after a connection that was of use."""
        delay = min(_LAST_DELAY_SEC, _FIRST_DELAY_SEC * 2 ** (self._failures - 1)) if self._failures else 0.0
        self.retry_at = now + delay * (1 - self._jitter / 2)
        self._failures = min(self._failures + 1, _FAILURES_MAX)

    def absent(self, now: float, may_start: bool) -> bool:
        """Nobody listens. True: start a hub now. False: `retry_at` says when to look again. Raises `HubError`."""
        if not self._answered and not may_start:
            raise HubError(NO_HUB)
        if may_start and (not self._answered or now - self._lost_at >= GRACE_SEC):
            self._starts += 1
            if self._starts > _STARTS_MAX:
                raise HubError("the hub starts and is gone at once: look at hub.log, or run `waitbus status`")
            return True
        self.later(now)
        return False

    def _take(self, body: bytes, now: float, items: list[Item]) -> None:
        try:
            frame = wire.decode(body)
        except wire.WireError:
            if not self.acked:
                raise
            # A fault of this one frame: the connection is sound, and would bring it again.
            self._on_truncated({"event_id": wire.event_id_in(body)}, items)
            return
        kind = frame.get("kind")
        if kind == "subscribe_rejected":
            self._on_rejected(frame, now)
        elif not self.acked:
            if kind != "subscribe_ack":
                raise wire.WireError("the first frame is no ack")
            if self._is_stray(frame.get("store")):
                self.hang_up()
                self.retry_at = now
            else:
                self._on_ack(frame, items)
        elif kind == "event":
            self._failures = 0
            self._on_event(frame, items)
        elif kind == "truncated":
            self._failures = 0
            self._on_truncated(frame, items)
        elif kind == "daemon_heartbeat":
            self._failures = 0
            self._on_heartbeat(frame, items)

    def _is_stray(self, store: object) -> bool:
        """Whether the hub says that it serves another store. A daemon of 0.2.0 does not say."""
        if not isinstance(store, str) or self.is_ours is None or self.is_ours(store):
            self.strays = 0
            return False
        self.strays += 1
        self.foreign = one_line(store)
        return True

    def _on_ack(self, frame: Mapping[str, Any], items: list[Item]) -> None:
        self.acked = self._answered = True
        self._starts = 0
        features = frame.get("features")
        features = features if isinstance(features, list) else []
        heartbeat = frame.get("heartbeat_sec")
        if isinstance(heartbeat, int | float) and heartbeat > 0:
            self._silence_sec = min(heartbeat, _HEARTBEAT_MAX_SEC) * HEARTBEATS_MISSED
        self._local = "match" not in features
        self._catch_up_at = None
        if "caught_up" not in features:
            # Such a daemon marks the end of replay by the last event's id alone.
            goal = frame.get("caught_up_at")
            if isinstance(goal, str) and self.cursor is not None and goal > self.cursor:
                self._catch_up_at = goal
            else:
                self._go_live(items)

    def _on_event(self, frame: Mapping[str, Any], items: list[Item]) -> None:
        if not isinstance(frame.get("fields"), dict) or not frame.keys() >= _FRAME_KEYS:
            self._on_truncated({"event_id": frame.get("event_id")}, items)
        elif self._is_new(frame):
            if self.gives(frame) and (not self._local or self.predicate is None or self.predicate(frame)):
                items.append(Event.from_frame(frame))
            self._reached(frame["event_id"], items)

    def _on_truncated(self, frame: Mapping[str, Any], items: list[Item]) -> None:
        """An event that did not come whole, though its id did: the store has it."""
        correlation = frame.get("correlation_id")
        if self._is_new(frame):
            items.append(Truncated(frame["event_id"], correlation if isinstance(correlation, str) else None))
            self._reached(frame["event_id"], items)

    def gives(self, frame: Mapping[str, Any]) -> bool:
        """Whether an event is among what was asked for: news is, and history as far back as `since` says."""
        return not is_history(frame) or happened_ms(frame) >= self.history_from

    def wants(self, frame: Mapping[str, Any]) -> bool:
        """Whether an event is one to be given, whoever tells it."""
        return self.gives(frame) and (self.predicate is None or self.predicate(frame))

    def _is_new(self, frame: Mapping[str, Any]) -> bool:
        """Whether the frame names an event not seen yet, which then is the cursor."""
        event_id, recent = frame.get("event_id"), self._recent
        if not isinstance(event_id, str) or not is_ulid(event_id) or event_id in recent:
            return False
        self.cursor = event_id
        if len(recent) >= _RECENT_MAX:
            del recent[next(iter(recent))]
        recent[event_id] = None
        return True

    def _reached(self, event_id: str, items: list[Item]) -> None:
        if self._catch_up_at is not None and event_id >= self._catch_up_at:
            self._go_live(items)

    def _on_heartbeat(self, frame: Mapping[str, Any], items: list[Item]) -> None:
        # A hub may say how far it has come: the cursor of a subscription whose predicate matches rarely stays fresh.
        cursor = frame.get("cursor")
        if is_ulid(cursor):
            if self.cursor is None:
                self._born = cursor
            self.cursor = cursor
        if frame.get("caught_up") is True or self._catch_up_at is not None:
            self._go_live(items)

    def _go_live(self, items: list[Item]) -> None:
        self._catch_up_at = None
        if not self.live:
            self.live = True
            items.append(CAUGHT_UP)

    def _on_rejected(self, frame: Mapping[str, Any], now: float) -> None:
        reason = frame.get("reason")
        if reason == "store_unreadable" and self._answered:  # as it was readable before, it may be again
            self.lost(now)
            return
        if reason != "lag_limit_exceeded":
            word = frame.get("remediation") or reason or "no reason given"
            raise HubError(f"the hub refused the subscription: {one_line(str(word), _WORD_CHARS)}")
        self._failures = 0
        self.lost(now)
