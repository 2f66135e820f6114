"""`waitbus verify-release`: whether somebody vouches for a file of a release. Nothing in it is read or run."""

from __future__ import annotations

import argparse

from waitbus.cli.exitcodes import OF_VERIFICATION
from waitbus.ui.checks import show
from waitbus.ui.output import note, out, out_json, safe
from waitbus.verify import artifact, signatures
from waitbus.verify.report import Report, Unusable

_CLOSING = {
    "verified": "verified: these are the bytes that were vouched for",
    "failed": "failed: do not install this file",
    "not authenticated": "not authenticated: nothing is wrong with this file, but nobody has vouched for it",
    "incomplete": "incomplete: the file was vouched for, but a tool that you named gave no answer",
}

_DESCRIPTION = """\
Check a file of a waitbus release before you use it: the wheel, the sdist, or a
file published beside them. Verified means that exactly these bytes are vouched
for, by a signature of the release's own workflow or by a list of checksums that
you got from elsewhere. The contents of the file are not inspected."""

_EPILOG = """\
Signatures are checked by gh, cosign and pypi-attestations, as far as they are on PATH: one has to vouch for the file,
and none may refuse it. They ask the servers of GitHub, Sigstore and PyPI, or read FILE.sigstore.json, which is
published beside each file of a release. A list of checksums is as trustworthy as the place you got it from: one that
came with the file proves nothing more than the file does. packaging/rebuild.sh, in a clone, trusts nobody: it builds
the file again.

exit codes: 0 verified, 76 something is wrong, 78 nobody vouched for it or a tool that you named could not check it,
65 this is not a file of a release, 66 there is no such file

examples:
  waitbus verify-release waitbus-0.3.0-py3-none-any.whl --version 0.3.0
  waitbus verify-release waitbus-0.3.0.tar.gz --signature gh --json
  waitbus verify-release waitbus-0.3.0-py3-none-any.whl --no-signatures --sums SHA256SUMS
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("file", metavar="FILE", help="the wheel, the sdist, a bill of materials, ...")
    parser.add_argument("--version", metavar="V", help="the version it must have")
    parser.add_argument(
        "--sums", metavar="FILE", help="a SHA256SUMS file that you trust; it must list this file with its hash"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--signature",
        action="append",
        choices=list(signatures.TOOLS),
        help="this tool must vouch for the file; can be given several times (default: any tool that is installed)",
    )
    which.add_argument("--no-signatures", action="store_true", help="do not check signatures")
    parser.add_argument(
        "--bundle", metavar="FILE", help=f"its attestation (default: FILE{signatures.BUNDLE}, if it exists)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Check, print a line a check, and give the exit code that they come to."""
    try:
        return _verify(args)
    except Unusable as error:
        note(str(error))
        return OF_VERIFICATION[error.reason]


def _verify(args: argparse.Namespace) -> int:
    found = artifact.Artifact(args.file, args.version)
    report = Report()
    found.check_name(report)
    if args.sums is not None:
        found.check_sums(args.sums, report)
    else:
        report.unchecked("sums", "not asked for", "give --sums with a list from elsewhere", asked=False)
    if args.no_signatures:
        report.unchecked("signatures", "not asked for", "leave --no-signatures out", asked=False)
    else:
        signatures.check(found, report, tools=args.signature or (), bundle=args.bundle, announce=note)
    code = OF_VERIFICATION[report.verdict]
    if args.json:
        file = {"file": found.path, "version": found.version, "sha256": found.sha256}
        out_json({**file, **report.as_dict(), "exit_code": code})
    else:
        out(f"{found.sha256}  {safe(found.path)}")
        show(report)
        out(_CLOSING[report.verdict])
    return code
