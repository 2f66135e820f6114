"""`waitbus init`: the directories, the store, a config file that changes nothing; and 0.2.0's events, taken over once.

Nothing needs it: every part is made when first used. It says what is there, and what to do next.
"""

from __future__ import annotations

import argparse
import os

from waitbus.private import RUNTIME, SettingsError, ensure_private_dir, make_dirs
from waitbus.settings import load
from waitbus.store.importer import import_v020
from waitbus.store.open import open_reader, open_writer
from waitbus.ui.output import has_colour, note, out, out_json, painted, safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waitbus.settings import Settings

MADE, THERE, WOULD = "made", "there", "would be made"

CONFIG = """\
# The settings of waitbus, each commented out at its default. Places are not set here but by variables, such as
# WAITBUS_STATE_DIR. The variable WAITBUS_AUTOSTART overrides `autostart`; no other setting here has a variable.

[store]
# What a commit survives: "process", the kill of any process; "power-loss", also a power cut, and emit is slower.
# durability = "process"
# Whether the hub deletes the oldest events beyond the limits below. 0 means no limit.
# retention = true
# max_age = "30d"
# max_bytes = "1GiB"
# max_rows = 0

[hub]
# How much a subscriber may leave unread before it is cut off. It reconnects and goes on where it was.
# queue_bytes = "4MiB"
# How long a hub that a client started stays with nobody connected; 0 means for good.
# idle_exit = "10m"

[client]
# Whether a client starts a hub when none runs.
# autostart = true
"""

_DESCRIPTION = """\
Make the directories (accessible only to you), the store, and a config file with
every setting commented out. If there is a store of 0.2.0, import its events,
once. What exists is left as it is, so you can run this as often as you like."""

_EPILOG = """\
examples:
  waitbus init --dry-run
  waitbus init
  WAITBUS_STATE_DIR=/srv/bus waitbus init --json
"""

NEXT_STEPS = (
    ("waitbus demo", "see it work"),
    ("waitbus tail", "watch, and in another shell:"),
    ("waitbus run --name hello -- true", "make something happen"),
    ("waitbus wait --help", "wait for it"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--dry-run", action="store_true", help="print what would be made, and make nothing")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--store-only", action="store_true", help=argparse.SUPPRESS)  # `migrate` of 0.2.0


def run(args: argparse.Namespace) -> int:
    """Make what is missing, and say what there is."""
    settings = load()
    steps = _look(settings) if args.dry_run else _make(settings, with_config=not args.store_only)
    if args.store_only:
        del steps["config"]
    report = None if args.dry_run else import_v020(settings)
    imported = None if report is None else {"path": report.path, "imported": report.imported, "skipped": report.skipped}
    if args.json:
        out_json(
            {**{what: {"path": path, "state": state} for what, (path, state) in steps.items()}, "import": imported}
        )
        return 0
    for what, (path, state) in steps.items():
        out(f"{what:<8}{state:<15}{safe(path)}")
    if report is not None:
        note(
            f"{report.imported} events taken over from {report.path}, {report.skipped} were there already; "
            "they are history: replayed, never told as news"
        )
    if not args.dry_run and not args.store_only:
        colour = "bold" if has_colour() else None
        out("\nNext:")
        for command, why in NEXT_STEPS:
            out(f"  {painted(f'{command:<34}', colour)}{why}")
    return 0


def _look(settings: Settings) -> dict[str, tuple[str, str]]:
    """What is there and what is not; a store that is there is opened, so that what is wrong with it is said."""
    if os.path.lexists(settings.db_path):
        open_reader(settings).close()
    return {what: (path, THERE if os.path.lexists(path) else WOULD) for what, path in _places(settings).items()}


def _places(settings: Settings) -> dict[str, str]:
    return {
        "state": settings.state_dir,
        "runtime": settings.runtime_dir,
        "store": settings.db_path,
        "config": settings.config_path,
    }


def _make(settings: Settings, *, with_config: bool) -> dict[str, tuple[str, str]]:
    was_there = {what: os.path.lexists(path) for what, path in _places(settings).items()}
    ensure_private_dir(settings.state_dir)
    ensure_private_dir(settings.runtime_dir, RUNTIME)
    open_writer(settings).close()
    if with_config and not was_there["config"]:
        _write_config(settings.config_path)
    return {what: (path, THERE if was_there[what] else MADE) for what, path in _places(settings).items()}


def _write_config(path: str) -> None:
    make_dirs(os.path.dirname(path), "WAITBUS_CONFIG")
    try:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:  # somebody was quicker
            return
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}; everything works without it") from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(CONFIG)
