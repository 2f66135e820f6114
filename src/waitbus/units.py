"""Parses durations and sizes as people write them. Errors are ``ValueError``; their text shows the right forms."""

from __future__ import annotations

LARGEST = (1 << 63) - 1

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kib": 1 << 10,
    "kb": 1000,
    "m": 1 << 20,
    "mib": 1 << 20,
    "mb": 1000**2,
    "g": 1 << 30,
    "gib": 1 << 30,
    "gb": 1000**3,
    "t": 1 << 40,
    "tib": 1 << 40,
    "tb": 1000**4,
}


def parse_duration(text: str) -> float:
    """Parse `90`, `90s`, `5m`, `2h`, `1d`, `500ms` or `1h30m` into seconds. Raises ``ValueError``.

    The result is finite and not negative.
    """
    rest = text.strip().lower()
    total = 0.0
    bare = False
    while rest and not bare:
        number, rest = _split(rest, "0123456789.")
        unit, rest = _split(rest, "abcdefghijklmnopqrstuvwxyz")
        bare = not unit
        try:
            total += float(number) * _DURATION_UNITS[unit or "s"]
        except (ValueError, KeyError):
            rest = "?"
            break
    if rest or not text.strip() or (bare and _split(text.strip(), "0123456789.")[1]) or total > 1e12:
        raise ValueError(f"{text!r} is not a duration: write 90, 90s, 5m, 2h, 1d, 500ms or 1h30m")
    return total


def parse_size(text: str) -> int:
    """Parse `1048576`, `500MB` (decimal), `1GiB` or `1G` (binary) into bytes. Raises ``ValueError``.

    Fractions of a byte are rounded up, because 0 means "no limit" and a small size must not become that.
    """
    number, unit = _split(text.strip().lower(), "0123456789.")
    try:
        size = float(number) if "." in number else int(number)
        total = -int(-size * _SIZE_UNITS[unit.strip()] // 1)
    except (ValueError, KeyError, OverflowError):
        total = -1
    if not 0 <= total <= LARGEST:
        raise ValueError(f"{text!r} is not a size: write 1048576, 500MB or 1GiB")
    return total


def _split(text: str, alphabet: str) -> tuple[str, str]:
    """Split `text` after its longest prefix of characters from `alphabet`."""
    rest = text.lstrip(alphabet)
    return text[: len(text) - len(rest)], rest
