"""Cron expressions in the words of APScheduler's own `CronTrigger`: keyword arguments that it reads the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import ConfigurationError
from .explain import shown
from .expression import Expression
from .grammar import DAY, HOUR, MINUTE, MONTH, SECOND, SpecialDay, SpecialWeekday, read_pieces, split

if TYPE_CHECKING:
    from .grammar import Field

_WEEKDAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_POSITIONS = ("last", "1st", "2nd", "3rd", "4th", "5th")
_LAST_DAY = SpecialDay(0, nearest_weekday=False)
_EVERY_DAY = (2 << 31) - 2
_FIELD_NAMES = {"day": "day of month", "day_of_week": "day of week"}


def cron_trigger_arguments(text: str) -> dict[str, str]:
    """Translate a cron expression into keyword arguments of APScheduler's own ``CronTrigger``.

    In UTC, ``CronTrigger(**cron_trigger_arguments(text), timezone="UTC")`` fires at the same times as the expression.
    All six fields are always given, the weekday always by name: APScheduler counts weekdays from Monday.

    Args:
        text: The cron expression.

    Raises:
        CronFormatError: It does not follow the grammar.
        NeverFiresError: No date can ever match.
        ConfigurationError: ``CronTrigger`` cannot express it: ``L-n``, ``nW``, ``LW``, and ``dL`` or ``d#k`` together
            with a day of month. ``CronExpression(text).trigger(timezone)`` can.
    """
    given, missing = arguments(Expression(text))
    if missing:
        fields = " and the ".join(_FIELD_NAMES[name] for name in missing)
        message = (
            f"APScheduler's CronTrigger cannot express the {fields} of {shown(text)}; use CronExpression.trigger()"
        )
        raise ConfigurationError(message, missing[0])
    return given


def arguments(expression: Expression) -> tuple[dict[str, str], list[str]]:
    """The arguments for ``CronTrigger``, and the names of those that it cannot express (they are ``*``)."""
    second, minute, hour, day, month, _ = split(expression.text)
    given = {
        "second": _pieces(SECOND, second),
        "minute": _pieces(MINUTE, minute),
        "hour": _pieces(HOUR, hour),
        "day": "*",
        "month": _pieces(MONTH, month),
        "day_of_week": "*",
    }
    days, weekdays = expression.fields.days, expression.fields.weekdays
    missing = []
    if not isinstance(days, SpecialDay):
        given["day"] = _pieces(DAY, day)
    elif days == _LAST_DAY:
        given["day"] = "last"
    else:
        missing.append("day")
    if not isinstance(weekdays, SpecialWeekday):
        given["day_of_week"] = _weekday_names(weekdays)
    elif days == _EVERY_DAY:
        given["day"] = f"{_POSITIONS[weekdays.number]} {_WEEKDAY_NAMES[weekdays.weekday - 1]}"
    else:
        missing.append("day_of_week")
    return given, missing


def _pieces(field: Field, text: str) -> str:
    """A field as ``CronTrigger`` writes it: ranges and steps stay what they are, where it reads them the same."""
    return ",".join(_piece(field, *piece) for piece in read_pieces(field, text))


def _piece(field: Field, first: int, last: int, step: int) -> str:
    """One value, range or step."""
    last -= (last - first) % step
    if first == last:
        return str(first)
    span = "*" if first == field.low and last + step > field.high else f"{first}-{last}"
    return span if step == 1 else f"{span}/{step}"


def _weekday_names(mask: int) -> str:
    """A set of weekdays as names and ranges of names, from Monday to Sunday."""
    ranges: list[list[str]] = []
    for index, name in enumerate(_WEEKDAY_NAMES):
        if not mask >> (index + 1) % 7 & 1:
            continue
        if index and mask >> index & 1:
            ranges[-1][1:] = [name]
        else:
            ranges.append([name])
    return "*" if ranges == [["mon", "sun"]] else ",".join("-".join(names) for names in ranges)
