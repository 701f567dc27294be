"""`CronExpression`: a value, and the fire times of every special form."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from enum import Enum

import pytest

from bgjobs import ConfigurationError, CronExpression, CronFormatError, NeverFiresError

NEW_YEAR = datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)


class Schedules(str, Enum):  # noqa: UP042 - the kind whose str() is not its text
    """Expressions of an application."""

    DAILY = "0 0 9 * * *"


class TestValue:
    def test_text(self) -> None:
        """It prints as its text, and its repr makes it again."""
        expression = CronExpression("0 0 9 * * MON-FRI")
        assert str(expression) == expression.text == "0 0 9 * * MON-FRI"
        assert repr(expression) == "CronExpression('0 0 9 * * MON-FRI')"

    def test_member_of_an_enum(self) -> None:
        """A member of an enum of strings is as good as its value, which is what is kept."""
        assert type(CronExpression(Schedules.DAILY).text) is str
        assert CronExpression(Schedules.DAILY).text == "0 0 9 * * *"

    @pytest.mark.parametrize("other", ["0 9 * * 1-5", " 0 0 9 ? * mon,tue,wed,thu,5", "00 00 09 */1 JAN-DEC 1-5/1"])
    def test_equal(self, other: str) -> None:
        """Expressions are equal when they mean the same."""
        assert CronExpression("0 0 9 * * MON-FRI") == CronExpression(other)
        assert hash(CronExpression("0 0 9 * * MON-FRI")) == hash(CronExpression(other))

    @pytest.mark.parametrize("other", ["0 0 9 * * MON-SAT", "0 0 9-9 * * MON-FRI", "0 0 9 * * 5L"])
    def test_unequal(self, other: str) -> None:
        """They are not where they could fire at different times, in one of the passages of a DST overlap too."""
        assert CronExpression("0 0 9 * * MON-FRI") != CronExpression(other)

    def test_unequal_to_a_text(self) -> None:
        """An expression is not its text."""
        text: object = "0 0 9 * * *"
        assert CronExpression("0 0 9 * * *") != text

    def test_immutable(self) -> None:
        """Nothing of it can be set or deleted."""
        expression = CronExpression("0 0 9 * * *")
        with pytest.raises(AttributeError, match="cannot assign to field 'text'"):
            expression.text = "0 0 8 * * *"  # type: ignore[misc] # type checkers know it, too
        with pytest.raises(AttributeError, match="cannot delete field 'text'"):
            del expression.text

    def test_copies(self) -> None:
        """It can be pickled and copied."""
        expression = CronExpression("0 0 9 LW * *")
        assert pickle.loads(pickle.dumps(expression)) == copy.deepcopy(expression) == expression
        assert type(copy.copy(expression)) is CronExpression
        assert pickle.loads(pickle.dumps(expression)).text == "0 0 9 LW * *"


@pytest.mark.parametrize(
    "text",
    ["0 0 0 30 2 *", "0 0 0 31 2,4,6,9,11 *", "0 0 0 31W 4 *", "0 0 0 L-30 2,4 *", "0 0 0 LW * SUN", "0 0 0 1 * SUN#2"],
)
def test_never(text: str) -> None:
    """An expression that no date can match is refused."""
    with pytest.raises(NeverFiresError) as caught:
        CronExpression(text)
    assert str(caught.value) == f'day of month, month and day of week never fall on one date in "{text}"'
    assert caught.value.expression == text


@pytest.mark.parametrize(
    "text", ["0 0 0 29 2 *", "0 0 0 L-28 2 *", "0 0 0 29 2 MON", "0 0 0 1W * MON", "0 0 0 * 2 SUN#5"]
)
def test_seldom(text: str) -> None:
    """An expression that matches in some leap years only is accepted."""
    assert len(CronExpression(text).occurrences(NEW_YEAR, "UTC", 2)) == 2


def test_tables_are_shared() -> None:
    """Equal texts share one set of tables, so that a thousand jobs with one expression do not need a thousand."""
    assert CronExpression("0 0 9 * * *").calendar is CronExpression("0 0 9 * * *").calendar


def test_errors_are_not_remembered() -> None:
    """An expression is refused each time with a new error."""
    errors = []
    for _ in range(2):
        with pytest.raises(CronFormatError) as caught:
            CronExpression("x")
        errors.append(caught.value)
    assert errors[0] is not errors[1]


class TestOccurrences:
    @pytest.mark.parametrize(
        ("text", "dates"),
        [
            ("0 0 0 L * *", "01-31 02-28 03-31 04-30"),
            ("0 0 0 L-3 * *", "01-28 02-25 03-28 04-27"),
            ("0 0 0 L-30 * *", "01-01 03-01 05-01 07-01"),
            ("0 0 0 LW * *", "01-30 02-27 03-31 04-30"),
            ("0 0 0 L-1W * *", "01-30 02-27 03-30 04-29"),
            ("0 0 0 1W * *", "01-01 02-02 03-02 04-01 05-01 06-01 07-01 08-03"),
            ("0 0 0 15W * *", "01-15 02-16 03-16 04-15 05-15 06-15 07-15 08-14"),
            ("0 0 0 31W * *", "01-30 03-31 05-29 07-31"),
            ("0 0 0 * * 5L", "01-30 02-27 03-27 04-24"),
            ("0 0 0 * * MON#1", "01-05 02-02 03-02 04-06"),
            ("0 0 0 * * 7#5", "03-29 05-31 08-30 11-29"),
            ("0 0 0 13 * FRI", "02-13 03-13 11-13"),
            ("0 0 0 1W * MON", "02-02 03-02 06-01 08-03"),
            ("@monthly", "01-01 02-01 03-01"),
            ("@weekly", "01-04 01-11 01-18"),
        ],
    )
    def test_dates(self, text: str, dates: str) -> None:
        """The special forms fall on these dates of 2026."""
        times = CronExpression(text).occurrences(NEW_YEAR, "UTC", len(dates.split()))
        assert [f"2026-{date}T00:00:00+00:00" for date in dates.split()] == [time.isoformat() for time in times]

    def test_after(self) -> None:
        """A fire time equal to the moment is not listed, one a microsecond later is."""
        expression = CronExpression("0 0 * * * *")
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        assert expression.occurrences(noon, "UTC", 1) == [noon.replace(hour=13)]
        assert expression.occurrences(noon.replace(hour=11, minute=59, second=59, microsecond=999_999), UTC, 1) == [
            noon
        ]

    def test_zone(self) -> None:
        """The hours are those of the zone, whatever the zone of the moment."""
        [time] = CronExpression("0 0 9 * * *").occurrences(NEW_YEAR, "Asia/Tokyo", 1)
        assert time.isoformat() == "2026-01-01T09:00:00+09:00"

    @pytest.mark.parametrize("count", [0, -1])
    def test_none(self, count: int) -> None:
        """No time is listed where none is wanted."""
        assert CronExpression("0 0 9 * * *").occurrences(NEW_YEAR, "UTC", count) == []

    def test_end_of_time(self) -> None:
        """Fewer times are listed where the calendar ends."""
        after = datetime(9999, 12, 31, 22, 30, tzinfo=UTC)
        assert CronExpression("0 0 * * * *").occurrences(after, "UTC", 5) == [datetime(9999, 12, 31, 23, tzinfo=UTC)]

    def test_naive(self) -> None:
        """A moment without a time zone is refused with the remedy."""
        with pytest.raises(ConfigurationError, match=r"after: 2026-01-01 00:00:00 has no time zone; give it one"):
            CronExpression("0 0 9 * * *").occurrences(datetime(2026, 1, 1), "UTC", 1)  # noqa: DTZ001

    def test_wrong_zone(self) -> None:
        """A zone that does not exist is refused."""
        with pytest.raises(ConfigurationError, match="did you mean Europe/Rome"):
            CronExpression("0 0 9 * * *").occurrences(NEW_YEAR, "Europe/Roma", 1)
