"""What ``bgjobs next`` prints."""

from __future__ import annotations

from datetime import datetime

import pytest

from bgjobs import CronExpression
from bgjobs._errors import ConfigurationError, CronFormatError, NeverFiresError
from bgjobs._preview import crontab_notes, dst_note, preview

SIX = 'crontab has five fields, without the second: "{}"'
TWICE = "the clock shows this time twice: "


def test_preview() -> None:
    """Each line has the time in the zone and in UTC and what DST did; notes on crontab follow."""
    lines = preview("0 30 2 * * *", "America/New_York", datetime.fromisoformat("2026-03-07T12:00:00+00:00"), 2)
    assert lines == [
        "2026-03-08T03:00:00-04:00  2026-03-08T07:00:00+00:00  "
        "moved from 2026-03-08T02:30:00, which the clock jumps over",
        "2026-03-09T02:30:00-04:00  2026-03-09T06:30:00+00:00",
        f"note: {SIX.format('30 2 * * *')}",
    ]


@pytest.mark.parametrize("wrong", [("x", "UTC"), ("0 0 0 30 2 *", "UTC"), ("0 0 9 * * *", "Rome/Italy")])
def test_errors(wrong: tuple[str, str]) -> None:
    """What is wrong with the text or the zone is raised."""
    with pytest.raises((CronFormatError, NeverFiresError, ConfigurationError)):
        preview(*wrong, datetime.fromisoformat("2026-01-01T00:00:00+00:00"), 1)


@pytest.mark.parametrize(
    ("text", "after", "notes"),
    [
        ("0 30 1 * * *", "2026-10-31T12:00:00Z", [TWICE + "fires in the first passage only", ""]),
        ("0 0 1-2 * * *", "2026-11-01T00:00:00Z", [f"{TWICE}passage {n}, fires in both" for n in (1, 2)] + [""]),
        ("0 0 * * * *", "2026-03-08T06:30:00Z", [""]),
    ],
)
def test_dst_note(text: str, after: str, notes: list[str]) -> None:
    """A fire time in an overlap says how often it fires, and one that matches by itself is not called moved."""
    expression = CronExpression(text)
    times = expression.occurrences(datetime.fromisoformat(after), "America/New_York", len(notes))
    assert notes == [dst_note(expression, time) for time in times]


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("30 2 * * *", []),
        ("30 2 13 * *", []),
        ("30 2 * * 5", []),
        ("30 2 */2 * 5", []),
        ("@daily", []),
        ("0 30 2 * * *", [SIX.format("30 2 * * *")]),
        ("*/5 * * * * *", ['crontab has five fields and cannot say the second "*/5"']),
        ("@every_second", ['crontab has five fields and cannot say the second "*"']),
        ("30 2 LW * ?", ["crontab does not know LW or ?"]),
        ("30 2 * JUL wed#1", ["crontab does not know wed#1"]),
        ("30 2 * JUL wed", []),
        ("0-10/2,30 2 1-7 1,2 *", []),
        ("*/5 22-2 * DEC/1 FRI-MON", ["crontab does not know 22-2 or DEC/1 or FRI-MON"]),
        (
            "30 2 13 * FRI",
            ['crontab would fire on each day of month "13" and also on each day of week "FRI"; here both must match'],
        ),
    ],
)
def test_crontab_notes(text: str, notes: list[str]) -> None:
    """Notes say where crontab reads less, or something else."""
    assert notes == crontab_notes(CronExpression(text))
