"""Error messages for refused cron expressions: which field, which piece, and what would be right.

Nothing here decides what is allowed: `grammar` has refused the expression, and this module looks for the likely reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .._errors import CronFormatError
from .grammar import MACROS, MAX_LENGTH

if TYPE_CHECKING:
    from .grammar import Field, Refused

_SHOWN = 80  # characters of an expression that an error repeats
_ILLEGAL = re.compile(r"[^0-9A-Za-z*?,/#-]")
_SPECIAL = re.compile(r"#|\b(?:[0-9]*|[A-Z]{3})[LW]{1,2}\b", re.IGNORECASE)
_SPECIAL_FORMS = (
    "L, W and # stand alone in their field: L, L-n (n up to 30), LW, L-nW or nW in the day of month, "
    "dL or d#k (k from 1 to 5) in the day of week"
)
_ORDER = "second minute hour day-of-month month day-of-week"


def format_error(refused: Refused, text: str) -> CronFormatError:
    """The public error for a refused cron expression."""
    field, piece, whole = refused.field, refused.piece, refused.whole
    if field is None:
        return CronFormatError(sentence(_problem_of_all(piece, whole), text), text, None, piece)
    message = sentence(f"{field.name}: {_problem(field, piece or '', whole)}", text)
    return CronFormatError(message, text, field.name, piece or whole)


def sentence(problem: str, text: str) -> str:
    """A problem with the expression it is in; what follows a semicolon is advice and comes last."""
    fault, semicolon, advice = problem.partition("; ")
    return f"{fault} in {shown(text)}{semicolon}{advice}"


def shown(text: str) -> str:
    """The text in quotes, shortened, with everything that cannot be seen spelled out."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut) + '"'


def _problem_of_all(macro: str | None, fields: str) -> str:
    """What is wrong with an expression as a whole: its length, its macro, or the number of its fields."""
    if len(fields) > MAX_LENGTH:
        return f"more than {MAX_LENGTH} characters"
    if macro:
        if macro.lower() == "@reboot":
            return "@reboot is not a time; run_immediately runs a job when the program starts"
        return f"there is no such macro; the macros are {', '.join(MACROS)}"
    count = len(re.findall("[^ \t]+", fields))
    found = "1 field" if count == 1 else f"{count} fields"
    years = ", of which none is for years," if count == 7 else ""
    return f"{found} found{years}; six are needed, seconds first ({_ORDER}), or five without seconds"


def _problem(field: Field, piece: str, whole: str) -> str:
    """What is wrong with a piece of a field, most telling reason first."""
    base, slash, step = piece.partition("/")
    if illegal := _ILLEGAL.search(piece):
        return f"the character {shown(illegal[0])} is not allowed; blanks separate the fields"
    if not piece:
        return f"a piece of the list {whole} is empty"
    if base.upper() == "H":
        return f"{piece} (a value picked by the program) is not supported; write a number"
    if slash and not step.isdigit():
        return f"the step in {piece} is not a number"
    if slash and not 1 <= int(step) <= field.largest_step:
        return f"the step {step} is outside 1-{field.largest_step}"
    if _SPECIAL.search(piece):
        return f"{whole} is not understood; {_SPECIAL_FORMS}"
    if "*" in piece or "?" in piece:
        return f"{piece} is not understood; * and ? stand alone or with a step, as in */5, never in a list or range"
    for value in base.split("-"):
        if value.isdigit() and not field.low <= int(value) <= field.high:
            return f"{value} is outside {field.low}-{field.high}"
        if value and not value.isdigit() and value.upper() not in field.names:
            names = f" or {', '.join(field.names)}" if field.names else ""
            return f"{value} is not understood; this field takes {field.low}-{field.high}{names}"
    return f"{piece} is not understood; write 5, 1-5, 5/15 or 1-5/2, with numbers of one or two digits"
