"""What can be found out about a store, for `status`: it looks, and changes nothing."""

from __future__ import annotations

import os
import time

from waitbus.event import WaitbusError
from waitbus.store.open import open_reader
from waitbus.store.read import last_seq, read_after
from waitbus.store.stats import look_up_newest, stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waitbus.settings import Settings


def store_state(settings: Settings) -> dict[str, Any]:
    """The store's size in bytes, with what is still in its log; its rows; its newest event and that one's age."""
    path = settings.db_path
    state: dict[str, Any] = {"path": path, "bytes": 0, "events": 0, "last_event": None}
    if not os.path.lexists(path):  # nothing was emitted yet, and nothing is wrong
        return state
    try:
        conn = open_reader(settings)
        try:
            found = stats(conn, path)
            state.update(bytes=found["bytes"] + found["wal_bytes"], events=found["rows"], schema=found["schema"])
            newest = read_after(conn, last_seq(conn) - 1, 1)
            look_up_newest(conn)
        finally:
            conn.close()
    except WaitbusError as error:
        state["problem"] = str(error)
        return state
    for _, frame in newest:
        state["last_event"] = {
            "event_id": frame["event_id"],
            "source": frame["fields"]["source"],
            "event_type": frame["event_type"],
            "summary": frame["summary"],
            "age_sec": round(max(0.0, (time.time_ns() - frame["received_at"]) / 1e9), 3),
        }
    return state
