"""What flags take: each function reads one word, and an error names the flag and the right form in one line."""

from __future__ import annotations

import argparse
import os

from waitbus.event import one_line
from waitbus.predicate import Predicate, PredicateError
from waitbus.units import parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def as_text(word: str) -> str:
    """A word that is compared or stored as text: bytes that are UTF-8 are read as that, in whatever locale we are."""
    if word.isascii():
        return word
    try:
        return os.fsencode(word).decode()
    except UnicodeError:  # typed in a terminal of that locale
        pass
    if any("\ud800" <= char <= "\udfff" for char in word):  # what the locale cannot read, either
        raise argparse.ArgumentTypeError(f"{one_line(word, 50)!r} is not text: write it in UTF-8")
    return word


def named(word: str) -> str:
    """A name to compare with: text that is not empty, as an unset variable of a shell is."""
    if not word:
        raise argparse.ArgumentTypeError("it is empty: no event matches that; is a variable of the shell unset?")
    return as_text(word)


# What the help of a flag or word that takes predicates says of them.
PREDICATES = (
    "such as conclusion=failure or 'name=build && exit_code>=1'; quote a name that holds a dot: "
    "'labels.\"com.example\"=web'. Several AND; the same key again ORs"
)


def predicate(text: str) -> Predicate:
    """A predicate's text, such as ``conclusion=failure``."""
    try:
        return Predicate.parse(as_text(text))
    except PredicateError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def duration(text: str) -> float:
    """Seconds of ``90``, ``5m``, ``1h30m``."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def sha(text: str) -> str:
    """A commit: 7 to 40 hexadecimal digits, in lower case."""
    digits = text.lower()
    if not 7 <= len(digits) <= 40 or digits.strip("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{one_line(text, 50)!r} is not a commit: give 7 to 40 hexadecimal digits")
    return digits


def repo(text: str) -> tuple[str, str]:
    """``OWNER/NAME`` or ``OWNER/*`` as two."""
    owner, _, name = text.partition("/")
    if not owner or not name or not _NAME_CHARS.issuperset(owner) or not (name == "*" or _NAME_CHARS.issuperset(name)):
        raise argparse.ArgumentTypeError(f"{one_line(text, 50)!r} is not a repository: write OWNER/NAME or OWNER/*")
    return owner, name


def condition(text: str) -> tuple[str | None, list[Predicate]]:
    """``SOURCE`` or ``SOURCE:PREDICATE``: the source, None for any, and the predicate if there is one."""
    source, colon, test = text.partition(":")
    if source != "*" and (not source or not _NAME_CHARS.issuperset(source)):
        form = f"SOURCE:{text} or, for any source, *:{text}" if _is_predicate(text) else "SOURCE or SOURCE:PREDICATE"
        raise argparse.ArgumentTypeError(f"{one_line(text, 50)!r} names no source: write {one_line(form)}")
    return None if source == "*" else source, [predicate(test)] if colon else []


def _is_predicate(text: str) -> bool:
    try:
        Predicate.parse(text)
    except PredicateError:
        return False
    return True


def add_filters(parser: argparse._ActionsContainer, *, match: str = PREDICATES) -> None:
    """The flags `--source`, `--event-type` and `--match`; `match` is the help of the last."""
    for flag, what in (("--source", "source"), ("--event-type", "type")):
        parser.add_argument(
            flag,
            metavar="NAME",
            type=named,
            action="append",
            default=[],
            help=f"only events of this {what}; can be given several times",
        )
    parser.add_argument("--match", metavar="PREDICATE", type=predicate, action="append", default=[], help=match)


def filters_of(args: argparse.Namespace) -> list[Predicate]:
    """What `--source` and `--event-type` say, each in an `all` of its own: no other predicate on its key widens it."""
    either = [
        [{"key": key, "op": "eq", "value": name} for name in names]
        for key, names in (("fields.source", args.source), ("event_type", args.event_type))
    ]
    return [Predicate.from_object({"all": [one_of(leaves)]}) for leaves in either if leaves]


# What `--since` takes, for its help: `client.since` reads it.
SINCE = "a duration (10m), start, an event_id, or a time: today, yesterday, 14:30, 2026-05-17, RFC 3339"


def add_since(parser: argparse._ActionsContainer) -> None:
    """The flag `--since`, as text: what it means depends on the time at which the verb begins."""
    parser.add_argument("--since", metavar="WHEN", help=f"start in the past: {SINCE}")


def one_of(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Predicates in their object form joined by OR."""
    return nodes[0] if len(nodes) == 1 else {"any": nodes}


def count(text: str) -> int:
    """A whole number, at least 1."""
    if text.isascii() and text.isdigit() and 0 < len(text) < 19 and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of events: write 1 or more")
