"""The old import path of the event types: ``from waitbus._types import EventInsert`` keeps working."""

from waitbus.event import EmitResult, Event, EventInsert

__all__ = ["EmitResult", "Event", "EventInsert"]
