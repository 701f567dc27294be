"""The grammar: what every valid form means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bgjobs import BgjobsError, CronExpression, CronFormatError
from cron_expressions import RANGES, expressions, plain
from oracle import MACROS, Oracle, numbers

NAMES = ["second", "minute", "hour", "day of month", "month", "day of week"]


def fields(text: str) -> Any:
    """What an expression means; a set of numbers is a bit mask."""
    return CronExpression(text).fields


def values(mask: int) -> list[int]:
    """The numbers of a bit mask."""
    return [number for number in range(64) if mask >> number & 1]


def refusal(text: str) -> BgjobsError | None:
    """The error with which an expression is refused."""
    try:
        CronExpression(text)
    except BgjobsError as error:
        return error
    return None


class TestNumbers:
    @pytest.mark.parametrize(
        ("hour", "expected"),
        [
            ("5", [5]),
            ("05", [5]),
            ("1,3,2", [1, 2, 3]),
            ("9-12", [9, 10, 11, 12]),
            ("9-9", [9]),
            ("20/2", [20, 22]),
            ("*/8", [0, 8, 16]),
            ("?/8", [0, 8, 16]),
            ("1-10/4", [1, 5, 9]),
            ("1-5/5", [1]),
            ("20/15", [20]),
            ("*/23", [0, 23]),
            ("22-2", [0, 1, 2, 22, 23]),
            ("22-3/2", [0, 2, 22]),
            ("23-3/2", [1, 3, 23]),
            ("12-11", list(range(24))),
            ("*", list(range(24))),
            ("?", list(range(24))),
            ("0-2,22-23/1,8/12", [0, 1, 2, 8, 20, 22, 23]),
        ],
    )
    def test_hours(self, hour: str, expected: list[int]) -> None:
        """Values, lists, ranges, steps and ranges that wrap give these hours."""
        assert expected == values(fields(f"0 0 {hour} * * *").hours)

    @pytest.mark.parametrize(
        ("day", "expected"),
        [("20-5/5", [4, 20, 25, 30]), ("*/31", [1]), ("30-3", [1, 2, 3, 30, 31]), ("*/15", [1, 16, 31])],
    )
    def test_days(self, day: str, expected: list[int]) -> None:
        """Days begin with 1, and a stride continues after 31."""
        assert expected == values(fields(f"0 0 0 {day} * *").days)

    @pytest.mark.parametrize(
        ("month", "expected"),
        [
            ("DEC-FEB", [1, 2, 12]),
            ("jan/3", [1, 4, 7, 10]),
            ("9-8/3", [3, 6, 9, 12]),
            ("*/12", [1]),
            ("Jan,3-APR", [1, 3, 4]),
        ],
    )
    def test_months(self, month: str, expected: list[int]) -> None:
        """Names stand for numbers wherever a value may stand, in any case."""
        assert expected == values(fields(f"0 0 0 1 {month} *").months)

    @pytest.mark.parametrize(
        ("weekday", "expected"),
        [
            ("0", [0]),
            ("7", [0]),
            ("SUN", [0]),
            ("1-5", [1, 2, 3, 4, 5]),
            ("MON-5", [1, 2, 3, 4, 5]),
            ("5-7", [0, 5, 6]),
            ("FRI-MON", [0, 1, 5, 6]),
            ("MON-SUN", list(range(7))),
            ("SUN-7", list(range(7))),
            ("SAT-SUN", [0, 6]),
            ("*/2", [0, 2, 4, 6]),
            ("1/2", [0, 1, 3, 5]),
            ("1/3", [0, 1, 4]),
            ("*/7", [0]),
            ("7/2", [0]),
            ("6-2/3", [2, 6]),
            ("SUN-3/2", [0, 2]),
            ("0-7/2,1/2", list(range(7))),
        ],
    )
    def test_weekdays(self, weekday: str, expected: list[int]) -> None:
        """Sunday is 0 and 7: two values while stepping, one day in the end."""
        assert expected == values(fields(f"0 0 0 * * {weekday}").weekdays)

    @pytest.mark.parametrize(
        ("weekday", "expected"), [("7-3", [0, 1, 2, 3]), ("7-3/2", [0, 2]), ("7-0/2", [0]), ("7-1/3", [0])]
    )
    def test_ranges_from_the_digit_7(self, weekday: str, expected: list[int]) -> None:
        """A range that wraps and starts at 7 starts at Sunday, which the original loses where there is a step."""
        assert expected == values(fields(f"0 0 0 * * {weekday}").weekdays)

    @given(st.sampled_from(list(enumerate(RANGES))).flatmap(lambda row: st.tuples(st.just(row[0]), plain(row[1]))))
    def test_oracle(self, field: tuple[int, str]) -> None:
        """Any field without a special form has the numbers that counting one by one gives."""
        index, text = field
        parts = ["*"] * 6
        parts[index] = text
        assert sorted(numbers(text.upper(), index)) == values(fields(" ".join(parts))[index])


class TestSpecialForms:
    @pytest.mark.parametrize(
        ("day", "anchor", "nearest_weekday"),
        [
            ("L", 0, False),
            ("l", 0, False),
            ("L-0", 0, False),
            ("L-3", -3, False),
            ("L-30", -30, False),
            ("15W", 15, True),
            ("05w", 5, True),
            ("LW", 0, True),
            ("L-3W", -3, True),
        ],
    )
    def test_days(self, day: str, anchor: int, nearest_weekday: bool) -> None:
        """A special day counts from one end of the month, and W looks for the nearest working day."""
        assert (anchor, nearest_weekday) == fields(f"0 0 0 {day} * *").days

    @pytest.mark.parametrize(
        ("weekday", "number_of_weekday", "number"),
        [("5L", 5, 0), ("FRIL", 5, 0), ("7l", 0, 0), ("05L", 5, 0), ("1#1", 1, 1), ("mon#05", 1, 5), ("7#3", 0, 3)],
    )
    def test_weekdays(self, weekday: str, number_of_weekday: int, number: int) -> None:
        """A special weekday is one of the month, the last or the k-th."""
        assert (number_of_weekday, number) == fields(f"0 0 0 * * {weekday}").weekdays


class TestText:
    @pytest.mark.parametrize("text", ["  1  2\t3 * * *\t", "1 2 3 * * *\0 anything", "01 02 03 ? ? ?"])
    def test_blanks(self, text: str) -> None:
        """Runs of blanks and tabs separate fields, outer ones are ignored, and a NUL ends the expression."""
        assert fields("1 2 3 * * *") == fields(text)

    def test_five_fields(self) -> None:
        """Five fields mean second 0."""
        assert fields("0 30 9 * * 1") == fields("30 9 * * 1")

    @pytest.mark.parametrize("macro", MACROS)
    def test_macros(self, macro: str) -> None:
        """A macro means what its long form means, in any case and with blanks around it."""
        assert fields(MACROS[macro]) == fields(f" {macro.upper()} ")

    @given(expressions())
    def test_interval(self, text: str) -> None:
        """A star, a range or a step in second, minute or hour makes an interval, in the days it does not."""
        assume(refusal(text) is None)  # some can never match
        assert Oracle(text).interval == fields(text).interval

    @given(
        st.text()
        | st.text("0123456789*?,/-#LWHJANSUN@ \t\0", max_size=40)
        | st.lists(st.text(max_size=4)).map(" ".join)
    )
    def test_nothing_else_escapes(self, text: str) -> None:
        """Whatever the text, it is read or refused with an error that carries it."""
        error = refusal(text)
        assert error is None or text == getattr(error, "expression", None)

    @given(expressions(), st.text("0123456789*?,/-#LWH JANSUN", max_size=2), st.integers(0, 30))
    def test_nearly_right(self, text: str, inserted: str, position: int) -> None:
        """A valid expression with something put in is read or refused in the same way, its field named."""
        error = refusal(text[:position] + inserted + text[position:])
        if isinstance(error, CronFormatError) and error.field is not None:
            assert error.field in NAMES
            assert str(error).startswith(f"{error.field}: ")

    def test_longest(self) -> None:
        """The longest sensible expression is read: every field enumerated."""
        enumeration = [",".join(f"{number:02}" for number in range(low, high + 1)) for low, high in RANGES.values()]
        assert fields("* * * * *" + " " * 991) == fields("* * * * *")
        assert fields("* * * * * *")[:6] == fields(" ".join(enumeration))[:6]
