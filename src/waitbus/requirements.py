"""A predicate taken apart: what must hold, each by itself.

Pure: no I/O, no clock, no state of the module's own. Needed to say why something did not match, never to match.
"""

from __future__ import annotations

from waitbus.matching import path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from waitbus.predicate import Predicate

    Node = Mapping[str, Any]

SOURCE = ("fields", "source")
TYPE = ("event_type",)


def requirements_of(predicate: Predicate | None) -> Iterator[Node]:
    """What must hold, each by itself."""
    nodes = [] if predicate is None else [predicate.as_object]
    while nodes:
        node = nodes.pop(0)
        if "all" in node:
            nodes[:0] = node["all"]
        elif len(node.get("any", ())) == 1:
            nodes[:0] = node["any"]
        else:
            yield node


def values_of(node: Node, paths: Sequence[tuple[str, ...]] = ()) -> tuple[tuple[str, ...], list[Any]] | None:
    """Path and values of a requirement that one key has one of these values; None for any other (or other `paths`)."""
    leaves = node.get("any", [node])
    if not all(leaf.get("op") == "eq" for leaf in leaves):
        return None
    found = {TYPE if path == ("fields", "event_type") else path for path in (path_of(leaf["key"]) for leaf in leaves)}
    path = found.pop()
    return None if found or (paths and path not in paths) else (path, [leaf["value"] for leaf in leaves])


def wanted_of(predicate: Predicate | None, path: tuple[str, ...]) -> list[str]:
    """The values that a predicate asks of `path`."""
    found = [values[1] for node in requirements_of(predicate) if (values := values_of(node, (path,))) is not None]
    return [str(value) for value in found[0]] if found else []
