"""The page of errors and log messages has a row for everything that bgjobs says, and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import apscheduler

import bgjobs
from messages import from_sources, normal

PAGE = (Path(__file__).parent.parent / "docs" / "messages.md").read_text(encoding="utf-8")
OURS, _, THEIRS = PAGE.partition("\n## Messages of APScheduler\n")

#: How texts begin that are no messages: what an object looks like in a debugger, titles, descriptions.
NO_MESSAGES = (
    "<BackgroundJobs ",
    "Changes of the clock within a year",
    "Settings of bgjobs",
    "See configuration.md; in the environment",
    "Unable to restore job",
    "Where this schema is, for editors",
    "a run that a thread owns must block",
    "bgjobs run and bgjobs check execute code",
    "day of month",
    "day of week",
    "module … has no attribute",
)


def rows(text: str) -> list[tuple[str, str]]:
    """Each message in the first column of a table of three, with what the second one says."""
    tables = "".join(re.findall(r"^\| message \|.+\n((?:\|.+\n)+)", text, re.MULTILINE))
    return [
        (normal(message), kind.strip("`"))
        for cell, kind in re.findall(r"^\| (.+?) \| (.+?) \| .+ \|$", tables, re.MULTILINE)
        for _, message in re.findall(r"(`+)(.+?)\1", cell)
    ]


def test_every_message_has_a_row() -> None:
    """The page tells what each error and each record means."""
    said = {text for text in from_sources() if not text.startswith(NO_MESSAGES)}
    assert not said - dict(rows(OURS)).keys()


def test_every_row_has_a_message() -> None:
    """The page tells of nothing that bgjobs does not say any more."""
    assert not dict(rows(OURS)).keys() - from_sources(least=1).keys()


def test_rows_name_the_error_or_the_level() -> None:
    """Where the source gives a text to an error or to a record, the second column says to which."""
    kinds = dict(rows(OURS))
    given = {text: kind for text, kind in from_sources().items() if kind and text in kinds}
    assert given == {text: kinds[text] for text in given}


def test_the_page_has_every_class_of_errors() -> None:
    """With the builtin error that it is, too."""
    table = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", OURS, re.MULTILINE))
    public = [getattr(bgjobs, name) for name in bgjobs.__all__ if name.endswith("Error")]
    assert table == {
        error.__name__: next(base.__name__ for base in error.__mro__ if base.__module__ == "builtins")
        for error in public
    }


def test_apscheduler_says_what_the_page_tells_of_it() -> None:
    """The texts are in its sources, with what is filled in."""
    texts = set()
    for module in ("executors/base.py", "schedulers/base.py"):
        tree = ast.parse((Path(apscheduler.__file__).parent / module).read_text(encoding="utf-8"))
        literals = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        texts |= {normal(re.sub("%[a-z]", "…", text)) for text in literals if isinstance(text, str)}
    assert rows(THEIRS)
    assert not dict(rows(THEIRS)).keys() - texts
