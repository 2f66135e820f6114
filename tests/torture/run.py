"""The first part and the third: kills and worse at random under load, then the account of every party.

What is done, to whom and when, and how the hub comes back, is drawn from the seed; the machine's own timing is not.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.torture import audit, poison
from tests.torture.bus import PATIENCE, Bus, Child, Failure, Hub, pause
from tests.torture.consumer import KINDS
from tests.torture.mute import Mute
from tests.torture.stores import Stores
from waitbus import EventInsert, emit
from waitbus.store.append import Appender

PRODUCERS = 3
# How far each one's clock is off: a cursor is a place in commit order, whatever the clocks say.
SKEWS_NS = (0, -3600 * 10**9, 1800 * 10**9)
# How the hub comes back: mostly at once, sometimes only when a client has waited long enough to start one.
AUTOSTART_SHARE = 0.05
# A hub that is killed while it still starts.
EARLY_SHARE = 0.1
PAUSE_SEC = 0.2
WIND_DOWN_SEC = 300.0  # how long a subscriber may take for what is left, when nobody emits any more
UNRUNG = 10
UNRUNG_LATE_US = 1_500_000  # the sweep looks once a second; the rest is the machine's
# What is done, and how often by comparison.
DEEDS = {
    "hub": 40,
    "producer": 15,
    "producer before its ring": 10,
    "subscriber": 10,
    "hub stopped": 8,
    "sockets swept": 5,
    "runtime directory swept": 5,
    "poison row": 15,
    "subscriber that never reads": 4,
}
# The third part. Where a file is replaced, a cursor into the old one is a point in time: no clock is off there.
REPLACING = {**DEEDS, "hub": 15, "store removed": 20, "store restored": 10, "backup taken": 15}
STOPPED_SEC = 1.5  # for how long a hub is stopped at most
# A hub whose sockets were taken away listens anew within a second; the rest is the machine's.
SWEPT_SEC = 3.0
# How often a replacement waits until everybody has been given everything.
QUIET_SHARE = 0.5


class Torture:
    """One run: the bus, who is on it, and what was done to them."""

    def __init__(
        self, bus: Bus, *, rate: float, subscribers: int, seed: str, deeds: Mapping[str, int], skewed: bool
    ) -> None:
        self.bus = bus
        self.deeds = deeds
        self.skews_ns = SKEWS_NS if skewed else (0,) * PRODUCERS
        self.stores = Stores(bus.settings.db_path, bus.path / "stores")
        self.mutes = Mute(bus)
        self.poisoned = 0
        self.swept_sec = 0.0
        self.seed = seed
        self.rate = rate
        self.random = random.Random(seed)
        self.hub = Hub(bus)
        self.done: Counter[str] = Counter()
        self.by_client = 0
        kinds = list(KINDS)
        self.kinds = [kinds[index % len(kinds)] for index in range(subscribers)]
        self.subscribers: dict[str, Child] = {}
        self.bookmark_kills: dict[str, list[int]] = {}
        self.producers: dict[str, Child] = {}
        self.start_ns = 0

    # --- the parties -------------------------------------------------------------------------------------------------

    def log(self, name: str) -> Path:
        return self.bus.path / f"{name}.log"

    def set_up(self) -> None:
        self.hub.start()
        self.hub.await_ready()
        for index, kind in enumerate(self.kinds):
            self.subscribe(f"{kind}{index}", kind)
        for child in self.subscribers.values():
            child.await_line()
        self.start_ns = time.monotonic_ns() + 200_000_000
        for index in range(PRODUCERS):
            self.produce(f"p{index}")

    def subscribe(self, name: str, kind: str) -> None:
        argv = ("tests.torture.consumer", kind, str(self.log(name)))
        self.subscribers[name] = self.bus.spawn(name, *argv)

    def produce(self, name: str) -> None:
        """Start a producer after the last number it was answered for."""
        first = audit.Ledger(self.log(name)).answered
        words = (first, self.seed, self.rate / PRODUCERS, self.start_ns, self.skews_ns[int(name[1:])], self.log(name))
        self.producers[name] = self.bus.spawn(name, "tests.torture.producer", name, *map(str, words))

    def everybody(self) -> list[Child]:
        return [*self.subscribers.values(), *self.producers.values()]

    # --- kills -------------------------------------------------------------------------------------------------------

    def do_one(self) -> None:
        pause(self.random.uniform(0, PAUSE_SEC), self.everybody())
        (deed,) = self.random.choices(list(self.deeds), list(self.deeds.values()))
        acts = {
            "hub": self.kill_hub,
            "subscriber": self.kill_subscriber,
            "hub stopped": self.stop_hub,
            "poison row": self.poison,
            "subscriber that never reads": self.mutes.come_and_go,
            "backup taken": self.back_up,
        }
        if deed.startswith("producer"):
            self.kill_producer(deed)
        elif deed.startswith("store "):
            self.replace_store(deed)
        elif deed.endswith(" swept"):
            self.sweep_away(deed)
        else:
            acts[deed]()
        self.done[deed] += 1

    def kill_hub(self) -> None:
        self.hub.kill()
        way = self.random.random()
        if way < AUTOSTART_SHARE and self.starters():
            self.hub.await_other()
            self.by_client += 1
            return
        self.hub.start()
        if way > 1 - EARLY_SHARE:
            pause(self.random.uniform(0, 0.15), self.everybody())
            self.done["hub while it started"] += 1
            self.hub.kill()
            self.hub.start()
        self.hub.await_ready()

    def starters(self) -> bool:
        return any(name.startswith(("live", "bookmark")) for name in self.subscribers)

    def kill_producer(self, how: str) -> None:
        name = self.random.choice(sorted(self.producers))
        child = self.producers[name]
        if how == "producer":
            child.kill()
        else:
            child.expected = True
            child.process.send_signal(signal.SIGUSR1)
            if child.process.wait(30) not in (-signal.SIGKILL, -signal.SIGUSR1):
                raise child.ended()
            child.close()
        self.bus.children.remove(child)
        self.produce(name)

    def kill_subscriber(self) -> None:
        """Kill the one with a bookmark, where there is one; it goes on from there."""
        names = [name for name in self.subscribers if name.startswith("bookmark")]
        if not names:
            self.kill_hub()
            return
        name = self.random.choice(names)
        child = self.subscribers[name]
        child.kill()
        self.bus.children.remove(child)
        self.bookmark_kills.setdefault(name, []).append(self.given(name))
        self.subscribe(name, "bookmark")

    def given(self, name: str) -> int:
        """How many events a subscriber has been given so far."""
        log = self.log(name)
        return len(log.read_text().splitlines()) if log.exists() else 0

    # --- what is worse than a kill -----------------------------------------------------------------------------------

    def stop_hub(self) -> None:
        """The hub is alive and does nothing for a while."""
        pid = self.hub.pid()
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            try:
                pause(self.random.uniform(0, STOPPED_SEC), self.everybody())
            finally:
                os.kill(pid, signal.SIGCONT)

    def sweep_away(self, what: str) -> None:
        """A cleaner takes the hub's sockets, or all of its directory: it listens anew, or is killed before it can."""
        pid = self.hub.pid()
        if pid is None:
            return
        if what == "sockets swept":
            for path in (self.bus.settings.broadcast_socket, self.bus.settings.doorbell_socket):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        else:
            shutil.rmtree(self.bus.settings.runtime_dir, ignore_errors=True)
        if self.random.random() < EARLY_SHARE:
            self.hub.kill(pid)
            self.hub.start()
            self.hub.await_ready()
            return
        begin = time.monotonic()
        found = self.hub.await_other(f"{what}: nobody listened again for {PATIENCE:.0f} s")
        self.swept_sec = max(self.swept_sec, time.monotonic() - begin)
        if found != pid:
            raise Failure(f"{what}: the hub was {pid}, and another one, {found}, took its place")

    def poison(self) -> None:
        self.poisoned += poison.insert(self.bus, self.random, self.poisoned)

    def back_up(self) -> None:
        if os.path.exists(self.bus.settings.db_path):
            self.stores.back_up()

    def replace_store(self, how: str) -> None:
        """Take the file away, or put an older copy in its place, while everybody is stopped, as between two lines."""
        if not os.path.exists(self.bus.settings.db_path) or (how == "store restored" and not self.stores.can_restore()):
            return
        pids = [child.process.pid for child in self.producers.values()]
        stopped = []
        try:
            stopped += self.stop(pids)
            if self.random.random() < QUIET_SHARE:
                self.await_quiet()
            stopped += self.stop([child.process.pid for child in self.subscribers.values()])
            hub = self.hub.pid()
            stopped += self.stop([hub] if hub else [])
            given = {name: self.given(name) for name in self.subscribers}
            (self.stores.restore if how == "store restored" else self.stores.remove)(given)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def stop(self, pids: list[int]) -> list[int]:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    def await_quiet(self, patience: float = PATIENCE) -> None:
        """Return when every subscriber was given all that is in the store."""
        try:
            truth = audit.Truth(self.stores.generations)
        except sqlite3.OperationalError:  # whoever makes the file just now is stopped: nobody has been given any of it
            return
        goals = {name: truth.last_new(kind) for name, kind in zip(self.subscribers, self.kinds, strict=True)}
        deadline = time.monotonic() + patience
        while behind := [name for name, goal in goals.items() if not set(goal) <= set(audit.given(self.log(name)))]:
            pause(0.02, list(self.subscribers.values()))
            if time.monotonic() > deadline:
                raise Failure(f"{', '.join(behind)} were not given what was committed {patience:.0f} s ago")

    # --- the end -----------------------------------------------------------------------------------------------------

    def wind_down(self) -> None:
        """Let the producers come to an end, commit some rows nobody rings for, then say the end."""
        self.mutes.close()
        for child in self.producers.values():
            child.finish()
        if self.hub.pid() is None:
            self.hub.start()
            self.hub.await_ready()
        self.await_quiet(WIND_DOWN_SEC)
        self.commit_unrung()
        emit(
            EventInsert(source="torture", event_type="end", delivery_id="end", fields={"end": True}),
            settings=self.bus.settings,
        )
        for child in self.subscribers.values():
            child.finish(WIND_DOWN_SEC)

    def commit_unrung(self) -> None:
        """Rows as a producer leaves them that was killed between commit and ring: the sweep must find them."""
        appender = Appender(self.bus.settings)
        for n in range(UNRUNG):
            pause(self.random.uniform(0.3, 1.3), list(self.subscribers.values()))
            fields = {"n": n, "producer": "unrung", "due_ns": time.monotonic_ns()}
            event = EventInsert(
                source="torture", event_type="tick", delivery_id=f"unrung-{n}", fields=fields, summary="unrung"
            )
            appender.append(event)
        appender.close()

    def judge(self) -> dict[str, Any]:
        """Every account, as it is printed and as ``--json`` gives it."""
        truth = audit.Truth(self.stores.generations)
        wrongs = [f"{truth.unsound} stores fail SQLite's integrity check"] if truth.unsound else []
        learned_late = 0
        for name in self.producers:
            ledger = audit.Ledger(self.log(name))
            wrongs += audit.wronged(truth, name, ledger)
            learned_late += ledger.answered - ledger.inserted
        accounts: dict[str, Any] = {}
        for name, kind in zip(self.subscribers, self.kinds, strict=True):
            received, allowed = audit.without_promised_repeats(
                audit.given(self.log(name)), self.bookmark_kills.get(name, [])
            )
            account = audit.account(truth.expected(kind), received, truth.spared(name, received))
            accounts[name] = {**account.figures(), "repeated_as_promised": allowed}
            if not account.good:
                missing = set(truth.expected(kind)) - set(received) - truth.spared(name, received)
                wrongs.append(f"{name}: {account}{truth.named(missing)}")
        late = self.unrung_late(truth)
        if len(late) != UNRUNG or max(late) > UNRUNG_LATE_US:
            wrongs.append(f"commits nobody rang for came after {late} us")
        if self.swept_sec > SWEPT_SEC:
            wrongs.append(f"a hub whose sockets were taken away listened again after {self.swept_sec:.1f} s")
        return {
            "deeds": dict(self.done),
            "swept_sec": round(self.swept_sec, 2),
            "stores": len(truth.generations),
            "poison_rows": self.poisoned,
            "hubs_brought_back_by_a_client": self.by_client,
            "rows": len(truth.rows),
            "committed_but_learned_late": learned_late,
            "subscribers": accounts,
            "unrung_latest_ms": max(late, default=0) / 1000,
            "wrongs": wrongs,
        }

    def unrung_late(self, truth: audit.Truth) -> list[int]:
        """How late one subscriber that takes everything got the rows nobody rang for."""
        unrung = {event_id for event_id, delivery_id in truth.rows if delivery_id.startswith("unrung-")}
        name = next(name for name, kind in zip(self.subscribers, self.kinds, strict=True) if kind != "filtered")
        log = self.log(name)
        return [
            late for event_id, late in zip(audit.given(log), audit.delays_us(log), strict=True) if event_id in unrung
        ]


def torture(
    bus: Bus,
    *,
    kills: int,
    rate: float,
    subscribers: int,
    seed: str,
    replacing: bool = False,
    without: Iterable[str] = (),
) -> dict[str, Any]:
    """Run it to the end; with `replacing`, the store's file is replaced, too; deeds named in `without` are left out.

    Raises `Failure` when somebody ended who should not have, or a promise was broken at once.
    """
    deeds = {deed: weight for deed, weight in (REPLACING if replacing else DEEDS).items() if deed not in without}
    run = Torture(bus, rate=rate, subscribers=subscribers, seed=seed, deeds=deeds, skewed=not replacing)
    begin = said = time.monotonic()
    run.set_up()
    done = 0
    try:
        while done < kills:
            run.do_one()
            done = run.done.total()
            if time.monotonic() - said > 5:
                said = time.monotonic()
                progress(f"{done}/{kills} deeds after {said - begin:.0f} s: {described(run.done)}")
        progress(f"{done} deeds done after {time.monotonic() - begin:.0f} s; letting everybody come to an end")
        run.wind_down()
    except Failure as failure:
        raise Failure(f"after {done} deeds (seed {seed}): {failure}; the hubs' last words: {bus.hub_said()}") from None
    finally:
        run.mutes.close()
    verdict = run.judge()
    verdict["seconds"] = round(time.monotonic() - begin, 1)
    verdict["seed"] = seed
    return verdict


def described(done: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in done.most_common())


def progress(text: str) -> None:
    sys.stderr.write(f"torture: {text}\n")
    sys.stderr.flush()
