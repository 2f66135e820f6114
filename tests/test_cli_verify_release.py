"""`waitbus verify-release`: what is asked for, what only a tool can say, and the exit code of each answer."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import INFO, NEEDS_MORE, SDIST, VERSION, WHEEL, argv, tampered, tool
from tests.conftest import PATIENCE, Cli
from tests.test_house import ROOT, build, copy_tree, in_checkout
from waitbus import __repository__
from waitbus.cli.main import main
from waitbus.verify import artifact, signatures

REF = f"refs/tags/v{VERSION}"
IDENTITY = f"https://github.com/{__repository__}/{signatures.SIGNER}@{REF}"
ISSUER = "https://token.actions.githubusercontent.com"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(copy_tree(tmp_path_factory.mktemp("built") / "tree"))


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def states(self) -> dict[str, str]:
        checks: list[dict[str, Any]] = json.loads(self.out)["checks"]
        return {check["check"]: check["state"] for check in checks}

    def detail(self, name: str) -> str:
        return str(next(check for check in json.loads(self.out)["checks"] if check["check"] == name)["detail"])


Verify = Callable[..., Answer]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    def run(path: Path, *flags: object) -> Answer:
        code = main(["verify-release", str(path), *map(str, flags)])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def wheel(built: tuple[Path, Path], tmp_path: Path) -> Path:
    path = tmp_path / "dl" / WHEEL
    path.parent.mkdir()
    path.write_bytes(built[0].read_bytes())
    return path


class TestWithoutATool:
    def test_a_bare_run_is_not_authenticated_and_says_what_is_missing(
        self, wheel: Path, bin_dir: Path, verify: Verify
    ) -> None:
        answer = verify(wheel)
        assert answer.code == 78
        lines = answer.out.splitlines()
        assert lines[0] == f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel}"
        assert lines[-1].startswith("not authenticated: ")
        for name in ("gh", "cosign", "pypi-attestations"):
            assert any(line.startswith("not checked") and f" {name} " in line for line in lines), name
        assert not any(line.startswith("FAILED") for line in lines)

    def test_what_nobody_vouches_for_is_not_verified_however_sound_it_looks(
        self, wheel: Path, built: tuple[Path, Path], bin_dir: Path, verify: Verify
    ) -> None:
        for path in (wheel, built[1]):
            assert verify(path, "--no-signatures").code == 78
            answer = verify(path, "--no-signatures", "--json")
            assert json.loads(answer.out)["verdict"] == "not authenticated"

    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            (f"{INFO}/METADATA", b"Requires-Dist: ", f"{NEEDS_MORE}\nRequires-Dist: ".encode()),
            (f"{INFO}/METADATA", b"mcp>=2", b"evil-mcp>=2"),
            (f"{INFO}/entry_points.txt", b"[console_scripts]\n", b"[console_scripts]\nsudo=evil:main\n"),
            ("waitbus/__init__.py", b"import", b"import this\nimport"),
        ],
    )  # fmt: skip
    def test_a_wheel_that_asks_for_more_is_not_verified_and_only_the_bytes_decide(
        self, wheel: Path, bin_dir: Path, verify: Verify, tmp_path: Path, name: str, old: bytes, new: bytes
    ) -> None:
        sums = tmp_path / "SHA256SUMS"
        sums.write_text(sums_of(wheel))

        def change(files: dict[str, bytes]) -> None:
            assert old in files[name]
            files[name] = files[name].replace(old, new, 1)

        bad = tampered(wheel, tmp_path, change, careful=True)
        assert verify(bad).code == 78
        assert verify(bad, "--sums", sums).code == 76
        assert verify(wheel, "--sums", sums).code == 0

    @pytest.mark.parametrize(
        "change", [lambda data: b"#!/bin/sh\n" + data, lambda data: data[:-1], lambda data: b"hello"]
    )
    def test_any_other_bytes_are_other_bytes(
        self, wheel: Path, bin_dir: Path, verify: Verify, tmp_path: Path, change: Callable[[bytes], bytes]
    ) -> None:
        sums = tmp_path / "SHA256SUMS"
        sums.write_text(sums_of(wheel))
        wheel.write_bytes(change(wheel.read_bytes()))
        assert (verify(wheel).code, verify(wheel, "--sums", sums).code) == (78, 76)

    def test_the_exit_code_reaches_the_shell(self, wheel: Path, cli: Cli) -> None:
        done = cli("verify-release", str(wheel), PATH="/nonexistent")
        assert (done.returncode, done.stderr) == (78, "")
        missing = cli("verify-release", str(wheel) + ".tar.gz")
        assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (66, "", 1)

    def test_a_reader_that_leaves_does_not_make_it_good(self, wheel: Path) -> None:
        script = f"{shlex.quote(sys.executable)} -m waitbus verify-release {shlex.quote(str(wheel))} --version 1 | true"
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, timeout=PATIENCE, text=True
        )
        assert (done.returncode, done.stderr) == (76, "")

    def test_the_version_asked_for(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        assert verify(wheel, "--no-signatures", "--version", VERSION).code == 78
        answer = verify(wheel, "--no-signatures", "--version", "9.9.9", "--json")
        assert (answer.code, answer.states["name"]) == (76, "FAILED")

    def test_what_is_no_file_of_a_release_is_65_and_what_is_not_there_66(self, verify: Verify, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        (tmp_path / f"\x1b[31m{WHEEL}").write_text("hello")
        (tmp_path / WHEEL).mkdir()
        os.mkfifo(tmp_path / SDIST)
        (tmp_path / "waitbus-1-py3-none-any.whl").write_bytes(bytes(artifact.MAX_BYTES + 1))
        for name, words in (
            ("notes.txt", "not named as"),
            (f"\x1b[31m{WHEEL}", "not named as"),
            (WHEEL, "is not a file"),
            (SDIST, "is not a file"),
            ("waitbus-1-py3-none-any.whl", "larger than 8 MiB"),
        ):
            answer = verify(tmp_path / name)
            assert (answer.code, words in answer.err, "\x1b" in answer.err) == (65, True, False), answer.err
        answer = verify(tmp_path / "waitbus-2.tar.gz")
        assert (answer.code, "No such file" in answer.err) == (66, True)


def sums_of(*paths: Path) -> str:
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)


class TestSums:
    @pytest.mark.parametrize(
        "change", [str, lambda text: text.replace("  ", " *"), lambda t: t.replace("  w", "  ./w")]
    )
    def test_a_list_that_vouches(
        self,
        built: tuple[Path, Path],
        wheel: Path,
        bin_dir: Path,
        verify: Verify,
        tmp_path: Path,
        change: Callable[[str], str],
    ) -> None:
        sums = tmp_path / "SHA256SUMS"
        sums.write_text(change(sums_of(wheel, built[1])))
        for path in (wheel, built[1]):
            for flags in ((), ("--no-signatures",)):  # a tool that is not there is no reason to doubt the list
                answer = verify(path, *flags, "--sums", sums, "--json")
                assert (answer.code, answer.states["sums"]) == (0, "ok")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (f"{'0' * 64}  {WHEEL}\n", "should have 0000"),
            (f"{'0' * 64}  {SDIST}\n", "the list has no checksum for"),
            (f"{'0' * 64}  {WHEEL}\n{'1' * 64}  {WHEEL}\n", "more than one checksum"),
            ("no list\n", "line 1 is not a checksum"),
            ("\xff", "is not a checksum"),
            ("0" * 1000, "is not a checksum"),
            ("", "no checksum"),
        ],
    )
    def test_a_list_that_does_not(self, wheel: Path, verify: Verify, tmp_path: Path, content: str, words: str) -> None:
        sums = tmp_path / "SHA256SUMS"
        sums.write_text(content)
        answer = verify(wheel, "--no-signatures", "--sums", sums, "--json")
        assert (answer.code, answer.states["sums"]) == (76, "FAILED")
        assert words in answer.detail("sums")

    def test_a_list_that_is_no_text(self, wheel: Path, verify: Verify, tmp_path: Path) -> None:
        (tmp_path / "SHA256SUMS").write_bytes(b"\xff\xfe")
        assert verify(wheel, "--no-signatures", "--sums", tmp_path / "SHA256SUMS").code == 76

    def test_a_list_that_is_not_there(self, wheel: Path, verify: Verify, tmp_path: Path) -> None:
        answer = verify(wheel, "--no-signatures", "--sums", tmp_path / "nothing")
        assert (answer.code, answer.out, answer.err.count("\n")) == (66, "", 1)
        assert verify(wheel, "--no-signatures", "--sums", tmp_path).code == 65
        (tmp_path / "long").write_bytes(b"0" * ((1 << 20) + 1))
        assert verify(wheel, "--no-signatures", "--sums", tmp_path / "long").code == 65

    def test_what_lies_beside_the_wheel_is_verified_in_the_same_way(
        self, bin_dir: Path, verify: Verify, tmp_path: Path
    ) -> None:
        bill, lock = tmp_path / f"waitbus-{VERSION}-mcp.cdx.json", tmp_path / "pylock.mcp.toml"
        for path in (bill, lock):
            path.write_text("{}")
        (tmp_path / "SHA256SUMS").write_text(sums_of(bill, lock))
        for path in (bill, lock):
            assert verify(path, "--sums", tmp_path / "SHA256SUMS").code == 0
            path.write_text("[]")
            assert verify(path, "--sums", tmp_path / "SHA256SUMS").code == 76


# Only the seam is a stand-in: what is run, with which words, and what its end means. The tools themselves are others'.


class TestSignatures:
    def test_gh_is_asked_who_built_it(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        path = tool(bin_dir, "gh", "exit 0")
        answer = verify(wheel)
        assert answer.code == 0
        assert argv(bin_dir, "gh") == [
            *("attestation", "verify", str(wheel), "--repo", __repository__, "--source-ref", REF),
            *("--cert-identity", IDENTITY, "--cert-oidc-issuer", ISSUER, "--deny-self-hosted-runners"),
        ]
        assert f"running {path} attestation verify {wheel} " in answer.err
        # What the others would have said is left open, and said to be.
        assert sum(line.startswith("not checked") for line in answer.out.splitlines()) == 3

    def test_pypi_attestations_is_asked_who_uploaded_it(
        self, built: tuple[Path, Path], bin_dir: Path, verify: Verify
    ) -> None:
        tool(bin_dir, "pypi-attestations", "exit 0")
        assert verify(built[1]).code == 0
        repository = f"https://github.com/{__repository__}"
        assert argv(bin_dir, "pypi-attestations") == ["verify", "pypi", "--repository", repository, str(built[1])]

    def test_cosign_needs_the_bundle_of_the_release(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        tool(bin_dir, "cosign", "exit 0")
        answer = verify(wheel, "--json")
        assert (answer.code, answer.states["cosign"]) == (78, "not checked")
        assert f"no {WHEEL}.sigstore.json beside" in answer.detail("cosign")
        bundle = wheel.with_name(f"{WHEEL}.sigstore.json")
        bundle.write_text("{}")
        assert verify(wheel).code == 0
        # The workflow, and the repository and the tag that it ran for: anybody may call the workflow.
        assert argv(bin_dir, "cosign") == [
            *("verify-blob-attestation", "--bundle", str(bundle), "--type", "https://slsa.dev/provenance/v1"),
            *("--certificate-identity", IDENTITY, "--certificate-oidc-issuer", ISSUER),
            *("--certificate-github-workflow-repository", __repository__),
            *("--certificate-github-workflow-ref", REF, str(wheel)),
        ]

    def test_a_bundle_that_is_named(
        self, wheel: Path, bin_dir: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tool(bin_dir, "gh", "exit 0")
        tool(bin_dir, "cosign", "exit 0")
        monkeypatch.chdir(wheel.parent)
        Path("-bundle").write_text("{}")
        Path(f"{WHEEL}.sigstore.json").write_text("{}")
        assert verify(Path(WHEEL), "--bundle=-bundle").code == 0
        bundle = str(wheel.parent / "-bundle")
        assert argv(bin_dir, "gh")[-2:] == ["--bundle", bundle]
        assert argv(bin_dir, "cosign")[1:3] == ["--bundle", bundle]
        assert argv(bin_dir, "cosign")[-1] == str(wheel)
        assert verify(Path(WHEEL)).code == 0
        assert argv(bin_dir, "gh")[-1] == f"{wheel}.sigstore.json"

    # What each says of a signature that is there and is wrong.
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("gh", "\u2717 Sigstore verification failed"),
            ("gh", 'Error: verifying with issuer "sigstore.dev"'),
            ("gh", "\u2717 Policy verification failed"),
            ("cosign", "Error: none of the expected identities matched what was in the certificate"),
            ("cosign", "Error: failed to verify certificate identity: no matching CertificateIdentity found"),
            ("cosign", "Error: invalid predicate type, expected https://slsa.dev/provenance/v1 got x"),
            ("pypi-attestations", "Verification failed: provenance was signed by repository https://github.com/evil/x"),
        ],
    )  # fmt: skip
    def test_a_tool_that_refuses(self, wheel: Path, bin_dir: Path, verify: Verify, name: str, said: str) -> None:
        wheel.with_name(f"{WHEEL}.sigstore.json").write_text("{}")
        tool(bin_dir, name, f"echo looking; echo '{said} \033[31m' >&2; echo bye; exit 1")
        answer = verify(wheel, "--json")
        assert (answer.code, answer.states[name]) == (76, "FAILED")
        assert answer.detail(name) == f"it refuses the file: {said} [31m"

    # What each says when it did not get to look.
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("gh", "To get started with GitHub CLI, please run: gh auth login"),
            ("gh", "\u2717 No attestations found for subject sha256:00"),
            ("gh", "Error: HTTP 404: Not Found (https://api.github.com/repos/ann/bus/attestations/sha256:00)"),
            ("gh", "error connecting to api.github.com"),
            ("cosign", "Error: setting trusted material: dial tcp: lookup tuf-repo-cdn.sigstore.dev"),
            ("cosign", "Get https://tuf.example: tls: failed to verify certificate: x509: unknown authority"),
            ("pypi-attestations", 'Provenance for file "waitbus-0.3.0-py3-none-any.whl" was not found'),
            ("pypi-attestations", "requests.exceptions.SSLError: CERTIFICATE_VERIFY_FAILED certificate verify failed"),
            ("gh", ""),
        ],
    )  # fmt: skip
    def test_a_tool_that_found_nothing_or_no_network_has_not_looked(
        self, wheel: Path, bin_dir: Path, verify: Verify, name: str, said: str
    ) -> None:
        wheel.with_name(f"{WHEEL}.sigstore.json").write_text("{}")
        tool(bin_dir, name, f"echo '{said}' >&2; exit 1")
        answer = verify(wheel, "--json")
        assert (answer.code, answer.states[name]) == (78, "not checked")
        assert (said.strip() or "without a word")[:60] in answer.detail(name)

    @pytest.mark.parametrize(
        ("name", "script", "words"),
        [
            ("gh", 'echo \'unknown command "attestation" for "gh"\' >&2; exit 1', "2.68 or later"),
            ("gh", "echo 'unknown flag: --source-ref' >&2; exit 1", "2.68 or later"),
            ("pypi-attestations", "echo 'error: unrecognized arguments' >&2; exit 2", "environment of its own"),
        ],
    )
    def test_a_tool_that_does_not_know_the_command(
        self, wheel: Path, bin_dir: Path, verify: Verify, name: str, script: str, words: str
    ) -> None:
        tool(bin_dir, name, script)
        answer = verify(wheel, "--json")
        assert (answer.code, answer.states[name]) == (78, "not checked")
        assert words in answer.detail(name)

    def test_one_that_refuses_outweighs_one_that_vouches(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        tool(bin_dir, "gh", "exit 0")
        tool(bin_dir, "pypi-attestations", "echo 'Verification failed: another'; exit 1")
        assert verify(wheel).code == 76

    def test_one_that_could_not_look_does_not_matter_where_another_vouches(
        self, wheel: Path, bin_dir: Path, verify: Verify
    ) -> None:
        tool(bin_dir, "gh", "exit 4")
        tool(bin_dir, "pypi-attestations", "exit 0")
        assert verify(wheel).code == 0

    def test_a_tool_that_is_named_must_answer(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        tool(bin_dir, "gh", "exit 0")
        answer = verify(wheel, "--signature", "gh", "--signature", "pypi-attestations", "--json")
        assert (answer.code, answer.states["gh"], answer.states["pypi-attestations"]) == (78, "ok", "not checked")
        assert "cosign" not in answer.states
        assert verify(wheel, "--signature", "gh").code == 0

    def test_a_signal_is_no_word_for_it(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        tool(bin_dir, "gh", "kill -9 $$")
        assert verify(wheel).code == 78

    def test_a_tool_that_never_answers(
        self, wheel: Path, bin_dir: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(signatures, "PATIENCE_S", 0.05)
        os.mkfifo(bin_dir / "never")
        tool(bin_dir, "gh", f"read word < '{bin_dir}/never'")
        answer = verify(wheel, "--json")
        assert (answer.code, answer.states["gh"]) == (78, "not checked")

    def test_a_tool_that_cannot_be_run(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        tool(bin_dir, "gh", "").write_text("#!/nonexistent/interpreter\n")
        answer = verify(wheel, "--json")
        assert (answer.code, answer.states["gh"]) == (78, "not checked")

    def test_a_tool_in_the_working_directory_is_passed_over(
        self, wheel: Path, bin_dir: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tool(wheel.parent, "gh", "exit 0")
        (bin_dir / "gh").mkdir()
        tool(bin_dir, "cosign", "").chmod(stat.S_IRUSR)
        monkeypatch.chdir(wheel.parent)
        monkeypatch.setenv("PATH", f":.:{bin_dir}")
        assert verify(wheel).code == 78
        assert not (wheel.parent / "gh.argv").exists()

    def test_the_environment_points_gh_nowhere_else(
        self, wheel: Path, bin_dir: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GH_HOST", "evil.example")
        monkeypatch.setenv("GH_REPO", "evil/evil")
        tool(bin_dir, "gh", '[ -z "$GH_HOST$GH_REPO" ] && [ "$GH_PROMPT_DISABLED" = 1 ] && ! read word')
        assert verify(wheel).code == 0

    def test_a_file_that_changes_meanwhile(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        tool(bin_dir, "gh", f"echo >> '{wheel}'")
        answer = verify(wheel, "--json")
        assert (answer.code, answer.states["gh"], answer.states["file"]) == (76, "ok", "FAILED")
        wheel.write_bytes(wheel.read_bytes()[:-1])
        tool(bin_dir, "gh", f"PATH=/bin:/usr/bin; rm '{wheel}'")
        assert verify(wheel, "--json").states["file"] == "FAILED"

    def test_without_a_version_no_identity_is_expected(self, wheel: Path, bin_dir: Path, verify: Verify) -> None:
        tool(bin_dir, "gh", "exit 0")
        sums = wheel.with_name("SHA256SUMS")
        sums.write_text("")
        answer = verify(sums, "--json")
        assert (answer.code, answer.states["gh"]) == (78, "not checked")
        assert not (bin_dir / "gh.argv").exists()
        assert verify(sums, "--version", VERSION).code == 0
        assert IDENTITY in argv(bin_dir, "gh")


@in_checkout
def test_the_signer_is_the_workflow_that_attests() -> None:
    text = (ROOT / signatures.SIGNER).read_text(encoding="utf-8")
    assert "workflow_call" in text
    assert "uses: actions/attest" in text


def test_other_verbs_do_not_load_it() -> None:
    code = (
        "import sys; from waitbus.cli.main import main; main(['tail', '--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert not {name for name in done.stderr.split() if name.startswith("waitbus.verify")}


def test_the_limits_leave_room(built: tuple[Path, Path]) -> None:
    for path in built:
        assert path.stat().st_size * 8 < artifact.MAX_BYTES
