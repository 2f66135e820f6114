"""What the type checker is told: every public signature is spelled out, and what it lets pass works.

That it refuses the rest is held by `make lint`, in `tests/typing`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import waitbus
from tests.conftest import HubProcess
from tests.typing import use
from waitbus import Event, EventInsert, Predicate
from waitbus.event import FIELD_COLUMNS

PUBLIC: list[Callable[..., Any]] = [
    *[getattr(waitbus, name) for name in waitbus.__all__ if callable(getattr(waitbus, name))],
    *(Predicate.parse, Predicate.from_object, Event.from_frame),
]


@pytest.mark.parametrize("call", PUBLIC, ids=lambda call: call.__qualname__)
def test_a_public_signature_is_spelled_out(call: Callable[..., Any]) -> None:
    if inspect.isclass(call) and issubclass(call, Exception):
        return
    for name, parameter in inspect.signature(call).parameters.items():
        assert parameter.annotation not in (parameter.empty, "Any"), name
        assert parameter.kind is not parameter.VAR_KEYWORD or parameter.annotation == "Unpack[_NoMore]"
        assert parameter.kind is not parameter.VAR_POSITIONAL or name == "predicates"


def test_each_column_is_an_argument_of_its_own_type() -> None:
    parameters = inspect.signature(EventInsert).parameters
    given = {name: one.annotation for name, one in parameters.items() if name in FIELD_COLUMNS}
    assert given == {name: f"{kind.__name__} | None" for name, kind in FIELD_COLUMNS.items()}
    assert set(parameters) - {"unknown"} == set(EventInsert.__slots__)


def test_what_type_checks_works(hub: HubProcess) -> None:
    assert use.written() == 7
    assert use.awaited().endswith(" 2")
    assert len(list(use.heard())) == len(asyncio.run(use.heard_by_a_loop())) == 3
    assert use.bookmarked() == 8
    assert "conclusion" in use.refused()


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'emit_one'"):
        _ = waitbus.emit_one  # type: ignore[attr-defined]
