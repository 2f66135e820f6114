"""`waitbus verify-release`: a wheel or sdist against what was published. What was not checked is never called good."""

from __future__ import annotations

import argparse

from waitbus.ui.checks import show
from waitbus.ui.output import note, out, out_json, safe
from waitbus.verify import artifact, signatures
from waitbus.verify.report import Report, Unusable

_CLOSING = {
    "verified": "verified: all that was asked for was checked, and is right",
    "failed": "failed: do not install this file",
    "incomplete": "incomplete: nothing is wrong, and something that was asked for was not checked",
}

_DESCRIPTION = """\
Check a wheel or sdist of waitbus before you install it: that the archive is
exactly its files, that RECORD lists each with the right hash, that version and
bill of materials fit, and whom the signatures name. Nothing in it is run.
Each check says ok, FAILED, or not checked: why, and how to have it checked."""

_EPILOG = """\
Signatures are asked for, since only they say who made the file. They are handed to gh, cosign and pypi-attestations,
those of them that are on PATH; one has to vouch for the file and none may refuse it. These tools ask GitHub's,
Sigstore's and PyPI's servers; the rest needs no network. --no-signatures says that you do not ask.

exit codes: 0 all that was asked for was checked and is right, 76 something is wrong, 78 something that was asked for
could not be checked, 65 this is no wheel or sdist, 66 there is no such file

examples:
  waitbus verify-release waitbus-0.3.0-py3-none-any.whl --version 0.3.0 --sums SHA256SUMS
  waitbus verify-release waitbus-0.3.0.tar.gz --signature gh
  waitbus verify-release waitbus-0.3.0-py3-none-any.whl --sbom waitbus-0.3.0.cdx.json --no-signatures --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("file", metavar="FILE", help="the wheel or sdist")
    parser.add_argument("--version", metavar="V", help="the version it must be")
    parser.add_argument("--sums", metavar="FILE", help="the release's SHA256SUMS: it must name this file and its hash")
    parser.add_argument(
        "--sbom", metavar="FILE", help="the bill of materials beside the release: it must name this wheel's hash"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--signature",
        action="append",
        choices=list(signatures.TOOLS),
        help="this tool must vouch for it (again: this one, too; default: one that is there)",
    )
    which.add_argument("--no-signatures", action="store_true", help="do not ask who signed it")
    parser.add_argument(
        "--bundle",
        metavar="FILE",
        help=f"the release's {signatures.BUNDLE}: gh need not ask GitHub for it (cosign: default, beside FILE)",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Check, print a line a check, and give the exit code that they come to."""
    try:
        return _verify(args)
    except Unusable as error:
        note(str(error))
        return error.code


def _verify(args: argparse.Namespace) -> int:
    found = artifact.Artifact(args.file)
    report = Report()
    artifact.check(found, report, args.version)
    if args.sums is not None:
        artifact.check_sums(found, args.sums, report)
    else:
        report.unchecked("sums", "not asked for", "give --sums SHA256SUMS", asked=False)
    if args.sbom is not None:
        artifact.check_sbom(found, args.sbom, report)
    elif found.kind == artifact.WHEEL:
        report.unchecked("sbom file", "not asked for", "give --sbom FILE", asked=False)
    if args.no_signatures:
        report.unchecked("signatures", "not asked for", "leave --no-signatures out", asked=False)
    else:
        signatures.check(found, report, tools=args.signature or (), bundle=args.bundle, announce=note)
    if args.json:
        facts = {"file": found.path, "kind": found.kind, "version": found.version, "sha256": found.sha256}
        out_json({**facts, **report.as_dict()})
    else:
        out(f"{found.sha256}  {safe(found.path)}")
        show(report)
        out(_CLOSING[report.verdict])
    return report.exit_code
