"""``bgjobs convert``: from APScheduler's cron to six fields that fire at the same times."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from bgjobs import CronExpression
from bgjobs.__main__ import main
from cron_expressions import MONTHS, WEEKDAYS

START = datetime(2026, 1, 1, tzinfo=UTC)

#: What APScheduler understands and six fields cannot say.
REASONS = ("cannot be in a list", "cannot both be given", "has no year", "has no week", "never fall on one date")


def converted(arguments: list[str]) -> tuple[int, str, str]:
    """The exit status, the cron expression and what is said about it."""
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as said:
        status = main(["convert", *arguments])
    return status, printed.getvalue().rstrip("\n"), said.getvalue().rstrip("\n")


def fire_times(trigger: CronTrigger, count: int) -> list[datetime]:
    """The next fire times of APScheduler's own trigger."""
    found: list[datetime] = []
    time: datetime | None = None
    while len(found) < count and (time := trigger.get_next_fire_time(time, time or START)):
        found.append(time)
    return found


def assert_same_times(arguments: list[str], trigger: CronTrigger) -> None:
    """What is printed fires when the trigger does, or the refusal has one of the known reasons."""
    status, cron, said = converted(arguments)
    if status:
        assert any(reason in said for reason in REASONS), said
    else:
        assert CronExpression(cron).occurrences(START - timedelta(seconds=1), "UTC", 12) == fire_times(trigger, 12)


# -- what people write -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crontab", "cron"),
    [
        ("0 4 * * 1", "0 0 4 * * TUE"),
        ("0 4 * * mon", "0 0 4 * * MON"),
        ("*/5 9-17 * * 0-4", "0 */5 9-17 * * MON-FRI"),
        ("*/2,5 */2,1 1-7/3,9 jan-mar,5 0-4/2", "0 0/2,5 0/2,1 1-7/3,9 1-3,5 MON,WED,FRI"),
        ("0 4 last * *", "0 0 4 L * *"),
        ("5/20 *,3 * * *", "0 5/20 * * * *"),
        ("0-0/5 0 * * *", "0 0 0 * * *"),
    ],
)
def test_a_crontab_is_read_as_apscheduler_reads_it(crontab: str, cron: str) -> None:
    """The six fields mean the same, in one argument or in five; weekdays have names."""
    trigger = CronTrigger.from_crontab(crontab, "UTC")
    for arguments in ([crontab], crontab.split()):
        assert converted(arguments)[:2] == (0, cron)
        assert_same_times(arguments, trigger)


@pytest.mark.parametrize(
    ("keywords", "cron"),
    [
        ({"day_of_week": "0", "hour": "4"}, "0 0 4 * * MON"),
        ({"day": "1st mon", "hour": "9"}, "0 0 9 * * MON#1"),
        ({"day": "last fri"}, "0 0 0 * * FRIL"),
        ({"month": "6"}, "0 0 0 1 6 *"),
        ({"second": "*/5"}, "*/5 * * * * *"),
        ({"year": "*", "week": "*", "minute": "30"}, "0 30 * * * *"),
    ],
)
def test_keywords_are_read_as_apscheduler_reads_them(keywords: dict[str, str], cron: str) -> None:
    """Fields that are left out have APScheduler's defaults, and nothing is said about standard cron."""
    arguments = [f"{name}={value}" for name, value in keywords.items()]
    assert converted(arguments) == (0, cron, "")
    assert_same_times(arguments, CronTrigger(**keywords, timezone="UTC"))


@pytest.mark.parametrize(
    ("crontab", "notes"),
    [
        ("0 4 * * 1", ["day of week: 1 means TUE to APScheduler, but MON to standard cron"]),
        (
            "0 4 * * */2",
            ["day of week: */2 means MON,WED,FRI,SUN to APScheduler, but TUE,THU,SAT-SUN to standard cron"],
        ),
        ("0 4 * * mon#2", ["day of week: mon#2 means MON to APScheduler, but nothing to standard cron"]),
        ("0 4 * oct/2 *", ["month: oct/2 means OCT to APScheduler, but OCT,DEC to standard cron"]),
        (
            "0 4 13 * fri",
            ["day of month and day of week: both must match, as in APScheduler; in standard cron, one is enough"],
        ),
        ("0 4 * * mon-fri", []),
        ("0 4 13 * *", []),
        ("0 4 */2 * fri", []),
    ],
)
def test_what_standard_cron_reads_in_another_way_is_told(crontab: str, notes: list[str]) -> None:
    """On stderr, so that a script gets the expression alone."""
    status, cron, said = converted([crontab])
    assert (status, len(cron.split())) == (0, 6)
    assert said.splitlines() == [f"bgjobs: note: {note}" for note in notes]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0 4 * *"], 'APScheduler refuses "0 4 * *": Wrong number of fields; got 4, expected 5'),
        (["* * * * * *"], 'APScheduler refuses "* * * * * *": Wrong number of fields; got 6, expected 5'),
        (["0 4 * * 5-1"], "The minimum value in a range must not be higher than the maximum"),
        (
            ["0 4 1,last * *"],
            '"0 4 1,last * *": in a cron expression, last cannot be in a list; register a job for each',
        ),
        (["day=1st mon,3rd mon"], "in a cron expression, 1st mon cannot be in a list; register a job for each part"),
        (["day=last sun", "day_of_week=sun"], "last sun and a day of week cannot both be given"),
        (["week=*/2"], '"week=*/2": a cron expression has no week; keep the CronTrigger: trigger=CronTrigger(...)'),
        (["year=2027"], '"year=2027": a cron expression has no year; set start_date and end_date'),
        (["hours=3"], "CronTrigger has no hours; did you mean 'hour'?"),
        (["0 0 30 2 *"], 'day of month, month and day of week never fall on one date in "0 0 0 30 2 *"'),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(arguments: list[str], message: str) -> None:
    """Nothing is printed on stdout, and the status is that of a mistake."""
    status, cron, said = converted(arguments)
    assert (status, cron) == (2, "")
    assert said.startswith("bgjobs: error: ")
    assert message in said


# -- whatever people could write --------------------------------------------------------------------------------------

RANGES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "day_of_week": (0, 6)}
NAMES = {"month": MONTHS, "day_of_week": [*WEEKDAYS, *map(str.lower, WEEKDAYS)]}


def fields(name: str) -> st.SearchStrategy[str]:
    """A field in APScheduler's grammar; now and then one that it refuses."""
    low, high = RANGES[name]
    number = st.integers(low, high)
    pairs = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    values = number.map(str) | pairs | st.just("*")
    if name in NAMES:
        values |= st.sampled_from(NAMES[name])
    member = st.builds("{}{}".format, values, st.just("") | st.integers(0, 5).map("/{}".format))
    if name == "day":
        member |= st.just("last")
    return st.just("*") | st.lists(member, min_size=1, max_size=3).map(",".join)


@given(st.tuples(*map(fields, RANGES)).map(" ".join))
def test_any_crontab_fires_as_in_apscheduler(crontab: str) -> None:
    """What APScheduler reads has the same fire times in six fields, or is refused with a reason; else both refuse."""
    try:
        trigger = CronTrigger.from_crontab(crontab, "UTC")
    except ValueError as error:
        refusal = f'bgjobs: error: APScheduler refuses "{crontab}": {error}'
    else:
        assert_same_times([crontab], trigger)
        return
    assert converted([crontab]) == (2, "", refusal)


POSITIONS = st.builds(
    "{} {}".format, st.sampled_from(["1st", "2nd", "3rd", "4th", "5th", "last"]), st.sampled_from(NAMES["day_of_week"])
)
KEYWORDS: dict[str, Any] = {name: fields(name) for name in RANGES}
KEYWORDS |= {"day": fields("day") | POSITIONS, "second": fields("minute"), "year": st.sampled_from(["*", "2027"])}
KEYWORDS |= {"week": st.sampled_from(["*", "*/2"])}


@given(st.fixed_dictionaries({}, optional=KEYWORDS))
def test_any_keywords_fire_as_in_apscheduler(keywords: dict[str, str]) -> None:
    """The same for the keywords of CronTrigger, the special days among them."""
    try:
        trigger = CronTrigger(**keywords, timezone="UTC")
    except ValueError:
        return
    if keywords:
        assert_same_times([f"{name}={value}" for name, value in keywords.items()], trigger)
