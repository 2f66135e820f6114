"""Where a subscription or a look back begins: `since`, as people write it, made a cursor.

The time now is handed in; the time zone is the process's. A cursor that is a point in time, and not an event's id, goes
by an event's own time where the event is history.
"""

from __future__ import annotations

from waitbus.event import one_line
from waitbus.settings import SettingsError
from waitbus.ulid import ULID_MIN, is_ulid, ulid_at, ulid_ms
from waitbus.units import parse_duration

_FORMS = "a duration such as 10m, start, an event_id, or a time: today, yesterday, 14:30, 2026-05-17, or RFC 3339"
# `ulid_at` leaves all of a ULID's random bits at zero.
_NO_CHANCE = "0" * 16
# Another machine's clock may be a little ahead of ours; a moment further ahead is a mistake.
_AHEAD_SEC = 60.0

_CLOCK = r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?"
_DATE = r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d(:?\d\d)?)?)?"
_DAYS_AGO = {"today": 0, "yesterday": 1}


def since_ulid(since: str | None, unix_ns: int) -> str | None:
    """The cursor that `since` means at the time `unix_ns`; None, which is only news, for None.

    An event_id is its own cursor; ``start`` is before everything. A duration goes back from now, a time of day to the
    last time it was that late. Raises `SettingsError` with the right forms; for an empty text, too.
    """
    if since is None or is_ulid(since):
        return since
    text = since.strip()
    if not text:
        raise SettingsError(f"since is empty: leave it out to begin now, or give {_FORMS}")
    if text == "start":
        return ULID_MIN
    if is_ulid(text.upper()):
        return text.upper()
    try:
        back = parse_duration(text)
    except ValueError:
        back = _seconds_back(text, unix_ns / 1e9)
    return ulid_at(unix_ns - int(back * 1e9))


def history_since(cursor: str | None) -> float:
    """From when on history is among what this cursor asks for, in ms since the epoch: by its own time, if that is one.

    None asks for news alone, an event's own id for all that was committed after it.
    """
    if cursor is None:
        return float("inf")
    return ulid_ms(cursor) if cursor.endswith(_NO_CHANCE) else 0


def _seconds_back(text: str, now: float) -> float:
    try:
        then = moment(text, now)
    except ValueError as error:
        raise SettingsError(f"since: {error}") from None
    if then is None:
        raise SettingsError(f"since takes {_FORMS}; not {one_line(text, 40)!r}")
    if then > now + _AHEAD_SEC:
        raise SettingsError(f"since takes what has passed, and {text} is still to come: give {_FORMS}")
    return max(0.0, now - then)


def moment(text: str, now: float) -> float | None:
    """Seconds since the epoch of a point in time, as it is meant at the time `now`; None for another form.

    ``today`` and ``yesterday`` are midnight, ``14:30`` the last time it was that late; local time where no zone is
    given. Raises ``ValueError`` for a date or time that the calendar does not have.
    """
    # A duration and an event_id are the common cases, and need neither.
    import re
    from datetime import datetime, timedelta

    there = datetime.fromtimestamp(now)  # noqa: DTZ006  # local time is what a person means
    midnight = there.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    days = _DAYS_AGO.get(text.lower())
    if days is not None:
        return (midnight - timedelta(days=days)).timestamp()
    if clock := re.fullmatch(_CLOCK, text, re.ASCII):
        today = midnight.replace(hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3] or 0))
        # An hour may come twice on a day; where it never came, it is the one after it.
        times = [(today - timedelta(days=ago)).replace(fold=fold).timestamp() for ago in (0, 1) for fold in (1, 0)]
        return max(time for time in times if time <= now)
    if not re.fullmatch(_DATE, text, re.ASCII):
        return None
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{text} is not a time of the calendar: {error}") from None
