"""The grammar of cron expressions: from the text of six fields to `Fields`, sets of numbers that a search can use.

The rules are those of the original package's cron library, written as a table (`FIELDS`) and four patterns. What an
expression means is only in `Fields`: two expressions with equal fields fire at the same times. Whatever breaks a rule
is `Refused`, which holds facts only; `explain` puts them into words.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_LENGTH = 1_000  # characters; six full enumerations need about 550


class Field(NamedTuple):
    """One row of the grammar: the name of a field, its numbers and their names."""

    name: str
    low: int
    high: int
    largest_step: int
    cycle: int  # how many different values there are; a range that wraps around continues with the value + cycle
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
_PART = re.compile("[^ \t]+")
_VALUE = "([0-9]{1,2}|[A-Z]{3})"
_FLAGS = re.ASCII | re.IGNORECASE
_ANY = re.compile(r"[*?](?:/([0-9]{1,2}))?", _FLAGS)
_MEMBER = re.compile(rf"{_VALUE}(?:-{_VALUE})?(?:/([0-9]{{1,2}}))?", _FLAGS)
# Strings: most programs never need them, so they are compiled at their first use and not at import.
_SPECIAL_DAY = r"L(?:-([0-2]?[0-9]|30))?(W?)|([0-9]{1,2})W"
_SPECIAL_WEEKDAY = rf"{_VALUE}(?:L|#(0?[1-5]))"


class Refused(Exception):  # noqa: N818 - never seen by users, who get a CronFormatError made of it
    """A part of a cron expression that the grammar does not allow.

    Attributes:
        field: The field; ``None`` for a wrong number of fields, an unknown macro and an expression that is too long.
        piece: The part of the field, or the macro.
        whole: The whole field, or all the fields.
    """

    def __init__(self, field: Field | None, piece: str | None, whole: str) -> None:
        super().__init__(field, piece, whole)
        self.field = field
        self.piece = piece
        self.whole = whole


class SpecialDay(NamedTuple):
    """``L``, ``L-n``, ``nW``, ``LW`` or ``L-nW``: one day, counted from the start or the end of the month."""

    anchor: int  # 15 is the 15th, 0 the last day of the month, -3 three days before it
    nearest_weekday: bool  # moved to the nearest Monday to Friday within the month


class SpecialWeekday(NamedTuple):
    """``dL`` or ``d#k``: one weekday of the month."""

    weekday: int  # Sunday is 0
    number: int  # 1 is the first of the month; 0 stands for the last


class Fields(NamedTuple):
    """What a cron expression means. Sets of numbers are bit masks: bit 5 of `hours` is set when 5 o'clock matches."""

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
    """Read a cron expression of five or six fields, or a macro.

    Raises:
        Refused: The grammar does not allow it.
    """
    second, minute, hour, day, month, weekday = split(text)
    return Fields(
        numbers(SECOND, second),
        numbers(MINUTE, minute),
        numbers(HOUR, hour),
        read_special_day(day) or numbers(DAY, day),
        numbers(MONTH, month),
        read_special_weekday(weekday) or numbers(WEEKDAY, weekday),
        interval=not _INTERVAL.isdisjoint(second + minute + hour),
    )


def split(text: str) -> list[str]:
    """Split a cron expression into the texts of six fields: macros are expanded, five fields get second 0.

    Raises:
        Refused: It has more than 1,000 characters, or is neither five fields, six fields nor a macro.
    """
    if len(text) > MAX_LENGTH:
        raise Refused(None, None, text)
    plain = text.partition("\0")[0].strip(" \t")  # a NUL ends the expression, as in the original
    if plain.startswith("@"):
        if plain.lower() not in MACROS:
            raise Refused(None, plain, plain)
        plain = MACROS[plain.lower()]
    parts = _PART.findall(plain)
    if len(parts) not in (5, 6):
        raise Refused(None, None, plain)
    return parts if len(parts) == 6 else ["0", *parts]


def read_special_day(text: str) -> SpecialDay | None:
    """Read ``L``, ``L-n``, ``nW``, ``LW`` or ``L-nW``; ``None`` for a field without such a form."""
    found = re.fullmatch(_SPECIAL_DAY, text, _FLAGS)
    if not found:
        return None
    before_last, last_nearest, day = found.groups()
    if day:
        return SpecialDay(_value(DAY, day), nearest_weekday=True)
    return SpecialDay(-int(before_last or 0), nearest_weekday=bool(last_nearest))


def read_special_weekday(text: str) -> SpecialWeekday | None:
    """Read ``dL`` or ``d#k``; ``None`` for a field without such a form."""
    found = re.fullmatch(_SPECIAL_WEEKDAY, text, _FLAGS)
    return SpecialWeekday(_value(WEEKDAY, found[1]) % 7, int(found[2] or 0)) if found else None


def numbers(field: Field, text: str) -> int:
    """Read a field without a special form, as a bit mask; 7 as a weekday is 0.

    Raises:
        Refused: The grammar does not allow it.
    """
    mask = 0
    for first, last, step in read_pieces(field, text):
        if step == 1:
            mask |= (2 << last) - (1 << first)
        else:
            mask |= sum(1 << value for value in range(first, last + 1, step))
    return (mask | mask >> 7) & 0b1111111 if field is WEEKDAY else mask


def read_pieces(field: Field, text: str) -> list[Piece]:
    """Read a field without a special form: ``*``, ``?``, ``*/n``, or a list of values, ranges and steps."""
    found = _ANY.fullmatch(text)
    if found:
        return [Piece(field.low, field.high, _step(field, found[1]))]
    pieces: list[Piece] = []
    for member in text.split(","):
        found = _MEMBER.fullmatch(member)
        if not found:
            raise Refused(field, member, text)
        pieces += _range(field, *found.groups())
    return pieces


def _range(field: Field, first: str, last: str | None, step: str | None) -> list[Piece]:
    """The one or two pieces of ``a``, ``a-b``, ``a/n`` or ``a-b/n``."""
    low, stride = _value(field, first), _step(field, step)
    high = _value(field, last) if last else field.high if step else low
    if low > high and field is WEEKDAY and low == 7:
        low = 0  # a range that wraps around and starts at Sunday starts at 0; the original loses the Sunday here
    if low <= high:
        return [Piece(low, high, stride)]
    top = field.low + field.cycle - 1
    end = top - (top - low) % stride
    begin = end + stride - field.cycle  # the stride continues across the wrap
    return [Piece(low, end, stride), *([Piece(begin, high, stride)] if begin <= high else [])]


def _value(field: Field, text: str) -> int:
    """One number or name of the field."""
    value = int(text) if text.isdigit() else field.names.get(text.upper(), -1)
    if not field.low <= value <= field.high:
        raise Refused(field, text, text)
    return value


def _step(field: Field, text: str | None) -> int:
    """The number after the slash; 1 without one."""
    step = int(text) if text else 1
    if not 1 <= step <= field.largest_step:
        raise Refused(field, f"/{text}", f"/{text}")
    return step
