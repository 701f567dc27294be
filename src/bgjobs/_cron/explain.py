"""What to tell the author of a cron text that the grammar refuses: the slow, helpful side of `_grammar`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .grammar import Field

_SHOWN = 80  # characters of a text that an error repeats
_ILLEGAL = re.compile(r"[^0-9A-Za-z*?,/#-]")
_SPECIAL = r"(?:[0-9]*|[A-Z]{3})(?:LW|WL|L|W)|.*#.*"
_ORDER = "second minute hour day-of-month month day-of-week"


class Refused(Exception):  # noqa: N818 - `_grammar.parse` makes the public error of it
    """A part of a field that the grammar refuses.

    Attributes:
        piece: The part.
        problem: What is wrong with it, and what would be right.
    """

    def __init__(self, piece: str, problem: str) -> None:
        super().__init__(piece, problem)
        self.piece = piece
        self.problem = problem


def shown(text: str) -> str:
    """The text in quotes, shortened, with everything that cannot be seen spelled out."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut) + '"'


def sentence(problem: str, text: str) -> str:
    """A problem with the whole text; what stands after a semicolon is advice and comes last."""
    said, semicolon, advice = problem.partition("; ")
    return f"{said} in {shown(text)}{semicolon}{advice}"


def wrong_count(count: int) -> str:
    """A text with too few or too many fields."""
    found = "1 field" if count == 1 else f"{count} fields"
    years = ", of which none is for years," if count == 7 else ""
    return f"{found} found{years}; six are needed, seconds first ({_ORDER}), or five without seconds"


def unknown_macro(text: str, macros: Iterable[str]) -> str:
    """A word after ``@`` that is none of the macros."""
    if text.casefold() == "@reboot":
        return "@reboot is no time; run_immediately runs a job when the program starts"
    return f"there is no such macro; there are {', '.join(macros)}"


def refusal(field: Field, member: str, whole: str) -> Refused:
    """A list member, often the whole field, of a form that the field does not take."""
    upper = member.upper()
    illegal = _ILLEGAL.search(member)
    if illegal:
        return Refused(member, f"the character {shown(illegal[0])} is not allowed; blanks separate the fields")
    if not member:
        return Refused(whole, f"a piece of the list {whole} is empty")
    if upper.split("/")[0] == "H":
        return Refused(member, f"{member} (a value picked by the program) is not supported; write a number")
    if "*" in member or "?" in member:
        alone = "* and ? stand alone or with a step, as in */5, never in a list or range"
        return Refused(member, f"{member} is not understood; {alone}")
    if any(re.fullmatch(_SPECIAL, token) for token in re.split("[-/]", upper)):
        return Refused(member, _special(field, member, whole))
    return Refused(member, _ordinary(field, member))


def value_problem(field: Field, text: str) -> str | None:
    """What is wrong with one number or name, or ``None``."""
    if text.isdigit():
        if len(text) > 2:
            return f"{text} has more than two digits"
        return None if field.low <= int(text) <= field.high else f"{text} is outside {field.low}-{field.high}"
    start = text[:3].upper()
    if start in field.names:
        return f"{text} is too long, names have three letters: {start}" if len(text) > 3 else None
    names = f" or {', '.join(field.names)}" if field.names else ""
    return f"{text} is not understood; this field takes {field.low}-{field.high}{names}"


def _ordinary(field: Field, member: str) -> str:
    """What is wrong with a member that tries to be a value, a range or a step."""
    base, slash, step = member.partition("/")
    for part in base.split("-"):
        problem = value_problem(field, part) if part else f"a number is missing in {member}"
        if problem:
            return problem
    if slash and not step.isdigit():
        return f"the step in {member} is no number"
    if slash and len(step) > 2:
        return f"the step {step} is outside 1-{field.largest_step}"
    return f"{member} is not understood; a piece is written 5, 1-5, 5/15 or 1-5/2"


def _special(field: Field, member: str, whole: str) -> str:
    """What is wrong with an ``L``, ``W`` or ``#`` in a field or a place that does not take it."""
    upper = member.upper()
    if field.name == "day of month":
        if upper == "WL":
            return f"{member} is not understood; the last working day of the month is LW"
        if "#" in upper or re.fullmatch("([0-9]+|[A-Z]{3})L", upper):
            return f"{member} belongs to the day of week; the last day of the month is L"
        return f"{whole} is not understood; L, L-3, LW, L-3W and 15W stand alone, in no list, range or step"
    if field.name == "day of week":
        if upper == "L":
            return "L needs its weekday: 6L is the last Saturday of the month, 6 every Saturday"
        if re.fullmatch("[0-9]*(LW|WL|W)", upper):
            return f"{member} belongs to the day of month"
        return f"{whole} is not understood; 5L and 5#2 stand alone, in no list, range or step"
    return f"{member} is not understood; L, W and # belong to the day of month and the day of week"
