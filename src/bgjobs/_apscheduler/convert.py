"""From APScheduler's cron to six fields, for ``bgjobs convert``.

APScheduler's own parser reads what is given, so that it means here what it means there. The parts that this finds are
written down again in the grammar of `CronExpression`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.cron.expressions import (
    WEEKDAYS,
    AllExpression,
    LastDayOfMonthExpression,
    WeekdayPositionExpression,
)
from apscheduler.triggers.cron.fields import MIN_VALUES

from .._cron.explain import shown
from .._cron.expression import Expression, weekday_names
from .._cron.grammar import MONTH, WEEKDAY, Field, Refused, numbers
from .._errors import ConfigurationError, CronFormatError, did_you_mean

#: The six fields, in APScheduler's names.
_SIX = ("second", "minute", "hour", "day", "month", "day_of_week")
#: What APScheduler's cron has and a cron expression has not, and what to do instead.
_ABSENT = {
    "year": "set start_date and end_date",
    "week": "keep the CronTrigger: trigger=CronTrigger(...)",
}


def converted(given: Sequence[str]) -> tuple[str, list[str]]:
    """Translate a schedule of APScheduler into six fields that fire at the same times; in UTC, where no clock changes.

    Args:
        given: The five fields of a crontab, in one item or in several, as ``CronTrigger.from_crontab`` reads them; or
            keyword arguments of ``CronTrigger``: ``["day_of_week=mon", "hour=9"]``.

    Returns:
        The cron expression, with weekdays by name; and a sentence for each thing in a crontab that standard cron reads
        in another way.

    Raises:
        CronFormatError: APScheduler refuses it.
        ConfigurationError: A cron expression cannot say it; the message says why.
        NeverFiresError: No date can ever match.
    """
    text = " ".join(given)
    keywords = dict(item.split("=", 1) for item in given) if all("=" in item for item in given) else {}
    for name in keywords:
        if name not in CronTrigger.FIELD_NAMES:
            raise ConfigurationError(f"CronTrigger has no {name}{did_you_mean(name, CronTrigger.FIELD_NAMES)}", name)
    try:
        trigger = CronTrigger(timezone=UTC, **keywords) if keywords else CronTrigger.from_crontab(text, UTC)
    except ValueError as exc:
        raise CronFormatError(f"APScheduler refuses {shown(text)}: {exc}", text) from None
    fields = {field.name: field for field in trigger.fields}
    for name, instead in _ABSENT.items():
        if str(fields[name]) != "*":
            raise ConfigurationError(f"{shown(text)}: a cron expression has no {name}; {instead}", name)
    six = {name: _written(fields[name], text) for name in _SIX}
    if isinstance(fields["day"].expressions[0], WeekdayPositionExpression):
        if six["day_of_week"] != "*":
            raise ConfigurationError(f"{shown(text)}: {fields['day']} and a day of week cannot both be given", "day")
        six |= {"day": "*", "day_of_week": six["day"]}
    expression = Expression(" ".join(six.values()))
    return expression.text, [] if keywords else [*_differences(text, expression)]


def _written(field: Any, text: str) -> str:
    """One field, in the grammar of a cron expression."""
    if field.name == "day_of_week":
        week = [datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 8)]  # from a Monday on
        days = [n for n, day in enumerate(week) if field.get_next_value(day) == n]
        return weekday_names(sum(1 << (n + 1) % 7 for n in days)).upper()
    parts = [_part(part) for part in field.expressions]
    if len(parts) == 1:
        return parts[0]
    if "*" in parts:
        return "*"
    for part in field.expressions:
        if isinstance(part, LastDayOfMonthExpression | WeekdayPositionExpression):
            message = f"{shown(text)}: in a cron expression, {part} cannot be in a list; register a job for each part"
            raise ConfigurationError(message, field.name)
    return ",".join(part.replace("*", str(MIN_VALUES[field.name])) for part in parts)


def _part(part: Any) -> str:
    """One member of APScheduler's list."""
    if isinstance(part, LastDayOfMonthExpression):
        return "L"
    if isinstance(part, WeekdayPositionExpression):
        name = WEEKDAYS[part.weekday].upper()
        return f"{name}L" if part.option_num == 5 else f"{name}#{part.option_num + 1}"
    if type(part) is AllExpression:
        return str(part)
    span = str(part.first) if part.last in (None, part.first) else f"{part.first}-{part.last}"
    return span if part.step is None or part.last == part.first else f"{span}/{part.step}"


def _differences(text: str, expression: Expression) -> Iterator[str]:
    """Yield what standard cron reads in another way than APScheduler."""
    _, _, day, month, weekday = text.split()
    fields = expression.fields
    for field, piece, found in ((MONTH, month, fields.months), (WEEKDAY, weekday, fields.weekdays)):
        theirs = _standard(field, piece)
        if theirs != found:
            other = "nothing" if theirs is None else _names(field, theirs)
            yield f"{field.name}: {piece} means {_names(field, found)} to APScheduler, but {other} to standard cron"
    if not day.startswith("*") and not weekday.startswith("*"):
        yield "day of month and day of week: both must match, as in APScheduler; in standard cron, one is enough"


def _standard(field: Field, text: str) -> int | None:
    """What standard cron understands; ``None`` for nothing. Unlike here, a star may stand in a list there."""
    try:
        return numbers(field, text.replace("*", f"{field.low}-{field.high}"))
    except Refused:
        return None


def _names(field: Field, mask: Any) -> str:
    """The weekdays or months of a set."""
    if field is WEEKDAY:
        return weekday_names(mask).upper()
    return ",".join(name for name, number in field.names.items() if mask >> number & 1)
