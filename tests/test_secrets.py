"""Passwords stay out of errors."""

from __future__ import annotations

from bgjobs._errors import masked  # every error goes through it; cases in a table


def test_values_are_masked_at_every_depth() -> None:
    """Each text of a configuration may be a password, or hold one."""
    configuration = {"jobstores": {"default": {"type": "redis", "port": 6379, "password": "hunter2", "empty": ""}}}
    assert masked("redis at 6379 refuses hunter2", configuration) == "redis at 6379 refuses ***"


def test_the_longest_value_goes_first() -> None:
    """A value that is part of another one does not leave the rest of it behind."""
    assert masked("cannot open abcdef", {"a": {"one": "abc", "two": "abcdef"}}) == "cannot open ***"


def test_a_password_in_a_url() -> None:
    """It is masked where it stands alone, too, as it is written and as it is meant."""
    configuration = {"url": "postgresql://shop:hunter%402@db/shop", "other": "postgresql://[broken"}
    text = "postgresql://shop:hunter%402@db/shop: no hunter@2, no hunter%402"
    assert masked(text, configuration) == "***: no ***, no ***"
