"""Context managers around a run: the scope of the resolver, and outside of it what the hooks of `around_run` give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .._errors import ResolverError, named
from . import log
from .raised import traceback_of
from .status import CurrentRun
from .threads import waits

#: Gives a context manager, sync or async, to hold open around a run, or ``None``.
Around = Callable[[CurrentRun], Any]


class Surrounded(log.Named, Protocol):
    """The run that is surrounded."""

    @property
    def current(self) -> CurrentRun:
        """What hooks may know of it."""

    def is_ended_by(self, error: BaseException) -> bool:
        """Whether an error is the cancellation of the run."""


class Calls(Protocol):
    """How the owner of the run enters and leaves context managers (see `calls`)."""

    async def enter(self, scope: Any, seconds: float | None = None) -> tuple[Any, Callable[..., object]]:
        """Enter one; that and leaving it get so many seconds. Returns what it gives, and what leaves it."""

    async def close(self, leave: Callable[..., object], *error: object) -> object:
        """Leave it."""


def require_scope(scope: object, what: str) -> None:
    """Raise `ResolverError` unless it is a context manager."""
    if not (hasattr(scope, "__enter__") or hasattr(scope, "__aenter__")):
        raise ResolverError(
            f"{what} returned {named(scope)}, which is no context manager; decorate it with "
            "contextlib.contextmanager or contextlib.asynccontextmanager"
        )


def exit_arguments(error: BaseException | None) -> tuple[object, ...]:
    """What a context manager is left with."""
    return (None, None, None) if error is None else (type(error), error, traceback_of(error))


class Surroundings:
    """What the hooks of `around_run` hold open around one run; what they raise is logged, and costs the run nothing.

    Async code of theirs is cancelled after a minute, so that a hook that hangs costs no run either.
    """

    def __init__(self, run: Surrounded, calls: Calls) -> None:
        self._run = run
        self._calls = calls
        self._entered: list[tuple[str, Callable[..., object]]] = []

    async def enter(self, hooks: Iterable[Around]) -> None:
        """Enter what each hook returns, the first outermost."""
        for hook in hooks:
            name = f"around_run {named(hook)} of job {self._run.key!r}"
            try:
                scope = hook(self._run.current)
                if scope is not None:
                    require_scope(scope, "it")
                    _, leave = await self._calls.enter(scope, waits.handler)
                    self._entered.append((name, leave))
            except BaseException as raised:
                if self._run.is_ended_by(raised):
                    raise
                log.failure(f"{name} raised", raised, self._run)

    async def leave(self, error: BaseException | None) -> None:
        """Leave all, the last first, with the error that the run has ended with."""
        while self._entered:
            name, leave = self._entered.pop()
            try:
                await self._calls.close(leave, *exit_arguments(error))
            except BaseException as raised:  # noqa: BLE001 - logged
                if raised is not error:
                    log.failure(f"{name} raised at the end", raised, self._run)
