"""The search: random expressions against the oracle, and the changes of the clock in nine zones as tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bgjobs import CronExpression, NeverFiresError
from cron_expressions import clock_expressions, expressions, places_and_starts, plain, special_days, special_weekdays
from oracle import Oracle

NEW_YORK = ZoneInfo("America/New_York")
GAP = datetime(2026, 3, 8, 2)  # noqa: DTZ001
DATES = [date(1972, 1, 1) + timedelta(days=n) for n in range(28 * 365 + 7)]


def can_match(text: str) -> bool:
    """Whether any date can match an expression."""
    try:
        CronExpression(text)
    except NeverFiresError:
        return False
    return True


def expression(text: str) -> CronExpression:
    """An expression that can fire; other examples are given up."""
    assume(can_match(text))
    return CronExpression(text)


def first_from(cron: CronExpression, start: datetime, zone: tzinfo) -> datetime:
    """The first fire time that is not before a moment."""
    found = cron.trigger(zone).get_next_fire_time(None, start)
    assert found is not None
    return found


class TestOracle:
    @given(expressions(), places_and_starts())
    def test_next_fire_time(self, text: str, place: tuple[ZoneInfo, datetime]) -> None:
        """Any expression fires next, anywhere and after any moment, when a walk through the seconds says so."""
        zone, start = place
        found = expression(text).occurrences(start, zone, 1)
        assert [Oracle(text).next_fire_time(start, zone).isoformat()] == [time.isoformat() for time in found]

    @given(clock_expressions(), places_and_starts())
    def test_times_around_changes_of_the_clock(self, text: str, place: tuple[ZoneInfo, datetime]) -> None:
        """Expressions for the hours in which clocks are changed fire, time after time, when the walk says so."""
        zone, start = place
        times = expression(text).occurrences(start, zone, 4)
        walked = [start]
        for _ in times:
            walked.append(Oracle(text).next_fire_time(walked[-1], zone))
        assert [time.isoformat() for time in walked[1:]] == [time.isoformat() for time in times]

    @given(clock_expressions(), places_and_starts())
    def test_start_included(self, text: str, place: tuple[ZoneInfo, datetime]) -> None:
        """A search that includes its start finds the same as the walk."""
        zone, start = place
        found = first_from(expression(text), start, zone)
        assert Oracle(text).next_fire_time(start, zone, inclusive=True).isoformat() == found.isoformat()

    @settings(max_examples=settings().max_examples // 4)
    @given(special_days() | plain("day"), st.just("*") | plain("month"), special_weekdays() | plain("weekday"))
    def test_never(self, day: str, month: str, weekday: str) -> None:
        """An expression can match exactly when it does on a date of 28 years, after which the calendar repeats."""
        text = f"0 0 0 {day} {month} {weekday}"
        oracle = Oracle(text)
        assert can_match(text) == any(oracle.matches_date(date) for date in DATES)


# What is asked: zone, expression, after which moment. What is answered: the next fire times.
TRANSITIONS = [
    # America/New_York, 2026-03-08 02:00 -> 03:00 and 2026-11-01 02:00 -> 01:00
    (
        "America/New_York",
        "0 30 2 * * *",
        "2026-03-07T12:00:00-05:00",
        """
        2026-03-08T03:00:00-04:00
        2026-03-09T02:30:00-04:00
        2026-03-10T02:30:00-04:00
    """,
    ),
    (
        "America/New_York",
        "0 */30 * * * *",
        "2026-03-08T01:00:00-05:00",
        """
        2026-03-08T01:30:00-05:00
        2026-03-08T03:00:00-04:00
        2026-03-08T03:30:00-04:00
    """,
    ),
    (
        "America/New_York",
        "0 30 1 * * *",
        "2026-10-31T12:00:00-04:00",
        """
        2026-11-01T01:30:00-04:00
        2026-11-02T01:30:00-05:00
        2026-11-03T01:30:00-05:00
    """,
    ),
    (
        "America/New_York",
        "0 */30 * * * *",
        "2026-11-01T00:30:00-04:00",
        """
        2026-11-01T01:00:00-04:00
        2026-11-01T01:30:00-04:00
        2026-11-01T01:00:00-05:00
        2026-11-01T01:30:00-05:00
        2026-11-01T02:00:00-05:00
        2026-11-01T02:30:00-05:00
    """,
    ),
    (
        "America/New_York",
        "0 30 1 * * *",
        "2026-11-01T01:10:00-05:00",
        """
        2026-11-02T01:30:00-05:00
    """,
    ),
    # Europe/Berlin, 2026-03-29 02:00 -> 03:00 and 2026-10-25 03:00 -> 02:00
    (
        "Europe/Berlin",
        "0 0 2,3 * * *",
        "2026-03-28T12:00:00+01:00",
        """
        2026-03-29T03:00:00+02:00
        2026-03-30T02:00:00+02:00
        2026-03-30T03:00:00+02:00
    """,
    ),
    (
        "Europe/Berlin",
        "0 0 2 * * *",
        "2026-10-24T12:00:00+02:00",
        """
        2026-10-25T02:00:00+02:00
        2026-10-26T02:00:00+01:00
        2026-10-27T02:00:00+01:00
    """,
    ),
    (
        "Europe/Berlin",
        "0 0 */1 * * *",
        "2026-10-25T01:00:00+02:00",
        """
        2026-10-25T02:00:00+02:00
        2026-10-25T02:00:00+01:00
        2026-10-25T03:00:00+01:00
        2026-10-25T04:00:00+01:00
    """,
    ),
    # Australia/Lord_Howe, half an hour: 2026-10-04 02:00 -> 02:30 and 2026-04-05 02:00 -> 01:30
    (
        "Australia/Lord_Howe",
        "0 15 2 * * *",
        "2026-10-03T12:00:00+10:30",
        """
        2026-10-04T02:30:00+11:00
        2026-10-05T02:15:00+11:00
        2026-10-06T02:15:00+11:00
    """,
    ),
    (
        "Australia/Lord_Howe",
        "0 */15 * * * *",
        "2026-10-04T01:45:00+10:30",
        """
        2026-10-04T02:30:00+11:00
        2026-10-04T02:45:00+11:00
        2026-10-04T03:00:00+11:00
    """,
    ),
    (
        "Australia/Lord_Howe",
        "0 45 1 * * *",
        "2026-04-04T12:00:00+11:00",
        """
        2026-04-05T01:45:00+11:00
        2026-04-06T01:45:00+10:30
        2026-04-07T01:45:00+10:30
    """,
    ),
    (
        "Australia/Lord_Howe",
        "0 */15 * * * *",
        "2026-04-05T01:15:00+11:00",
        """
        2026-04-05T01:30:00+11:00
        2026-04-05T01:45:00+11:00
        2026-04-05T01:30:00+10:30
        2026-04-05T01:45:00+10:30
        2026-04-05T02:00:00+10:30
        2026-04-05T02:15:00+10:30
    """,
    ),
    # America/Santiago, at midnight: 2026-09-06 00:00 -> 01:00 and 2026-04-05 00:00 -> 23:00 of the day before
    (
        "America/Santiago",
        "0 0 0 * * *",
        "2026-09-05T12:00:00-04:00",
        """
        2026-09-06T01:00:00-03:00
        2026-09-07T00:00:00-03:00
        2026-09-08T00:00:00-03:00
    """,
    ),
    (
        "America/Santiago",
        "0 30 23 * * *",
        "2026-04-03T12:00:00-03:00",
        """
        2026-04-03T23:30:00-03:00
        2026-04-04T23:30:00-03:00
        2026-04-05T23:30:00-04:00
        2026-04-06T23:30:00-04:00
    """,
    ),
    (
        "America/Santiago",
        "0 30 22-23 * * *",
        "2026-04-04T12:00:00-03:00",
        """
        2026-04-04T22:30:00-03:00
        2026-04-04T23:30:00-03:00
        2026-04-04T23:30:00-04:00
        2026-04-05T22:30:00-04:00
    """,
    ),
    # Asia/Amman, at midnight: 2022-02-25 00:00 -> 01:00; 2021-10-29 01:00 -> 00:00
    (
        "Asia/Amman",
        "0 30 0 * * *",
        "2022-02-24T12:00:00+02:00",
        """
        2022-02-25T01:00:00+03:00
        2022-02-26T00:30:00+03:00
        2022-02-27T00:30:00+03:00
    """,
    ),
    (
        "Asia/Amman",
        "0 30 0 * * *",
        "2021-10-28T12:00:00+03:00",
        """
        2021-10-29T00:30:00+03:00
        2021-10-30T00:30:00+02:00
        2021-10-31T00:30:00+02:00
    """,
    ),
    # Pacific/Apia, 2011-12-30 is left out: 00:00 -> 00:00 of the 31st
    (
        "Pacific/Apia",
        "0 0 9 * * *",
        "2011-12-28T12:00:00-10:00",
        """
        2011-12-29T09:00:00-10:00
        2011-12-31T00:00:00+14:00
        2011-12-31T09:00:00+14:00
        2012-01-01T09:00:00+14:00
    """,
    ),
    (
        "Pacific/Apia",
        "0 0 */12 * * *",
        "2011-12-29T11:00:00-10:00",
        """
        2011-12-29T12:00:00-10:00
        2011-12-31T00:00:00+14:00
        2011-12-31T12:00:00+14:00
        2012-01-01T00:00:00+14:00
    """,
    ),
    # Antarctica/Troll, two hours: 2026-03-29 01:00 -> 03:00 and 2026-10-25 03:00 -> 01:00
    (
        "Antarctica/Troll",
        "0 30 1,2 * * *",
        "2026-03-28T12:00:00+00:00",
        """
        2026-03-29T03:00:00+02:00
        2026-03-30T01:30:00+02:00
        2026-03-30T02:30:00+02:00
    """,
    ),
    (
        "Antarctica/Troll",
        "0 0 1-3 * * *",
        "2026-10-24T12:00:00+02:00",
        """
        2026-10-25T01:00:00+02:00
        2026-10-25T02:00:00+02:00
        2026-10-25T01:00:00+00:00
        2026-10-25T02:00:00+00:00
        2026-10-25T03:00:00+00:00
        2026-10-26T01:00:00+00:00
        2026-10-26T02:00:00+00:00
    """,
    ),
    # Europe/Dublin, 2026-03-29 01:00 -> 02:00 and 2026-10-25 02:00 -> 01:00, where winter time is the exception
    (
        "Europe/Dublin",
        "0 30 1 * * *",
        "2026-10-24T12:00:00+01:00",
        """
        2026-10-25T01:30:00+01:00
        2026-10-26T01:30:00+00:00
        2026-10-27T01:30:00+00:00
    """,
    ),
    (
        "Europe/Dublin",
        "0 30 1 * * *",
        "2026-03-28T12:00:00+00:00",
        """
        2026-03-29T02:00:00+01:00
        2026-03-30T01:30:00+01:00
        2026-03-31T01:30:00+01:00
    """,
    ),
    # Asia/Kathmandu, a quarter of an hour: 1986-01-01 00:00 -> 00:15
    (
        "Asia/Kathmandu",
        "0 10 0 * * *",
        "1985-12-30T12:00:00+05:30",
        """
        1985-12-31T00:10:00+05:30
        1986-01-01T00:15:00+05:45
        1986-01-02T00:10:00+05:45
    """,
    ),
    # America/Caracas, half an hour: 2016-05-01 02:30 -> 03:00 and 2007-12-09 03:00 -> 02:30
    (
        "America/Caracas",
        "0 45 2 * * *",
        "2016-04-30T12:00:00-04:30",
        """
        2016-05-01T03:00:00-04:00
        2016-05-02T02:45:00-04:00
        2016-05-03T02:45:00-04:00
    """,
    ),
    (
        "America/Caracas",
        "0 45 2 * * *",
        "2007-12-08T12:00:00-04:00",
        """
        2007-12-09T02:45:00-04:00
        2007-12-10T02:45:00-04:30
        2007-12-11T02:45:00-04:30
    """,
    ),
]


class TestTransitions:
    @pytest.mark.parametrize(("zone", "text", "after", "expected"), TRANSITIONS)
    def test_fire_times(self, zone: str, text: str, after: str, expected: str) -> None:
        """A gap moves a fire time to its end, an overlap doubles it only where there are stars, ranges or steps."""
        times = CronExpression(text).occurrences(datetime.fromisoformat(after), zone, len(expected.split()))
        assert expected.split() == [time.isoformat() for time in times]

    @pytest.mark.parametrize(("zone", "text", "after", "expected"), TRANSITIONS)
    def test_oracle_agrees(self, zone: str, text: str, after: str, expected: str) -> None:
        """The tables are right: the walk through the seconds finds the same."""
        for time in expected.split():
            after = Oracle(text).next_fire_time(datetime.fromisoformat(after), ZoneInfo(zone)).isoformat()
            assert time == after


class TestStart:
    @pytest.mark.parametrize(
        ("text", "start", "expected"),
        [
            pytest.param("* * * * * *", "2026-03-08T06:59:59.5+00:00", "2026-03-08T03:00:00-04:00", id="fraction, gap"),
            pytest.param(
                "0 30 2 * * *", "2026-03-08T06:59:59.5+00:00", "2026-03-08T03:00:00-04:00", id="fraction, moved"
            ),
            pytest.param("0 30 2 * * *", "2026-03-08T07:00:00+00:00", "2026-03-09T02:30:00-04:00", id="end of the gap"),
            pytest.param("0 0 3 * * *", "2026-03-08T07:00:00+00:00", "2026-03-08T03:00:00-04:00", id="own time"),
            pytest.param("0 30 1 * * *", "2026-11-01T05:30:00+00:00", "2026-11-01T01:30:00-04:00", id="first passage"),
            pytest.param("0 30 1 * * *", "2026-11-01T05:30:01+00:00", "2026-11-02T01:30:00-05:00", id="between"),
            pytest.param("0 30 1 * * *", "2026-11-01T06:00:00+00:00", "2026-11-02T01:30:00-05:00", id="second passage"),
            pytest.param("0 30 1-2 * * *", "2026-11-01T05:59:59.5+00:00", "2026-11-01T01:30:00-05:00", id="turning"),
            pytest.param("0 30 1-2 * * *", "2026-11-01T06:59:59.5+00:00", "2026-11-01T02:30:00-05:00", id="after both"),
            pytest.param("0 0 2 * * *", "2026-11-01T06:30:00+00:00", "2026-11-01T02:00:00-05:00", id="end of overlap"),
        ],
    )
    def test_in_a_change_of_the_clock(self, text: str, start: str, expected: str) -> None:
        """A search that starts in or beside a gap or an overlap, its start included, continues from there."""
        found = first_from(CronExpression(text), datetime.fromisoformat(start), NEW_YORK)
        assert expected == found.isoformat()

    @pytest.mark.parametrize("zone", [NEW_YORK, UTC, timezone(timedelta(hours=-5)), ZoneInfo("Asia/Tokyo")])
    @pytest.mark.parametrize("year", [1, 1969])
    def test_before_1970(self, year: int, zone: tzinfo) -> None:
        """Nothing fires before 1970."""
        times = CronExpression("* * * * * *").occurrences(datetime(year, 1, 1, tzinfo=UTC), zone, 1)
        assert times == [datetime(1970, 1, 1, tzinfo=zone)]

    def test_earliest_moment(self) -> None:
        """The earliest moment of all is a start like others, also where UTC has none for it."""
        earliest = datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo"))
        times = CronExpression("* * * * * *").occurrences(earliest, NEW_YORK, 1)
        assert times == [datetime(1970, 1, 1, tzinfo=NEW_YORK)]

    def test_1970_elsewhere(self) -> None:
        """A start in 1969 that is 1970 in the zone is no earlier than it is."""
        start = datetime(1969, 12, 31, 22, tzinfo=NEW_YORK)
        [time] = CronExpression("0 0 * * * *").occurrences(start, "Asia/Tokyo", 1)
        assert time.isoformat() == "1970-01-01T13:00:00+09:00"

    @pytest.mark.parametrize("zone", [NEW_YORK, UTC, timezone(timedelta(hours=-5)), ZoneInfo("Asia/Tokyo")])
    def test_end_of_time(self, zone: tzinfo) -> None:
        """Nothing fires after the year 9999."""
        yearly = CronExpression("59 59 23 30 12 *")
        assert yearly.occurrences(datetime(9999, 12, 31, 20, 0, 0, 1, tzinfo=UTC), zone, 1) == []
        assert yearly.occurrences(datetime.max.replace(tzinfo=zone), zone, 1) == []


class Imaginary(tzinfo):
    """A zone like New York's that reads a time in the gap with the later offset, as older libraries do."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        if moment is None:
            return None
        return timedelta(hours=-4 if moment.replace(tzinfo=None) >= GAP else -5)

    def dst(self, moment: datetime | None) -> timedelta | None:
        return timedelta(0)

    tzname = None  # type: ignore[assignment]

    def fromutc(self, moment: datetime) -> datetime:
        return moment + timedelta(hours=-4 if moment.replace(tzinfo=None) >= GAP + timedelta(hours=5) else -5)


def test_zone_that_does_not_know_its_gap() -> None:
    """The gap is found by going to UTC and back, so that a zone which misreads it makes no endless loop."""
    start = datetime(2026, 3, 7, 12, tzinfo=UTC)
    times = CronExpression("0 30 2 * * *").occurrences(start, Imaginary(), 2)
    assert [time.isoformat() for time in times] == ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]
