"""Whatever is said of an artifact, there is an answer, and it is no better than it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts import VERSION, WHEEL
from tests.test_house import ROOT, in_checkout, project
from waitbus.cli.exitcodes import OF_VERIFICATION
from waitbus.verify import record, statements
from waitbus.verify.report import OK, UNCHECKED, Check, Report


@given(st.binary(max_size=400))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    rows, faults = record.parse(data)
    assert len(rows) + len(faults) >= bool(data.strip())
    assert list(statements.metadata_faults(data, data, VERSION))
    assert list(statements.sums_faults(data, WHEEL, "0" * 64))


def test_verified_means_that_somebody_vouches_and_nobody_refuses() -> None:
    report = Report()
    assert (OF_VERIFICATION[report.verdict], report.verdict) == (78, "not authenticated")
    report.conclude("a", [], "sound")
    report.unchecked("b", "not asked for", "ask", asked=False)
    assert (OF_VERIFICATION[report.verdict], report.verdict) == (78, "not authenticated")
    report.checks.append(Check("c", UNCHECKED, "", proof=True))
    assert report.verdict == "not authenticated"
    report.checks.append(Check("c", OK, "", proof=True))
    assert (OF_VERIFICATION[report.verdict], report.verdict) == (78, "incomplete")
    report.checks.pop(-2)
    assert (OF_VERIFICATION[report.verdict], report.verdict) == (0, "verified")
    report.conclude("d", ["one", "two", "three", "four"], "", proof=True)
    assert (OF_VERIFICATION[report.verdict], report.verdict) == (76, "failed")
    assert report.checks[-1].text == "one; two; three; and 1 more"


@pytest.mark.parametrize(
    ("name", "version"),
    [
        (f"waitbus-{VERSION}-py3-none-any.whl", VERSION),
        ("waitbus-1.2.3rc1.tar.gz", "1.2.3rc1"),
        ("waitbus-1.2.post1.cdx.json", "1.2.post1"),
        ("waitbus-1.2-mcp.cdx.json", "1.2"),
        ("SHA256SUMS", ""),
        ("pylock.mcp.toml", ""),
        ("waitbuss-1.2-py3-none-any.whl", None),
        ("waitbus-1.2-cp311-none-any.whl", None),
        ("waitbus-x.tar.gz", None),
        ("waitbus-1.2.tar.gz.sigstore.json", None),
        ("waitbus-1\N{SUPERSCRIPT TWO}.tar.gz", None),
    ],
)
def test_a_name_says_which_version_it_is(name: str, version: str | None) -> None:
    assert statements.version_in_name(name) == version


def test_what_waitbus_asks_of_an_installer_is_what_pyproject_says() -> None:
    said = project()["project"]
    assert said["dependencies"] == []
    extras = said["optional-dependencies"]
    needs = tuple(f'{need} ; extra == "{extra}"' for extra in extras for need in extras[extra])
    assert needs == statements.NEEDS


@in_checkout
def test_what_pyproject_offers_is_what_an_installation_may() -> None:
    from tools import contents

    offered = contents.entry_points(contents.project(ROOT))
    metadata = (
        b"Name: waitbus\nVersion: 1\n" + "".join(f"Requires-Dist: {need}\n" for need in statements.NEEDS).encode()
    )
    assert list(statements.metadata_faults(metadata, offered, "1")) == []
    for line in (
        b"sudo=waitbus.__main__:main",
        b"waitbus=evil:main",
        b"waitbus=waitbus.x:main; evil",
        b" waitbus=evil",
    ):
        assert len(list(statements.metadata_faults(metadata, offered + line, "1"))) == 1
