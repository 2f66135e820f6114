"""What leaves through standard output and standard error: lines that cannot control a terminal, and JSON.

The text of an event was written by others: it never reaches a terminal as a control sequence. No verb is known here.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

# Not printable by Python's reckoning, and still harmless and needed: spaces of fixed width, joiners of letters.
_HARMLESS = frozenset("\u00a0\u2007\u202f\u3000\u200c\u200d")
_SGR = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def out(text: str) -> None:
    """One line for a person, in the terminal's encoding; what that cannot say is an escape."""
    sys.stdout.write(f"{text}\n")


def out_data(text: str) -> None:
    """One line for a program: UTF-8, whatever the locale."""
    stream = sys.stdout
    raw = getattr(stream, "buffer", None)
    if raw is None:  # not a file: somebody collects text in this process
        stream.write(f"{text}\n")
        return
    raw.write(f"{text}\n".encode("utf-8", "backslashreplace"))
    if stream.line_buffering:
        stream.flush()


def flush() -> None:
    """Let a reader at the other end of a pipe have what was written so far."""
    sys.stdout.flush()


def note(text: str) -> None:
    """One line for the person, not data."""
    sys.stdout.flush()  # in the order in which it was said
    if sys.stderr is not None:
        sys.stderr.write(f"waitbus: {safe(text)}\n")
        sys.stderr.flush()


def out_json(value: object) -> None:
    """One line of JSON, in UTF-8."""
    out_data(to_json(value))


def to_json(value: object) -> str:
    r"""Compact JSON in which whatever is not printable is escaped, as ``\u001b``: fit for a terminal."""
    text = _encode(value)
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() or char in _HARMLESS else _json_escape(char) for char in text])


def safe(text: str) -> str:
    r"""`text` with control characters, escapes and direction overrides made visible, as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() or char in _HARMLESS else _escape(char) for char in text])


def _json_escape(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _escape(char: str) -> str:
    code = ord(char)
    named = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}.get(code)
    if named:
        return named
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether standard output (or `stream`) is a terminal."""
    stream = sys.stdout if stream is None else stream
    try:
        return stream.isatty()
    except (ValueError, AttributeError):  # closed, or not there
        return False


def has_colour(stream: TextIO | None = None) -> bool:
    """Whether colours belong on standard output (or `stream`): a terminal that has them, and no NO_COLOR."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: str | None) -> str:
    """`text`, already `safe`, in a colour: the caller knows that `has_colour`."""
    return f"\x1b[{_SGR[colour]}m{text}\x1b[0m" if colour else text
