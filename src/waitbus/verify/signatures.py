"""Signatures: handed to the tools that know them. Nothing here verifies one, and nothing here says so.

A command is fixed words, the file's path and the version in its name. Its exit code is the answer; a tool that is
missing, too old, or not logged in has given none.
"""

from __future__ import annotations

import os
import subprocess
import tempfile

from waitbus.event import one_line
from waitbus.verify.report import FAILED, OK, UNCHECKED, Check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from waitbus.verify.artifact import Artifact
    from waitbus.verify.report import Report

REPOSITORY = "waitbus/waitbus"
# The workflow whose identity the build's certificate carries, and the one that PyPI knows as the publisher.
SIGNER = ".github/workflows/build.yml"
ISSUER = "https://token.actions.githubusercontent.com"
PREDICATE = "https://slsa.dev/provenance/v1"
# What a release lays beside its files: the build's attestation, which names each of them.
BUNDLE = "provenance.sigstore.jsonl"

# Tool -> what its word means, and where to get it.
TOOLS = {
    "gh": (
        "built from the tag's commit by the repository's own workflow",
        "install the GitHub CLI, 2.49 or later (https://cli.github.com)",
    ),
    "cosign": (
        "built from the tag's commit by the repository's own workflow",
        "install cosign 2.4 or later (https://docs.sigstore.dev)",
    ),
    "pypi-attestations": (
        "uploaded to PyPI by a workflow of the repository",
        "pip install pypi-attestations, in an environment of its own",
    ),
}
PATIENCE_S = 180.0
_TAIL_BYTES = 8192
# They would point `gh` at another server or repository than the one that is named here.
_DROPPED_VARIABLES = ("GH_HOST", "GH_REPO")
# What a tool says that does not know the command, and its exit codes for that and for a missing login.
_UNKNOWN_COMMAND = ("unknown command", "unknown flag", "invalid choice", "unrecognized arguments")
_GH_NO_LOGIN = 4
_ARGPARSE_USAGE = 2


def identity(version: str) -> str:
    """Who signs the build of a release: the workflow, at the release's tag."""
    return f"https://github.com/{REPOSITORY}/{SIGNER}@refs/tags/v{version}"


def find_tool(name: str) -> str | None:
    """The program of this name on PATH; entries that depend on the working directory are passed over."""
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def arguments(tool: str, path: str, version: str, bundle: str | None) -> list[str]:
    """What follows the tool's name; `path` and `bundle` are absolute, so that neither is taken for a flag."""
    if tool == "gh":
        words = ["attestation", "verify", path, "--repo", REPOSITORY, "--cert-identity", identity(version)]
        words += ["--cert-oidc-issuer", ISSUER, "--deny-self-hosted-runners"]
        return [*words, "--bundle", bundle] if bundle else words
    if tool == "cosign":
        words = ["verify-blob-attestation", "--new-bundle-format", "--bundle", bundle or "", "--type", PREDICATE]
        return [*words, "--certificate-identity", identity(version), "--certificate-oidc-issuer", ISSUER, path]
    return pypi_arguments(path, f"https://github.com/{REPOSITORY}")


def pypi_arguments(path: str, repository: str) -> list[str]:
    """What asks pypi-attestations whether PyPI's attestation for this file names this publisher."""
    return ["verify", "pypi", "--repository", repository, path]


def check(
    artifact: Artifact,
    report: Report,
    *,
    tools: Sequence[str],
    bundle: str | None,
    announce: Callable[[str], object],
) -> None:
    """Hand the file to `tools`, each of which must answer; to none named: to all there are, one of which must.

    `bundle` is a file with the build's attestation; without it gh asks GitHub for one, and cosign takes that beside the
    file. `announce` hears each command.
    """
    bundle = os.path.abspath(bundle) if bundle is not None else None
    found = [_ask(tool, artifact, bundle, announce) for tool in tools or TOOLS]
    if not tools and any(check.state == OK for check in found):
        for one in found:
            one.asked = False
    report.checks += found
    if not artifact.unchanged():
        report.failed("file", f"{artifact.path} changed while it was checked")


def _ask(tool: str, artifact: Artifact, bundle: str | None, announce: Callable[[str], object]) -> Check:
    meaning, how = TOOLS[tool]
    path = find_tool(tool)
    if path is None:
        return Check(tool, UNCHECKED, f"it is not on PATH: {how}")
    if artifact.version is None:
        return Check(tool, UNCHECKED, "the file's name says no version: give the file the name it was published by")
    if tool == "cosign" and bundle is None:
        bundle = os.path.join(os.path.dirname(artifact.path), BUNDLE)
        if not os.path.isfile(bundle):
            how = "download it from the release, or name it with --bundle"
            return Check(tool, UNCHECKED, f"there is no {BUNDLE} beside the file: {how}")
    return run_tool(tool, [path, *arguments(tool, artifact.path, artifact.version, bundle)], meaning, announce)


def run_tool(tool: str, command: list[str], meaning: str, announce: Callable[[str], object]) -> Check:
    """Run a command without a shell and without input, and read its exit code."""
    from waitbus.private import quote

    announce(f"running {' '.join(map(quote, command))}")
    environ = {name: value for name, value in os.environ.items() if name not in _DROPPED_VARIABLES}
    with tempfile.TemporaryFile() as output:  # not a pipe: what the tool leaves running would keep that open
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environ, "GH_PROMPT_DISABLED": "1"},
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Check(
                tool, UNCHECKED, f"it gave no answer within {PATIENCE_S:.0f} s: look at the network, try again"
            )
        except OSError as error:
            return Check(tool, UNCHECKED, f"{command[0]} cannot be run ({error.strerror}): mend it, try again")
        said = _tail(output.fileno())
    return _judge(tool, done.returncode, said, meaning)


def _judge(tool: str, code: int, said: str, meaning: str) -> Check:
    last = one_line(said.splitlines()[-1]) if said else "without a word"
    if code == 0:
        return Check(tool, OK, meaning)
    if code == _ARGPARSE_USAGE or any(words in said for words in _UNKNOWN_COMMAND):
        return Check(tool, UNCHECKED, f"it does not know the command ({last}): {TOOLS[tool][1]}")
    if tool == "gh" and code == _GH_NO_LOGIN:
        return Check(
            tool, UNCHECKED, f"it is not logged in, or GitHub refused ({last}): gh auth login, or --bundle {BUNDLE}"
        )
    # A network that is down looks like this, too: only the tool can tell, so its words stand here.
    return Check(tool, FAILED, f"it does not vouch for the file (exit code {code}): {last}")


def _tail(fd: int) -> str:
    size = os.fstat(fd).st_size
    data = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    return data.decode("utf-8", "replace").strip()
