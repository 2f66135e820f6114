"""``--waitbus`` and the ini key ``waitbus``, apart from what they turn on.

``-p no:waitbus`` blocks the entry point of that name. A project or a shell that asks for waitbus all the same, in its
ini file or in ``PYTEST_ADDOPTS``, must not end in an unknown option: so these have an entry point of their own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest

NAME = "waitbus-options"  # the entry point's name in pyproject.toml


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two ways to turn it on besides `-p waitbus.pytest`."""
    parser.getgroup("waitbus").addoption(
        "--waitbus",
        action="store_true",
        default=False,
        help="Tell the local event bus at once when the first test fails, and again when the run ends.",
    )
    parser.addini("waitbus", "As --waitbus, for every run of this project.", type="bool", default=False)
