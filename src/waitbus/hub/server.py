"""The asyncio shell of the hub: it connects sockets, timers and signals to the parts in the other files.

This process uses no network, no secret and no third-party code. It does not load `ssl` either, which asyncio can do
without and which costs 4.5 MiB. All of its state can be rebuilt from the store, so when something goes wrong with one
peer or one read, the hub logs it and goes on.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import time

from waitbus import __version__, wire
from waitbus.host.peer import peer_uid
from waitbus.host.sd_notify import notify, watchdog_interval
from waitbus.hub.connection import Connection
from waitbus.hub.delivery import Delivery
from waitbus.hub.doorbell import Doorbell
from waitbus.hub.fanout import Fanout
from waitbus.hub.heartbeat import Heartbeats
from waitbus.hub.live import Live
from waitbus.hub.place import Place
from waitbus.hub.replay import Replay
from waitbus.hub.session import Session
from waitbus.hub.store_reader import PRUNE_EVERY_SEC, StoreReader
from waitbus.hub.sweep import Sweep
from waitbus.hub.waiters import status_of
from waitbus.private import RUNTIME, ensure_private_dir
from waitbus.store.errors import StoreError

_ssl_loaded = "ssl" in sys.modules
if not _ssl_loaded:
    sys.modules["ssl"] = None  # type: ignore[assignment]  # makes asyncio's `import ssl` fail: it then goes without TLS
import asyncio  # noqa: E402

if not _ssl_loaded:
    del sys.modules["ssl"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from waitbus.settings import Settings

DRAIN_SEC = 2.0
# How long a hub that leaves because it is idle prunes first. One that never lived for a minute has not pruned yet.
LEAVING_SEC = 0.5
# The limit on open files to ask for: enough for thousands of subscribers, and allowed on macOS without privileges.
DESCRIPTORS = 10_240
_ACCEPT_AT_ONCE = 64


def log(text: str) -> None:
    """Write one line to standard error, which systemd, launchd or the client that started the hub keeps."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"waitbus hub: {text}\n")
        sys.stderr.flush()


class Hub:
    """The daemon: owns the connections and the timers, and connects the parts of the hub."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, idle_exit: float | None = None) -> None:
        self._settings = settings
        self._loop = loop
        self._idle_exit = idle_exit or None  # 0 stands for no limit, as in the other settings
        self._started = time.monotonic()
        self._delivery = Delivery(log)
        self._fanout = Fanout(self._delivery, time.thread_time)
        self._connections: set[Connection] = set()
        self._awaiting: dict[Connection, float] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._idle_timer: asyncio.TimerHandle | None = None
        self._place = Place(settings, log)  # first of all: raises if another hub serves this store
        self.reader = StoreReader(settings, log, self._on_replaced, self._without_sweep)
        self._replay = Replay(
            loop,
            self.reader,
            self._delivery,
            # However long the backlog is, only this much of it is in memory.
            ahead_bytes=min(256 * 1024, settings.queue_bytes // 4),
            go_live=self._go_live,
            pump=self.pump,
        )
        self._live = Live(loop, self.reader, self._fanout, self._replay, self._connections)
        self.listeners = self._place.listen()
        self._doorbell = Doorbell(loop, self.listeners, self.pump)
        self.stopped: asyncio.Future[None] = loop.create_future()
        self._emptied: asyncio.Future[None] | None = None
        loop.add_reader(self.listeners.broadcast.fileno(), self._on_accept)
        loop.set_exception_handler(self._on_loop_fault)
        self._heartbeats = Heartbeats(loop, self._beat)
        self._every(PRUNE_EVERY_SEC, lambda: self.reader.maintain(loop))
        if interval := watchdog_interval():
            self._every(interval, lambda: notify("WATCHDOG=1"))
        self._sweep = Sweep(settings, lambda: self._tell_loop(self._swept), self._look)
        self._become_idle()

    # --- connections -------------------------------------------------------------------------------------------------

    def _on_accept(self) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                sock, _address = self.listeners.broadcast.accept()
            except BlockingIOError:
                return
            except OSError as error:  # out of file descriptors: the peer waits in the backlog until one is free
                log(f"cannot accept a subscriber: {error.strerror}; will try again in a second")
                self._loop.remove_reader(self.listeners.broadcast.fileno())
                self._loop.call_later(1.0, self._accept_again)
                return
            self._admit(sock)

    def _accept_again(self) -> None:
        if not self.stopped.done():
            self._loop.add_reader(self.listeners.broadcast.fileno(), self._on_accept)

    def on_moving(self) -> None:
        self._on_accept()
        self._loop.remove_reader(self.listeners.broadcast.fileno())
        self._doorbell.pause()

    def on_moved(self) -> None:
        self._accept_again()
        self._doorbell.listen()

    def is_needed(self) -> bool:
        return bool(self._connections)

    def may_leave(self) -> bool:
        return self._idle_exit is not None

    def _admit(self, sock: socket.socket) -> None:
        try:
            ours = peer_uid(sock) == os.getuid()
        except OSError:
            ours = False
        if not ours:
            sock.close()
            return
        if not self._connections:
            self._become_busy()
        connection = Connection(self._loop, sock, Session(self._settings.queue_bytes), self)
        self._connections.add(connection)
        if not self._awaiting:
            self._loop.call_later(wire.FIRST_FRAME_SEC, self._expire_silent)
        self._awaiting[connection] = time.monotonic() + wire.FIRST_FRAME_SEC

    def _expire_silent(self) -> None:
        """Close connections whose first frame is not complete in time. `_awaiting` is in order of deadline."""
        now = time.monotonic()
        for connection, deadline in list(self._awaiting.items()):
            if deadline > now:
                self._loop.call_later(deadline - now, self._expire_silent)
                return
            connection.close()

    def on_subscribed(self, connection: Connection) -> None:
        """Queue the ack, so that it is the first frame, then start the replay or go live."""
        self._awaiting.pop(connection, None)
        session, subscription = connection.session, connection.session.subscription
        if not session.is_replaying or subscription is None:
            return
        caught_up_at = since_seq = None
        try:
            self._live.begin()
            newest_seq = self.reader.newest_seq()
            if subscription.since is not None:
                since_seq = self.reader.cursor_of(subscription.since)
                caught_up_at = self.reader.id_at(newest_seq) or subscription.since
        except StoreError as error:
            self._replay.failed(connection, error, self.on_subscribed)
            return
        session.begin(newest_seq, since_seq)
        served = (self._settings.store, __version__)
        session.push(wire.encode(wire.ack_frame(caught_up_at, subscription.heartbeat_sec, served=served)))
        connection.begun = int(time.time())
        if subscription.status:
            session.push(status_of(self._connections - {connection}, self.reader.cursor))
        self._heartbeats.add(connection, subscription.heartbeat_sec)
        self._replay.serve(connection)

    def on_drained(self, connection: Connection) -> None:
        self._replay.queue(connection)

    def on_fault(self, connection: Connection, error: Exception) -> None:
        self._delivery.abandon(connection, error)

    def on_closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._awaiting.pop(connection, None)
        self._fanout.discard(connection)
        self._heartbeats.discard(connection)
        self._replay.discard(connection)
        if not self._connections:
            self._become_idle()

    def _become_busy(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        self._sweep.start()

    def _become_idle(self) -> None:
        """Stop reading and sweeping while nobody is connected, and leave after `idle_exit` seconds if that is set."""
        self._live.end()
        self._sweep.stop()
        if self._idle_exit is not None:
            self._idle_timer = self._loop.call_later(self._idle_exit, self._leave)
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    # --- live --------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send newly committed events."""
        self._live.pump()

    def _on_replaced(self, common: int, news: int) -> None:
        """Adapt every session after another file took the store's path; see `StoreReader`."""
        for connection in self._connections:
            connection.session.rebase(common, news)

    def _without_sweep(self, act: Callable[[], object]) -> bool:
        return self._sweep.without_store(act)

    def _go_live(self, connection: Connection) -> None:
        connection.session.go_live()
        if not connection.is_slow:
            self._fanout.add(connection)
        subscription = connection.session.subscription
        if subscription is not None and subscription.caught_up:
            connection.session.push(wire.encode(self._heartbeat_frame(live=True, caught_up=True)))
        connection.session.subscription = None  # answered: only the predicate is still needed, and `connection` has it

    def _on_loop_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an exception that a callback raised unexpectedly. The loop goes on."""
        error = context.get("exception")
        if isinstance(error, BaseException):
            self._delivery.fault("internal error in the hub; please report it", error)
        else:
            log(str(context.get("message")))

    # --- timers ------------------------------------------------------------------------------------------------------

    def _every(self, interval: float, act: Callable[[], object]) -> None:
        slot = len(self._timers)

        def tick() -> None:
            self._timers[slot] = self._loop.call_later(interval, tick)
            act()

        self._timers.append(self._loop.call_later(interval, tick))

    def _tell_loop(self, act: Callable[[], object]) -> None:
        """Call `act` in the loop. This is called from the sweep's thread."""
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            self._loop.call_soon_threadsafe(act)

    def _look(self) -> None:
        if not self._place.is_well():
            self._tell_loop(self._mend)

    def _mend(self) -> None:
        if not self.stopped.done():
            self._place.mend(self)

    def _swept(self) -> None:
        """Look for commits that nobody rang for."""
        if self.reader.changed() or self._replay.live_after_seq:
            self.pump()

    def _heartbeat_frame(self, *, live: bool, caught_up: bool = False) -> Mapping[str, Any]:
        return wire.heartbeat_frame(
            int(time.time()),
            int(time.monotonic() - self._started),
            cursor=self.reader.resume_id() if live else None,
            caught_up=caught_up,
        )

    def _beat(self, connections: list[Connection]) -> None:
        frames: dict[bool, bytes] = {}
        for connection in connections:
            if connection.session.is_served:
                live = connection.session.is_live
                if live not in frames:
                    frames[live] = wire.encode(self._heartbeat_frame(live=live))
                connection.push(frames[live])
                if connection.session.is_ending:
                    self._fanout.discard(connection)
                connection.flush()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        self.reader.prune_for(LEAVING_SEC)
        self.stop()

    def stop(self) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)

    async def drain(self) -> None:
        """Deliver what was committed, send the queues for at most `DRAIN_SEC`, then close every connection."""
        notify("STOPPING=1")
        self._loop.remove_reader(self.listeners.broadcast.fileno())
        self._doorbell.close()
        self._sweep.close()
        self._heartbeats.stop()
        for timer in (*self._timers, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._idle_exit = None
        self.reader.stop()
        deadline = time.monotonic() + DRAIN_SEC
        while self._live.deliver_page() and time.monotonic() < deadline:
            pass
        for connection in list(self._connections):
            if connection.session.is_awaiting:
                connection.close()
            else:
                connection.session.close()
                connection.flush()
        self._emptied = self._loop.create_future()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied, max(0.0, deadline - time.monotonic()))
        for connection in list(self._connections):
            connection.close()
        self._place.close()
        self.reader.close()
        self._place.release()


async def _run(settings: Settings, idle_exit: float | None, ready_fd: int | None) -> None:
    loop = asyncio.get_running_loop()
    hub = Hub(settings, loop, idle_exit)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hub.stop)
    gc.freeze()  # what is loaded now lives to the end: no later collection needs to walk it
    notify("READY=1")
    if ready_fd is not None:
        with contextlib.suppress(OSError):
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)
    await hub.stopped
    await hub.drain()


def _allow_descriptors() -> None:
    """Raise the soft limit on open files. A shell's default is 1,024, and every subscriber takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(settings: Settings, *, idle_exit: float | None = None, ready_fd: int | None = None) -> int:
    """Run the hub until SIGTERM, SIGINT, or `idle_exit` seconds without a connection (0: stay). Returns 0.

    Once it listens, it writes ``ready`` to the descriptor `ready_fd` and closes it. Raises `WaitbusError` if it cannot
    start: another hub serves the store, a directory is not private, or the store cannot be opened.
    """
    ensure_private_dir(settings.state_dir)
    ensure_private_dir(settings.runtime_dir, RUNTIME)
    _allow_descriptors()
    asyncio.run(_run(settings, idle_exit, ready_fd))
    return 0
