"""Every error that bgjobs raises, in one tree; names in any spelling, and suggestions; no passwords.

    BgjobsError
     ├─ CronFormatError      (ValueError)    a cron expression that cannot be parsed
     ├─ NeverFiresError      (ValueError)    a cron expression that no date can match
     ├─ ConfigurationError   (ValueError)    an option, a setting or a settings file that is wrong
     ├─ InvalidJobError      (TypeError)     a job that cannot be run
     ├─ DuplicateJobError    (ValueError)    a second job under one key
     ├─ UnknownJobError      (LookupError)   no job under that key
     ├─ UnknownRunError      (LookupError)   no run with that id, or none that is remembered
     ├─ ResolverError        (TypeError)     a resolver that returns no context manager
     ├─ LifecycleError       (RuntimeError)  a call at the wrong time or in the wrong place
     └─ ClaimStoreError      (ConnectionError)  a claim store that does not answer

Each leaf is also a builtin error, so that callers who do not know bgjobs catch it too. Its data is in attributes; its
message says what is wrong, where, and what would be right.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import unquote

T = TypeVar("T")

#: How many mistakes an error lists; wording each of many more takes long, and nobody reads them.
MOST_MISTAKES = 50


class BgjobsError(Exception):
    """The root of the tree: catches everything that bgjobs raises itself."""


class CronFormatError(BgjobsError, ValueError):
    """A cron expression that does not follow the six-field grammar.

    Attributes:
        expression: The whole expression.
        field: The name of the field that is wrong (``"hour"``), or ``None`` where the mistake is in no single field.
        piece: The part of the field that is wrong, or ``None``.
    """

    def __init__(self, message: str, expression: str = "", field: str | None = None, piece: str | None = None) -> None:
        super().__init__(message)
        self.expression = expression
        self.field = field
        self.piece = piece


class NeverFiresError(BgjobsError, ValueError):
    """A well-formed cron expression that no date can ever match, such as 30 February.

    Attributes:
        expression: The whole expression.
    """

    def __init__(self, message: str, expression: str = "") -> None:
        super().__init__(message)
        self.expression = expression


class ConfigurationError(BgjobsError, ValueError):
    """A wrong option, setting or settings file.

    Attributes:
        field: The name of the option or setting, or ``None`` where the mistake is in no single one.
        problems: Every mistake with its place; more than one where the message has several lines. After fifty, how
            many more there are.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.problems: tuple[str, ...] = (message,)


class _KeyedError(BgjobsError):
    """An error about one job.

    Attributes:
        key: The key of the job, or ``None`` where it has none yet.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class InvalidJobError(_KeyedError, TypeError):
    """A job, its action or its error handler is of a kind that cannot be run."""


class DuplicateJobError(_KeyedError, ValueError):
    """A second job under a key that is taken."""


class UnknownJobError(_KeyedError, LookupError):
    """No job is registered under that key."""


class UnknownRunError(BgjobsError, LookupError):
    """No run with that id was asked for, or it ended long ago.

    Attributes:
        run_id: The id.
    """

    def __init__(self, message: str, run_id: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id


class ResolverError(_KeyedError, TypeError):
    """The resolver returned something that is not a context manager."""


class LifecycleError(BgjobsError, RuntimeError):
    """A call at the wrong time or in the wrong place, such as ``close()`` inside a running event loop."""


class ClaimStoreError(BgjobsError, ConnectionError):
    """The store in which replicas claim their runs does not answer."""


# -- names -----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """Drop case and separators from a name, so that ``data-sync``, ``data_sync`` and ``DataSync`` are equal.

    A separator between two digits stays: ``tenant-1-11`` and ``tenant-11-1`` are two names.
    """
    return re.sub(r"(?<!\d)_|_(?!\d)", "", re.sub(r"[\W_]+", "_", name.casefold()))


class ByName(dict[str, T]):
    """Values under names that users choose, which are found in any spelling."""

    _spellings: dict[str, str]  # of each folded name

    def __new__(cls, *_: object) -> Self:  # not `__init__`, which a copy or a pickle does without
        self = super().__new__(cls)
        self._spellings = {}
        return self

    def __init__(self, items: Mapping[str, T] | None = None) -> None:
        for name, value in (items or {}).items():
            self[name] = value

    def __setitem__(self, name: str, value: T) -> None:
        super().__setitem__(name, value)
        self._spellings[fold(name)] = name

    def pop(self, name: str, *default: Any) -> Any:
        self._spellings.pop(fold(name), None)
        return super().pop(name, *default)

    def spelling(self, name: str) -> str | None:
        """The name as it is spelled here; ``None`` where there is no such name."""
        return self._spellings.get(fold(name))

    def find(self, name: str) -> T | None:
        """The value under a name in any spelling; ``None`` where there is none."""
        return self.get(self._spellings.get(fold(name), name))


def named(value: object) -> str:
    """Return how an object is called in a message, without what it holds, which may be a password."""
    if isinstance(value, functools.partial):
        return f"a functools.partial of {named(value.func)}"
    if (isinstance(value, type) or inspect.isroutine(value)) and hasattr(value, "__qualname__"):
        return value.__qualname__
    return repr(value) if isinstance(value, str | int | float | None) else f"an object of type {type(value).__name__}"


def nearest(name: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """Return the most similar of the known names, whatever its case; ``None`` where none is similar."""
    import difflib  # only here: importing it takes time that only a mistake needs

    folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), [*folded], 1, least)
    return folded[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a suggestion for the end of a message: the most similar of the known names, or nothing."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def raise_all(mistakes: Sequence[str | BgjobsError], what: str) -> None:
    """Raise a single error as it is, and one `ConfigurationError` for anything else; nothing where nothing is wrong.

    Args:
        mistakes: Errors, and mistakes as text.
        what: Where the mistakes are, for the message.
    """
    if len(mistakes) == 1 and isinstance(mistakes[0], BgjobsError):
        raise mistakes[0]
    problems = tuple(text for mistake in mistakes for text in getattr(mistake, "problems", (str(mistake),)))
    if problems:
        more = len(problems) - MOST_MISTAKES
        listed = (*problems[:MOST_MISTAKES], f"and {more} more") if more > 0 else problems
        lines = "".join(f"\n  {problem}" for problem in listed)
        error = ConfigurationError(f"{len(problems)} mistakes in {what}:{lines}" if len(problems) > 1 else problems[0])
        error.problems = listed
        raise error


# -- secrets ---------------------------------------------------------------------------------------------------------

#: Options of job stores and executors whose values are ordinary words: what it is, and where its data are.
_WORDS = {"type", "class", "host", "database", "db", "collection", "tablename", "tableschema", "table"}
_WORDS |= {"path", "jobs_key", "run_times_key"}
#: What the name of an option with a password looks like; its value may be a number.
_PASSWORD = re.compile(r"pass|pwd|secret|token|credential|auth|user|key", re.IGNORECASE)
_IN_URL = re.compile(r"//[^:/?#@]*:(.*)@", re.DOTALL)  # to the last @, since people forget to quote theirs
_IN_QUERY = re.compile(r"[?&;]([^=&;]*)=([^&;]*)")


def is_password(option: str) -> bool:
    """Whether an option is likely to hold a password, or what belongs to one, by its name."""
    return _PASSWORD.search(option) is not None


def masked(text: str, configuration: Mapping[str, Any]) -> str:
    """Replace in a text what a configuration says and only its owner should know, and no ordinary words.

    A value of letters or digits alone is replaced where it is a whole word, and one of less than four characters only
    where it stands as a value does, as in ``'abc'`` or ``password=abc``.
    """
    secrets = {form for secret in _secrets(configuration) for form in (secret, unquote(secret), repr(secret)[1:-1])}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = re.sub(_where(secret), "***", text)
    return text


def _where(secret: str) -> str:
    """The pattern of a secret."""
    pattern = re.escape(secret)
    if len(secret) < 4:
        return rf"(?<=['\"=:]){pattern}(?=['\"@&;,)\s]|$)"
    return rf"\b{pattern}\b" if secret.isalpha() or secret.isdigit() else pattern


def _secrets(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner_name, inner in value.items():
            yield from _secrets(inner, str(inner_name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(inner, name)
    elif isinstance(value, str) and value:
        if name not in _WORDS:
            yield value
        for password in _IN_URL.findall(value):
            yield from filter(None, (password, *re.split("[@:/?#]", password)))  # as a driver may cut it
        yield from (given for option, given in _IN_QUERY.findall(value) if given and is_password(option))
    elif isinstance(value, int | float) and not isinstance(value, bool) and is_password(name):
        yield str(value)
