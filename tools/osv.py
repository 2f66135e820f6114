"""osv-scanner's answer, held to the lock: it must speak of every locked package, and know of nothing against it.

The scanner judges, and reads by itself what is accepted (packaging/osv-scanner.toml). What it does not say is that a
package was never looked at, so that is asked here; and nothing is accepted without a reason, or for good.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.lock import ACCEPTED, locked

LONGEST = dt.timedelta(days=366)


def faults(root: Path, path: Path) -> Iterator[str]:
    """Return the packages that osv-scanner's JSON leaves out, its findings, and faults in the list of accepted ones."""
    yield from accepted_faults((root / ACCEPTED).read_text(encoding="utf-8"), dt.datetime.now(dt.UTC).date())
    try:
        answer = answered(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{path}: not osv-scanner's JSON: {error!r}"
        return
    for name, version in sorted(locked(root)):
        if (name, version) not in answer:
            yield f"{name} {version}: the scanner said nothing of it"
        elif vulnerabilities := answer[name, version]:
            yield f"{name} {version}: {', '.join(sorted(vulnerabilities))}"


def answered(answer: Any) -> dict[tuple[str, str], set[str]]:
    """Return the open vulnerabilities of each package in the report, without those that were accepted."""
    found: dict[tuple[str, str], set[str]] = {}
    for source in answer["results"]:
        for entry in source["packages"]:
            package = entry["package"]
            if package["ecosystem"] == "PyPI":
                key = re.sub(r"[-_.]+", "-", package["name"]).lower(), str(package["version"])
                found.setdefault(key, set()).update(vuln["id"] for vuln in entry.get("vulnerabilities") or ())
    return found


def accepted_faults(text: str, today: dt.date) -> Iterator[str]:
    """Check that each accepted vulnerability has a reason and an end date soon enough, and is not malware."""
    table = tomllib.loads(text)
    yield from (f"{ACCEPTED}: {key} is not for us to use" for key in sorted(set(table) - {"IgnoredVulns"}))
    for entry in table.get("IgnoredVulns", ()):
        name, until = str(entry.get("id", "")), entry.get("ignoreUntil")
        day = until.date() if isinstance(until, dt.datetime) else until
        if set(entry) != {"id", "ignoreUntil", "reason"} or not str(entry["reason"]).strip():
            yield f"{ACCEPTED}: {name} needs an id, a reason and ignoreUntil, and no more"
        elif not isinstance(day, dt.date) or not today <= day <= today + LONGEST:
            yield f"{ACCEPTED}: {name} must end on a day within a year, and not in the past"
        elif name.startswith("MAL-"):
            yield f"{ACCEPTED}: {name} is malware, which nobody accepts"
