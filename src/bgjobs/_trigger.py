"""Where cron texts meet APScheduler: arguments for its `CronTrigger`, and a `CronTrigger` of our own."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.cron.expressions import AllExpression
from apscheduler.triggers.cron.fields import BaseField
from apscheduler.util import convert_to_datetime, datetime_repr
from tzlocal import get_localzone  # comes with APScheduler

from ._cron import CronExpression
from ._errors import ConfigurationError
from ._explain import shown
from ._grammar import DAY, HOUR, MINUTE, MONTH, SECOND, SpecialDay, SpecialWeekday, read_pieces, split
from ._search import day_mask, first_from, lowest, shape, weekday_mask
from ._zone import zone

if TYPE_CHECKING:
    from ._grammar import Field

_VERSION = 1
_MICROSECOND = timedelta(microseconds=1)
# APScheduler's names of our fields, in our order.
_NAMES = ("second", "minute", "hour", "day", "month", "day_of_week")
_WEEKDAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LAST_DAY = SpecialDay(0, nearest_weekday=False)
_EVERY_DAY = (2 << 31) - 2
_POSITIONS = ("last", "1st", "2nd", "3rd", "4th", "5th")


def cron_trigger_arguments(text: str) -> dict[str, str]:
    """Translate a cron text into keyword arguments of APScheduler's own ``CronTrigger``.

    In UTC, ``CronTrigger(**cron_trigger_arguments(text), timezone="UTC")`` fires at the same times as the text. All
    six fields are always given, the weekday always by name: APScheduler counts weekdays from Monday.

    Raises:
        CronFormatError: The text does not follow the grammar.
        NeverFiresError: No date can ever match.
        ConfigurationError: APScheduler has no words for it: ``L-n``, ``nW``, ``LW``, and ``dL`` or ``d#k`` together
            with a day of month. ``CronExpression(text).trigger(timezone)`` handles these, too.
    """
    arguments, unsaid = _arguments(CronExpression(text))
    if unsaid:
        fields = " and the ".join(unsaid).replace("_", " ")
        message = (
            f"APScheduler's CronTrigger cannot express the {fields} of {shown(text)}; use CronExpression.trigger()"
        )
        raise ConfigurationError(message, unsaid[0])
    return arguments


class SixFieldCronTrigger(CronTrigger):  # type: ignore[misc] # APScheduler has no types
    """APScheduler's ``CronTrigger`` for a six-field cron text; also its trigger plugin ``"six_field_cron"``.

    It is given to a scheduler like any other trigger, pickles, prints and shows its `fields` as a ``CronTrigger`` does.
    The search is bgjobs' own: a time that the clock jumps over in spring is moved to the end of the jump, and a time
    that comes twice in autumn fires once, unless the text has a star, a range or a step in second, minute or hour.

    Args:
        expression: A cron text or a `CronExpression`.
        timezone: The zone in which the hours are meant: a name or a ``tzinfo``. As with ``CronTrigger``, ``None`` means
            the zone of `start_date` or `end_date`, else the machine's; a scheduler passes its own.
        start_date: Nothing fires before it: a time, a date, or a text of either. Without a zone it is in `timezone`.
        end_date: Nothing fires after it.
        jitter: Delays every firing by a random part of so many seconds; ``None`` for no delay.

    Raises:
        CronFormatError: The text does not follow the grammar.
        NeverFiresError: No date can ever match.
        ConfigurationError: One of the other arguments is wrong.
    """

    def __init__(
        self,
        expression: str | CronExpression,
        timezone: str | tzinfo | None = None,
        start_date: datetime | date | str | None = None,
        end_date: datetime | date | str | None = None,
        jitter: float | None = None,
    ) -> None:
        self.expression = expression if isinstance(expression, CronExpression) else CronExpression(expression)
        if jitter is not None and jitter < 0:
            raise ConfigurationError(f"jitter: {jitter} seconds is negative; a firing can only be delayed", "jitter")
        self.timezone = zone(_zone_of(start_date, end_date) if timezone is None else timezone)
        self.start_date = _moment(start_date, self.timezone, "start_date")
        self.end_date = _moment(end_date, self.timezone, "end_date")
        self.jitter = jitter
        self._forget()

    def _forget(self) -> None:
        """Start without what is computed only when it is asked for."""
        self._fields: list[BaseField] | None = None
        self._last: tuple[datetime | None, datetime, datetime | None] | None = None

    @property
    def fields(self) -> list[BaseField]:
        """APScheduler's field objects, for tools that look at them; the search does without."""
        if self._fields is None:
            self._fields = _fields(self.expression)
        return self._fields

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the next fire time in the trigger's zone, or ``None`` when there is none before `end_date`.

        Args:
            previous_fire_time: When the trigger last fired, however far behind `now`: the answer is the first time
                after it, so that no firing is left out. ``None`` for the first time at or after `now`.
            now: The present, an aware time in any zone.
        """
        last = self._last
        # APScheduler asks each question twice, with the same objects. Equality would not do: it is blind to `fold`.
        if last and last[0] is previous_fire_time and last[1] is now:
            return last[2]
        found = self._search(previous_fire_time, now)
        if self.jitter:
            return self._delayed(found, now) if found else None
        self._last = (previous_fire_time, now, found)
        return found

    def following(self, fire_time: datetime) -> datetime | None:
        """The fire time after `fire_time`, without jitter; free where a scheduler has just asked for it."""
        last = self._last
        return last[2] if last and last[0] is fire_time else self._search(fire_time, fire_time)

    def _search(self, previous: datetime | None, now: datetime) -> datetime | None:
        """The next fire time without jitter.

        One side of every comparison is in UTC: Python compares two times of one zone without their offsets.
        """
        try:
            now = now.astimezone(UTC)
            if previous is None:
                start = max(now, self.start_date) if self.start_date else now
            else:
                previous = previous.astimezone(UTC)
                # A clock that was set back restarts the search from `now`, as in CronTrigger.
                start = now if now < previous else previous + _MICROSECOND
            found = first_from(self.expression.calendar, start, self.timezone)
            ended = found and self.end_date and found.astimezone(UTC) > self.end_date
        except OverflowError:  # the last hours of the year 9999
            return None
        return None if ended else found

    def _delayed(self, found: datetime, now: datetime) -> datetime:
        """The fire time with jitter, not after the end date."""
        delayed: datetime = self._apply_jitter(found.astimezone(UTC), self.jitter, now)
        if self.end_date:
            delayed = min(delayed, self.end_date)
        return delayed.astimezone(self.timezone)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "expression": self.expression.text,
            "timezone": self.timezone,
            "start_date": self.start_date,
            "end_date": self.end_date,
            "jitter": self.jitter,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["version"] > _VERSION:
            reads = f"this one reads formats up to {_VERSION}"
            raise ConfigurationError(f"the trigger was stored by a newer bgjobs (format {state['version']}; {reads})")
        self.expression = CronExpression(state["expression"])
        self.timezone = state["timezone"]
        self.start_date = state["start_date"]
        self.end_date = state["end_date"]
        self.jitter = state["jitter"]
        self._forget()

    def __str__(self) -> str:
        return f"cron[{self.expression}]"

    def __repr__(self) -> str:
        options = [repr(self.expression.text)]
        options += [
            f"{name}='{datetime_repr(value)}'" for name in ("start_date", "end_date") if (value := getattr(self, name))
        ]
        options += [f"jitter={self.jitter}"] if self.jitter else []
        return f"<{type(self).__name__} ({', '.join(options)}, timezone='{self.timezone}')>"


def _zone_of(*limits: object) -> tzinfo:
    """The zone of the first limit that has one, else the machine's."""
    zones = [limit.tzinfo for limit in limits if isinstance(limit, datetime) and limit.tzinfo]
    return zones[0] if zones else get_localzone()


def _moment(value: datetime | date | str | None, where: tzinfo, name: str) -> datetime | None:
    """The start or end date as an aware time, read as APScheduler reads it."""
    try:
        moment: datetime | None = convert_to_datetime(value, where, name)
    except (TypeError, ValueError) as error:
        message = f"{name}: a time, a date or a text such as 2026-12-31 23:59:59 is needed, not {value!r}"
        raise ConfigurationError(message, name) from error
    return moment


def _arguments(expression: CronExpression) -> tuple[dict[str, str], list[str]]:
    """The arguments for ``CronTrigger``, and the names of those that it has no words for (they are ``*``)."""
    second, minute, hour, day, month, _ = split(expression.text)
    arguments = {
        "second": _pieces(SECOND, second),
        "minute": _pieces(MINUTE, minute),
        "hour": _pieces(HOUR, hour),
        "day": "*",
        "month": _pieces(MONTH, month),
        "day_of_week": "*",
    }
    days, weekdays = expression.fields.days, expression.fields.weekdays
    unsaid = []
    if not isinstance(days, SpecialDay):
        arguments["day"] = _pieces(DAY, day)
    elif days == _LAST_DAY:
        arguments["day"] = "last"
    else:
        unsaid.append("day")
    if not isinstance(weekdays, SpecialWeekday):
        arguments["day_of_week"] = _weekday_names(weekdays)
    elif days == _EVERY_DAY:
        arguments["day"] = f"{_POSITIONS[weekdays.number]} {_WEEKDAY_NAMES[weekdays.weekday - 1]}"
    else:
        unsaid.append("day_of_week")
    return arguments, unsaid


def _pieces(field: Field, text: str) -> str:
    """A field in APScheduler's words: ranges and steps stay what they are, where it reads them the same."""
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
    runs: list[list[str]] = []
    for index, name in enumerate(_WEEKDAY_NAMES):
        if not mask >> (index + 1) % 7 & 1:
            continue
        if index and mask >> index & 1:
            runs[-1][1:] = [name]
        else:
            runs.append([name])
    return "*" if runs == [["mon", "sun"]] else ",".join("-".join(run) for run in runs)


def _fields(expression: CronExpression) -> list[BaseField]:
    """APScheduler's field objects for an expression, with expressions of our own where it has none."""
    arguments, unsaid = _arguments(expression)
    fields = [
        CronTrigger.FIELDS_MAP[name](name, arguments.get(name, "*"), is_default=name not in arguments)
        for name in CronTrigger.FIELD_NAMES
    ]
    parts = dict(zip(_NAMES, split(expression.text), strict=True))
    forms = {"day": expression.fields.days, "day_of_week": expression.fields.weekdays}
    for field in fields:
        if field.name in unsaid:
            field.expressions = [SpecialExpression(parts[field.name], forms[field.name])]
    return fields


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
