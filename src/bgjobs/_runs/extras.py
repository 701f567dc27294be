"""The extra runs that were asked for with `run_now`: their arguments, and their reports for those who wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .._errors import UnknownRunError
from .status import Outcome, RunReport

#: So many runs that have ended are remembered, the latest.
REMEMBERED = 1_000

#: The end of the id of a run with arguments of its own. They are not stored: another process cannot make that run.
WITH_KWARGS = "+kwargs"


@dataclass(slots=True)
class _Asked:
    key: str
    kwargs: Mapping[str, Any] | None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    report: Future[RunReport] = field(default_factory=Future)


class Extras:
    """Remembers the extra runs that have not ended, and the latest thousand that have."""

    def __init__(self) -> None:
        self.forked()

    def forked(self) -> None:
        """Begin anew in a forked child, which makes none of its parent's runs."""
        self._asked: dict[str, _Asked] = {}
        self._over: deque[str] = deque()

    def ask(self, run_id: str, key: str, kwargs: Mapping[str, Any] | None) -> None:
        """Expect a run of a job, with these arguments instead of the job's; ``None`` for those of the job."""
        self._asked[run_id] = _Asked(key, kwargs)

    def forget(self, run_id: str) -> None:
        """The run cannot be made."""
        self._asked.pop(run_id, None)

    def kwargs(self, run_id: str) -> Mapping[str, Any] | None:
        """The arguments of a run that begins; ``None`` for those of the job."""
        asked = self._asked.get(run_id)
        return asked.kwargs if asked else None

    def has_lost(self, run_id: str) -> bool:
        """Whether a run was asked for with arguments that this process does not know."""
        return run_id.endswith(WITH_KWARGS) and run_id not in self._asked

    def ended(self, run_id: str, report: RunReport | Callable[[], RunReport]) -> None:
        """A run is over, or will not be made. Does nothing for one that is no extra run."""
        asked = self._asked.get(run_id)
        if asked is None or asked.report.done():
            return
        with suppress(Exception):  # another thread was faster
            asked.report.set_result(report if isinstance(report, RunReport) else report())
            self._over.append(run_id)
        while len(self._over) > REMEMBERED:
            self.forget(self._over.popleft())

    def close(self, live: Collection[str]) -> None:
        """The jobs are closed: only runs that are in progress will still end."""
        for run_id, asked in list(self._asked.items()):
            if run_id not in live:
                reason = "the jobs were closed first"
                self.ended(run_id, RunReport(asked.key, None, asked.at, None, 0.0, Outcome.CLOSING, reason))

    def report(self, run_id: str) -> Future[RunReport]:
        """The report of a run, which may be still to come.

        Raises:
            UnknownRunError: No such run is remembered.
        """
        asked = self._asked.get(run_id)
        if asked is None:
            why = "run_now() in this process has returned no such id, or its run ended long ago"
            raise UnknownRunError(f"no run with the id {run_id!r} is known: {why}", run_id)
        return asked.report
