"""JSON lines on standard input, written in batches: as many as came by the time the input pauses, at most a thousand.

So a live pipe is never held back, a full one is fast, and a line that is no event costs nothing but itself.
"""

from __future__ import annotations

import json
import select
from codecs import BOM_UTF8

from waitbus.client.emit import emit, emit_many
from waitbus.event import FIELD_COLUMNS, EventInsert, WaitbusError, one_line
from waitbus.ui.output import note, out_json
from waitbus.ui.stdin import InputError, check_stdin, read_some
from waitbus.ui.strict_json import Refused, check_json, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

BATCH = 1000
MAX_LINE_BYTES = 1 << 20
_SHOWN = 20  # how many bad lines are told one by one

_KEYS = frozenset(
    {
        "source",
        "event_type",
        "delivery_id",
        "owner",
        "repo",
        "received_at",
        "payload_json",
        "ingest_method",
        "summary",
        "fields",
        *FIELD_COLUMNS,
    }
)


class BadLine(WaitbusError, ValueError):
    """A line of which no event can be made."""


def event_of(line: bytes, defaults: dict[str, Any]) -> EventInsert:
    """The event one line stands for. Raises ``ValueError`` saying why not."""
    try:
        value = read_json(line.decode())
    except UnicodeDecodeError as error:
        raise BadLine(f"it is not UTF-8: byte {error.start + 1} is wrong") from None
    except Refused as error:
        raise BadLine(str(error)) from None
    except ValueError as error:
        raise BadLine(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadLine("a line holds one JSON object")
    if "specversion" in value:
        from waitbus.cloudevents import from_cloudevent

        given = from_cloudevent(value)
    elif value.get("kind") == "event":
        given = _of_frame(value)
    else:
        given = _of_person(value)
    given = {**defaults, **given}
    if defaults.get("fields") and isinstance(given.get("fields"), dict):
        given["fields"] = {**defaults["fields"], **given["fields"]}
    return _insert_of(given)


def _of_person(value: dict[str, Any]) -> dict[str, Any]:
    """An object with the names of the flags."""
    unknown = next((name for name in value if name not in _KEYS), None)
    if unknown is not None:
        raise BadLine(f'unknown key {unknown!r}: names of your own go into "fields"')
    if value.get("received_at") is not None:
        from waitbus.timestamps import parse_time

        value["received_at"] = parse_time(str(value["received_at"]))
    return value


def _of_frame(frame: dict[str, Any]) -> dict[str, Any]:
    """An event as `tail --format json` prints it, its id left aside: every store gives its own."""
    fields = frame.get("fields")
    if not isinstance(fields, dict):
        raise BadLine('an event has "fields"')
    given = {name: frame[name] for name in frame if name in _KEYS}
    for name in ("source", "ingest_method"):
        if fields.get(name) is not None:
            given[name] = fields[name]
    return given


def _insert_of(given: dict[str, Any]) -> EventInsert:
    for name in ("source", "event_type"):
        if given.get(name) is None:
            raise BadLine(f"{name} is missing")
    fields = given.get("fields")
    if fields is not None and not isinstance(fields, dict):
        raise BadLine("fields takes an object")
    payload = given.get("payload_json")
    if isinstance(payload, str):
        try:
            check_json(payload)
        except ValueError as error:
            raise BadLine(f"payload_json is text that is not JSON: {error}") from None
    elif payload is not None:
        given["payload_json"] = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return EventInsert(**{name: value for name, value in given.items() if value is not None})


def read_lines(fd: int) -> Iterator[tuple[int, bytes | None] | None]:
    """Lines of a descriptor as `(number, line)`, without the newline; None for the line where it is too long.

    A bare None stands where the input pauses. What is held is bounded by `MAX_LINE_BYTES`.
    """
    number, held, skipping = 1, b"", False
    while data := read_some(fd):
        *whole, held = (held + data).split(b"\n")
        for line in whole:
            yield number, None if skipping or len(line) > MAX_LINE_BYTES else line
            number, skipping = number + 1, False
        if len(held) > MAX_LINE_BYTES:
            held, skipping = b"", True
        if not select.select([fd], [], [], 0)[0]:
            yield None
    if held or skipping:
        yield number, None if skipping else held


class _Batch:
    """Events read and not yet written, with the numbers of their lines; and the count of what became of the rest."""

    def __init__(self) -> None:
        self.events: list[EventInsert] = []
        self.numbers: list[int] = []
        self.inserted = self.duplicates = self.bad = 0
        self.last_event_id: str | None = None

    def add(self, number: int, event: EventInsert) -> None:
        self.events.append(event)
        self.numbers.append(number)
        if len(self.events) >= BATCH:
            self.write()

    def reject(self, number: int, reason: str) -> None:
        self.bad += 1
        if self.bad <= _SHOWN:
            note(f"line {number}: {one_line(reason)}")

    def write(self) -> None:
        """Commit what is held. An event that cannot be stored is found and told; the others are written."""
        events, numbers = self.events, self.numbers
        self.events, self.numbers = [], []
        if not events:
            return
        try:
            done = emit_many(events)
        except ValueError:
            for number, event in zip(numbers, events, strict=True):
                self._write_one(number, event)
            return
        self.inserted += done.inserted
        self.duplicates += done.duplicates
        self.last_event_id = done.last_event_id or self.last_event_id

    def _write_one(self, number: int, event: EventInsert) -> None:
        try:
            result = emit(event)
        except ValueError as error:
            self.reject(number, str(error))
            return
        if result.inserted:
            self.inserted += 1
            self.last_event_id = result.event.event_id
        else:
            self.duplicates += 1

    def tell(self, *, as_json: bool) -> None:
        if self.bad > _SHOWN:
            note(f"{self.bad - _SHOWN} more bad lines")
        if as_json:
            out_json(
                {
                    "inserted": self.inserted,
                    "duplicates": self.duplicates,
                    "bad": self.bad,
                    "last_event_id": self.last_event_id,
                }
            )
        note(f"{self.inserted} written, {self.duplicates} there already, {self.bad} bad")


def emit_lines(defaults: dict[str, Any], *, as_json: bool, fd: int = 0) -> bool:
    """Write every line of `fd` that is an event. Whether each of them was one."""
    if "delivery_id" in defaults:
        raise WaitbusError("--delivery-id names one event: give each line a delivery_id of its own")
    if fd == 0:
        check_stdin()
    batch = _Batch()
    try:
        for item in read_lines(fd):
            if item is None:
                batch.write()
                continue
            number, line = item
            if line is None:
                batch.reject(number, f"longer than {MAX_LINE_BYTES} bytes")
            elif line.strip():
                try:
                    batch.add(number, event_of(line.removeprefix(BOM_UTF8) if number == 1 else line, defaults))
                except (ValueError, TypeError) as error:
                    batch.reject(number, str(error))
        batch.write()
    except BaseException as error:
        # Nothing was read: the error says it all.
        if not isinstance(error, InputError) or batch.inserted or batch.duplicates or batch.bad:
            batch.tell(as_json=as_json)
        raise
    batch.tell(as_json=as_json)
    return not batch.bad
