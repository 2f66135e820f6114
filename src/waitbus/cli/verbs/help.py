"""`waitbus help TOPIC`: predicates, fields, exit codes and more, explained by the installed tool itself.

`waitbus help VERB` is the verb's own `--help`, and `waitbus help` the overview: the front door sees to both.
"""

from __future__ import annotations

from waitbus.cli.main import VERBS
from waitbus.event import WaitbusError, one_line
from waitbus.ui.output import out
from waitbus.ui.topics import TOPICS, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

ONLY_PRINTS = True  # what is printed is all it is for
WORDS = (*TOPICS, *VERBS)  # for completion


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags and help."""
    parser.usage = "waitbus help [TOPIC | VERB]"
    parser.description = "Explain a topic, or show the help of a verb. Without either, list the verbs."
    parser.epilog = "\n".join(
        [
            "topics:",
            *[f"  {topic:<12} {summary}" for topic, summary in TOPICS.items()],
            "",
            "examples:",
            "  waitbus help predicates",
            "  waitbus help wait",
        ]
    )
    parser.add_argument("topic", metavar="TOPIC", help="one of the topics below, or a verb")


def run(args: argparse.Namespace) -> int:
    """Print the topic."""
    if args.topic not in TOPICS:
        raise WaitbusError(_unknown(args.topic))
    out(text_of(args.topic).rstrip("\n"))
    return 0


def _unknown(topic: str) -> str:
    from waitbus.words import meant

    near = meant(topic, WORDS, _MEANINGS)
    hint = f"did you mean {near}? " if near else ""
    return f"there is no topic or verb {one_line(topic, 40)!r}; {hint}topics are {', '.join(TOPICS)}"


# What others may call a topic.
_MEANINGS = {
    "conclusions": "fields",
    "date": "time",
    "events": "fields",
    "filter": "predicates",
    "github": "ci",
    "match": "predicates",
    "sha": "ci",
    "since": "time",
    "sources": "fields",
    "timeout": "time",
    "types": "fields",
}
