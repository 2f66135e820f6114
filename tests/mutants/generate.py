"""The mutants of one source file: mutmut's faults where they say something, and a few kinds that mutmut lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import libcst as cst
from mutmut.mutation.mutators import mutation_operators, operator_assignment

# Of mutmut's: a call with an argument less is a TypeError at the first call, in nearly every case; None in place of
# what is assigned to an attribute says less than the assignment left out.
LEFT_OUT = ("operator_arg_removal", "operator_assignment")
# Words for a person: what they say is no part of what the code decides.
LOGS = ("log", "_log", "_complain")
NAMES_LEFT_ALONE = ("__slots__", "TYPE_CHECKING")


class Mutant:
    """One fault: the whole file with it, and where it stands. `was` and `now` are the lines that differ."""

    __slots__ = ("code", "function", "line", "now", "was")

    def __init__(self, source: str, code: str, function: str) -> None:
        self.code = code
        self.function = function
        before, after = source.splitlines(), code.splitlines()
        shared = min(len(before), len(after))
        first = next((i for i in range(shared) if before[i] != after[i]), shared)
        last = next((i for i in range(shared - first) if before[-1 - i] != after[-1 - i]), shared - first)
        self.line = first + 1
        self.was = _joined(before[first : len(before) - last])
        self.now = _joined(after[first : len(after) - last])

    @property
    def key(self) -> tuple[str, str, str]:
        """What `explained.toml` names it by: it outlives a move of the function, and a change around the line."""
        return self.function, self.was, self.now


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a file, in its order, each once."""
    module = cst.parse_module(source)
    # Only the statement that a fault stands in is written anew: it is quicker by far than the whole file.
    pieces = [module.code_for_node(statement) for statement in module.body]
    before, _, after = source.partition("".join(pieces))
    seen = {source}
    found = []
    for at, statement in enumerate(module.body):
        for node, variant, function in _walk(statement, ()):
            changed: Any = statement.deep_replace(node, variant)
            code = before + "".join([*pieces[:at], module.code_for_node(changed), *pieces[at + 1 :]]) + after
            if code not in seen and _compiles(code):
                seen.add(code)
                found.append(Mutant(source, code, function))
    return found


def _compiles(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _walk(node: Any, inside: tuple[str, ...]) -> Iterator[tuple[Any, Any, str]]:
    """Every node with each variant of it, and the name of the function or class it stands in."""
    if _left_alone(node):
        return
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        inside = (*inside, node.name.value)
    for variant in _variants(node):
        yield node, variant, ".".join(inside)
    for child in node.children:
        yield from _walk(child, inside)


def _left_alone(node: Any) -> bool:
    """Types, imports, documentation, what is said to a person, and what only a reader of a repr sees."""
    if isinstance(node, cst.Annotation | cst.Import | cst.ImportFrom | cst.Decorator | cst.TypeAlias):
        return True
    if isinstance(node, cst.Raise):
        return True  # as a whole it may be missing, see `_without`; its words are for a person
    if isinstance(node, cst.FunctionDef):
        return bool(node.name.value == "__repr__")
    if isinstance(node, cst.ClassDef):  # what an Enum's members are is said for people: that they differ is all
        return any(isinstance(base.value, cst.Name) and base.value.value == "Enum" for base in node.bases)
    if isinstance(node, cst.If):
        return isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING"
    if isinstance(node, cst.Arg):
        return node.keyword is not None and node.keyword.value == "strict"  # zip's look at itself: never to be reached
    if isinstance(node, cst.Assign):
        target = node.targets[0].target
        return isinstance(target, cst.Name) and target.value in NAMES_LEFT_ALONE
    if isinstance(node, cst.Expr):
        return isinstance(node.value, cst.SimpleString | cst.ConcatenatedString) or _is_log(node.value)
    return False


def _is_log(node: Any) -> bool:
    if not isinstance(node, cst.Call):
        return False
    called = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    return isinstance(called, cst.Name) and called.value in LOGS


def _variants(node: Any) -> Iterator[Any]:
    for kind, operator in mutation_operators:
        if isinstance(node, kind) and operator.__name__ not in LEFT_OUT:
            found = operator(node)
            # Of a text's variants one will do: another spelling of it is seen by the same tests.
            yield from list(found)[:1] if operator.__name__ == "operator_string" else found
    if isinstance(node, cst.Assign) and not _is_act(node):
        yield from operator_assignment(node)
    yield from _decided(node)
    yield from _without(node)


def _decided(node: Any) -> Iterator[Any]:
    """A condition that is always or never so, or one half of it alone."""
    if isinstance(node, cst.If):
        yield from (node.with_changes(test=cst.Name(word)) for word in ("True", "False"))
    elif isinstance(node, cst.While | cst.CompIf):
        yield node.with_changes(test=cst.Name("False" if isinstance(node, cst.While) else "True"))
    elif isinstance(node, cst.BooleanOperation):
        yield from (node.left, node.right)


def _without(node: Any) -> Iterator[Any]:
    """A statement, or a keyword argument, that is missing."""
    if isinstance(node, cst.SimpleStatementLine | cst.SimpleStatementSuite):
        for at, statement in enumerate(node.body):
            if _is_act(statement):
                yield node.with_changes(body=_replaced(node.body, at, [cst.Pass()]))
    elif isinstance(node, cst.Call):
        for at, argument in enumerate(node.args):
            if argument.keyword is not None and not _left_alone(argument):
                yield node.with_changes(args=_replaced(node.args, at, []))


def _replaced(items: Iterable[Any], at: int, by: list[Any]) -> list[Any]:
    items = list(items)
    return [*items[:at], *by, *items[at + 1 :]]


def _is_act(statement: Any) -> bool:
    """Whether a statement is there for what it does, not to give a name to a value."""
    if isinstance(statement, cst.Expr):
        return not _left_alone(statement)
    if isinstance(statement, cst.Assign):
        return any(isinstance(target.target, cst.Attribute | cst.Subscript) for target in statement.targets)
    return isinstance(statement, cst.AugAssign | cst.Raise | cst.Del)
