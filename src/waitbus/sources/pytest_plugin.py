"""The pytest source's switch: every pytest where waitbus is installed loads this file, so it imports next to nothing.

Off until ``--waitbus``, the ini key ``waitbus = true`` or ``-p waitbus.pytest``; then `pytest_session` tells.
"""

from __future__ import annotations

import os
import sys

import pytest

from waitbus.sources import pytest_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.sources.pytest_session import SessionReporter

NAME = "waitbus"  # the entry point's name in pyproject.toml; `-p no:waitbus` blocks it
_SWITCH = "waitbus-switch"


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """The first hook of any plugin: what follows may fail already, and is to be told then."""
    if not pluginmanager.has_plugin(pytest_options.NAME):
        pluginmanager.register(pytest_options, pytest_options.NAME)
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None:
        pluginmanager.register(Switch(config), _SWITCH)


def turn_on(pluginmanager: pytest.PytestPluginManager) -> None:
    """Let this run speak, whatever its options say; but not with `-p no:waitbus`."""
    switch = pluginmanager.get_plugin(_SWITCH)
    if switch is not None:
        switch.named = True


class Switch:
    """One pytest's: makes its reporter as soon as it is asked for, and lets it have the last word."""

    def __init__(self, config: pytest.Config) -> None:
        self.named = False
        self._config = config
        self._configured = False
        # As pytest was started, before a conftest points HOME elsewhere: the bus is the user's.
        self._environ = dict(os.environ)
        self._reporter: SessionReporter | None = None
        self._trouble: Exception | None = None
        # Called whatever pytest ends by: a wrong option, a broken conftest, a hook that raises.
        config.add_cleanup(self._last_word)
        # Somebody may run pytest from an `except`: that error is none of this run.
        self._handled = sys.exc_info()[1]

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        """Before the first conftest, so that no patch made at its import is in the way."""
        self._make_reporter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        """Now it is known whether this is a worker of xdist, and what a conftest has set."""
        self._configured = True
        self._make_reporter()

    def _make_reporter(self) -> None:
        if self._reporter is not None or self._trouble is not None:
            return
        try:
            if self._is_asked() and not self._is_worker():
                from waitbus.sources.pytest_session import SessionReporter

                self._reporter = SessionReporter(self._config, self._environ)
                self._config.pluginmanager.register(self._reporter, "waitbus-session")
        except Exception as error:
            self._trouble = error

    def _is_asked(self) -> bool:
        config = self._config
        if config.pluginmanager.is_blocked(NAME):
            return False
        # Before pytest has parsed all of its options, there are only those it knew so far.
        options = (getattr(config, "known_args_namespace", None), config.option)
        if self.named or any(getattr(found, "waitbus", False) for found in options):
            return True
        return config.pluginmanager.has_plugin(pytest_options.NAME) and bool(config.getini("waitbus"))

    def _is_worker(self) -> bool:
        """With xdist only the controller speaks. A worker's configuration is marked when its options are parsed."""
        marked = hasattr(self._config, "workerinput")
        return marked or (not self._configured and "PYTEST_XDIST_WORKER" in self._environ)

    def _last_word(self) -> None:
        error = sys.exc_info()[1]
        self._make_reporter()
        if self._reporter is not None:
            self._reporter.end(None if error is self._handled else error)
        if self._trouble is not None:
            complain(self._trouble)


def complain(trouble: object) -> None:
    """The one line that this plugin ever prints."""
    try:
        sys.stderr.write(f"waitbus could not be told: {trouble}\n")
    except Exception:
        return  # a test has closed it, or put something else in its place
