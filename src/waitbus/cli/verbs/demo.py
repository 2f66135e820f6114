"""`waitbus demo`: see it work, offline, on a bus of its own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

_EPILOG = """\
examples:
  waitbus demo          see it work
  waitbus demo --json   the same for a program: each command, its exit code, and the measured wakes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description = (
        "See waitbus work in a few seconds, offline, on a bus of its own in a temporary directory: a wait that wakes\n"
        "when a real test run fails, a wait that times out, and one wait for two sources. Nothing is left behind.\n"
        "The exit code is 0 if every step did what it says, else 1.\n\n"
        "A wake is measured from the event's received_at, which its producer sets before the commit, to the first\n"
        "byte that the waiting process prints. It includes the commit, the ring, the hub, and that process's own work."
    )
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end and nothing else")


def run(args: argparse.Namespace) -> int:
    """Play the demo."""
    from waitbus.demo import demo

    return demo.run(as_json=args.json)
