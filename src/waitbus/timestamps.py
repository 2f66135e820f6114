"""Moments as other programs write them: RFC 3339 and numbers since the epoch, and back.

Pure: no I/O, no clock, and no time zone but UTC.
"""

from __future__ import annotations

from waitbus.event import WaitbusError

_SECOND = 1_000_000_000
# Whole numbers below this are seconds (until the year 5138), from `_NANOSECONDS` on nanoseconds (from 1973 on).
_SECONDS_BELOW = 100_000_000_000
_NANOSECONDS = 100_000_000_000_000_000
_FORM = "epoch seconds (1763337600), epoch nanoseconds, or RFC 3339 (2026-05-17T12:00:00Z)"


class TimeError(WaitbusError, ValueError):
    """A moment that cannot be read. The text names the right forms."""


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of one of the forms; without a zone it is UTC. Raises `TimeError`."""
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

    # `datetime` knows microseconds only: the fraction goes by itself.
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
        raise TimeError(f"{word!r} is no time: write {_FORM}") from None
    return int(seconds) * _SECOND + _fraction(fraction)


def _fraction(digits: str) -> int:
    return int(f"{digits:0<9}"[:9]) if digits else 0


def _in_range(nanoseconds: int, text: str) -> int:
    if not 0 <= nanoseconds < 1 << 63:
        raise TimeError(f"{text!r} is outside 1970 to 2262: write {_FORM}")
    return nanoseconds


def rfc3339(unix_ns: int) -> str:
    """UTC, with as many decimals as it needs: none, 3, 6 or 9. The epoch where no calendar has such a moment."""
    from datetime import UTC, datetime

    seconds, fraction = divmod(unix_ns, _SECOND)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # a foreign row may say any number
        moment = datetime.fromtimestamp(0, UTC)
    base = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if not fraction:
        return f"{base}Z"
    digits = f"{fraction:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{base}.{digits}Z"
