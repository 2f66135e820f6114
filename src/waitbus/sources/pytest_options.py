"""The option ``--waitbus`` and the ini key ``waitbus``, in a plugin of their own.

``-p no:waitbus`` blocks the entry point of that name. The ini file or ``PYTEST_ADDOPTS`` may still ask for waitbus, and
that must not be an unknown option. So the options have another entry point.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest

NAME = "waitbus-options"  # the entry point's name in pyproject.toml


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini key, which turn the plugin on as `-p waitbus.pytest` does."""
    parser.getgroup("waitbus").addoption(
        "--waitbus",
        action="store_true",
        default=False,
        help="Tell the local event bus at once when the first test fails, and again when the run ends.",
    )
    parser.addini("waitbus", "As --waitbus, for every run of this project.", type="bool", default=False)
