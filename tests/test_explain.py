"""The errors: every refused form, with its whole message."""

from __future__ import annotations

import pytest

from bgjobs import CronExpression, CronFormatError

THREE = "\N{ARABIC-INDIC DIGIT THREE}"  # a digit to str.isdigit()
DOTLESS = "\N{LATIN SMALL LETTER DOTLESS I}"  # an ASCII letter in upper case
ORDER = "six are needed, seconds first (second minute hour day-of-month month day-of-week), or five without seconds"
MONTHS = "1-12 or JAN, FEB, MAR, APR, MAY, JUN, JUL, AUG, SEP, OCT, NOV, DEC"
STAR = "* and ? stand alone or with a step, as in */5, never in a list or range"
FORM = "write 5, 1-5, 5/15 or 1-5/2, with numbers of one or two digits"
WEEKDAYS = "0-7 or SUN, MON, TUE, WED, THU, FRI, SAT"
SPECIAL = (
    "L, W and # stand alone in their field: L, L-n (n up to 30), LW, L-nW or nW in the day of month, "
    "dL or d#k (k from 1 to 5) in the day of week"
)
MACROS = "@every_second, @every_minute, @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"
# The expression, with {} for the error's copy of it, and the message.
REFUSED = [
    # Values
    ("0 0 25 * * *", 'hour: 25 is outside 0-23 in {}'),
    ("60 * * * * *", 'second: 60 is outside 0-59 in {}'),
    ("0 0 9-24 * * *", 'hour: 24 is outside 0-23 in {}'),
    ("0 0 0 0 * *", 'day of month: 0 is outside 1-31 in {}'),
    ("0 0 0 1 13 *", 'month: 13 is outside 1-12 in {}'),
    ("0 0 0 * * 8", 'day of week: 8 is outside 0-7 in {}'),
    ("0 007 * * * *", f'minute: 007 is not understood in {{}}; {FORM}'),
    ("5- * * * * *", f'second: 5- is not understood in {{}}; {FORM}'),
    ("-5 * * * * *", f'second: -5 is not understood in {{}}; {FORM}'),
    ("1,,2 * * * * *", 'second: a piece of the list 1,,2 is empty in {}'),
    ("1, * * * * *", 'second: a piece of the list 1, is empty in {}'),
    ("1-2-3 * * * * *", f'second: 1-2-3 is not understood in {{}}; {FORM}'),
    # Steps
    ("0 */0 * * * *", 'minute: the step 0 is outside 1-59 in {}'),
    ("0 */60 * * * *", 'minute: the step 60 is outside 1-59 in {}'),
    ("0 0 0 1/32 * *", 'day of month: the step 32 is outside 1-31 in {}'),
    ("0 */100 * * * *", 'minute: the step 100 is outside 1-59 in {}'),
    ("0 /5 * * * *", f'minute: /5 is not understood in {{}}; {FORM}'),
    ("0 5/100 * * * *", 'minute: the step 100 is outside 1-59 in {}'),
    ("0 5/ * * * *", 'minute: the step in 5/ is not a number in {}'),
    ("0 0 0 * JAN/FEB *", 'month: the step in JAN/FEB is not a number in {}'),
    # Stars
    ("*,1 * * * * *", f'second: * is not understood in {{}}; {STAR}'),
    ("0 1,? * * * *", f'minute: ? is not understood in {{}}; {STAR}'),
    ("0 */2,5 * * * *", f'minute: */2 is not understood in {{}}; {STAR}'),
    ("0 */ * * * *", 'minute: the step in */ is not a number in {}'),
    # Names
    ("0 0 0 1 JANUARY *", f'month: JANUARY is not understood in {{}}; this field takes {MONTHS}'),
    ("0 0 0 * * sunday", f'day of week: sunday is not understood in {{}}; this field takes {WEEKDAYS}'),
    ("0 0 0 1 MON *", f'month: MON is not understood in {{}}; this field takes {MONTHS}'),
    ("0 0 JAN * * *", 'hour: JAN is not understood in {}; this field takes 0-23'),
    # L, W and #
    ("0 0 0 5L * *", f'day of month: 5L is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 FRI#2 * *", f'day of month: FRI#2 is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 WL * *", f'day of month: WL is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 1W,2W * *", f'day of month: 1W,2W is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 1-5W * *", f'day of month: 1-5W is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 L,1 * *", f'day of month: L,1 is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 1,L * *", f'day of month: 1,L is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 L/2 * *", f'day of month: L/2 is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 L-31 * *", f'day of month: L-31 is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 32W * *", 'day of month: 32 is outside 1-31 in {}'),
    ("0 0 0 * * L", f'day of week: L is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 * * 5L,1L", f'day of week: 5L,1L is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 * * 5#3,1#1", f'day of week: 5#3,1#1 is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 * * 1-5L", f'day of week: 1-5L is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 * * 5#3#1", f'day of week: 5#3#1 is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 * * 5#6", f'day of week: 5#6 is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 * * 5#0", f'day of week: 5#0 is not understood in {{}}; {SPECIAL}'),
    ("0 0 0 * * 8L", 'day of week: 8 is outside 0-7 in {}'),
    ("0 0 0 * * 15W", f'day of week: 15W is not understood in {{}}; {SPECIAL}'),
    ("0 0 L * * *", f'hour: L is not understood in {{}}; {SPECIAL}'),
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
    ("@reboot", '@reboot is not a time in {}; run_immediately runs a job when the program starts'),
    ("@every_hour", f'there is no such macro in {{}}; the macros are {MACROS}'),
    ("@ daily", f'there is no such macro in {{}}; the macros are {MACROS}'),
    # Characters
    ("0 0 9 * * $", 'day of week: the character "$" is not allowed in {}; blanks separate the fields'),
    (f"0 0 {THREE} * * *", f'hour: the character "{THREE}" is not allowed in {{}}; blanks separate the fields'),
    (f"0 0 fr{DOTLESS} * * *", f'hour: the character "{DOTLESS}" is not allowed in {{}}; blanks separate the fields'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_messages(text: str, message: str) -> None:
    """An error names the field, the piece, what would be right, and the whole expression."""
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


def test_too_long() -> None:
    """An expression of more than 1,000 characters is refused unread, and shown in part."""
    with pytest.raises(CronFormatError) as caught:
        CronExpression("1," * 500 + "x * * * * *")
    assert f'more than 1000 characters in "{"1," * 40}..."' == str(caught.value)


@pytest.mark.parametrize(("value", "kind"), [(None, "None"), (5, "int"), (b"* * * * * *", "bytes"), ([], "list")])
def test_no_text(value: object, kind: str) -> None:
    """Anything but a str is refused by kind."""
    with pytest.raises(CronFormatError) as caught:
        CronExpression(value)  # type: ignore[arg-type]
    assert f'a cron expression such as "0 0 9 * * *" is needed, not {kind}' == str(caught.value)
