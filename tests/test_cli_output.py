"""What reaches a terminal: nothing that others wrote can control it. And times and sizes, both ways."""

from __future__ import annotations

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitbus.timestamps import TimeError, parse_time, rfc3339
from waitbus.ui.output import safe, to_json
from waitbus.ui.times import local, size, span

ANY_TEXT = st.text(st.characters(exclude_categories=()))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
JOINERS = "\u200c\u200d"


def controls(text: str) -> list[str]:
    """Characters that a terminal may obey: all of the categories C, and line and paragraph separators."""
    return [
        c for c in text if c not in JOINERS and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    ]


class TestSafe:
    @given(ANY_TEXT)
    def test_no_text_controls_a_terminal(self, text: str) -> None:
        assert controls(safe(text)) == []

    @given(st.text(st.characters(categories=("L", "N", "P", "S"))))
    def test_text_of_any_script_stays_as_it_is(self, text: str) -> None:
        assert safe(text) == text

    def test_what_was_there_is_visible(self) -> None:
        assert safe("a\x1b[31mb\x9bc\u202ed\ne\r\tf\x7f\U000e0001") == (
            "a\\x1b[31mb\\x9bc\\u202ed\\ne\\r\\tf\\x7f\\U000e0001"
        )

    @given(JSON_VALUES)
    def test_json_is_the_same_value_without_a_control(self, value: object) -> None:
        line = to_json(value)
        assert controls(line) == []
        assert json.loads(line) == value

    def test_json_escapes_what_a_terminal_would_obey(self) -> None:
        assert to_json({"a": "\x1b\x9b\u202e\x7f\U000e0001ä"}) == '{"a":"\\u001b\\u009b\\u202e\\u007f\\udb40\\udc01ä"}'


class TestTimes:
    @given(st.integers(0, (1 << 63) - 1))
    def test_a_moment_is_read_as_it_was_written(self, moment: int) -> None:
        assert parse_time(rfc3339(moment)) == moment

    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("0", 0),
            ("1763337600", 1763337600 * 10**9),
            ("1763337600.25", 1763337600_250_000_000),
            ("1763337600123456789", 1763337600123456789),
            ("2026-05-17T12:00:00Z", 1779019200 * 10**9),
            ("2026-05-17T12:00:00", 1779019200 * 10**9),
            ("2026-05-17T14:00:00.123456789+02:00", 1779019200_123_456_789),
            ("2026-05-17 12:00", 1779019200 * 10**9),
            (" 2026-05-17 ", 1778976000 * 10**9),
        ],
    )
    def test_every_form(self, text: str, moment: int) -> None:
        assert parse_time(text) == moment

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "soon",
            "-1",
            "1763337600123",
            "9" * 40,
            "1969-12-31T23:59:59Z",
            "2300-01-01",
            "12:00",
            "2026-05-17T12:00:00.Z",
        ],
    )
    def test_what_is_no_time_names_the_forms(self, text: str) -> None:
        with pytest.raises(TimeError, match=r"epoch seconds .*RFC 3339"):
            parse_time(text)

    @pytest.mark.parametrize(
        ("zone", "moment", "shown"),
        [
            # 2026-10-25 03:00 CEST is 02:00 CET again.
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-10-24T23:59:59Z", "2026-10-25 01:59:59"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-10-25T00:00:00Z", "2026-10-25 02:00:00+0200"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-10-25T00:59:59Z", "2026-10-25 02:59:59+0200"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-10-25T01:00:00Z", "2026-10-25 02:00:00+0100"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-10-25T01:59:59Z", "2026-10-25 02:59:59+0100"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-10-25T02:00:00Z", "2026-10-25 03:00:00"),
            # Where clocks are set forward no time comes twice.
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-03-29T00:30:00Z", "2026-03-29 01:30:00"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-03-29T01:30:00Z", "2026-03-29 03:30:00"),
            # Half an hour, in the south.
            ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2026-04-04T14:45:00Z", "2026-04-05 01:45:00+1100"),
            ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2026-04-04T15:15:00Z", "2026-04-05 01:45:00+1030"),
            ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2026-04-04T14:29:00Z", "2026-04-05 01:29:00"),
            ("UTC0", "2026-10-25T00:30:00Z", "2026-10-25 00:30:00"),
        ],
    )
    def test_a_time_that_comes_twice_has_its_offset(
        self, zone: str, moment: str, shown: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            assert local(parse_time(moment)) == shown
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_for_people(self) -> None:
        assert [span(s) for s in (-1, 0.04, 9.96, 10, 61, 3600, 3661, 90_000, 864_000)] == [
            "0.0s", "0.0s", "10.0s", "10s", "1m 1s", "1h", "1h 1m", "1d 1h", "10d",
        ]  # fmt: skip
        assert [size(n) for n in (0, 1023, 1024, 1536, 1 << 20, 5 << 30, 3 << 40)] == [
            "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB", "3.0 TiB",
        ]  # fmt: skip
