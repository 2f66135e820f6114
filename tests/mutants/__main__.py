"""``python -m tests.mutants``: killed, survived, and each survivor that nothing explains; then exit 1."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path

from tests.mutants.run import Broken, Module, Pool, Verdict

HERE = Path(__file__).resolve().parent
EXPLAINED = HERE / "explained.toml"
TABLE: dict[str, list[str]] = tomllib.loads((HERE / "table.toml").read_text(encoding="utf-8"))["modules"]

Key = tuple[str, str, str]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"which (default: all): {', '.join(TABLE)}")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N of each file, always the same ones")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at once (one for each core)")
    parser.add_argument("--killed", action="store_true", help="name those that were killed, too")
    options = parser.parse_args()
    unknown = set(options.modules) - set(TABLE)
    if unknown:
        parser.error(f"not in table.toml: {', '.join(sorted(unknown))}")
    return options


class Reasons:
    """What `explained.toml` says, and which of it was asked for."""

    def __init__(self, text: str) -> None:
        self._of_mutant: dict[Key, str] = {}
        self._of_line: dict[tuple[str, str], str] = {}
        self._asked: set[tuple[str, ...]] = set()
        for entry in tomllib.loads(text).get("explained", []):
            place = entry["function"], entry["was"]
            if "now" not in entry:
                self._of_line[place] = entry["why"]
            for now in entry.get("now", ()):
                self._of_mutant[*place, now] = entry["why"]

    def why(self, key: Key) -> str | None:
        """The reason why no test sees this one; None where there is none."""
        self._asked |= {key, key[:2]}
        return self._of_mutant.get(key) or self._of_line.get(key[:2])

    def unasked(self) -> list[tuple[str, ...]]:
        """What stands there for a mutant that is not made any more."""
        return sorted({*self._of_mutant, *self._of_line} - self._asked)


def described(module: Module, verdict: Verdict) -> str:
    mutant = verdict.mutant
    return f"  {verdict.word}: {module.path}:{mutant.line} {mutant.function}\n    - {mutant.was}\n    + {mutant.now}"


class Account:
    """What came of all modules."""

    def __init__(self, reasons: Reasons, *, show_killed: bool) -> None:
        self.reasons = reasons
        self.show_killed = show_killed
        self.words: Counter[str] = Counter()

    def take(self, module: Module, pool: Pool) -> None:
        """Judge one module and print its line, and a survivor's as soon as it is known to be one."""
        words: Counter[str] = Counter()
        for verdict in module.judge(pool):
            why = self.reasons.why(verdict.mutant.key)
            word = "explained" if verdict.word == "survived" and why else verdict.word
            words[word] += 1
            if word == "survived" or (self.show_killed and word != "explained"):
                print(described(module, verdict), flush=True)
        self.words += words
        sampled = "" if len(module.mutants) == module.known else f" (a sample of {module.known})"
        print(f"{module.name:<18}{counted(words)}{sampled}, {module.seconds:.0f} s", flush=True)

    def closing(self, seconds: float) -> str:
        """The last line."""
        left = self.words["survived"]
        word = "FAILED" if left else "PASSED"
        advice = ": write a test that sees each, or say in tests/mutants/explained.toml why none can" if left else ""
        return f"{word}: {counted(self.words)}, after {seconds:.0f} s{advice}"


def counted(words: Counter[str]) -> str:
    killed = words["killed"] + words["timed out"]
    survived = words["survived"] + words["explained"]
    return (
        f"{words.total()} mutants: {killed} killed ({words['timed out']} by time), {survived} survived, "
        f"{words['explained']} of them explained"
    )


def main() -> int:
    options = arguments()
    begin = time.monotonic()
    account = Account(Reasons(EXPLAINED.read_text(encoding="utf-8")), show_killed=options.killed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the copies are removed then, too
    with tempfile.TemporaryDirectory(prefix="wbm-", dir="/tmp") as place:
        pool = Pool(Path(place), options.workers)
        try:
            for name in options.modules or TABLE:
                account.take(Module(name, TABLE[name], options.sample), pool)
        except Broken as broken:
            sys.stderr.write(f"mutants: {broken}\n")
            return 2
        except KeyboardInterrupt:
            sys.stderr.write("mutants: interrupted; the checkout is as it was\n")
            return 130
        finally:
            pool.close()
    if not options.modules and options.sample is None:
        for stale in account.reasons.unasked():
            print(f"  stale in explained.toml, take it out: {' | '.join(stale)}")
    print(account.closing(time.monotonic() - begin))
    return 1 if account.words["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
