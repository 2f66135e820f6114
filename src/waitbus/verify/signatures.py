"""Runs external tools that verify signatures. Nothing here verifies a signature itself.

A command consists of fixed words, the file's path and its expected version. Exit code 0 means that the tool vouches for
the file. With any other, the check has failed only if the tool says that the signature is wrong. Otherwise the tool
could not check it, for example without a network or a login.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile

from waitbus import __repository__
from waitbus.event import one_line
from waitbus.verify.report import FAILED, OK, UNCHECKED, Check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from waitbus.verify.artifact import Artifact
    from waitbus.verify.report import Report

# The workflow whose identity the build's certificate carries, and the one that PyPI knows as the publisher.
SIGNER = ".github/workflows/build.yml"
ISSUER = "https://token.actions.githubusercontent.com"
PREDICATE = "https://slsa.dev/provenance/v1"
# What a release lays beside each file: the build's attestation.
BUNDLE = ".sigstore.json"

# Tool -> what its word means, and where to get it. cosign before 2.4.3 did not look at the certificate's repository.
TOOLS = {
    "gh": (
        "built from the tag's commit by the repository's own workflow",
        "install the GitHub CLI, 2.68 or later (https://cli.github.com)",
    ),
    "cosign": (
        "built from the tag's commit by the repository's own workflow",
        "install cosign 3 or later (https://docs.sigstore.dev)",
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
# How the three tools say that a signature is wrong. Errors about TLS certificates must not match.
_REFUSED = re.compile(
    r"verification failed|verifying with issuer|none of the expected identities|no matching CertificateIdentity"
    r"|failed to verify (?:certificate identity|signature|timestamps|log)|invalid predicate type",
    re.IGNORECASE,
)
_UNKNOWN_COMMAND = ("unknown command", "unknown flag", "invalid choice", "unrecognized arguments")


def find_tool(name: str) -> str | None:
    """Return the path of a program on PATH, or None. Relative entries of PATH are ignored."""
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def arguments(tool: str, path: str, version: str, bundle: str | None) -> list[str]:
    """What follows the tool's name; `path` and `bundle` are absolute, so that neither is taken for a flag.

    The workflow that signed and the repository and tag that it ran for are each named: anybody may call the workflow.
    """
    ref = f"refs/tags/v{version}"
    signer = f"https://github.com/{__repository__}/{SIGNER}@{ref}"
    if tool == "gh":
        words = [
            "attestation",
            "verify",
            path,
            "--repo",
            __repository__,
            "--source-ref",
            ref,
            "--cert-identity",
            signer,
        ]
        words += ["--cert-oidc-issuer", ISSUER, "--deny-self-hosted-runners"]
        return [*words, "--bundle", bundle] if bundle else words
    if tool == "cosign":
        words = ["verify-blob-attestation", "--bundle", bundle or "", "--type", PREDICATE]
        words += ["--certificate-identity", signer, "--certificate-oidc-issuer", ISSUER]
        words += ["--certificate-github-workflow-repository", __repository__, "--certificate-github-workflow-ref", ref]
        return [*words, path]
    return pypi_arguments(path, f"https://github.com/{__repository__}")


def pypi_arguments(path: str, repository: str) -> list[str]:
    """Return the arguments with which pypi-attestations checks that PyPI's attestation names this publisher."""
    return ["verify", "pypi", "--repository", repository, path]


def check(
    artifact: Artifact,
    report: Report,
    *,
    tools: Sequence[str],
    bundle: str | None,
    announce: Callable[[str], object],
) -> None:
    """Run each of `tools` on the file, or every tool that is installed if `tools` is empty.

    A tool in `tools` must give an answer, or the result is incomplete. `bundle` is a file with the build's attestation
    (default: the one beside the file). Without one, gh asks GitHub. `announce` is called with each command.
    """
    beside = artifact.path + BUNDLE
    bundle = os.path.abspath(bundle) if bundle is not None else beside if os.path.isfile(beside) else None
    for tool in tools or TOOLS:
        found = _ask(tool, artifact, bundle, announce)
        found.asked = bool(tools)
        report.checks.append(found)
    if not artifact.unchanged():
        report.conclude("file", [f"{artifact.path} changed while it was checked"], "")


def _ask(tool: str, artifact: Artifact, bundle: str | None, announce: Callable[[str], object]) -> Check:
    meaning, how = TOOLS[tool]
    path = find_tool(tool)
    if path is None:
        return Check(tool, UNCHECKED, f"it is not on PATH: {how}")
    if not artifact.version:
        return Check(tool, UNCHECKED, "the file's name says no version: give --version")
    if tool == "cosign" and bundle is None:
        how = "download it from the release, or name it with --bundle"
        return Check(tool, UNCHECKED, f"there is no {artifact.name}{BUNDLE} beside the file: {how}")
    return run_tool(tool, [path, *arguments(tool, artifact.path, artifact.version, bundle)], meaning, announce)


def run_tool(tool: str, command: list[str], meaning: str, announce: Callable[[str], object]) -> Check:
    """Run a command, without a shell and without input, and return its answer as a check."""
    from waitbus.private import quote

    announce(f"running {' '.join(map(quote, command))}")
    environ = {name: value for name, value in os.environ.items() if name not in _DROPPED_VARIABLES}
    with tempfile.TemporaryFile() as output:  # not a pipe, which a process that the tool leaves behind would keep open
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environ, "GH_PROMPT_DISABLED": "1", "NO_COLOR": "1"},
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            patience = f"it gave no answer within {PATIENCE_S:.0f} s: look at the network, try again"
            return Check(tool, UNCHECKED, patience)
        except OSError as error:
            return Check(tool, UNCHECKED, f"{command[0]} cannot be run ({error.strerror}): mend it, try again")
        size = os.fstat(output.fileno()).st_size
        tail = os.pread(output.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    return _judge(tool, done.returncode, tail.decode("utf-8", "replace").strip(), meaning)


def _judge(tool: str, code: int, said: str, meaning: str) -> Check:
    if code == 0:
        return Check(tool, OK, meaning, proof=True)
    last = one_line(said.splitlines()[-1]) if said else "without a word"
    if refused := _REFUSED.search(said):
        line = next(line for line in said.splitlines() if refused[0] in line)
        return Check(tool, FAILED, f"it refuses the file: {one_line(line)}")
    how = TOOLS[tool][1] if any(words in said for words in _UNKNOWN_COMMAND) else "look at its words, try again"
    return Check(tool, UNCHECKED, f"it does not vouch for the file (exit code {code}): {last}: {how}")
