"""``pytest -p waitbus.pytest``: this run tells the bus when its first test fails, and again when it ends.

Only pytest loads this file. It works wherever the package is importable, with or without its entry points;
how to turn it on for a whole project stands in ``waitbus.sources.pytest_plugin``.
"""

from __future__ import annotations

from waitbus.sources import pytest_options, pytest_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Bring in what the entry points would, under their names: pytest finds these taken and loads none twice.

    Naming this plugin is asking for it.
    """
    for name, plugin in ((pytest_options.NAME, pytest_options), (pytest_plugin.NAME, pytest_plugin)):
        if not pluginmanager.has_plugin(name):
            pluginmanager.register(plugin, name)
    pytest_plugin.turn_on(pluginmanager)
