"""Hypothesis strategies for cron expressions of the whole grammar, for zones, and for starts near clock changes."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st

settings.register_profile("local", max_examples=60, deadline=None)
settings.register_profile("ci", max_examples=1_500, deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
LARGEST_STEPS = {"second": 59, "minute": 59, "hour": 23, "day": 31, "month": 12, "weekday": 7}
RANGES = {"second": (0, 59), "minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}

# Whole and half hours, gaps at midnight, two hours, a quarter, seconds, whole days left out.
ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Asia/Amman",
    "America/Santiago",
    "America/Havana",
    "America/Caracas",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Kwajalein",
]


def values(field: str) -> st.SearchStrategy[str]:
    """A number, with or without a leading zero, or a name in any case."""
    low, high = RANGES[field]
    texts = st.integers(low, high).flatmap(lambda number: st.sampled_from([str(number), f"{number:02}"]))
    names = {"month": MONTHS, "weekday": WEEKDAYS}.get(field)
    return texts if names is None else texts | st.sampled_from([*names, *map(str.lower, names)])


def steps(field: str) -> st.SearchStrategy[str]:
    """A slash and a step, small ones more often."""
    return st.one_of(st.integers(1, 6), st.integers(1, LARGEST_STEPS[field])).map("/{}".format)


def members(field: str) -> st.SearchStrategy[str]:
    """A list member: ``a``, ``a-b``, ``a/n`` or ``a-b/n``."""
    value, step = values(field), steps(field)
    ranges = st.builds("{}-{}".format, value, value)
    return st.one_of(value, ranges, st.builds("{}{}".format, value | ranges, step))


def plain(field: str) -> st.SearchStrategy[str]:
    """A field without a special form."""
    star = st.sampled_from("*?")
    lists = st.lists(members(field), min_size=1, max_size=4).map(",".join)
    return st.one_of(st.just("*"), values(field), lists, st.builds("{}{}".format, star, st.just("") | steps(field)))


def special_days() -> st.SearchStrategy[str]:
    """``L``, ``L-n``, ``nW``, ``LW`` or ``L-nW``."""
    offset = st.integers(0, 30).map("L-{}".format)
    return st.one_of(
        st.sampled_from(["L", "l", "LW", "lw"]), values("day").map("{}W".format), offset, offset.map("{}W".format)
    )


def special_weekdays() -> st.SearchStrategy[str]:
    """``dL`` or ``d#k``."""
    return st.builds("{}{}".format, values("weekday"), st.sampled_from(["L", "l", "#1", "#2", "#3", "#4", "#5", "#05"]))


def expressions() -> st.SearchStrategy[str]:
    """Cron expressions of the whole grammar; some of them can never match."""
    days = st.one_of(st.just("*"), plain("day"), special_days())
    weekdays = st.one_of(st.just("*"), plain("weekday"), special_weekdays())
    five = [plain("minute"), plain("hour"), days, st.just("*") | plain("month"), weekdays]
    return st.tuples(plain("second"), *five).map(" ".join) | st.tuples(*five).map("\t ".join)


def clock_expressions() -> st.SearchStrategy[str]:
    """Cron expressions for every day, whose times lie where clocks are changed."""
    hours = st.sampled_from(["0", "1", "2", "3", "0,23", "1-3", "*", "*/2", "22-2"])
    minutes = st.sampled_from(["0", "30", "15,45", "*/20", "59", "*"])
    return st.builds("{} {} {} * * *".format, st.sampled_from(["0", "59", "*/30"]), minutes, hours)


@cache
def changes(zone: str) -> list[datetime]:
    """The moments in UTC, to the hour before, at which the clock of a zone changes between 1970 and 2040."""
    where, hour = ZoneInfo(zone), timedelta(hours=1)
    moments = [datetime(1970, 1, 2, tzinfo=UTC) + day * timedelta(days=1) for day in range(70 * 365)]
    days = [day for day in moments if offset(day, where) != offset(day + timedelta(days=1), where)]
    starts = [day + n * hour for day in days for n in range(24)]
    return [start for start in starts if offset(start, where) != offset(start + hour, where)]


def offset(moment: datetime, zone: ZoneInfo) -> timedelta | None:
    """The offset of a zone from UTC at a moment."""
    return moment.astimezone(zone).utcoffset()


@st.composite
def places_and_starts(draw: st.DrawFn) -> tuple[ZoneInfo, datetime]:
    """A zone and a start in UTC, often shortly before, in or after a gap or an overlap, often with a fraction."""
    name = draw(st.sampled_from(ZONES))
    fraction = draw(st.sampled_from([0, 0, 1, 500_000, 999_999]))
    if draw(st.booleans()) and changes(name):
        start = draw(st.sampled_from(changes(name))) + timedelta(minutes=draw(st.integers(-120, 180)))
    else:
        start = draw(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
    return ZoneInfo(name), start.replace(second=draw(st.sampled_from([0, 0, 29, 59])), microsecond=fraction)
