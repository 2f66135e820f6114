"""What a subscriber asks the store itself: an event that did not fit in a frame, and what it has not been told.

Only here does a subscriber open the store.
"""

from __future__ import annotations

import os

from waitbus.settings import SettingsError
from waitbus.store.open import StoreDamaged, StoreError, StoreMissing, open_reader
from waitbus.store.prefilter import condition_of
from waitbus.store.read import cursor_of, event_with_payload, last_seq, read_page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from waitbus.event import Event
    from waitbus.predicate import Predicate
    from waitbus.settings import Settings

_PAGE = 100
_BUSY_SEC = 0.25


def from_store(settings: Settings, event_id: str) -> Event | None:
    """The event with this id and its payload; None when it, or the whole store, is no longer there.

    Raises `StoreError`.
    """
    if not os.path.exists(settings.db_path):  # a daemon of 0.2.0 keeps its own
        return None
    try:
        conn = open_reader(settings)
    except StoreMissing:  # taken away just now
        return None
    try:
        return event_with_payload(conn, event_id)
    finally:
        conn.close()


def committed_after(
    settings: Settings, cursor: str, wanted: Predicate | None, *, alone: bool = False
) -> Iterator[dict[str, Any]]:
    """The frames of all events after `cursor` that may match, as far as they are committed now, in commit order.

    What cannot match by its columns is passed over; `wanted` is to be asked about the rest. Gives nothing where there
    is no store, or none that we may read. Raises `StoreDamaged`; `alone`, when no hub looks, `StoreError`, too.
    """
    if not os.path.exists(settings.db_path):
        return
    try:
        conn = open_reader(settings, timeout=_BUSY_SEC)
    except StoreDamaged:
        raise
    except (StoreError, SettingsError):
        if alone:
            raise
        return
    try:
        seq, end = cursor_of(conn, cursor), last_seq(conn)
        where = condition_of(wanted.as_object) if wanted is not None else None
        while seq < end:
            page = read_page(conn, seq, _PAGE, upto=end, where=where)
            for _, frame in page.rows:
                yield frame
            seq = page.end
    finally:
        conn.close()
