"""Events that did not fit in a frame: the store has them. Only here does a subscriber open it."""

from __future__ import annotations

import os

from waitbus.store.open import open_reader
from waitbus.store.read import event_with_payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.event import Event
    from waitbus.settings import Settings


def from_store(settings: Settings, event_id: str) -> Event | None:
    """The event with this id and its payload; None when it is no longer there. Raises `StoreError`."""
    if not os.path.exists(settings.db_path):  # a daemon of 0.2.0 keeps its own
        return None
    conn = open_reader(settings)
    try:
        return event_with_payload(conn, event_id)
    finally:
        conn.close()
