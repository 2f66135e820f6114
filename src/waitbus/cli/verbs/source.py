"""`waitbus source verify`: whether an installed source of a third party is what its publisher gave to PyPI.

Nothing of the plugin is imported: its files and what its installer noted are read.
"""

from __future__ import annotations

import argparse
import re

from waitbus.cli.exitcodes import OF_VERIFICATION
from waitbus.ui.checks import show
from waitbus.ui.output import note, out, out_json, safe
from waitbus.verify.report import Report, Unusable

_GITHUB = re.compile(r"https://github\.com/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", re.ASCII)

_DESCRIPTION = "Check that an installed third-party source is what its publisher uploaded to PyPI. It is not run."
_EPILOG = """\
verify makes three comparisons: the installed files with what the installer recorded; those files with the wheel you
name, such as one from pip download --no-deps NAME==VERSION; and, with pypi-attestations, the wheel with the publisher
you expect.

exit codes: 0 all three agree, 76 something is wrong, 78 something could not be checked, 66 there is no such source

examples:
  waitbus source verify weather --wheel waitbus_weather-1.2-py3-none-any.whl --repository https://github.com/ann/weather
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("action", choices=["verify"], help="what to do")
    parser.add_argument("name", metavar="NAME", help="the source's name, as its entry point gives it")
    parser.add_argument("--wheel", metavar="FILE", help="PyPI's wheel of the installed version")
    parser.add_argument(
        "--repository", metavar="URL", type=_repository, help="the repository it must come from: https://github.com/..."
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")


def _repository(text: str) -> str:
    if not _GITHUB.fullmatch(text):
        raise argparse.ArgumentTypeError("write https://github.com/OWNER/NAME")
    return text


def run(args: argparse.Namespace) -> int:
    """Verify one source; a line a check."""
    from waitbus.verify import plugin

    report = Report()
    try:
        version = plugin.check(args.name, report, wheel=args.wheel, repository=args.repository, announce=note)
    except Unusable as error:
        note(str(error))
        return OF_VERIFICATION[error.reason]
    code = OF_VERIFICATION[report.verdict]
    if args.json:
        out_json({"source": args.name, "version": version, **report.as_dict(), "exit_code": code})
    else:
        out(f"{args.name}: {safe(version)}")
        show(report)
    return code
