"""The grammar of cron texts: from six fields of text to `Fields`, sets of numbers that a search can use.

The rules are those of the original package's cron library, written as a table (`FIELDS`) and three patterns. What a
text means in the end is only in `Fields`: two texts with equal fields fire at the same times.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .._errors import CronFormatError
from .explain import Refused, refusal, sentence, unknown_macro, value_problem, wrong_count

MAX_LENGTH = 1_000  # characters; six full enumerations need about 550


class Field(NamedTuple):
    """One row of the grammar: how the field is called, its numbers and their names."""

    name: str
    low: int
    high: int
    largest_step: int
    cycle: int  # how many different values there are: a range that wraps goes on after so many
    names: dict[str, int]


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

SECOND = Field("second", 0, 59, 59, 60, {})
MINUTE = Field("minute", 0, 59, 59, 60, {})
HOUR = Field("hour", 0, 23, 23, 24, {})
DAY = Field("day of month", 1, 31, 31, 31, {})
MONTH = Field("month", 1, 12, 12, 12, {name: number for number, name in enumerate(_MONTHS, 1)})
# 0 and 7 are Sunday; while stepping they are two values.
WEEKDAY = Field("day of week", 0, 7, 7, 7, {name: number for number, name in enumerate(_WEEKDAYS)})
FIELDS = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)

# A macro has the five fields of crontab, or all six; the difference matters to the DST rule alone.
MACROS = {
    "@every_second": "* * * * * *",
    "@every_minute": "* * * * *",
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_INTERVAL = frozenset("*?/-")
_BLANKS = re.compile("[ \t]+")
_VALUE = "([0-9]{1,2}|[A-Z]{3})"
_FLAGS = re.ASCII | re.IGNORECASE
_ANY = re.compile(r"[*?](?:/([0-9]{1,2}))?", _FLAGS)
_MEMBER = re.compile(rf"{_VALUE}(?:-{_VALUE})?(?:/([0-9]{{1,2}}))?", _FLAGS)
# Compiled when they are used first, as many programs never do: the import is not to pay for them.
_SPECIAL_DAY = r"L(?:-([0-9]{1,2}))?(W?)|([0-9]{1,2})W"
_SPECIAL_WEEKDAY = rf"{_VALUE}(?:L|#([0-9]{{1,2}}))"


class SpecialDay(NamedTuple):
    """``L``, ``L-n``, ``nW``, ``LW`` or ``L-nW``: one day, counted from the start or the end of the month."""

    anchor: int  # 15 is the 15th, 0 the last day of the month, -3 three days before it
    nearest_weekday: bool  # moved to the nearest Monday to Friday within the month


class SpecialWeekday(NamedTuple):
    """``dL`` or ``d#k``: one weekday of the month."""

    weekday: int  # Sunday is 0
    number: int  # 1 is the first of the month; 0 stands for the last


class Fields(NamedTuple):
    """What a cron text means. Sets of numbers are bit masks: bit 5 of `hours` is set when 5 o'clock matches."""

    seconds: int
    minutes: int
    hours: int
    days: int | SpecialDay
    months: int
    weekdays: int | SpecialWeekday  # bit 0 is Sunday
    interval: bool  # the second, minute or hour has a star, a range or a step: both passages of a DST overlap count


class Piece(NamedTuple):
    """The numbers from `first` to `last` in steps, both included; never wraps around."""

    first: int
    last: int
    step: int


def parse(text: str) -> Fields:
    """Read a cron text of five or six fields, or a macro.

    Raises:
        CronFormatError: For everything that the grammar does not allow.
    """
    parts = split(text)
    masks: list[int] = []
    special_day: SpecialDay | None = None
    special_weekday: SpecialWeekday | None = None
    field = SECOND
    try:
        for field, part in zip(FIELDS, parts, strict=True):
            if field is DAY:
                special_day = read_special_day(part)
            elif field is WEEKDAY:
                special_weekday = read_special_weekday(part)
            special = (field is DAY and special_day) or special_weekday
            masks.append(0 if special else _mask(read_pieces(field, part)))
    except Refused as refused:
        message = sentence(f"{field.name}: {refused.problem}", text)
        raise CronFormatError(message, text, field.name, refused.piece) from None
    seconds, minutes, hours, days, months, weekdays = masks
    weekdays = (weekdays | weekdays >> 7) & 0b1111111  # 7 is 0
    interval = not _INTERVAL.isdisjoint("".join(parts[:3]))
    return Fields(seconds, minutes, hours, special_day or days, months, special_weekday or weekdays, interval)


def split(text: str) -> list[str]:
    """Split a text into the texts of six fields: macros are expanded, five fields get second 0.

    Raises:
        CronFormatError: For more than 1,000 characters, and for anything but five fields, six fields or a macro.
    """
    if len(text) > MAX_LENGTH:
        raise CronFormatError(sentence(f"more than {MAX_LENGTH} characters", text), text)
    plain = text.partition("\0")[0].strip(" \t")  # a NUL ends the text, as in the original
    if plain.startswith("@"):
        try:
            plain = MACROS[plain.lower()]
        except KeyError:
            message = sentence(unknown_macro(plain, MACROS), text)
            raise CronFormatError(message, text, None, plain) from None
    parts = _BLANKS.split(plain) if plain else []
    if len(parts) not in (5, 6):
        raise CronFormatError(sentence(wrong_count(len(parts)), text), text)
    return parts if len(parts) == 6 else ["0", *parts]


def read_special_day(text: str) -> SpecialDay | None:
    """Read ``L``, ``L-n``, ``nW``, ``LW`` or ``L-nW``; ``None`` for a field without such a form."""
    found = re.fullmatch(_SPECIAL_DAY, text, _FLAGS)
    if not found:
        return None
    before_last, last_nearest, day = found.groups()
    if day:
        return SpecialDay(_value(DAY, day), nearest_weekday=True)
    if before_last and int(before_last) > 30:
        raise Refused(text, f"the {before_last} of {text} is outside 0-30")
    return SpecialDay(-int(before_last or 0), nearest_weekday=bool(last_nearest))


def read_special_weekday(text: str) -> SpecialWeekday | None:
    """Read ``dL`` or ``d#k``; ``None`` for a field without such a form."""
    found = re.fullmatch(_SPECIAL_WEEKDAY, text, _FLAGS)
    if not found:
        return None
    weekday = _value(WEEKDAY, found[1]) % 7
    if found[2] and not 1 <= int(found[2]) <= 5:
        raise Refused(text, f"the {found[2]} of {text} is outside 1-5")
    return SpecialWeekday(weekday, int(found[2] or 0))


def read_pieces(field: Field, text: str) -> list[Piece]:
    """Read a field without a special form: ``*``, ``?``, ``*/n``, or a list of values, ranges and steps."""
    found = _ANY.fullmatch(text)
    if found:
        return [Piece(field.low, field.high, _step(field, found[1]))]
    pieces: list[Piece] = []
    for member in text.split(","):
        found = _MEMBER.fullmatch(member)
        if not found:
            raise refusal(field, member, text)
        pieces += _range(field, *found.groups())
    return pieces


def _range(field: Field, first: str, last: str | None, step: str | None) -> list[Piece]:
    """The one or two pieces of ``a``, ``a-b``, ``a/n`` or ``a-b/n``."""
    low, stride = _value(field, first), _step(field, step)
    high = _value(field, last) if last else field.high if step else low
    if low > high and field is WEEKDAY and low == 7:
        low = 0  # a range that wraps and starts at Sunday starts at 0; the original loses the Sunday here
    if low <= high:
        return [Piece(low, high, stride)]
    top = field.low + field.cycle - 1
    end = top - (top - low) % stride
    begin = end + stride - field.cycle  # the stride goes on across the wrap
    return [Piece(low, end, stride), *([Piece(begin, high, stride)] if begin <= high else [])]


def _value(field: Field, text: str) -> int:
    """One number or name of the field."""
    value = int(text) if text.isdigit() else field.names.get(text.upper(), -1)
    if not field.low <= value <= field.high:
        raise Refused(text, value_problem(field, text) or "")
    return value


def _step(field: Field, text: str | None) -> int:
    """The number after the slash; 1 without one."""
    step = int(text) if text else 1
    if not 1 <= step <= field.largest_step:
        raise Refused(f"/{text}", f"the step {text} is outside 1-{field.largest_step}")
    return step


def _mask(pieces: list[Piece]) -> int:
    """The bit mask of all numbers in the pieces."""
    mask = 0
    for first, last, step in pieces:
        if step == 1:
            mask |= (2 << last) - (1 << first)
        else:
            mask |= sum(1 << value for value in range(first, last + 1, step))
    return mask
