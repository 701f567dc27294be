"""A slow, plain second opinion on cron expressions, which shares no code with bgjobs.

It reads a valid expression in another way, and finds the next fire time by walking through the seconds of UTC and
asking for each one whether the expression fires there. It leaps over a day, an hour or a minute only where nothing in
it can match and the clock of the zone does not change on the way.
"""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta, tzinfo
from functools import cache

MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
WEEKDAYS = "SUN MON TUE WED THU FRI SAT"
MACROS = {
    "@every_second": "* * * * * *",
    "@every_minute": "0 * * * * *",
    "@hourly": "0 0 * * * *",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@weekly": "0 0 0 * * SUN",
    "@monthly": "0 0 0 1 * *",
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
}
LIMITS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
ONE_DAY = timedelta(days=1)


class Oracle:
    """What one valid cron expression means."""

    def __init__(self, text: str) -> None:
        parts = MACROS.get(text.strip().lower(), text).upper().split()
        parts = ["0", *parts] if len(parts) == 5 else parts
        self.day, self.weekday = parts[3], parts[5]
        self.seconds, self.minutes, self.hours = (numbers(parts[i], i) for i in range(3))
        self.months = numbers(parts[4], 4)
        self.interval = any(set(part) & set("*?-/") for part in parts[:3])

    def matches(self, wall: datetime) -> bool:
        """Whether the expression matches a time on the wall clock."""
        return (
            wall.second in self.seconds
            and wall.minute in self.minutes
            and wall.hour in self.hours
            and self.matches_date(wall.date())
        )

    def matches_date(self, day: date) -> bool:
        """Whether month, day of month and day of week all match."""
        return day.month in self.months and matches_weekday(self.weekday, day) and matches_day(self.day, day)

    def fires(self, second: int, zone: tzinfo) -> bool:
        """Whether the expression fires at a second of UTC."""
        wall = datetime.fromtimestamp(second, zone)
        return (self.matches(wall) and (self.interval or wall.fold == 0)) or self.is_moved_to(second, zone)

    def is_moved_to(self, second: int, zone: tzinfo) -> bool:
        """Whether the clock jumps to this second over a time that matches."""
        wall = datetime.fromtimestamp(second, zone).replace(tzinfo=None)
        skipped = datetime.fromtimestamp(second - 1, zone).replace(tzinfo=None) + timedelta(seconds=1)
        while skipped < wall:
            if not self.matches_date(skipped.date()):
                skipped = datetime.combine(skipped.date() + ONE_DAY, datetime.min.time())
            elif self.matches(skipped):
                return True
            else:
                skipped += timedelta(seconds=1)
        return False

    def next_fire_time(self, start: datetime, zone: tzinfo, *, inclusive: bool = False) -> datetime:
        """The first fire time after `start`; one at `start` counts if asked for, unless it was moved there."""
        second = math.floor(start.timestamp())
        if inclusive and start.microsecond == 0 and self.fires(second, zone):
            wall = datetime.fromtimestamp(second, zone)
            if self.matches(wall):
                return wall
        second += 1
        while not self.fires(second, zone):
            second += self.leap(second, zone)
        return datetime.fromtimestamp(second, zone)

    def leap(self, second: int, zone: tzinfo) -> int:
        """How many seconds from this one on certainly do not fire."""
        wall = datetime.fromtimestamp(second, zone)
        rest_of_minute = 60 - wall.second
        rest_of_hour = 60 * (59 - wall.minute) + rest_of_minute
        rest_of_day = 3600 * (23 - wall.hour) + rest_of_hour
        for rest, impossible in (
            (rest_of_day, not self.matches_date(wall.date())),
            (rest_of_hour, wall.hour not in self.hours),
            (rest_of_minute, wall.minute not in self.minutes),
        ):
            if impossible and wall.utcoffset() == datetime.fromtimestamp(second + rest - 1, zone).utcoffset():
                return rest
        return 1


@cache
def numbers(part: str, index: int) -> set[int]:
    """The numbers of a field without special forms."""
    return set().union(*(member_numbers(member, index) for member in part.split(",")))


def member_numbers(member: str, index: int) -> set[int]:
    """The numbers of one list member, found by walking round the clock, the year or the week."""
    low, high = LIMITS[index]
    span, _, step = member.partition("/")
    first, _, last = span.partition("-")
    if span in ("*", "?"):
        begin, end = low, high
    else:
        begin = number(first)
        end = number(last) if last else high if step else begin
    cycle = 7 if index == 5 else high - low + 1
    if begin > end:
        begin = 0 if index == 5 and begin == 7 else begin
        end += cycle if begin > end else 0
    walked = range(begin, end + 1, int(step or 1))
    return {value % 7 for value in walked} if index == 5 else {(value - low) % cycle + low for value in walked}


def number(text: str) -> int:
    """A number or a name of a month or a weekday."""
    if text in MONTHS.split():
        return MONTHS.split().index(text) + 1
    return WEEKDAYS.split().index(text) if text in WEEKDAYS.split() else int(text)


def matches_day(part: str, day: date) -> bool:
    """Whether the day-of-month field matches a date."""
    if "L" not in part and "W" not in part:
        return day.day in numbers(part, 3)
    month = [
        day.replace(day=1) + n * ONE_DAY for n in range(31) if (day.replace(day=1) + n * ONE_DAY).month == day.month
    ]
    wanted = part.removesuffix("W")
    position = len(month) - 1 - int(wanted[2:] or 0) if wanted.startswith("L") else int(wanted) - 1
    if not 0 <= position < len(month):
        return False
    if not part.endswith("W"):
        return day == month[position]
    return day == min((other for other in month if other.weekday() < 5), key=lambda other: abs(other - month[position]))


def matches_weekday(part: str, day: date) -> bool:
    """Whether the day-of-week field matches a date."""
    weekday = day.isoweekday() % 7
    if "#" in part:
        wanted, _, nth = part.partition("#")
        return weekday == number(wanted) % 7 and (day.day + 6) // 7 == int(nth)
    if part.endswith("L"):
        return weekday == number(part[:-1]) % 7 and (day + 7 * ONE_DAY).month != day.month
    return weekday in numbers(part, 5)
