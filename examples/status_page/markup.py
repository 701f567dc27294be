"""HTML that is escaped by construction: whatever is not `Html` already is text."""

from __future__ import annotations

import re
from html import escape

VOID = {"link", "meta", "line", "rect", "circle", "path"}
GAPS = re.compile(r"(?<=[-_./:,;@=&?])(?=[^\s])|(?<=[a-z])(?=[A-Z])")
LONG = 18  # characters; longer words may be broken
CUT = 240  # longer errors are cut


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *content: str, **attributes: object) -> Html:
    """One element; texts are escaped, and attributes that are ``None`` left out."""
    given = {key.strip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    start = name + "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    return Html(f"<{start}/>") if name in VOID and not content else Html(f"<{start}>{joined(*content)}</{name}>")


def joined(*content: str) -> Html:
    """Several parts as one."""
    return Html("".join(each if isinstance(each, Html) else escape(each) for each in content))


def breakable(text: str) -> Html:
    """A text whose very long words may be broken where their parts meet."""
    words = re.split(r"(\s+)", text)
    return Html("".join("<wbr>".join(map(escape, GAPS.split(word) if len(word) > LONG else [word])) for word in words))


def cut(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= CUT else f"{text[:CUT]}\N{HORIZONTAL ELLIPSIS}"


def tight(text: str) -> str:
    """A text that stays on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")
