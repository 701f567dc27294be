"""Cron expressions and APScheduler: the public `CronExpression`, and the `CronTrigger` with our grammar and search."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property, lru_cache
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import tzlocal  # comes with APScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.cron.expressions import AllExpression
from apscheduler.triggers.cron.fields import BaseField
from apscheduler.triggers.interval import IntervalTrigger
from apscheduler.util import convert_to_datetime, datetime_repr

from .._cron.expression import Expression, arguments, seconds, zone
from .._cron.expression import cron_trigger_arguments as cron_trigger_arguments
from .._cron.grammar import SpecialDay, SpecialWeekday, split
from .._cron.search import Calendar, day_mask, first_from, lowest, shape, weekday_mask
from .._errors import ConfigurationError

_VERSION = 1
_OPTIONS = ("timezone", "start_date", "end_date", "jitter")


class CronExpression(Expression):
    """A cron expression, read and checked: second, minute, hour, day of month, month and day of week.

    Five fields mean second 0; ``@daily`` and the other macros are understood. Day of month *and* day of week must
    match; Sunday is 0 or 7. The whole grammar is described in the documentation under "Cron".

    Expressions are immutable and can be pickled. They are equal when they mean the same, however they are written:
    ``CronExpression("0 0 9 * * MON-FRI") == CronExpression("0 9 * * 1-5")``.

    Args:
        text: The expression.

    Attributes:
        text: The expression as it was given.
        fields: What it means, as sets of numbers.
        calendar: The tables of the search; not for users.

    Raises:
        CronFormatError: The text does not follow the grammar, or is not a string.
        NeverFiresError: No date can ever match, as 30 February or ``LW * SUN``.
    """

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
            start_date: Nothing fires before it; without a zone it is in `timezone`; ``None`` for no limit.
            end_date: Nothing fires after it; ``None`` for no limit.
            jitter: Delays every firing by a random part of so many seconds, but never to the next one; ``None`` for no
                delay.

        Raises:
            ConfigurationError: There is no such time zone, or another argument is wrong.
        """
        return SixFieldCronTrigger(self, timezone, start_date, end_date, jitter)


class SixFieldCronTrigger(CronTrigger):  # type: ignore[misc] # APScheduler has no types
    """APScheduler's ``CronTrigger`` for a six-field cron expression; also its trigger plugin ``"six_field_cron"``.

    It is given to a scheduler like any other trigger, pickles, prints and shows its `fields` as a ``CronTrigger`` does.
    The search is bgjobs' own: a time that the clock jumps over in spring is moved to the end of the jump, and a time
    that comes twice in autumn fires once, unless second, minute or hour has a star, a range or a step.

    Args:
        expression: The expression, as text or as a `CronExpression`.
        timezone: The zone in which the hours are meant: a name or a ``tzinfo``. As with ``CronTrigger``, ``None`` means
            the zone of `start_date` or `end_date`, else the machine's; a scheduler passes its own.
        start_date: Nothing fires before it: a time, a date, or a string of either. Without a zone it is in `timezone`.
            ``None`` for no limit.
        end_date: Nothing fires after it; ``None`` for no limit.
        jitter: Delays every firing by a random part of so many seconds, but never to the next one; ``None`` for no
            delay.

    Raises:
        CronFormatError: The expression does not follow the grammar.
        NeverFiresError: No date can ever match.
        ConfigurationError: One of the other arguments is wrong.
    """

    seed: str | None = None  #: draws the same jitter in each replica

    def __init__(
        self,
        expression: str | CronExpression,
        timezone: str | tzinfo | None = None,
        start_date: datetime | date | str | None = None,
        end_date: datetime | date | str | None = None,
        jitter: float | None = None,
    ) -> None:
        self.expression = expression if isinstance(expression, CronExpression) else CronExpression(expression)
        self.timezone = zone(_zone_of(start_date, end_date) if timezone is None else timezone)
        self.start_date = _moment(start_date, self.timezone, "start_date")
        self.end_date = _moment(end_date, self.timezone, "end_date")
        self.jitter = None if jitter is None else seconds(jitter, "jitter")

    @classmethod
    def from_crontab(cls, expr: str, timezone: str | tzinfo | None = None) -> SixFieldCronTrigger:
        """Same as the constructor, which reads the five fields of crontab; Sunday is 0 and both days must match."""
        return cls(expr, timezone)

    @cached_property
    def _memo(self) -> _Memo:
        shared = self.timezone is UTC or isinstance(self.timezone, ZoneInfo)
        limited = self.start_date or self.end_date or self.jitter
        return _shared_memo(self.expression.calendar, self.timezone) if shared and not limited else _Memo()

    @cached_property
    def fields(self) -> list[BaseField]:
        """APScheduler's field objects, for tools that look at them; the search does not need them."""
        given, missing = arguments(self.expression)
        fields = [
            CronTrigger.FIELDS_MAP[name](name, given.get(name, "*"), is_default=name not in given)
            for name in CronTrigger.FIELD_NAMES
        ]
        parts = dict(zip(given, split(self.expression.text), strict=True))
        forms = {"day": self.expression.fields.days, "day_of_week": self.expression.fields.weekdays}
        for field in fields:
            if field.name in missing:
                field.expressions = [SpecialExpression(parts[field.name], forms[field.name])]
        return fields

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the next fire time in the trigger's zone, or ``None`` when there is none before `end_date`.

        Args:
            previous_fire_time: When the trigger last fired, however far behind `now`: the answer is the first time
                after it, so that no firing is left out. ``None`` for the first time at or after `now`.
            now: The present, an aware time in any zone.
        """
        last = self._memo.last
        # APScheduler asks each question twice, with the same objects. Equality would not do: it is blind to `fold`.
        if last and last[0] is previous_fire_time and last[1] is now:
            return last[2]
        found = self._search(previous_fire_time, now)
        if self.jitter:
            return self.delayed(found, now) if found else None
        known = last[2] if last else None
        if known and found and known == found and known.fold == found.fold:
            found = known  # jobs that are due together get one object, and so ask the same question at their next pass
        self._memo.last = (previous_fire_time, now, found)
        return found

    def following(self, fire_time: datetime | None, now: datetime) -> datetime | None:
        """The fire time after `fire_time`, or the first from `now` on, without jitter."""
        last = self._memo.last
        if last and last[0] is not None and last[1] >= last[0] == fire_time and last[0].fold == fire_time.fold:
            return last[2]  # APScheduler has just asked the same question
        return self._search(fire_time, now)

    def _search(self, previous: datetime | None, now: datetime) -> datetime | None:
        """The next fire time without jitter.

        One side of every comparison is in UTC: Python compares two times of one zone without their offsets.
        """
        try:
            now = now.astimezone(UTC)
            if previous is not None and now >= previous:
                found = first_from(self.expression.calendar, previous, self.timezone, after=True)
            else:  # a clock that was set back restarts the search from `now`, as in CronTrigger
                start = max(now, self.start_date) if self.start_date and previous is None else now
                found = first_from(self.expression.calendar, start, self.timezone)
            ended = found and self.end_date and found.astimezone(UTC) > self.end_date
        except OverflowError:  # the last hours of the year 9999
            return None
        return None if ended else found

    def delayed(self, found: datetime, now: datetime) -> datetime:
        """The fire time with jitter; before the next one, which would be lost else, and not after the end date."""
        longest, next_one = self.jitter or 0.0, self._search(found, found)
        if next_one is not None:
            longest = min(longest, (next_one.astimezone(UTC) - found.astimezone(UTC)).total_seconds() * 0.999)
        delayed: datetime = found.astimezone(UTC)
        if self.seed is None:
            delayed = self._apply_jitter(delayed, longest, now)
        else:
            delayed += timedelta(seconds=Random(f"{self.seed} {delayed.isoformat()}").uniform(0, longest))
        if self.end_date:
            delayed = min(delayed, self.end_date)
        return delayed.astimezone(self.timezone)

    def __getstate__(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in _OPTIONS}
        return {"version": _VERSION, "expression": self.expression.text, **options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["version"] > _VERSION:
            reads = f"this one reads formats up to {_VERSION}"
            raise ConfigurationError(f"the trigger was stored by a newer bgjobs (format {state['version']}; {reads})")
        self.expression = CronExpression(state["expression"])
        for name in _OPTIONS:
            setattr(self, name, state[name])

    def __str__(self) -> str:
        return f"cron[{self.expression}]"

    def __repr__(self) -> str:
        options = [repr(self.expression.text)]
        options += [
            f"{name}='{datetime_repr(value)}'" for name in ("start_date", "end_date") if (value := getattr(self, name))
        ]
        options += [f"jitter={self.jitter}"] if self.jitter else []
        return f"<{type(self).__name__} ({', '.join(options)}, timezone='{self.timezone}')>"


class _Memo:
    """The latest question to a trigger and its answer: previous fire time, present, next fire time."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: tuple[datetime | None, datetime, datetime | None] | None = None


@lru_cache(maxsize=256)
def _shared_memo(calendar: Calendar, timezone: tzinfo) -> _Memo:
    """The memo of all triggers with this calendar and zone: of a thousand jobs due together, one pays for the search.

    For zones that are equal only to themselves; two fixed offsets are equal under different names.
    """
    return _Memo()


def following(trigger: Any) -> Callable[[datetime | None, datetime], datetime | None] | None:
    """Return a function that computes the fire time of `trigger` after a given one, or the first from now on.

    ``None`` for triggers whose answers cannot be relied on: APScheduler's with jitter, and those of other kinds.
    """
    if type(trigger) is SixFieldCronTrigger:
        return trigger.following
    if type(trigger) not in (CronTrigger, IntervalTrigger) or trigger.jitter:
        return None
    ask: Callable[[datetime | None, datetime], datetime | None] = trigger.get_next_fire_time
    return ask


def _zone_of(*limits: object) -> tzinfo:
    """The zone of the first limit that has one, else the machine's."""
    zones = [limit.tzinfo for limit in limits if isinstance(limit, datetime) and limit.tzinfo]
    return zones[0] if zones else tzlocal.get_localzone()


def _moment(value: datetime | date | str | None, where: tzinfo, name: str) -> datetime | None:
    """The start or end date as an aware time, read as APScheduler reads it."""
    try:
        moment: datetime | None = convert_to_datetime(value, where, name)
    except (TypeError, ValueError) as error:
        message = f"{name}: a time, a date or a string such as 2026-12-31 23:59:59 is needed, not {value!r}"
        raise ConfigurationError(message, name) from error
    return moment


class SpecialExpression(AllExpression):  # type: ignore[misc] # APScheduler has no types
    """A special form of the day of month or the day of week, as an expression in an APScheduler field."""

    def __init__(self, text: str, form: int | SpecialDay | SpecialWeekday) -> None:
        super().__init__()
        self.text = text
        self.form = form

    def get_next_value(self, date: datetime, field: BaseField) -> int | None:
        """The first matching day of the month from `date` on; for a day of week, that of `date` if it matches."""
        month = shape(date.year, date.month)
        if isinstance(self.form, SpecialWeekday):
            return date.weekday() if weekday_mask(self.form, *month) >> date.day & 1 else None
        days = day_mask(self.form, *month) >> date.day
        return date.day + lowest(days) if days else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpecialExpression) and self.form == other.form

    def __hash__(self) -> int:
        return hash(self.form)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r}, {self.form!r})"
