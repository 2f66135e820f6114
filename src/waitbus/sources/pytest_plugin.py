"""The switch of the pytest source. Every pytest run where waitbus is installed loads this file, so it imports little.

It is off unless ``--waitbus``, the ini key ``waitbus = true`` or ``-p waitbus.pytest`` turns it on. Then it loads
`pytest_session`, which emits the events.
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
    """Register the switch in the first hook of all, because every later step may fail and must be reported."""
    if not pluginmanager.has_plugin(pytest_options.NAME):
        pluginmanager.register(pytest_options, pytest_options.NAME)
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None:
        pluginmanager.register(Switch(config), _SWITCH)


def turn_on(pluginmanager: pytest.PytestPluginManager) -> None:
    """Turn the plugin on for this run, whatever its options say, unless `-p no:waitbus` blocks it."""
    switch = pluginmanager.get_plugin(_SWITCH)
    if switch is not None:
        switch.named = True


class Switch:
    """Creates the reporter of one run as soon as it is turned on, and calls its `end` when pytest ends."""

    def __init__(self, config: pytest.Config) -> None:
        self.named = False
        self._config = config
        self._configured = False
        # Copied before a conftest can change HOME, so that events go to the user's bus.
        self._environ = dict(os.environ)
        self._reporter: SessionReporter | None = None
        self._trouble: Exception | None = None
        # Called however pytest ends: by a wrong option, a broken conftest, a hook that raises.
        config.add_cleanup(self._last_word)
        # If pytest was called inside an `except`, that exception does not belong to this run.
        self._handled = sys.exc_info()[1]

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        """Create the reporter before a conftest is imported, which may patch what it needs."""
        self._make_reporter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        """Try again: only now is it known whether this is a worker of xdist and what a conftest has set."""
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
        # Before pytest has parsed all options, `known_args_namespace` holds those it knows so far.
        options = (getattr(config, "known_args_namespace", None), config.option)
        if self.named or any(getattr(found, "waitbus", False) for found in options):
            return True
        return config.pluginmanager.has_plugin(pytest_options.NAME) and bool(config.getini("waitbus"))

    def _is_worker(self) -> bool:
        """Whether this is a worker of xdist; only the controller reports. Parsing the options marks a worker."""
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
    """Print the only line that this plugin ever prints."""
    try:
        sys.stderr.write(f"waitbus could not be told: {trouble}\n")
    except Exception:
        return  # a test has closed or replaced stderr
