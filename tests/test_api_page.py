"""The page of the API, which the build of the documentation fills from the docstrings."""

from __future__ import annotations

import re
from pathlib import Path

import bgjobs
import bgjobs.testing

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_page_has_every_public_name() -> None:
    """Each once: a name that is missing would not be on the site, and one that is gone breaks its build."""
    named = re.findall(r"^::: bgjobs\.((?!_).+)$", PAGE, re.MULTILINE)
    assert sorted(named) == sorted([*bgjobs.__all__, *(f"testing.{name}" for name in bgjobs.testing.__all__)])


def test_the_page_has_every_method_of_the_facade() -> None:
    """The page lists them in the order in which they are used, so a new one must be added."""
    listed = re.findall(r"^        - (\w+)$", PAGE, re.MULTILINE)
    assert sorted(listed) == [name for name in dir(bgjobs.BackgroundJobs) if not name.startswith("_")]
