"""How a run can end: what its owner reports, and what other listeners of the scheduler see of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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


@dataclass(slots=True)
class Succeeded:
    """The action returned `value`, and the scope is closed."""

    value: object


@dataclass(slots=True)
class Failed:
    """The action, the scope or the constructor raised `error`; `Run.settle` is still to come."""

    error: BaseException


@dataclass(slots=True)
class NeedsTask:
    """The scope is an async one, which a thread cannot own: the run has not begun, and a task must make it."""

    scope: Any


Outcome = Succeeded | Failed | Cancelled | NeedsTask
