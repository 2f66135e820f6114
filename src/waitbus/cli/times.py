"""Moments and sizes as people and other programs write them. Pure but for the local time zone."""

from __future__ import annotations

import time

from waitbus.event import WaitbusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
    """UTC, with as many decimals as it needs: none, 3, 6 or 9."""
    seconds, fraction = divmod(unix_ns, _SECOND)
    base = _strftime("%Y-%m-%dT%H:%M:%S", seconds, time.gmtime)
    if not fraction:
        return f"{base}Z"
    digits = f"{fraction:09}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{base}.{digits}Z"


def local(unix_ns: int) -> str:
    """Date and time of day in the local zone, for a person."""
    return _strftime("%Y-%m-%d %H:%M:%S", unix_ns // _SECOND, time.localtime)


def _strftime(form: str, seconds: int, zone: Callable[[float], time.struct_time]) -> str:
    try:
        return time.strftime(form, zone(seconds))
    except (ValueError, OverflowError, OSError):  # a foreign row may say any number
        return time.strftime(form, time.gmtime(0))


def span(seconds: float) -> str:
    """A duration for a person: its two largest units, such as ``3h 12m`` or ``0.4s``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    rest = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join([part for part in parts[:2] if part[0] != "0"])


def size(count: float) -> str:
    """Bytes for a person: ``612 B``, ``1.5 MiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
