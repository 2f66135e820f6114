"""`waitbus emit`: one event from flags, or many from JSON lines. Its start-up is a budget."""

from __future__ import annotations

import os
import sys

from waitbus.cli.exitcodes import FAILURE, OK
from waitbus.event import FIELD_COLUMNS, WaitbusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from waitbus.event import EventInsert

# Flag, what stands for its value in the help, what it says.
_PLAIN = (
    ("source", "NAME", "who saw it, such as agent, ci or cron (required)"),
    ("event-type", "NAME", "what kind of event it is (required)"),
    ("summary", "TEXT", "one line for a person (default: made from the fields)"),
    ("delivery-id", "TEXT", "idempotency key: emitting the same one again changes nothing (default: a new one)"),
    ("owner", "TEXT", "default: local"),
    ("repo", "TEXT", "default: local"),
    ("received-at", "TIME", "epoch seconds, epoch nanoseconds or RFC 3339 (default: now)"),
    (
        "ingest-method",
        "TEXT",
        "how it was learned (default: manual); backfill marks the past, which is never announced as news",
    ),
    ("payload-json", "JSON|-|@FILE", "the raw payload; - reads it from standard input. It stays in the store"),
)
_PAYLOAD_BYTES = 16 << 20  # what the store takes at most
_FORMATS = ("text", "json", "cloudevent", "cloudevents")
# Every flag that takes one text -> the attribute it is kept as.
_FLAGS: dict[str, str] = {
    **{f"--{name}": name.replace("-", "_") for name, _, _ in _PLAIN},
    **{f"--{name.replace('_', '-')}": name for name in FIELD_COLUMNS},
    "--format": "format",
    "--field": "field",
}
_EPILOG = """\
Prints the event's id, or with --json one line of JSON with `inserted`, which says whether this call wrote it, and the
event. For lines on standard input, it prints the counts on standard error, or with --json one line of JSON with
`inserted`, `duplicates`, `bad` and `last_event_id`.

emit reads JSON lines when given -, --stdin, or no arguments at all and a standard input that is not a terminal. Each
line is an object: one with the names of the flags (_ for -) and "fields", one that `waitbus tail --format json`
printed, or a CloudEvents 1.0 object. Flags supply what a line lacks. A bad line, such as one with the same key twice
in an object, is reported; the other lines are written, and the exit code is 1.

examples:
  waitbus emit --source agent --event-type agent_message --summary 'schema is done'
  waitbus emit --source ci --event-type build --conclusion failure --field step=lint --field 'codes=[1, 2]'
  waitbus emit --source cron --event-type backup --delivery-id "backup-$(date +%F)" --payload-json @report.json
  producer | waitbus emit - --source ci --event-type step --json
"""


class EmitError(WaitbusError):
    """Flags or values of which no event can be made."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.usage = "waitbus emit --source NAME --event-type NAME [OPTION...]\n       waitbus emit - [OPTION...] < LINES"
    parser.description = "Write an event. It is committed when this command ends, and everyone who waits for it wakes."
    parser.epilog = _EPILOG
    parser.add_argument("lines", nargs="?", metavar="-", help="read JSON lines from standard input")
    for name, metavar, text in _PLAIN:
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="one of the source's own fields, for predicates; a value that is not JSON is text; repeatable",
    )
    columns = parser.add_argument_group("fields of the common vocabulary")
    for name, kind in FIELD_COLUMNS.items():
        columns.add_argument(f"--{name.replace('_', '-')}", metavar="N" if kind is int else "TEXT")
    parser.add_argument("--stdin", action="store_true", help="the same as -")
    parser.add_argument("--format", choices=_FORMATS, metavar="FORM", help="text, json or cloudevents")
    parser.add_argument("--json", action="store_true", help="the same as --format json")


def run(args: argparse.Namespace) -> int:
    """Write what was asked for. 0, also when it was there already; 1 when a line on standard input was bad."""
    if args.lines not in (None, "-"):
        raise EmitError(
            f"emit takes flags, or - for lines on standard input, not {args.lines!r}; see waitbus emit --help"
        )
    given = _given(args)
    if args.stdin or args.lines or (not given and not args.json and not args.format and not os.isatty(0)):
        if args.format not in (None, "text", "json"):
            raise EmitError(
                "lines are answered with counts: use --json, or waitbus replay --format cloudevents afterwards"
            )
        from waitbus.ui.jsonl import emit_lines

        every = emit_lines(given, as_json=args.json or args.format == "json")
        return OK if every else FAILURE
    return _emit_one(given, "json" if args.json else args.format or "text")


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, as arguments of `EventInsert`."""
    given: dict[str, Any] = {}
    for flag, name in _FLAGS.items():
        value = getattr(args, name)
        if value is None or name in ("field", "format"):
            continue
        if not value.isascii() and not (name == "payload_json" and value.startswith("@")):
            value = _text(flag, value)
        if FIELD_COLUMNS.get(name) is int:
            value = _whole(flag, value)
        elif name == "received_at":
            from waitbus.timestamps import parse_time

            value = parse_time(value)
        elif name == "payload_json":
            value = _checked(_payload(value, args))
        given[name] = value
    if args.field:
        given["fields"] = dict([_field(text if text.isascii() else _text("--field", text)) for text in args.field])
    return given


def _text(flag: str, word: str) -> str:
    from argparse import ArgumentTypeError

    from waitbus.cli.flags import as_text

    try:
        return as_text(word)
    except ArgumentTypeError as error:
        raise EmitError(f"{flag}: {error}") from None


def _whole(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise EmitError(f"{flag} takes a whole number, not {text!r}") from None


def _payload(value: str, args: argparse.Namespace) -> str:
    if value not in ("-", "@-") and not value.startswith("@"):
        return value
    if value in ("-", "@-") and (args.stdin or args.lines):
        raise EmitError("standard input holds the lines: give the payload in them, as payload_json")
    from waitbus.ui.stdin import decoded, read_text

    if value in ("-", "@-"):
        return read_text("the payload", _PAYLOAD_BYTES)
    try:
        with open(value[1:], "rb") as file:
            raw = file.read(_PAYLOAD_BYTES + 1)
    except OSError as error:
        raise EmitError(f"cannot read the payload {value[1:]}: {error.strerror}") from None
    if len(raw) > _PAYLOAD_BYTES:
        raise EmitError(f"the payload {value[1:]} is longer than {_PAYLOAD_BYTES} bytes")
    return decoded("the payload", raw)


def _checked(payload: str) -> str:
    from waitbus.ui.strict_json import check_json

    try:
        check_json(payload)
    except ValueError as error:
        raise EmitError(f"--payload-json is not JSON: {error}; mind the shell's quotes") from None
    return payload


def _field(text: str) -> tuple[str, Any]:
    """One ``NAME=JSON``. What is no JSON is text, except where JSON was plainly meant."""
    name, equals, raw = text.partition("=")
    if not equals or not name:
        raise EmitError(f"--field takes NAME=JSON, such as --field step=lint, not {text!r}")
    if name in ("source", "event_type", "owner", "repo", "ingest_method"):
        raise EmitError(f"--field {name}: use --{name.replace('_', '-')}")
    if raw in _NEAR_LITERALS:
        raise EmitError(f"--field {text}: write {name}={_NEAR_LITERALS[raw]}, or '{name}=\"{raw}\"' for the text")
    from waitbus.ui.strict_json import Refused, read_json

    try:
        return name, read_json(raw)
    except Refused as error:
        raise EmitError(f"--field {name}: {error}") from None
    except ValueError:
        if raw[:1] in ('"', "[", "{"):
            raise EmitError(f"--field {name}: {raw} is no JSON value; mind the shell's quotes") from None
        return name, raw


_NEAR_LITERALS = {"True": "true", "False": "false", "None": "null", "NULL": "null", "Null": "null"}


def _emit_one(given: dict[str, Any], form: str) -> int:
    missing = [flag for flag, name in (("--source", "source"), ("--event-type", "event_type")) if name not in given]
    if missing:
        raise EmitError(f"emit needs {' and '.join(missing)}; see waitbus emit --help")
    from waitbus.client.emit import emit

    try:
        result = emit(_insert_of(given))
    except ValueError as error:
        raise EmitError(str(error)) from None
    event = result.event
    if form == "text":
        sys.stdout.write(f"{event.event_id}\n")
    elif form == "json":
        from waitbus.ui.output import out_json

        out_json({"inserted": result.inserted, "event": event.as_frame()})
    else:
        from waitbus.cloudevents import to_cloudevent
        from waitbus.ui.output import out_json

        out_json(to_cloudevent(event.as_frame()))
    if not result.inserted:
        from waitbus.ui.output import note

        note(f"delivery_id {event.delivery_id!r} was there already, as {event.event_id}: nothing was written")
    return 0


def _insert_of(given: dict[str, Any]) -> EventInsert:
    from waitbus.event import EventInsert

    return EventInsert(**given)
