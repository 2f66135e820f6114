"""A finding of `waitbus doctor`: one line that says what was looked at, what is so, and what to do about it."""

from __future__ import annotations

OK, NOTE, BAD = "ok", "note", "BAD"


class Finding:
    """One line. `state` is `OK`, `NOTE` or `BAD`; where it is `BAD`, `text` ends with what mends it."""

    __slots__ = ("name", "state", "text")

    def __init__(self, state: str, name: str, text: str) -> None:
        self.state = state
        self.name = name
        self.text = text
