"""The pytest source's switch: every pytest where waitbus is installed loads this file, so it imports nothing.

Off until ``--waitbus``, the ini key ``waitbus = true`` or ``-p waitbus.pytest``; then `pytest_session` tells.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest

NAME = "waitbus"  # the entry point's name in pyproject.toml; `-p no:waitbus` blocks it
SESSION = "waitbus-session"
# Runs of these modes execute no test: an editor that looks for tests must wake nobody.
_TESTLESS_MODES = ("collectonly", "showfixtures", "show_fixtures_per_test", "setuponly", "setupplan")

# The environment pytest was started in, kept before a conftest points HOME elsewhere: the bus is the user's.
_environ: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two ways to turn it on besides `-p waitbus.pytest`."""
    global _environ
    _environ = dict(os.environ)
    parser.getgroup("waitbus").addoption(
        "--waitbus",
        action="store_true",
        default=False,
        help="Tell the local event bus at once when the first test fails, and again when the run ends.",
    )
    parser.addini("waitbus", "As --waitbus, for every run of this project.", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Off unless asked for."""
    if config.getoption("waitbus", False) or config.getini("waitbus"):
        turn_on(config)


def turn_on(config: pytest.Config) -> None:
    """Let this run speak, once: not in an xdist worker, not where no test runs, not with `-p no:waitbus`."""
    plugins = config.pluginmanager
    if plugins.has_plugin(SESSION) or plugins.is_blocked(NAME) or hasattr(config, "workerinput"):
        return
    if any(config.getoption(mode, False) for mode in _TESTLESS_MODES):
        return
    from waitbus.sources.pytest_session import SessionReporter

    plugins.register(SessionReporter(config.rootpath, _environ), SESSION)
