"""Cron expressions as values: `Expression` reads one and lists its fire times in a time zone, which `zone` looks up."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass, field
from datetime import UTC, timezone, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Self

from .._errors import ConfigurationError, CronFormatError, NeverFiresError, nearest
from .explain import format_error, sentence
from .grammar import Fields, Refused, parse
from .search import Calendar, first_after

if TYPE_CHECKING:
    from datetime import datetime


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
    near = nearest(name.replace(" ", "_"), names, 0.75)
    hint = f"did you mean {names[near]}?" if near else 'names look like "Europe/Rome" or "UTC"'
    return f"there is no time zone {name!r}; {hint}"
