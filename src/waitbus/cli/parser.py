"""argparse, as every verb speaks it: errors of one line that name the next step, help with examples, a quick start.

Nothing here may know a verb.
"""

from __future__ import annotations

import argparse
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

# argparse would ask gettext for the translation of each of its words, and with it load `locale` and search the disk.
# Measured: a sixth of the memory that a waiter may have over its floor, for words that have no translation.
if hasattr(argparse, "_"):
    argparse._ = str


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, up to 100 columns, without loading `shutil` to know it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=_width())


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)}{self._hint(message)}; see {self.prog} --help\n")

    def _hint(self, message: str) -> str:
        """The nearest of our flags to the first one that is unknown."""
        head, _, words = message.partition("unrecognized arguments: ")
        wrong = next((word for word in words.split() if word.startswith("--")), None)
        if head or wrong is None:
            return ""
        from difflib import get_close_matches

        flags = [flag for flag in self._option_string_actions if flag != "--help"]
        near = get_close_matches(wrong.partition("=")[0], flags, n=1, cutoff=0.5)
        return f"; did you mean {near[0]}?" if near else ""


def make_parser(verb: str, summary: str, module: ModuleType) -> Parser:
    """The parser of one verb, as its module configures it; `summary` stands in where it has no description."""
    parser = Parser(prog=f"waitbus {verb}", allow_abbrev=False, formatter_class=HelpFormatter, description="")
    module.configure(parser)
    if not parser.description:
        parser.description = f"{summary[0].upper()}{summary[1:]}."
    return parser


def _width() -> int:
    global _columns
    if _columns == 0:
        try:
            _columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.__stdout__.fileno()).columns)  # type: ignore[union-attr]
        except (OSError, ValueError, AttributeError):
            _columns = 80
    return max(40, min(_columns, 100) - 2)


_columns = 0


def _one_line(message: str) -> str:
    return " ".join("".join([char if char.isprintable() else " " for char in message]).split())
