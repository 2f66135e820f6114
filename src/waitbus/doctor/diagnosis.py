"""All subjects in turn: what `waitbus doctor` prints."""

from __future__ import annotations

import os

from waitbus.doctor import clock, hub, places, programs, store
from waitbus.doctor.findings import BAD, OK, Finding
from waitbus.event import WaitbusError
from waitbus.settings import load


def diagnose() -> list[Finding]:
    """All findings; what others depend on comes first."""
    findings = [*programs.look()]
    try:
        settings = load()
    except WaitbusError as error:
        return [*findings, Finding(BAD, "settings", f"{error}; the rest waits for that")]
    there = os.path.exists(settings.config_path)
    text = settings.config_path if there else f"the defaults: no {settings.config_path}"
    findings.append(Finding(OK, "settings", text))
    for look in (places.look, hub.look, store.look, clock.look):
        findings += look(settings)
    return findings
