"""Cron expressions as arguments of APScheduler's own trigger."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import assume, given

from bgjobs import ConfigurationError, CronExpression, CronFormatError, NeverFiresError, cron_trigger_arguments
from cron_expressions import expressions, places_and_starts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * * *", "* * * * * *"),
        ("0 */5 9-17 * * MON-FRI", "0 */5 9-17 * * mon-fri"),
        ("0 0 0 * * 0", "0 0 0 * * sun"),
        ("0 0 0 * * 7,1", "0 0 0 * * mon,sun"),
        ("0 0 0 * * MON/2", "0 0 0 * * mon,wed,fri,sun"),
        ("0 0 0 * * SAT-TUE", "0 0 0 * * mon-tue,sat-sun"),
        ("0 0 0 * * 0-6", "0 0 0 * * *"),
        ("5/20 0 0 * JAN/3 *", "5-45/20 0 0 * */3 *"),
        ("50/15 0 0 * JAN,MAR-MAY *", "50 0 0 * 1,3-5 *"),
        ("0 0 22-3/2 */31 */12 *", "0 0 22,0-2/2 1 1 *"),
        ("0 0-59 10-13/5 30-2 * *", "0 * 10 30-31,1-2 * *"),
        ("0 0 0 L * FRI", "0 0 0 last * fri"),
        ("0 0 0 ? * 5L", "0 0 0 last fri * *"),
        ("0 0 0 1-31 * SUN#3", "0 0 0 3rd sun * *"),
        ("0 9 * * 1", "0 0 9 * * mon"),
        ("@weekly", "0 0 0 * * sun"),
    ],
)
def test_arguments(text: str, expected: str) -> None:
    """All six are given, ranges and steps as they are where possible, the weekday by name."""
    arguments = cron_trigger_arguments(text)
    assert list(arguments) == ["second", "minute", "hour", "day", "month", "day_of_week"]
    assert expected == " ".join(arguments.values())


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("0 0 0 L-3 * *", "day of month"),
        ("0 0 0 15W * *", "day of month"),
        ("0 0 0 LW * *", "day of month"),
        ("0 0 0 1-7 * 5#1", "day of week"),
        ("0 0 0 LW * 5L", "day of month and the day of week"),
    ],
)
def test_inexpressible(text: str, fields: str) -> None:
    """What CronTrigger cannot express is refused with the way out."""
    with pytest.raises(ConfigurationError) as caught:
        cron_trigger_arguments(text)
    way_out = "use CronExpression.trigger()"
    assert str(caught.value) == f'APScheduler\'s CronTrigger cannot express the {fields} of "{text}"; {way_out}'


@pytest.mark.parametrize(("text", "error"), [("x", CronFormatError), ("0 0 0 30 2 *", NeverFiresError)])
def test_wrong_expressions(text: str, error: type[Exception]) -> None:
    """A wrong expression is refused as everywhere."""
    with pytest.raises(error):
        cron_trigger_arguments(text)


@given(expressions(), places_and_starts())
def test_same_times(text: str, place: tuple[ZoneInfo, datetime]) -> None:
    """In UTC, plain CronTrigger with these arguments fires when our trigger does."""
    start = place[1]
    try:
        plain = CronTrigger(**cron_trigger_arguments(text), timezone=UTC)
    except (ConfigurationError, NeverFiresError):
        assume(False)
    ours = CronExpression(text).trigger(UTC)
    found = plain.get_next_fire_time(None, start)
    assert found == ours.get_next_fire_time(None, start)
    for _ in range(3):
        found, previous = plain.get_next_fire_time(found, found), found
        assert found == ours.get_next_fire_time(previous, previous)
