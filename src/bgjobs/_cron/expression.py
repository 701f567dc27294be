"""Six-field cron texts: `CronExpression` reads one and tells when it fires. Knows no scheduler."""

from __future__ import annotations

from datetime import datetime, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING

from .._errors import ConfigurationError, CronFormatError, NeverFiresError
from .._zone import zone
from .explain import sentence
from .grammar import Fields, parse
from .search import Calendar, first_after

if TYPE_CHECKING:
    from datetime import date

    from .._apscheduler.trigger import SixFieldCronTrigger


@lru_cache(maxsize=256)
def _calendar(text: str) -> Calendar:
    """The tables of a text; shared, since programs and job stores come with the same few texts again and again."""
    calendar = Calendar(parse(text))
    if not calendar.can_match():
        raise NeverFiresError(sentence("day of month, month and day of week never fall on one date", text), text)
    return calendar


class CronExpression:
    """A cron text, read and checked: second, minute, hour, day of month, month and day of week.

    Five fields mean second 0; ``@daily`` and the other macros are understood. Day of month *and* day of week must
    match; Sunday is 0 or 7. The whole grammar is described in the documentation under "Cron".

    Expressions are immutable and can be pickled. They are equal when they mean the same, however they are written:
    ``CronExpression("0 0 9 * * MON-FRI") == CronExpression("0 9 * * 1-5")``.

    Attributes:
        text: The text as it was given.
        calendar: The tables of the search; not for users.

    Raises:
        CronFormatError: The text does not follow the grammar, or is no text.
        NeverFiresError: No date can ever match, as 30 February or ``LW * SUN``.
    """

    __slots__ = ("calendar", "text")

    calendar: Calendar
    text: str

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            kind = "None" if text is None else type(text).__name__
            raise CronFormatError(f'a cron text such as "0 0 9 * * *" is needed, not {kind}')
        text = str.__str__(text)  # a member of a StrEnum is a text, too, but should not be pickled as that
        object.__setattr__(self, "calendar", _calendar(text))
        object.__setattr__(self, "text", text)

    def trigger(
        self,
        timezone: str | tzinfo,
        *,
        start_date: datetime | date | str | None = None,
        end_date: datetime | date | str | None = None,
        jitter: float | None = None,
    ) -> SixFieldCronTrigger:
        """Return an APScheduler trigger for this expression.

        Args:
            timezone: The zone in which the hours are meant: a name such as ``"Europe/Rome"`` or a ``tzinfo``.
            start_date: Nothing fires before it; without a zone of its own it is in `timezone`; ``None`` for no limit.
            end_date: Nothing fires after it; ``None`` for no limit.
            jitter: Delays every firing by a random part of so many seconds; ``None`` for no delay.

        Raises:
            ConfigurationError: There is no such time zone.
        """
        # Only here: this module and its tests know nothing of APScheduler, and importing it takes its time.
        from .._apscheduler.trigger import SixFieldCronTrigger

        return SixFieldCronTrigger(self, timezone, start_date, end_date, jitter)

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

    @property
    def fields(self) -> Fields:
        """What the text means, as sets of numbers."""
        return self.calendar.fields

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a CronExpression cannot be changed, so {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a CronExpression cannot be changed, so {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return self.fields == other.fields if isinstance(other, CronExpression) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fields)

    def __reduce__(self) -> tuple[type[CronExpression], tuple[str]]:
        return CronExpression, (self.text,)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"CronExpression({self.text!r})"
