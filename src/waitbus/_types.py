"""The import path of the event types in 0.2.0. ``from waitbus._types import EventInsert`` still works."""

from waitbus.event import EmitResult, Event, EventInsert

__all__ = ["EmitResult", "Event", "EventInsert"]
