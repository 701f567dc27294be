"""Keeping passwords out of errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

#: What may be shown of a configuration: the kind of a job store or executor.
SHOWN = ("type", "class")


def masked(text: str, configuration: Any) -> str:
    """A text without the values of a configuration, each of which may be a password or hold one."""
    for secret in sorted(_texts(configuration), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in SHOWN:
                yield from _texts(inner)
    elif isinstance(value, str) and value:
        yield value
        with suppress(ValueError):  # it looks like a URL, and is none
            if password := urlsplit(value).password:
                yield from (password, unquote(password))
