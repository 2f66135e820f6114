"""Whatever the bytes of an artifact are, there is an answer, and it is no better than it is."""

from __future__ import annotations

import contextlib
import zlib

from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts import VERSION, WHEEL, zipped
from waitbus.verify import archive, record, statements
from waitbus.verify.report import Report, Unusable


@given(st.binary(max_size=400))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    raw = zlib.compressobj(1, wbits=31)
    for read, content in (
        (archive.read_wheel, data),
        (archive.read_wheel, zipped([("waitbus/x.py", data)])[: len(data)]),
        (archive.read_sdist, b"\x1f\x8b" + data),
        (archive.read_sdist, raw.compress(data) + raw.flush()),
    ):
        with contextlib.suppress(Unusable):
            read(content)
        raw = zlib.compressobj(1, wbits=31)
    rows, faults = record.parse(data)
    assert len(rows) + len(faults) >= bool(data.strip())
    list(statements.metadata_faults(data, VERSION))
    list(statements.wheel_faults(data))
    list(statements.sbom_faults(data, VERSION, "0" * 64))
    list(statements.sums_faults(data, WHEEL, "0" * 64))


def test_a_failure_outweighs_what_was_not_checked() -> None:
    report = Report()
    assert report.verdict == "verified"
    report.unchecked("a", "not asked for", "ask", asked=False)
    assert report.exit_code == 0
    report.unchecked("b", "no tool", "install one")
    assert (report.exit_code, report.verdict) == (78, "incomplete")
    report.conclude("c", ["one", "two", "three", "four"], "")
    assert (report.exit_code, report.verdict) == (76, "failed")
    assert report.checks[-1].text == "one; two; three; and 1 more"
