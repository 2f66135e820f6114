"""`waitbus demo`: see it work, offline, on a bus of its own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

_EPILOG = """\
Examples:
  waitbus demo          see it work
  waitbus demo --json   the same for a program: each command, its exit code, the measured wakes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description = (
        "See it work in a few seconds, offline, on a bus of its own in a temporary directory: a wait that wakes when\n"
        "a real test run fails, a wait that runs out of time, one wait for two sources. Leaves nothing behind.\n"
        "Exit code 0 when every step did what it says, 1 when one did not.\n\n"
        "A wake is measured from the event's received_at, which its producer stamps before the commit, to the first\n"
        "byte that the waiting process prints: commit, ring, hub, that process's waking and printing are all in it."
    )
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end and nothing else")


def run(args: argparse.Namespace) -> int:
    """Play the demo."""
    from waitbus.demo import demo

    return demo.run(as_json=args.json)
