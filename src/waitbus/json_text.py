"""JSON as text and back, with the numbers that JSON has: no NaN, no infinity. And how deep a text is nested."""

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
        raise ValueError(f"{text} is no finite number")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False)


def to_json(value: object) -> str:
    """`value` as compact JSON, not escaped beyond need.

    Raises ``ValueError`` (NaN, infinity), ``TypeError`` (no JSON value) or ``RecursionError`` (too deep, or circular).
    """
    return _ENCODER.encode(value)


def from_json(text: str) -> Any:
    """The one JSON value in `text`, all numbers finite. Raises ``ValueError``, or ``RecursionError`` when too deep."""
    try:
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    except json.JSONDecodeError:
        pass  # maybe only for white space before it
    return _DECODER.decode(text)


def is_deeper(text: str, limit: int) -> bool:
    """Whether the JSON in `text` is nested deeper than `limit`, found without parsing it. A bare value has depth 0."""
    return text.count("[") + text.count("{") > limit and depth_of(text) > limit


def depth_of(text: str) -> int:
    """How deep the JSON in `text` is nested, found without parsing it."""
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    outside_strings = "".join(text.split('"')[::2])
    return max(accumulate(map(_STEPS.get, outside_strings, repeat(0))), default=0)


_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}
