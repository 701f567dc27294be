"""The search for the next fire time: first on the wall clock, then in a time zone.

A time without a zone is called a *wall* time: what a clock on the wall shows. The matching days of a month depend on
its *shape* only, which is its length and the weekday it begins with: there are 28 shapes, and each is computed once.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import isleap
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING

from .grammar import SpecialDay, SpecialWeekday

if TYPE_CHECKING:
    from collections.abc import Callable

    from .grammar import Fields

_FIRST_YEAR = 1970  # nothing fires before it
_EARLY = 1969  # moments in earlier years are not converted between zones: the result could lie before the year 1
_LAST_YEAR = 9999
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_EVERY_WEEK = sum(1 << 7 * week for week in range(6))  # repeats a mask of seven weekdays over 42 days


class Calendar:
    """The wall times that one set of fields matches."""

    __slots__ = ("_days", "_first_time", "fields")

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self._first_time = (lowest(fields.hours), lowest(fields.minutes), lowest(fields.seconds))
        self._days: dict[tuple[int, int], int] = {}

    def can_match(self) -> bool:
        """Whether any date matches. Over the years, every month begins on every weekday, whatever its length."""
        for month in range(1, 13):
            if self.fields.months >> month & 1:
                lengths = (28, 29) if month == 2 else (_LENGTHS[month],)
                if any(self._days_of((weekday, length)) for length in lengths for weekday in range(7)):
                    return True
        return False

    def next_wall(self, wall: datetime) -> datetime | None:
        """The first matching wall time that is not before `wall` (a whole second); ``None`` after the year 9999.

        The result has the zone of `wall`, which plays no part in the search.
        """
        year, month, day = wall.year, wall.month, wall.day
        if self._days_in(year, month) >> day & 1:
            time = self._time_from(wall.hour, wall.minute, wall.second)
            if time:
                return datetime(year, month, day, *time, tzinfo=wall.tzinfo)
        found = self._date_after(year, month, day)
        return datetime(*found, *self._first_time, tzinfo=wall.tzinfo) if found else None

    def _time_from(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first matching time of day that is not before the one given."""
        fields, (_, first_minute, first_second) = self.fields, self._first_time
        if fields.hours >> hour & 1:
            if fields.minutes >> minute & 1:
                seconds = fields.seconds >> second
                if seconds:
                    return hour, minute, second + lowest(seconds)
            minutes = fields.minutes >> minute + 1
            if minutes:
                return hour, minute + 1 + lowest(minutes), first_second
        hours = fields.hours >> hour + 1
        return (hour + 1 + lowest(hours), first_minute, first_second) if hours else None

    def _date_after(self, year: int, month: int, day: int) -> tuple[int, int, int] | None:
        """The first matching date after the one given."""
        days = self._days_in(year, month) >> day + 1 << day + 1
        while not days:
            month += 1
            months = self.fields.months >> month
            if months:
                month += lowest(months)
            else:
                year, month = year + 1, lowest(self.fields.months)
                if year > _LAST_YEAR:
                    return None
            days = self._days_in(year, month)
        return year, month, lowest(days)

    def _days_in(self, year: int, month: int) -> int:
        """The matching days of a month as a bit mask."""
        if not self.fields.months >> month & 1:
            return 0
        month_shape = shape(year, month)
        days = self._days.get(month_shape)
        return self._days_of(month_shape) if days is None else days

    def _days_of(self, month_shape: tuple[int, int]) -> int:
        """The matching days of any month of this shape."""
        days = day_mask(self.fields.days, *month_shape) & weekday_mask(self.fields.weekdays, *month_shape)
        self._days[month_shape] = days = days & (2 << month_shape[1]) - 2
        return days


def lowest(mask: int) -> int:
    """The number of the lowest bit that is set."""
    return (mask & -mask).bit_length() - 1


@lru_cache
def shape(year: int, month: int) -> tuple[int, int]:
    """The shape of a month: the weekday it begins with (Sunday is 0) and its length."""
    length = 29 if month == 2 and isleap(year) else _LENGTHS[month]
    return date(year, month, 1).isoweekday() % 7, length


def day_mask(days: int | SpecialDay, first_weekday: int, length: int) -> int:
    """The days that the day of month allows in a month of this shape, as a bit mask."""
    if not isinstance(days, SpecialDay):
        return days
    day = days.anchor if days.anchor > 0 else length + days.anchor
    if not 1 <= day <= length:
        return 0
    weekday = (first_weekday + day - 1) % 7
    if days.nearest_weekday and weekday == 6:
        day += -1 if day > 1 else 2
    elif days.nearest_weekday and weekday == 0:
        day += 1 if day < length else -2
    return 1 << day


def weekday_mask(weekdays: int | SpecialWeekday, first_weekday: int, length: int) -> int:
    """The days that the day of week allows in a month of this shape, as a bit mask that may extend past its end."""
    if not isinstance(weekdays, SpecialWeekday):
        return weekdays * _EVERY_WEEK >> first_weekday << 1
    first = 1 + (weekdays.weekday - first_weekday) % 7
    last = first + (length - first) // 7 * 7
    return 1 << (first + 7 * (weekdays.number - 1) if weekdays.number else last)


def first_after(calendar: Calendar, moment: datetime, zone: tzinfo) -> datetime | None:
    """The first fire time after `moment`, an aware time in any zone; ``None`` where the year 9999 ends first."""
    try:
        return first_from(calendar, moment, zone, after=True)
    except OverflowError:
        return None


def first_from(calendar: Calendar, moment: datetime, zone: tzinfo, *, after: bool = False) -> datetime | None:
    """The first fire time at or after `moment`, an aware time in any zone; with `after`, strictly after it.

    A match that the clock jumps over is moved to the first instant after the jump. When the clock repeats an hour,
    expressions with a star, a range or a step in second, minute or hour fire in both passages, others in the first.

    Returns:
        An aware time in `zone`, or ``None`` where the year 9999 ends first.

    Raises:
        OverflowError: The year 9999 ends while times are converted.
    """
    local = moment if moment.year < _EARLY else moment.astimezone(zone)
    if local.year < _FIRST_YEAR:
        local, after = datetime(_FIRST_YEAR, 1, 1, tzinfo=zone), False
    wall = local.replace(microsecond=0) if local.microsecond else local
    # Round up on the wall clock: half a second before a jump, the next wall second is the first one that it leaves out.
    if after or local.microsecond:
        wall += _SECOND
    if zone.utcoffset(None) is not None:  # a fixed offset: the clock never changes
        return calendar.next_wall(wall)
    return _in_zone(calendar, local, wall.replace(tzinfo=None, fold=0), zone)


def _in_zone(calendar: Calendar, local: datetime, wall: datetime, zone: tzinfo) -> datetime | None:
    """`first_from` for a zone whose clock changes: `local` is the start, `wall` the first wall time to try."""
    if local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset():
        begin, end = _overlap(local, zone)
        if calendar.fields.interval:
            if local.fold == 0:
                found = calendar.next_wall(wall)
                if found and found < end:
                    return found.replace(tzinfo=zone)
                wall = begin
            found = calendar.next_wall(wall)
            if found and found < end:
                return found.replace(tzinfo=zone, fold=1)
        elif local.fold == 1:
            wall = end
    found = calendar.next_wall(wall)
    return _existing(found, zone) if found else None


def _existing(wall: datetime, zone: tzinfo) -> datetime:
    """The instant of a wall time: the first one of two, or the end of the gap where there is none."""
    moment = wall.replace(tzinfo=zone)
    # Two times of one zone are compared by the wall clock alone: a round trip through UTC changes only times in a gap.
    if moment.astimezone(UTC).astimezone(zone) == moment:
        return moment
    day_before = wall.replace(tzinfo=UTC) - _DAY
    return _first_second(zone, day_before, 2 * _DAY, lambda local: local.replace(tzinfo=None) > wall)


def _overlap(local: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """The wall times that the clock shows twice around `local`: their start, and their end (exclusive)."""
    first, second = (local.replace(microsecond=0, fold=fold) for fold in (0, 1))
    length = second.astimezone(UTC) - first.astimezone(UTC)
    offset = second.utcoffset()
    back = _first_second(zone, first.astimezone(UTC), length, lambda local: local.utcoffset() == offset)
    begin = back.replace(tzinfo=None, fold=0)
    return begin, begin + length


def _first_second(zone: tzinfo, start: datetime, length: timedelta, changed: Callable[[datetime], bool]) -> datetime:
    """The first whole second from `start` (in UTC) on at which the clock of the zone has `changed`, by bisection."""
    span = range(int(length.total_seconds()) + 1)
    step = bisect_left(span, True, key=lambda seconds: changed((start + timedelta(seconds=seconds)).astimezone(zone)))
    return (start + timedelta(seconds=step)).astimezone(zone)
