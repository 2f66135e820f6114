"""JSON from outside, read so that nothing in it is dropped or changed unnoticed."""

from __future__ import annotations

import json
import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Refused(ValueError):
    """JSON that cannot be taken as it is: a key that comes twice, or a number that no event can hold."""


def read_json(text: str) -> Any:
    """The one value in `text`. Raises `Refused`, or ``ValueError`` where it is not JSON or nested too deep."""
    try:
        return _decode(text)
    except Refused:
        raise
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError:  # Python's own limit on the digits it converts
        raise Refused("a number has too many digits") from None


def check_json(text: str) -> None:
    """Raise ``ValueError`` unless `text` is one JSON value. It is kept as text, so keys and numbers are not judged."""
    try:
        _check(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise Refused(f"the key {name[:40]!r} is there twice in one object")
            seen.add(name)
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Refused(f"the number {text[:40]} is too large")
    return number


def _no_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


_check = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant).decode
_decode = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_no_constant).decode
