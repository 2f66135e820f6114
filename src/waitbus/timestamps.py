"""Parses and formats times as other programs write them: RFC 3339, or seconds or nanoseconds since the epoch.

Pure: no I/O, no clock, and no time zone other than UTC.
"""

from __future__ import annotations

from waitbus.event import WaitbusError

_SECOND = 1_000_000_000
# Whole numbers below this are seconds (until the year 5138), and from `_NANOSECONDS` on nanoseconds (since 1973).
_SECONDS_BELOW = 100_000_000_000
_NANOSECONDS = 100_000_000_000_000_000
_FORM = "epoch seconds (1763337600), epoch nanoseconds, or RFC 3339 (2026-05-17T12:00:00Z)"


class TimeError(WaitbusError, ValueError):
    """A time is invalid. The text shows the right forms."""


def parse_time(text: str) -> int:
    """Parse a time in one of the forms and return nanoseconds since the epoch. Raises `TimeError`.

    A time without a zone is UTC.
    """
    word = text.strip()
    if word.isascii() and word.isdigit():
        number = int(word[:32])
        if number < _SECONDS_BELOW:
            return number * _SECOND
        if _NANOSECONDS <= number < 1 << 63:
            return number
        raise TimeError(f"{text!r} is neither seconds nor nanoseconds: write {_FORM}")
    whole, dot, fraction = word.partition(".")
    if dot and whole.isascii() and whole.isdigit() and fraction.isascii() and fraction.isdigit():
        return _in_range(int(whole[:32]) * _SECOND + _fraction(fraction), text)
    return _in_range(_rfc3339(word), text)


def _rfc3339(word: str) -> int:
    from datetime import UTC, datetime

    # `datetime` only has microseconds, so the fraction is parsed separately.
    head, dot, rest = word.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    fraction, zone = (rest[:digits], rest[digits:]) if dot else ("", "")
    try:
        if dot and not fraction:
            raise ValueError
        moment = datetime.fromisoformat(head + zone)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        raise TimeError(f"{word!r} is not a time: write {_FORM}") from None
    return int(seconds) * _SECOND + _fraction(fraction)


def _fraction(digits: str) -> int:
    return int(f"{digits:0<9}"[:9]) if digits else 0


def _in_range(nanoseconds: int, text: str) -> int:
    if not 0 <= nanoseconds < 1 << 63:
        raise TimeError(f"{text!r} is outside 1970 to 2262: write {_FORM}")
    return nanoseconds


def rfc3339(unix_ns: int) -> str:
    """Format a time in UTC with as many decimals as it needs: none, 3, 6 or 9.

    A time that `datetime` cannot express becomes the epoch.
    """
    from datetime import UTC, datetime

    seconds, fraction = divmod(unix_ns, _SECOND)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # a foreign program may have stored any number
        moment = datetime.fromtimestamp(0, UTC)
    base = moment.isoformat(timespec="seconds")[:19]  # `strftime` does not pad a year before 1000
    if not fraction:
        return f"{base}Z"
    digits = f"{fraction:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{base}.{digits}Z"
