"""How a run can end: what its owner reports, and what other listeners of the scheduler see of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Skipped:
    """The value of a run that was not made, as other listeners of the scheduler see it (``event.retval``).

    Attributes:
        reason: Why, in words.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The value of a run that was cancelled, as other listeners of the scheduler see it (``event.retval``)."""


class Succeeded(NamedTuple):
    """The action returned `value`, and the scope is closed."""

    value: object


class Failed(NamedTuple):
    """The action, the scope or the constructor raised `error`; `Run.settle` is still to come."""

    error: BaseException


class NeedsTask(NamedTuple):
    """The scope is an async one, which a thread cannot own: the run has not begun, and a task must make it."""

    scope: Any


Outcome = Succeeded | Failed | Cancelled | NeedsTask
