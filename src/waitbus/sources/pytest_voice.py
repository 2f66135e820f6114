"""Emits the events of a pytest run, inside a process whose tests may patch, fake or close anything."""

from __future__ import annotations

import os
import sqlite3

from waitbus.client.emit import Bell
from waitbus.settings import load
from waitbus.store.append import Appender
from waitbus.store.clock import real_ns
from waitbus.ulid import UlidFactory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from waitbus.event import EventInsert


class Voice:
    """Reads the settings and imports everything before the first test. Its methods may raise any exception."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._settings = load(environ)
        clock = sqlite3.connect(":memory:")
        try:
            self.session_id = UlidFactory(lambda: real_ns(clock), os.urandom)()
        finally:
            clock.close()

    def tell(self, event: EventInsert, timeout: float) -> None:
        """Commit an event and ring. Waits at most `timeout` seconds for a busy store.

        The store is opened each time, so that between events there is no descriptor for a test to close or count.
        """
        appender = Appender(self._settings, timeout=timeout)
        try:
            appender.append(event, after_commit=self._ring)
        finally:
            appender.close()

    def _ring(self) -> None:
        try:
            bell = Bell(self._settings)
            try:
                bell.ring()
            finally:
                bell.close()
        except KeyboardInterrupt:
            raise
        except BaseException:
            return  # a test has patched the sockets. The hub finds the event within a second
