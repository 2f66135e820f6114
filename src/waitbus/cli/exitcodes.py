"""Exit codes: what every verb's answer comes to, in one place. For users, docs/cli.md lists them.

The packages below say in words how something ended; here a word becomes a number. `run` and `on` exit as their command
did, with what a shell would say of it: those numbers (126, 127, 128+n) are `host.process`'s.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

OK = 0
# A verdict of failure, a finding that is bad, or an input of which not all was written.
FAILURE = 1
# Wrong words, settings or places; no hub. Whoever called can mend it.
USAGE = 2
# Those of sysexits(3), for the verbs that verify; and an unexpected error, which is never taken for a verdict.
NO_DATA = 65
NO_INPUT = 66
SOFTWARE = 70
MISMATCH = 76
NOT_SET_UP = 78
# As timeout(1) and a shell have it.
TIMED_OUT = 124
INTERRUPTED = 130

# How a wait ended: `client.rules.Outcome.ending`.
OF_WAIT: Mapping[str, int] = {"matched": OK, "failed": FAILURE, "timed out": TIMED_OUT}
# What a verification came to, `verify.report.Report.verdict`; or why there was none, `verify.report.Unusable.reason`.
OF_VERIFICATION: Mapping[str, int] = {
    "verified": OK,
    "failed": MISMATCH,
    "not authenticated": NOT_SET_UP,
    "incomplete": NOT_SET_UP,
    "no data": NO_DATA,
    "no input": NO_INPUT,
}
