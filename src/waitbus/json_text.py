"""Encodes and decodes strict JSON (no NaN, no infinity), and measures how deep a text is nested."""

from __future__ import annotations

import json
import math
from itertools import accumulate, repeat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False)


def to_json(value: object) -> str:
    """Return `value` as compact JSON, with non-ASCII characters as they are.

    Raises ``ValueError`` for NaN or infinity, ``TypeError`` for a value that JSON does not have, and ``RecursionError``
    if the value is too deep or contains itself.
    """
    return _ENCODER.encode(value)


def from_json(text: str) -> Any:
    """Parse one JSON value; all its numbers are finite. Raises ``ValueError``, or ``RecursionError`` if too deep."""
    try:
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    except json.JSONDecodeError:
        pass  # there may be white space before the value, which `decode` accepts
    return _DECODER.decode(text)


def is_deeper(text: str, limit: int) -> bool:
    """Whether the JSON in `text` is nested deeper than `limit`. It is not parsed. A bare value has depth 0."""
    return text.count("[") + text.count("{") > limit and depth_of(text) > limit


def depth_of(text: str) -> int:
    """Return how deep the JSON in `text` is nested, without parsing it."""
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    outside_strings = "".join(text.split('"')[::2])
    return max(accumulate(map(_STEPS.get, outside_strings, repeat(0))), default=0)


_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
