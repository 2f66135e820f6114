"""The gate on known vulnerabilities: what OSV says about what is locked, judged so that silence never passes.

An answer counts only when it speaks of every locked package. Three ends: clean, vulnerable, and undecided (an answer
that is missing, garbled, partial or about something else), which stops a release as well.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.lock import locked, normal

API = "https://api.osv.dev/v1"
ACCEPTED = Path("packaging/osv-accepted.toml")
CLEAN, VULNERABLE, UNDECIDED = 0, 1, 2

Pair = tuple[str, str]


class UndecidedError(Exception):
    """The answer cannot be judged, and why."""


@dataclass
class Verdict:
    """What was found, and in how many packages it was looked for."""

    packages: int
    open: dict[Pair, set[str]] = field(default_factory=dict)
    accepted: dict[Pair, set[str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line for each vulnerable package."""
        return [f"{name} {version}: {', '.join(sorted(ids))}" for (name, version), ids in sorted(self.open.items())]

    def summary(self) -> str:
        """One line for all."""
        accepted = f", {len(self.accepted)} accepted with a reason" if self.accepted else ""
        found = f"{len(self.open)} vulnerable" if self.open else "none known to be vulnerable"
        return f"{self.packages} locked packages, {found}{accepted}"


def from_api(answer: Any) -> dict[Pair, set[str]]:
    """The vulnerabilities of each package that was asked for, from a file of `ask`."""
    try:
        queries, results, records = answer["queries"], answer["results"], answer["records"]
        if not queries or len(queries) != len(results):
            raise UndecidedError(f"OSV answered {len(results)} of {len(queries)} questions")
        found: dict[Pair, set[str]] = {}
        for query, result in zip(queries, results, strict=True):
            if set(result) - {"vulns"}:
                raise UndecidedError(f"OSV's answer about {query['package']['name']} is not whole: {sorted(result)}")
            pair = (normal(query["package"]["name"]), str(query["version"]))
            ids = {str(vuln["id"]) for vuln in result.get("vulns", ())}
            # A withdrawn record is none; one that was not fetched is taken for real.
            found[pair] = {name for name in ids if not records.get(name, {}).get("withdrawn")}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UndecidedError(f"not an answer of OSV's API: {error!r}") from error
    return found


def from_scanner(answer: Any) -> dict[Pair, set[str]]:
    """The vulnerabilities of each package, from osv-scanner's JSON with --all-packages."""
    try:
        found: dict[Pair, set[str]] = {}
        for source in answer["results"]:
            for entry in source["packages"]:
                package = entry["package"]
                if package["ecosystem"] != "PyPI":
                    continue
                ids = found.setdefault((normal(package["name"]), str(package["version"])), set())
                ids |= {str(vuln["id"]) for vuln in entry.get("vulnerabilities") or () if not vuln.get("withdrawn")}
    except (KeyError, TypeError, AttributeError) as error:
        raise UndecidedError(f"not osv-scanner's JSON: {error!r}") from error
    return found


def accepted(text: str, today: dt.date) -> dict[tuple[str, str], str]:
    """The (package, id) pairs that a person accepted, with the reason; each ends on a day."""
    entries: dict[tuple[str, str], str] = {}
    for entry in tomllib.loads(text).get("accepted", ()):
        if not (entry["reason"].strip() and isinstance(entry["until"], dt.date)):
            raise UndecidedError(f"{ACCEPTED}: {entry['id']} needs a reason and a day until which it holds")
        if entry["id"].startswith("MAL-"):
            raise UndecidedError(f"{ACCEPTED}: {entry['id']} is malware, which nobody accepts")
        if today <= entry["until"]:
            entries[normal(entry["package"]), entry["id"]] = entry["reason"]
    return entries


def judge(found: dict[Pair, set[str]], wanted: Iterable[Pair], excused: Iterable[tuple[str, str]] = ()) -> Verdict:
    """The verdict on the wanted packages. Raises UndecidedError when the answer leaves one out."""
    wanted = set(wanted)
    if not wanted:
        raise UndecidedError("nothing is locked, so nothing was asked")
    if missing := sorted(wanted - set(found)):
        name, version = missing[0]
        raise UndecidedError(f"the answer leaves out {len(missing)} of {len(wanted)} packages, first {name} {version}")
    verdict = Verdict(len(wanted))
    excused = set(excused)
    for pair in wanted:
        for vuln in found[pair]:
            side = verdict.accepted if (pair[0], vuln) in excused else verdict.open
            side.setdefault(pair, set()).add(vuln)
    return verdict


def ask(pairs: Iterable[Pair], timeout: float = 20) -> dict[str, Any]:
    """Ask OSV about each package; the answer has the form that `from_api` reads. Raises UndecidedError."""
    queries = [{"package": {"ecosystem": "PyPI", "name": name}, "version": version} for name, version in sorted(pairs)]
    answer = _call("/querybatch", {"queries": queries}, timeout)
    results = answer.get("results")
    if not isinstance(results, list):
        raise UndecidedError("OSV's answer has no results")
    ids = {vuln["id"] for result in results for vuln in (result or {}).get("vulns", ())}
    records = {name: _call(f"/vulns/{name}", None, timeout) for name in sorted(ids)}
    return {"queries": queries, "results": results, "records": records}


def _call(path: str, body: dict[str, Any] | None, timeout: float) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # nosec B310: API is https, a constant
            answer = json.load(response)
    except (OSError, ValueError) as error:
        raise UndecidedError(f"OSV did not answer: {error}") from error
    if not isinstance(answer, dict):
        raise UndecidedError("OSV's answer is no object")
    return answer


def excuses(root: Path, today: dt.date | None = None) -> dict[tuple[str, str], str]:
    """What this checkout accepts today."""
    path = root / ACCEPTED
    day = today or dt.datetime.now(dt.UTC).date()
    return accepted(path.read_text(encoding="utf-8"), day) if path.exists() else {}


def decide(root: Path, answer: dict[Pair, set[str]]) -> Verdict:
    """The verdict on what this checkout locks."""
    return judge(answer, locked(root), excuses(root))


def load(path: Path) -> Any:
    """A recorded answer. Raises UndecidedError when it is missing, empty or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UndecidedError(f"{path}: {error}") from error


def main(argv: list[str] | None = None) -> int:
    """Ask and keep the answer, or judge one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=["ask", "judge"])
    parser.add_argument("--scanner", type=Path, help="judge this JSON of osv-scanner --all-packages")
    parser.add_argument("--api", type=Path, help="judge this answer of OSV's API; `ask` writes it here")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout whose lock is meant")
    options = parser.parse_args(argv)
    try:
        if options.action == "ask":
            answer = ask(locked(options.root))
            if options.api:
                options.api.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
            verdict = decide(options.root, from_api(answer))
        elif options.scanner:
            verdict = decide(options.root, from_scanner(load(options.scanner)))
        elif options.api:
            verdict = decide(options.root, from_api(load(options.api)))
        else:
            parser.error("judge needs --scanner or --api")
    except UndecidedError as error:
        print(f"undecided: {error}", file=sys.stderr)
        return UNDECIDED
    for line in verdict.lines():
        print(line, file=sys.stderr)
    print(verdict.summary())
    return VULNERABLE if verdict.open else CLEAN


if __name__ == "__main__":
    sys.exit(main())
