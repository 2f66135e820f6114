"""`waitbus serve`: the daemon in the foreground, until SIGTERM or Ctrl-C. What it does is `hub.server`'s to know."""

from __future__ import annotations

from waitbus.cli.flags import duration
from waitbus.settings import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

_EPILOG = """\
examples:
  waitbus serve                       run the hub until Ctrl-C
  waitbus serve hub --idle-exit 10m   exit after ten minutes with nobody connected
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description = (
        "Run the hub in the foreground. It wakes on every commit and sends each event to the subscribers that it\n"
        "matches. Clients start a hub themselves if none is running. A second hub for the same store is refused."
    )
    parser.epilog = _EPILOG
    parser.add_argument("component", nargs="?", choices=["hub"], default="hub", help="what to run (default: hub)")
    parser.add_argument(
        "--idle-exit",
        metavar="DURATION",
        type=duration,
        help="exit after this long with nobody connected (default, and 0: stay)",
    )
    parser.add_argument(
        "--ready-fd", metavar="N", type=int, help="write one line to this descriptor when the hub listens; close it"
    )


def run(args: argparse.Namespace) -> int:
    """Serve to the end; 0 after SIGTERM, Ctrl-C or the idle time."""
    settings = load()
    from waitbus.hub.server import serve

    return serve(settings, idle_exit=args.idle_exit, ready_fd=args.ready_fd)
