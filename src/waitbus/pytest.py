"""``pytest -p waitbus.pytest``: this run emits an event when its first test fails, and another when it ends.

Only pytest loads this file. It works with or without the package's entry points. For how to turn the plugin on for a
whole project see ``waitbus.sources.pytest_plugin``.
"""

from __future__ import annotations

from waitbus.sources import pytest_options, pytest_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the plugins under the names of their entry points, so that pytest loads none twice, and turn it on."""
    for name, plugin in ((pytest_options.NAME, pytest_options), (pytest_plugin.NAME, pytest_plugin)):
        if not pluginmanager.has_plugin(name):
            pluginmanager.register(plugin, name)
    pytest_plugin.turn_on(pluginmanager)
