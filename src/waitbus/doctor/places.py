"""The places that waitbus uses: its directories, and room on the disk."""

from __future__ import annotations

import os

from waitbus.doctor.findings import BAD, NOTE, OK, Finding
from waitbus.event import WaitbusError
from waitbus.private import RUNTIME, STATE, check_private_dir
from waitbus.ui.times import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from waitbus.settings import Settings

LEAST_FREE_BYTES = 64 << 20


def look(settings: Settings) -> Iterator[Finding]:
    """Whether both directories are private, and whether the store has room."""
    for name, path, setting in (("state", settings.state_dir, STATE), ("runtime", settings.runtime_dir, RUNTIME)):
        yield private(name, path, check_private_dir, setting, "yours alone (0700)")
    yield _disk(os.path.dirname(settings.db_path))


def private(name: str, path: str, check: Callable[[str, str], None], setting: str, good: str) -> Finding:
    """What `check` says of a path; `good` is what it is if nothing is wrong."""
    try:
        check(path, setting)
    except FileNotFoundError:
        return Finding(NOTE, name, f"{path} is not there: it is made when first needed")
    except WaitbusError as error:
        return Finding(BAD, name, str(error))
    return Finding(OK, name, f"{path}, {good}")


def _disk(place: str) -> Finding:
    """Room where the store is, or will be."""
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    elsewhere = f"set {STATE} to another place"
    try:
        found = os.statvfs(place)
    except OSError as error:
        return Finding(BAD, "disk", f"cannot look at {place}: {error.strerror}; {elsewhere}")
    free = found.f_bavail * found.f_frsize
    if found.f_flag & os.ST_RDONLY:
        return Finding(BAD, "disk", f"{place} is on a read-only disk: {elsewhere}")
    if free < LEAST_FREE_BYTES:
        return Finding(BAD, "disk", f"{size(free)} free at {place}: make room, or run waitbus prune --vacuum")
    return Finding(OK, "disk", f"{size(free)} free")
