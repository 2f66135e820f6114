"""`since` as people write it: what it means, in whatever zone, and what it costs to be read."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import waitbus
from tests.conftest import PATIENCE
from waitbus import emit, subscribe, wait_for
from waitbus.cli.main import main
from waitbus.client.aio import asubscribe
from waitbus.client.since import history_since, moment, since_ulid
from waitbus.event import EventInsert
from waitbus.settings import Settings, SettingsError
from waitbus.ulid import ULID_MIN, ulid_at, ulid_ms

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC).timestamp()
NOON_NS = int(NOON) * 10**9
EVENT_ID = "01M87EV5HJ539KK8DAB8WXDA8N"
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"


def in_zone(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", name)
    time.tzset()
    yield name
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(params=["UTC0", BERLIN, "NST3:30NDT,M3.2.0,M11.1.0"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    yield from in_zone(request.param, monkeypatch)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    yield from in_zone(BERLIN, monkeypatch)


def local(text: str) -> float:
    """The standard library's opinion of a local time."""
    return datetime.fromisoformat(text).timestamp()


class TestMoments:
    @pytest.mark.parametrize(
        ("text", "means"),
        [
            ("today", "2026-11-25T00:00"),
            ("Yesterday", "2026-11-24T00:00"),
            ("2026-11-01", "2026-11-01T00:00"),
            ("2026-11-01T08:15", "2026-11-01T08:15"),
            ("2026-11-01 08:15:30.5", "2026-11-01T08:15:30.5"),
            ("2026-07-01T08:15", "2026-07-01T08:15"),
            ("00:30", "2026-11-25T00:30"),
        ],
    )
    def test_local_times(self, zone: str, text: str, means: str) -> None:
        assert moment(text, local("2026-11-25T12:00")) == pytest.approx(local(means))

    def test_a_time_of_day_is_the_last_one(self, zone: str) -> None:
        now = local("2026-11-25T12:00")
        assert moment("12:00", now) == now
        assert moment("12:01", now) == local("2026-11-24T12:01")
        assert moment("8:05", now) == local("2026-11-25T08:05")
        assert moment("23:59:59", local("2026-01-01T00:00")) == local("2025-12-31T23:59:59")

    def test_yesterday_of_the_first_of_a_month_and_over_a_change_of_clocks(self, zone: str) -> None:
        assert moment("yesterday", local("2026-03-01T09:00")) == local("2026-02-28T00:00")
        assert moment("yesterday", local("2026-10-26T09:00")) == local("2026-10-25T00:00")

    @pytest.mark.parametrize(
        ("now", "text", "means"),
        [
            ("2026-10-25T04:00:00Z", "02:30", "2026-10-25T01:30:00Z"),  # it came twice: the second
            ("2026-10-25T01:10:00Z", "02:30", "2026-10-25T00:30:00Z"),  # the second is still to come
            ("2026-10-25T00:10:00Z", "02:30", "2026-10-24T00:30:00Z"),
            ("2026-10-25T01:10:00Z", "today", "2026-10-24T22:00:00Z"),
            ("2026-03-29T04:00:00Z", "02:30", "2026-03-29T01:30:00Z"),  # it never came: an hour later
            ("2026-03-29T01:10:00Z", "01:30", "2026-03-29T00:30:00Z"),
        ],
    )
    def test_a_time_of_day_when_the_clocks_change(self, berlin: str, now: str, text: str, means: str) -> None:
        assert moment(text, datetime.fromisoformat(now).timestamp()) == datetime.fromisoformat(means).timestamp()

    @given(
        st.datetimes(datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("2200-01-01")),
        st.integers(-23 * 60 - 59, 23 * 60 + 59),
        st.sampled_from(["{}{:02d}:{:02d}", "{}{:02d}{:02d}"]),
    )
    def test_rfc_3339_is_exact(self, naive: datetime, offset: int, form: str) -> None:
        when = naive.replace(tzinfo=timezone(timedelta(minutes=offset)))
        zone = form.format("-" if offset < 0 else "+", abs(offset) // 60, abs(offset) % 60)
        assert moment(naive.isoformat() + zone, NOON) == pytest.approx(when.timestamp(), abs=1e-5)

    def test_rfc_3339_in_utc(self) -> None:
        assert moment("2026-11-25T12:00:00Z", 0.0) == NOON
        assert moment("2026-11-25t12:00z", 0.0) == NOON

    @given(st.text(max_size=30) | st.from_regex(r"\d{1,4}[-:]\d\d?[-:T ]?.*", fullmatch=True))
    def test_whatever_is_written_is_a_cursor_or_one_line(self, text: str) -> None:
        try:
            said = since_ulid(text, NOON_NS)
        except SettingsError as error:
            said = str(error)
        assert said
        assert said.isprintable()


class TestSince:
    def test_each_form_is_a_cursor(self, zone: str) -> None:
        assert since_ulid(None, NOON_NS) is None
        assert since_ulid("start", NOON_NS) == ULID_MIN
        assert since_ulid(EVENT_ID, NOON_NS) == EVENT_ID
        assert since_ulid(f" {EVENT_ID.lower()}\n", NOON_NS) == EVENT_ID
        assert since_ulid("10m", NOON_NS) == ulid_at(NOON_NS - 600 * 10**9)
        assert since_ulid("90000w", NOON_NS) == ULID_MIN
        assert since_ulid("1961-04-12", NOON_NS) == ULID_MIN
        assert since_ulid("2026-11-25T11:00:00.25Z", NOON_NS) == ulid_at(NOON_NS - 3_599_750_000_000)
        today = since_ulid("today", NOON_NS)
        assert today is not None
        assert datetime.fromtimestamp(ulid_ms(today) / 1000).time().isoformat() == "00:00:00"  # noqa: DTZ006

    @pytest.mark.parametrize(
        "text", ["soon", "-5m", EVENT_ID[:-1], EVENT_ID + "0", "24:00", "12:60", "tomorrow", "2026-1-1", "٢٠٢٦-11-25"]
    )
    def test_what_cannot_be_read_is_told_with_the_forms(self, text: str) -> None:
        with pytest.raises(SettingsError, match="a duration such as 10m, start, an event_id, or a time: today"):
            since_ulid(text, NOON_NS)

    @pytest.mark.parametrize("text", ["2026-02-29", "2026-13-01", "2026-04-31T10:00Z", "2026-11-25T25:00"])
    def test_a_date_that_does_not_exist_is_an_error(self, text: str) -> None:
        with pytest.raises(SettingsError, match=f"^since: {text} is not a time of the calendar"):
            since_ulid(text, NOON_NS)

    def test_what_is_still_to_come_is_an_error_unless_it_is_about_to(self) -> None:
        with pytest.raises(SettingsError, match="still to come"):
            since_ulid("2026-11-25T12:01:01Z", NOON_NS)
        assert since_ulid("2026-11-25T12:00:59Z", NOON_NS) == ulid_at(NOON_NS)

    def test_history_goes_by_its_own_time_from_a_point_in_time_on(self) -> None:
        assert history_since(None) == float("inf")
        assert history_since(EVENT_ID) == history_since(ULID_MIN) == 0
        for text in ("10m", "2026-11-25T11:50:00Z"):
            assert history_since(since_ulid(text, NOON_NS)) == (NOON - 600) * 1000


EMPTY = ["", " ", "\t\n"]


class TestEmpty:
    """An empty variable, as in ``--since "$id"``, does not mean "from now on"."""

    @pytest.mark.parametrize("text", EMPTY)
    @pytest.mark.parametrize("verb", ["wait", "wait --sha 0123456", "on", "tail", "replay"])
    def test_every_verb_refuses_it(
        self, settings: Settings, capsys: pytest.CaptureFixture[str], verb: str, text: str
    ) -> None:
        end = ["--", "true"] if verb == "on" else []
        assert main([*verb.split(), "--since", text, *end]) == 2
        assert capsys.readouterr().err.startswith("waitbus: since is empty: leave it out")

    def test_replay_refuses_it_as_a_word_too(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["replay", ""]) == 2
        assert "since is empty" in capsys.readouterr().err

    @pytest.mark.parametrize("text", EMPTY)
    def test_so_do_the_public_functions_even_where_a_bookmark_wins(self, hub: object, text: str) -> None:
        list(subscribe(bookmark="kept", timeout=0))
        with pytest.raises(SettingsError, match="since is empty"):
            wait_for(since=text)
        for call in (subscribe, asubscribe):
            for bookmark in (None, "kept"):
                with pytest.raises(SettingsError, match="since is empty"):
                    call(since=text, bookmark=bookmark)


def tell(summary: str, *, days_ago: float) -> None:
    at = time.time_ns() - int(days_ago * 86_400 * 10**9)
    emit(EventInsert(source="s", event_type="t", ingest_method="backfill", received_at=at, summary=summary))


def test_history_is_given_from_a_day_on(hub: object) -> None:
    tell("old", days_ago=3)
    tell("recent", days_ago=0.001)
    emit(EventInsert(source="s", event_type="t", summary="news"))
    for since in ("yesterday", datetime.fromtimestamp(time.time() - 86_400, UTC).isoformat()):
        with subscribe(since=since, timeout=PATIENCE) as events:
            assert [next(events).summary for _ in range(2)] == ["recent", "news"]
    found = wait_for("summary=old", since="4d", timeout=PATIENCE)
    assert found is not None
    assert wait_for("summary=old", since="yesterday", timeout=0) is None


@pytest.mark.parametrize("since", ["10m", EVENT_ID, "start"])
def test_the_usual_forms_load_no_calendar(since: str) -> None:
    source = Path(waitbus.__file__).parent.parent
    code = (
        f"import sys; sys.path.insert(0, {str(source)!r}); from waitbus.client.since import since_ulid\n"
        f"since_ulid({since!r}, {NOON_NS}); print(*{{'re', 'datetime', '_strptime'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
