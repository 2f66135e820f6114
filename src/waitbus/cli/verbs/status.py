"""`waitbus status`: whether the bus is well, for a person or a script. It looks, and changes nothing."""

from __future__ import annotations

from waitbus.cli.exitcodes import FAILURE, OK
from waitbus.client.probe import hub_state
from waitbus.event import one_line
from waitbus.private import RUNTIME, STATE, SettingsError, check_private_dir
from waitbus.settings import load
from waitbus.store.probe import store_state
from waitbus.ui.output import has_colour, out, out_json, painted, safe
from waitbus.ui.times import size, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


# So many waiters are shown to a person.
SHOWN_MAX = 20

_DESCRIPTION = """\
Say whether the bus works: whether a hub is running and for how long, who waits
for what and has seen and matched how many events, how large the store is, and
what the last event was."""
_EPILOG = """\
exit codes: 0 all is well, 1 no hub is running or something is wrong

examples:
  waitbus status
  waitbus status --json | jq .store.events
  waitbus status --json | jq '.hub.waiters[] | select(.matched == 0)'
  waitbus status >/dev/null || waitbus serve hub
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("--json", action="store_true", help="one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Look at the hub and the store."""
    settings = load()
    hub, store = hub_state(settings), store_state(settings)
    for state, path, setting in ((hub, settings.runtime_dir, RUNTIME), (store, settings.state_dir, STATE)):
        try:
            check_private_dir(path, setting)
        except FileNotFoundError:  # whoever needs it first makes it
            continue
        except SettingsError as error:
            state["problem"] = str(error)
    problems = [state["problem"] for state in (hub, store) if state.get("problem")]
    if args.json:
        out_json({"healthy": not problems, "hub": hub, "store": store, "problems": problems})
    else:
        _print(hub, store)
    return FAILURE if problems else OK


def _print(hub: dict[str, Any], store: dict[str, Any]) -> None:
    if hub["running"]:
        words = ["up"]
        if hub["pid"] is not None:
            words.append(f"pid {hub['pid']}")
        if hub["uptime_sec"] is not None:
            words.append(f"for {span(hub['uptime_sec'])}")
        _line("hub", ", ".join(words), "green")
        if hub.get("problem"):
            _line("", hub["problem"], "red")
    else:
        _line("hub", hub["problem"], "red")
    _line("socket", hub["socket"])
    if hub.get("note"):
        _line("", hub["note"])
    _print_waiters(hub)
    _line("store", f"{store['path']}, {size(store['bytes'])}, {store['events']:,} events")
    last = store["last_event"]
    if store.get("problem"):
        _line("", store["problem"], "red")
    elif last is None:
        _line("last", "no events yet: waitbus emit --help says how to make one")
    else:
        _line("last", f"{span(last['age_sec'])} ago: {last['summary']}")


def _print_waiters(hub: dict[str, Any]) -> None:
    """Who waits for what, and what came of it; the first of them, where they are many."""
    waiters = hub.get("waiters", ())
    for title, waiter in zip(["waiters", *[""] * SHOWN_MAX], waiters[:SHOWN_MAX], strict=False):
        age = "" if waiter["age_sec"] is None else f" for {span(waiter['age_sec'])}"
        what = "any event" if waiter["predicate"] is None else one_line(waiter["predicate"], 160)
        _line(title, f"pid {waiter['pid']}{age}: {what}; {waiter['seen']} seen, {waiter['matched']} matched")
    more = hub.get("subscribers", 0) - min(len(waiters), SHOWN_MAX)
    if more > 0:
        _line("" if waiters else "waiters", f"{more} more; --json lists as many as the hub names")


def _line(title: str, text: str, colour: str | None = None) -> None:
    text = safe(text)
    out(f"{title:<8}{painted(text, colour) if has_colour() else text}")
