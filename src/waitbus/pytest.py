"""``pytest -p waitbus.pytest``: this run tells the bus when its first test fails, and again when it ends.

Only pytest loads this file. It works wherever the package is importable, with or without its entry point;
how to turn it on for a whole project stands in ``waitbus.sources.pytest_plugin``.
"""

from __future__ import annotations

from waitbus.sources import pytest_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Bring in the switch under the entry point's name: pytest finds it taken and loads no second one."""
    if not pluginmanager.has_plugin(pytest_plugin.NAME):
        pluginmanager.register(pytest_plugin, pytest_plugin.NAME)


def pytest_configure(config: pytest.Config) -> None:
    """Naming this plugin is asking for it."""
    pytest_plugin.turn_on(config)
