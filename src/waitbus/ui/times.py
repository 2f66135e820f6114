"""Moments, durations and sizes as a person reads them, in the local time zone."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DAY = 86_400


def local(unix_ns: int) -> str:
    """Date and time of day in the local zone, for a person; with the zone's offset where clocks show it twice."""
    seconds = unix_ns // 1_000_000_000
    form = "%Y-%m-%d %H:%M:%S%z" if _comes_twice(seconds) else "%Y-%m-%d %H:%M:%S"
    return _strftime(form, seconds, time.localtime)


def _comes_twice(seconds: int) -> bool:
    """Whether clocks are set back over this local time: then a moment with another offset shows the same."""
    try:
        here = time.localtime(seconds).tm_gmtoff
        for around in (seconds - _DAY, seconds + _DAY):
            other = time.localtime(around).tm_gmtoff
            if other != here and time.localtime(seconds + here - other).tm_gmtoff == other:
                return True
    except (ValueError, OverflowError, OSError):  # `_strftime` deals with it
        return False
    return False


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
