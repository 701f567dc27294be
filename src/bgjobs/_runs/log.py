"""What bgjobs logs, through loguru: every failure and every run that did not take place; successes only when asked.

``job``, ``run_id``, ``scheduled_at`` and ``duration_ms`` are bound (``record["extra"]``). A failure's traceback is
APScheduler's to log (logger ``apscheduler.executors.*``); it appears here only where APScheduler cannot know of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from loguru import logger

try:  # not public: a release of loguru without it costs the binding (and fails a test), nothing else
    from loguru._logger import context
except ImportError:  # pragma: no cover
    context = ContextVar("bgjobs_unused_context")
_context: ContextVar[Mapping[str, Any]] = context

if TYPE_CHECKING:
    from datetime import datetime

    from .run import Run


def _of(run: Run) -> Any:
    return logger.bind(
        job=run.key,
        run_id=run.run_id,
        scheduled_at=run.scheduled_at.isoformat(),
        duration_ms=round((time.monotonic() - run.started) * 1000, 1),
    )


def bind_to_context(run: Run) -> Token[Mapping[str, Any]]:
    """Have the job's own loguru calls carry ``job``, ``run_id``, ``scheduled_at``, as ``logger.contextualize`` would.

    Until `unbind`, or for the rest of the context, which is the run's own. `contextualize` itself would take the lock
    of all sinks twice a run.
    """
    return _context.set(_Bound(run, _context.get({})))


def unbind(token: Token[Mapping[str, Any]]) -> None:
    """The reverse of `bind_to_context`, which it returned `token`."""
    _context.reset(token)


class _Bound(Mapping[str, Any]):
    """What `bind_to_context` binds, put into words when a record is made; most runs make none."""

    __slots__ = ("_outer", "_run")

    def __init__(self, run: Run, outer: Mapping[str, Any]) -> None:
        self._run = run
        self._outer = outer

    def _words(self) -> dict[str, Any]:
        run = self._run
        return {**self._outer, "job": run.key, "run_id": run.run_id, "scheduled_at": run.scheduled_at.isoformat()}

    def __getitem__(self, name: str) -> Any:
        return self._words()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words())

    def __len__(self) -> int:
        return len(self._words())


def described(error: BaseException) -> str:
    """The error as ``"ValueError: text"``, also where its own text cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a __str__ that raises must not cost the run its handler
        return type(error).__name__


def succeeded(run: Run) -> None:
    """A run ended well."""
    _of(run).info(f"job {run.key!r} succeeded in {time.monotonic() - run.started:.3f} s")


def failed(run: Run, error: BaseException, *, with_traceback: bool = False) -> None:
    """A run failed; with its traceback only where APScheduler does not log it."""
    told = f"job {run.key!r} failed: {described(error)}"
    if not run.resolved:
        told += " (no instance could be made, so there is no on_exception to call)"
    (_of(run).opt(exception=error) if with_traceback else _of(run)).error(told)


def handler_failed(run: Run, error: BaseException) -> None:
    """``on_exception`` itself raised."""
    _of(run).opt(exception=error).error(f"on_exception of job {run.key!r} raised {described(error)}")


def scope_failed(run: Run, error: BaseException) -> None:
    """The resolver's scope raised when it was closed after a failure that was already reported."""
    told = f"the scope of job {run.key!r} raised when it was closed: {described(error)}"
    _of(run).opt(exception=error).error(told)


def cancelled(run: Run) -> None:
    """A run was cancelled, by closing or from outside."""
    _of(run).warning(f"job {run.key!r} was cancelled")


def overstayed(run: Run, timeout: float) -> None:
    """A sync run goes on after its timeout: it was asked to end, nothing can force it."""
    how = "" if run.job.target.takes_token else ", but takes no cancellation_token and cannot hear it"
    _of(run).warning(f"job {run.key!r} exceeded its timeout of {timeout:g} s; it was asked to end{how}")


def abandoned(run: Run) -> None:
    """A run did not end within ``shutdown_timeout``."""
    _of(run).warning(f"job {run.key!r} did not end in time and is left behind, still running")


def coalesced(run: Run, times: int) -> None:
    """Several occurrences were due together, and this run is made for all of them."""
    _of(run).warning(f"job {run.key!r}: {times} earlier runs that were due, too, are made as one with this run")


def skipped(key: str, reason: str, scheduled_at: datetime, *, level: str = "WARNING") -> None:
    """A run did not take place."""
    bound = logger.bind(job=key, scheduled_at=scheduled_at.isoformat(), reason=reason)
    bound.log(level, f"job {key!r} scheduled at {scheduled_at.isoformat(timespec='seconds')} was skipped: {reason}")


def overlapped(run: Run, times: int) -> None:
    """A run ended during which several further ones were skipped; the first of them was logged when it was."""
    _of(run).warning(f"job {run.key!r} was skipped {times} times while this run was going")


def pass_failed(error: BaseException, again: float) -> None:
    """A pass over the due jobs raised, in a scheduler of ours, which goes on."""
    told = f"the scheduler could not finish its pass over the due jobs, and tries again in {again:g} s"
    logger.opt(exception=error).error(f"{told}: {described(error)}")


def warning(key: str | None, message: str) -> None:
    """A warning about one job, or about all (``None``)."""
    (logger.bind(job=key) if key else logger).warning(message)


def info(key: str | None, message: str) -> None:
    """A fact about one job, or about all (``None``), that is told once."""
    (logger.bind(job=key) if key else logger).info(message)
