"""Cron expressions as values: read, searched in a time zone, and translated into APScheduler's keyword arguments."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass, field
from datetime import UTC, datetime, timezone, tzinfo
from functools import lru_cache
from typing import Self

from .._errors import ConfigurationError, CronFormatError, NeverFiresError, nearest
from . import grammar
from .explain import format_error, sentence, shown
from .grammar import Field, Fields, Refused, SpecialDay, SpecialWeekday, parse, read_pieces, split
from .search import Calendar, first_after


@lru_cache(maxsize=256)
def _calendar(text: str) -> Calendar:
    """The tables of an expression; shared, since programs and job stores use the same few expressions many times."""
    try:
        calendar = Calendar(parse(text))
    except Refused as refused:
        raise format_error(refused, text) from None
    if not calendar.can_match():
        raise NeverFiresError(sentence("day of month, month and day of week never fall on one date", text), text)
    return calendar


@dataclass(frozen=True, init=False, repr=False)
class Expression:
    """A cron expression, read and checked: all of ``bgjobs.CronExpression`` that needs no scheduler.

    Two expressions are equal when they mean the same, however they are written.

    Attributes:
        text: The expression as it was given.
        fields: What it means, as sets of numbers.
        calendar: The tables of the search.
    """

    text: str = field(compare=False)
    fields: Fields
    calendar: Calendar = field(compare=False)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            kind = "None" if text is None else type(text).__name__
            raise CronFormatError(f'a cron expression such as "0 0 9 * * *" is needed, not {kind}')
        text = str.__str__(text)  # a member of a StrEnum is a str, too, but its class should not be pickled
        calendar = _calendar(text)
        vars(self).update(text=text, fields=calendar.fields, calendar=calendar)  # around the frozen __setattr__

    def occurrences(self, after: datetime, timezone: str | tzinfo, count: int) -> list[datetime]:
        """Return the next fire times after a moment, in order.

        Args:
            after: An aware time in any zone; a fire time equal to it is not returned.
            timezone: The zone in which the hours are meant: a name such as ``"Europe/Rome"`` or a ``tzinfo``.
            count: How many fire times are wanted; there are fewer where the year 9999 ends.

        Raises:
            ConfigurationError: `after` has no time zone, or there is no zone `timezone`.
        """
        if after.tzinfo is None:
            message = f"after: {after} has no time zone; give it one, as in datetime.now(timezone.utc)"
            raise ConfigurationError(message, "after")
        where, times = zone(timezone), [after]
        while len(times) <= count and (found := first_after(self.calendar, times[-1], where)):
            times.append(found)
        return times[1:]

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"


def zone(value: str | tzinfo, field: str = "timezone") -> tzinfo:
    """Return the time zone of a name, or the one given.

    ``"UTC"`` needs no time zone database. A zone object of pytz, which cannot be used for arithmetic on wall times,
    becomes the zone of the same name.

    Args:
        value: A name of the IANA time zone database such as ``"Europe/Rome"``, or a ``tzinfo``.
        field: The name of the option or setting, for the error.

    Raises:
        ConfigurationError: For a name that does not exist (with similar names), where the machine has no time zone
            database (with the remedy), and for anything that is neither a name nor a ``tzinfo``.
    """
    if isinstance(value, str):
        return UTC if value == "UTC" else _named(value, field)
    if not isinstance(value, tzinfo):
        message = f'{field}: a zone name such as "Europe/Rome" or a tzinfo is needed, not {type(value).__name__}'
        raise ConfigurationError(message, field)
    if not hasattr(value, "localize"):
        return value
    if name := getattr(value, "zone", None):  # of pytz, as is the next
        return zone(str(name), field)
    offset = value.utcoffset(None)
    return value if offset is None else timezone(offset)


#: The longest time that can be given, in seconds: a hundred years. Much longer ones overflow in threads and dates.
LONGEST = 100 * 366 * 86_400


def seconds(value: float, field: str) -> float:
    """Return a time in seconds, if it is one that threads and dates can count with.

    Args:
        value: The time.
        field: The name of the option or argument, for the error.

    Raises:
        ConfigurationError: It is negative, not finite, longer than a hundred years, or no number.
    """
    if not (isinstance(value, int | float) and 0 <= value <= LONGEST):  # which NaN is not
        raise ConfigurationError(f"{field}: a number of seconds from 0 to {LONGEST} is needed", field)
    return value


def _named(name: str, field: str) -> tzinfo:
    """The zone of that name; whatever `zoneinfo` finds wrong with a name becomes one kind of error."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(f"{field}: {_remedy(name)}", field) from error


def _remedy(name: str) -> str:
    """What to write instead of a name that does not exist."""
    known = sorted(zoneinfo.available_timezones())
    if not known:
        return f"no time zone database is on this machine to look up {name!r} in; install the package tzdata"
    # The last part alone is compared too, since people write "Rome".
    names = {one.rpartition("/")[2]: one for one in known} | {one: one for one in known}
    is_short = name.isupper() and "/" not in name  # "CEST" is near to "EST", and "GMT+2" to a zone west of Greenwich
    near = None if is_short else nearest(name.replace(" ", "_"), names, 0.75)
    hint = f"did you mean {names[near]}?" if near else 'names look like "Europe/Rome" or "UTC"'
    return f"there is no time zone {name!r}; {hint}"


_WEEKDAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_POSITIONS = ("last", "1st", "2nd", "3rd", "4th", "5th")
_LAST_DAY = SpecialDay(0, nearest_weekday=False)
_EVERY_DAY = (2 << 31) - 2
_FIELD_NAMES = {"day": "day of month", "day_of_week": "day of week"}


# -- in APScheduler's words -----------------------------------------------------------------------------------------


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
        "second": _pieces(grammar.SECOND, second),
        "minute": _pieces(grammar.MINUTE, minute),
        "hour": _pieces(grammar.HOUR, hour),
        "day": "*",
        "month": _pieces(grammar.MONTH, month),
        "day_of_week": "*",
    }
    days, weekdays = expression.fields.days, expression.fields.weekdays
    missing = []
    if not isinstance(days, SpecialDay):
        given["day"] = _pieces(grammar.DAY, day)
    elif days == _LAST_DAY:
        given["day"] = "last"
    else:
        missing.append("day")
    if not isinstance(weekdays, SpecialWeekday):
        given["day_of_week"] = weekday_names(weekdays)
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


def weekday_names(mask: int) -> str:
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
