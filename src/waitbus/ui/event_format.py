"""Events on standard output, one a line: as text for a person, as JSON, or as CloudEvents."""

from __future__ import annotations

from waitbus.ui.output import has_colour, is_terminal, out, out_json, painted, safe
from waitbus.ui.times import local

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from typing import Any

    Frame = Mapping[str, Any]

FORMATS = ("text", "json", "cloudevents")
_COLOURS = {"success": "green", "failure": "red", "timed_out": "red", "startup_failure": "red", "cancelled": "yellow"}
_KIND_WIDTH = 28
_WORD_WIDTH = 9


def add_format(parser: argparse.ArgumentParser, *more: str) -> None:
    """The flags `--format` and `--json`."""
    parser.add_argument(
        "--format",
        choices=[*FORMATS, *more],
        default="text",
        help="text for people (default); json or cloudevents: one object per line"
        + "".join([f"; {word}" for word in more]),
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")


def printer(form: str) -> Callable[[Frame], None]:
    """What prints an event frame in this format."""
    if form == "json":
        return out_json
    if form == "cloudevents":
        from waitbus.cloudevents import to_cloudevent

        return lambda frame: out_json(to_cloudevent(frame))
    colour = has_colour()
    # Columns are for eyes; a pipe gets the same words, a tab between them.
    aligned = is_terminal()
    return lambda frame: out(text_of(frame, colour=colour, aligned=aligned))


def text_of(frame: Frame, *, colour: bool = False, aligned: bool = False) -> str:
    """Time, source and type, how it stands, and the summary."""
    fields = frame["fields"]
    kind = f"{fields.get('source')}/{frame['event_type']}"
    word = fields.get("conclusion") or fields.get("status") or "-"
    summary = str(frame["summary"])
    # A summary made from the fields begins and ends with what the line has said already.
    bare = summary.removeprefix(f"{fields.get('source')} {frame['event_type']}")
    if bare != summary:
        summary = bare.removesuffix(str(word)).strip()
    words = [local(frame["received_at"]), safe(kind), safe(str(word)), safe(summary)]
    if aligned:
        words[1], words[2] = f"{words[1]:<{_KIND_WIDTH}}", f"{words[2]:<{_WORD_WIDTH}}"
    if colour:
        words[0] = painted(words[0], "dim")
        words[2] = painted(words[2], _COLOURS.get(str(word)))
    return ("  " if aligned else "\t").join(words)
