"""The first part: kills at random under load, then the account of every party.

What is killed, when, and how the hub comes back is drawn from the seed; the machine's own timing is not.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.torture import audit
from tests.torture.bus import Bus, Child, Failure, Hub, pause
from tests.torture.consumer import KINDS
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
UNRUNG = 10
UNRUNG_LATE_US = 1_500_000  # the sweep looks once a second; the rest is the machine's
VICTIMS = {"hub": 60, "producer": 20, "producer before its ring": 10, "subscriber": 10}


class Torture:
    """One run: the bus, who is on it, and what was done to them."""

    def __init__(self, bus: Bus, *, rate: float, subscribers: int, seed: str) -> None:
        self.bus = bus
        self.seed = seed
        self.rate = rate
        self.random = random.Random(seed)
        self.hub = Hub(bus)
        self.kills: Counter[str] = Counter()
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
        words = (first, self.seed, self.rate / PRODUCERS, self.start_ns, SKEWS_NS[int(name[1:])], self.log(name))
        self.producers[name] = self.bus.spawn(name, "tests.torture.producer", name, *map(str, words))

    def everybody(self) -> list[Child]:
        return [*self.subscribers.values(), *self.producers.values()]

    # --- kills -------------------------------------------------------------------------------------------------------

    def kill_one(self) -> None:
        pause(self.random.uniform(0, PAUSE_SEC), self.everybody())
        (victim,) = self.random.choices(list(VICTIMS), list(VICTIMS.values()))
        if victim == "hub":
            self.kill_hub()
        elif victim.startswith("producer"):
            self.kill_producer(victim)
        else:
            victim = self.kill_subscriber()
        self.kills[victim] += 1

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
            self.kills["hub while it started"] += 1
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

    def kill_subscriber(self) -> str:
        """Kill the one with a bookmark, where there is one; it goes on from there."""
        names = [name for name in self.subscribers if name.startswith("bookmark")]
        if not names:
            self.kill_hub()
            return "hub"
        name = self.random.choice(names)
        child = self.subscribers[name]
        child.kill()
        self.bus.children.remove(child)
        log = self.log(name)
        self.bookmark_kills.setdefault(name, []).append(len(log.read_text().splitlines()) if log.exists() else 0)
        self.subscribe(name, "bookmark")
        return "subscriber"

    # --- the end -----------------------------------------------------------------------------------------------------

    def wind_down(self) -> None:
        """Let the producers come to an end, commit some rows nobody rings for, then say the end."""
        for child in self.producers.values():
            child.finish()
        if self.hub.pid() is None:
            self.hub.start()
            self.hub.await_ready()
        self.commit_unrung()
        emit(
            EventInsert(source="torture", event_type="end", delivery_id="end", fields={"end": True}),
            settings=self.bus.settings,
        )
        for child in self.subscribers.values():
            child.finish(300)

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
        truth = audit.Truth(self.bus.settings.db_path)
        wrongs = [] if truth.sound else ["the store fails SQLite's integrity check"]
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
            account = audit.account(truth.expected(kind), received)
            accounts[name] = {**account.figures(), "repeated_as_promised": allowed}
            if not account.good:
                wrongs.append(f"{name}: {account}")
        late = self.unrung_late(truth)
        if len(late) != UNRUNG or max(late) > UNRUNG_LATE_US:
            wrongs.append(f"commits nobody rang for came after {late} us")
        return {
            "kills": dict(self.kills),
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


def torture(bus: Bus, *, kills: int, rate: float, subscribers: int, seed: str) -> dict[str, Any]:
    """Run it to the end. Raises `Failure` when somebody ended who should not have."""
    run = Torture(bus, rate=rate, subscribers=subscribers, seed=seed)
    begin = said = time.monotonic()
    run.set_up()
    done = 0
    try:
        while done < kills:
            run.kill_one()
            done = run.kills.total()
            if time.monotonic() - said > 5:
                said = time.monotonic()
                progress(f"{done}/{kills} kills after {said - begin:.0f} s: {described(run.kills)}")
        progress(f"{done} kills done after {time.monotonic() - begin:.0f} s; letting everybody come to an end")
        run.wind_down()
    except Failure as failure:
        raise Failure(f"after {done} kills (seed {seed}): {failure}") from None
    verdict = run.judge()
    verdict["seconds"] = round(time.monotonic() - begin, 1)
    verdict["seed"] = seed
    return verdict


def described(kills: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in kills.most_common())


def progress(text: str) -> None:
    sys.stderr.write(f"torture: {text}\n")
    sys.stderr.flush()
