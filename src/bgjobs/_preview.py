"""The coming fire times as text: what ``bgjobs next`` prints."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from ._cron.expression import Expression as CronExpression
from ._cron.expression import zone
from ._cron.grammar import FIELDS, Field, read_pieces, read_special_day, read_special_weekday, split

_SECOND = timedelta(seconds=1)
_RANGE = "[0-9A-Z]{1,3}(-[0-9A-Z]{1,3}(/[0-9]+)?)?"
# What crontab reads as we do, but for ranges that wrap around.
_CRONTAB = re.compile(rf"\*(/[0-9]+)?|{_RANGE}(,{_RANGE})*", re.IGNORECASE)


def preview(expression: str | CronExpression, timezone: str | tzinfo, after: datetime, count: int) -> list[str]:
    """Return a line for each of the next fire times, in the zone and in UTC, and notes on what crontab does instead.

    Args:
        expression: A cron text or a `CronExpression`.
        timezone: The zone in which the hours are meant: a name or a ``tzinfo``.
        after: An aware time in any zone; only later fire times are listed.
        count: How many fire times are listed.

    Raises:
        CronFormatError: The text does not follow the grammar.
        NeverFiresError: No date can ever match.
        ConfigurationError: There is no such time zone, or `after` has none.
    """
    cron = CronExpression(expression) if isinstance(expression, str) else expression
    lines = []
    for moment in cron.occurrences(after, zone(timezone), count):
        note = dst_note(cron, moment)
        lines.append(f"{moment.isoformat()}  {moment.astimezone(UTC).isoformat()}{note and '  ' + note}")
    return lines + [f"note: {note}" for note in crontab_notes(cron)]


def dst_note(expression: CronExpression, fire_time: datetime) -> str:
    """Say what a change of the clock did to a fire time; nothing where it did nothing.

    Args:
        expression: The expression that the fire time comes from.
        fire_time: One of its fire times, in the zone in which the expression is meant.
    """
    wall = fire_time.replace(tzinfo=None, fold=0)
    other_passage = fire_time.replace(fold=1 - fire_time.fold)
    if expression.calendar.next_wall(wall) != wall:
        before = (fire_time.astimezone(UTC) - _SECOND).astimezone(fire_time.tzinfo)
        skipped = expression.calendar.next_wall(before.replace(tzinfo=None, fold=0) + _SECOND)
        return f"moved from {skipped:%Y-%m-%dT%H:%M:%S}, which the clock jumps over"
    if fire_time.utcoffset() == other_passage.utcoffset():
        return ""
    if expression.fields.interval:
        return f"the clock shows this time twice: passage {fire_time.fold + 1}, fires in both"
    return "the clock shows this time twice: fires in the first passage only"


def crontab_notes(expression: CronExpression) -> list[str]:
    """Say where crontab would do something else with a text."""
    fields = split(expression.text)
    second, *five = fields
    day, weekday = fields[3], fields[5]
    notes = []
    if len(expression.text.split()) == 6 and second in ("0", "00"):
        notes.append(f'crontab has five fields, without the second: "{" ".join(five)}"')
    elif second not in ("0", "00"):
        notes.append(f'crontab has five fields and cannot say the second "{second}"')
    if unknown := [part for field, part in zip(FIELDS[1:], five, strict=True) if not _known_to_crontab(field, part)]:
        notes.append(f"crontab does not know {' or '.join(unknown)}")
    # A field that starts with a star does not count as restricted in crontab, whatever follows the star.
    if not any(field.startswith(("*", "?")) for field in (day, weekday)):
        either = f'on each day of month "{day}" and also on each day of week "{weekday}"'
        notes.append(f"crontab would fire {either}; here both must match")
    return notes


def _known_to_crontab(field: Field, part: str) -> bool:
    """Whether crontab reads a field, and as we do."""
    if read_special_day(part) or read_special_weekday(part) or not _CRONTAB.fullmatch(part):
        return False
    return len(read_pieces(field, part)) == part.count(",") + 1  # a range that wraps has two pieces
