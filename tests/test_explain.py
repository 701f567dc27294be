"""The errors: every refused form, with the whole message."""

from __future__ import annotations

import pytest

from bgjobs._cron.expression import CronExpression
from bgjobs._errors import CronFormatError

THREE = "\N{ARABIC-INDIC DIGIT THREE}"  # a digit to str.isdigit()
DOTLESS = "\N{LATIN SMALL LETTER DOTLESS I}"  # an ASCII letter in upper case
ORDER = "six are needed, seconds first (second minute hour day-of-month month day-of-week), or five without seconds"
MONTHS = "1-12 or JAN, FEB, MAR, APR, MAY, JUN, JUL, AUG, SEP, OCT, NOV, DEC"
STAR = "* and ? stand alone or with a step, as in */5, never in a list or range"
DAYS = "L, L-3, LW, L-3W and 15W stand alone, in no list, range or step"
WEEKDAYS = "5L and 5#2 stand alone, in no list, range or step"
MACROS = "@every_second, @every_minute, @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"
# The text, with {} for the error's copy of it, and the message.
REFUSED = [
    # Values
    ("0 0 25 * * *", 'hour: 25 is outside 0-23 in {}'),
    ("60 * * * * *", 'second: 60 is outside 0-59 in {}'),
    ("0 0 9-24 * * *", 'hour: 24 is outside 0-23 in {}'),
    ("0 0 0 0 * *", 'day of month: 0 is outside 1-31 in {}'),
    ("0 0 0 1 13 *", 'month: 13 is outside 1-12 in {}'),
    ("0 0 0 * * 8", 'day of week: 8 is outside 0-7 in {}'),
    ("0 007 * * * *", 'minute: 007 has more than two digits in {}'),
    ("5- * * * * *", 'second: a number is missing in 5- in {}'),
    ("-5 * * * * *", 'second: a number is missing in -5 in {}'),
    ("1,,2 * * * * *", 'second: a piece of the list 1,,2 is empty in {}'),
    ("1, * * * * *", 'second: a piece of the list 1, is empty in {}'),
    ("1-2-3 * * * * *", 'second: 1-2-3 is not understood in {}; a piece is written 5, 1-5, 5/15 or 1-5/2'),
    # Steps
    ("0 */0 * * * *", 'minute: the step 0 is outside 1-59 in {}'),
    ("0 */60 * * * *", 'minute: the step 60 is outside 1-59 in {}'),
    ("0 0 0 1/32 * *", 'day of month: the step 32 is outside 1-31 in {}'),
    ("0 5/100 * * * *", 'minute: the step 100 is outside 1-59 in {}'),
    ("0 5/ * * * *", 'minute: the step in 5/ is no number in {}'),
    ("0 0 0 * JAN/FEB *", 'month: the step in JAN/FEB is no number in {}'),
    # Stars
    ("*,1 * * * * *", f'second: * is not understood in {{}}; {STAR}'),
    ("0 1,? * * * *", f'minute: ? is not understood in {{}}; {STAR}'),
    ("0 */2,5 * * * *", f'minute: */2 is not understood in {{}}; {STAR}'),
    ("0 */ * * * *", f'minute: */ is not understood in {{}}; {STAR}'),
    # Names
    ("0 0 0 1 JANUARY *", 'month: JANUARY is too long, names have three letters: JAN in {}'),
    ("0 0 0 * * sunday", 'day of week: sunday is too long, names have three letters: SUN in {}'),
    ("0 0 0 1 MON *", f'month: MON is not understood in {{}}; this field takes {MONTHS}'),
    ("0 0 JAN * * *", 'hour: JAN is not understood in {}; this field takes 0-23'),
    # Special days
    ("0 0 0 5L * *", 'day of month: 5L belongs to the day of week in {}; the last day of the month is L'),
    ("0 0 0 FRI#2 * *", 'day of month: FRI#2 belongs to the day of week in {}; the last day of the month is L'),
    ("0 0 0 WL * *", 'day of month: WL is not understood in {}; the last working day of the month is LW'),
    ("0 0 0 1W,2W * *", f'day of month: 1W,2W is not understood in {{}}; {DAYS}'),
    ("0 0 0 1-5W * *", f'day of month: 1-5W is not understood in {{}}; {DAYS}'),
    ("0 0 0 L,1 * *", f'day of month: L,1 is not understood in {{}}; {DAYS}'),
    ("0 0 0 1,L * *", f'day of month: 1,L is not understood in {{}}; {DAYS}'),
    ("0 0 0 L/2 * *", f'day of month: L/2 is not understood in {{}}; {DAYS}'),
    ("0 0 0 L-31 * *", 'day of month: the 31 of L-31 is outside 0-30 in {}'),
    ("0 0 0 32W * *", 'day of month: 32 is outside 1-31 in {}'),
    # Special weekdays
    ("0 0 0 * * L", 'day of week: L needs its weekday: 6L is the last Saturday of the month, 6 every Saturday in {}'),
    ("0 0 0 * * 5L,1L", f'day of week: 5L,1L is not understood in {{}}; {WEEKDAYS}'),
    ("0 0 0 * * 5#3,1#1", f'day of week: 5#3,1#1 is not understood in {{}}; {WEEKDAYS}'),
    ("0 0 0 * * 1-5L", f'day of week: 1-5L is not understood in {{}}; {WEEKDAYS}'),
    ("0 0 0 * * 5#3#1", f'day of week: 5#3#1 is not understood in {{}}; {WEEKDAYS}'),
    ("0 0 0 * * 5#6", 'day of week: the 6 of 5#6 is outside 1-5 in {}'),
    ("0 0 0 * * 5#0", 'day of week: the 0 of 5#0 is outside 1-5 in {}'),
    ("0 0 0 * * 8L", 'day of week: 8 is outside 0-7 in {}'),
    ("0 0 0 * * 15W", 'day of week: 15W belongs to the day of month in {}'),
    ("0 0 L * * *", 'hour: L is not understood in {}; L, W and # belong to the day of month and the day of week'),
    # What the original has and bgjobs has not
    ("H * * * * *", 'second: H (a value picked by the program) is not supported in {}; write a number'),
    ("0 H/5 * * * *", 'minute: H/5 (a value picked by the program) is not supported in {}; write a number'),
    # Number of fields
    ("", f'0 fields found in {{}}; {ORDER}'),
    (" \t", f'0 fields found in {{}}; {ORDER}'),
    ("daily", f'1 field found in {{}}; {ORDER}'),
    ("* * * *", f'4 fields found in {{}}; {ORDER}'),
    ("0 0 0 1 1 ? 2027", f'7 fields found, of which none is for years, in {{}}; {ORDER}'),
    # Macros
    ("@reboot", '@reboot is no time in {}; run_immediately runs a job when the program starts'),
    ("@every_hour", f'there is no such macro in {{}}; there are {MACROS}'),
    ("@ daily", f'there is no such macro in {{}}; there are {MACROS}'),
    # Characters
    ("0 0 9 * * $", 'day of week: the character "$" is not allowed in {}; blanks separate the fields'),
    (f"0 0 {THREE} * * *", f'hour: the character "{THREE}" is not allowed in {{}}; blanks separate the fields'),
    (f"0 0 fr{DOTLESS} * * *", f'hour: the character "{DOTLESS}" is not allowed in {{}}; blanks separate the fields'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_messages(text: str, message: str) -> None:
    """An error names the field, the piece, what would be right, and the whole text."""
    with pytest.raises(CronFormatError) as caught:
        CronExpression(text)
    assert message.format(f'"{text}"'.replace("\t", "\\t")) == str(caught.value)
    assert text == caught.value.expression
    assert caught.value.field == (
        message.partition(":")[0] if text and text[0] not in " @" and ": " in message else None
    )


@pytest.mark.parametrize(
    ("text", "field", "piece"),
    [
        ("0 0 25 * * *", "hour", "25"),
        ("0 0 1,2,x * * *", "hour", "x"),
        ("0 */0 * * * *", "minute", "/0"),
        ("@x", None, "@x"),
    ],
)
def test_attributes(text: str, field: str | None, piece: str) -> None:
    """The error carries the field and the piece for programs."""
    with pytest.raises(CronFormatError) as caught:
        CronExpression(text)
    assert (field, piece) == (caught.value.field, caught.value.piece)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("0 0\N{NO-BREAK SPACE}0 * * *", r"\xa0"), ("0 0 9 * * *\n", r"\n"), ("0 0 9 * * \ud800", r"\ud800")],
)
def test_invisible_characters(text: str, shown: str) -> None:
    """Characters that cannot be seen are spelled out."""
    with pytest.raises(CronFormatError) as caught:
        CronExpression(text)
    assert shown in str(caught.value)
    assert str(caught.value).isprintable()


def test_long_text() -> None:
    """A text of more than 1,000 characters is refused unread, and shown in part."""
    with pytest.raises(CronFormatError) as caught:
        CronExpression("1," * 500 + "x * * * * *")
    assert f'more than 1000 characters in "{"1," * 40}..."' == str(caught.value)


@pytest.mark.parametrize(("value", "kind"), [(None, "None"), (5, "int"), (b"* * * * * *", "bytes"), ([], "list")])
def test_no_text(value: object, kind: str) -> None:
    """Anything but a str is refused by kind."""
    with pytest.raises(CronFormatError) as caught:
        CronExpression(value)  # type: ignore[arg-type]
    assert f'a cron text such as "0 0 9 * * *" is needed, not {kind}' == str(caught.value)
