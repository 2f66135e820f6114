"""`waitbus doctor`: everything that can be wrong on this machine, a line each, with what to do. It changes nothing."""

from __future__ import annotations

import contextlib
import os

from waitbus.cli.exitcodes import FAILURE, NOT_SET_UP, OF_VERIFICATION, OK
from waitbus.ui.output import has_colour, note, out, out_json, painted, safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from waitbus.doctor.findings import Finding
    from waitbus.verify.installed import Integrity


_DESCRIPTION = """\
Check everything waitbus needs on this machine: Python, SQLite, settings,
directories and sockets, the hub, the store, the clock. Each gets one line: ok,
note, or BAD and what to do. With --integrity, compare the installed files with
what the installer recorded instead."""

_EPILOG = """\
--integrity finds damage and careless tampering. Someone who can change these files can also change this check, and
bytecode is not checked. To be certain, run waitbus verify-release on the wheel, on another machine.

exit codes: 0 nothing is bad, 1 something is bad. With --integrity: 0 all files are as installed; 76 some are not
(changed, missing, foreign or listed without a hash), or METADATA asks for more than waitbus does; 78 there is nothing
to compare with, as in a source tree

examples:
  waitbus doctor
  waitbus doctor --json | jq '.checks[] | select(.state == "BAD")'
  waitbus doctor --integrity
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--integrity", action="store_true", help="compare the installed files with their RECORD")
    parser.add_argument("--json", action="store_true", help="one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Diagnose, or check the installation."""
    if args.integrity:
        return _integrity(as_json=args.json)
    from waitbus.doctor.diagnosis import diagnose
    from waitbus.doctor.findings import BAD

    findings = diagnose()
    unwell = any(finding.state == BAD for finding in findings)
    with contextlib.suppress(BrokenPipeError):  # whoever stops reading has the exit code
        if args.json:
            checks = [{"check": one.name, "state": one.state, "detail": one.text} for one in findings]
            out_json({"healthy": not unwell, "checks": checks})
        else:
            for one in findings:
                _print(one)
    return FAILURE if unwell else OK


_COLOURS = {"ok": "green", "BAD": "red"}


def _print(finding: Finding) -> None:
    colour = _COLOURS.get(finding.state) if has_colour() else None
    out(f"{painted(f'{finding.state:<4}', colour)}  {finding.name:<12}{safe(finding.text)}")


def _integrity(*, as_json: bool) -> int:
    import waitbus
    from waitbus.verify import installed

    package = os.path.dirname(os.path.abspath(waitbus.__file__))
    record = installed.record_beside(package, waitbus.__version__)
    if record is None:
        why = f"{package} has no RECORD beside it: it is a source tree, or its installer keeps a list of its own"
        if as_json:
            out_json(
                {"root": os.path.dirname(package), "record": None, "verdict": "incomplete", "exit_code": NOT_SET_UP}
            )
        note(f"not checked: {why}; install the wheel (pip install waitbus), or ask that installer")
        return NOT_SET_UP
    found = installed.check_ourselves(record, package, waitbus.__version__)
    with contextlib.suppress(BrokenPipeError):  # whoever stops reading has the exit code
        _print_integrity(found, as_json=as_json)
    return OF_VERIFICATION[found.verdict]


def _print_integrity(found: Integrity, *, as_json: bool) -> None:
    if as_json:
        facts = {"root": found.root, "record": found.record, "files": len(found.rows), "metadata": found.metadata}
        out_json({**facts, **found.paths, "verdict": found.verdict, "exit_code": OF_VERIFICATION[found.verdict]})
        return
    for fault in found.metadata:
        out(f"metadata {safe(fault)}")
    for word, paths in found.paths.items():
        for path in paths:
            out(f"{word}  {safe(os.path.join(found.root, path))}")
    if found.faults():
        note("the installation is not what was installed: reinstall it (pip install --force-reinstall waitbus)")
    else:
        out(f"ok       {len(found.rows)} files in {safe(found.root)} are as installed, by {safe(found.record)}")
