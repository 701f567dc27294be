"""Our jobs as entries of a scheduler: added, run once, paused, resumed, taken off."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from .._errors import DuplicateJobError
from .._runs.run import SCHEDULED, STARTUP, RegisteredJob, Run
from .._runs.status import CLOSING, PAUSED, Schedule
from .._runs.threads import waits
from .scheduler import NoSuchEntry, SchedulerBridge
from .tick import PREFIX, fire, fire_async, job_id

#: The keys of all facades on each scheduler, so that no facade takes another one's place in a job store.
_taken: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


class Entries:
    """The entries of one facade in its scheduler's job stores.

    Args:
        bridge: The scheduler.
        application: The name of the facade in `_tick.applications`.
        dropped: Told of each one-shot that is taken off before it ran: key, moment, how that is counted, why.
    """

    def __init__(
        self, bridge: SchedulerBridge, application: str, dropped: Callable[[str, datetime, str, str], None]
    ) -> None:
        self._bridge = bridge
        self._dropped = dropped
        self._scheduler = bridge.scheduler
        self._application = application
        self._taken = _taken.setdefault(self._scheduler, set())
        self._ours: set[str] = set()

    def add(self, job: RegisteredJob) -> None:
        """Schedule the job, and its immediate run if it has one; or raise what the job store raises, and do neither.

        Raises:
            DuplicateJobError: Another facade has a job with this key on this scheduler.
        """
        if job.key in self._taken:
            raise DuplicateJobError(
                f"another BackgroundJobs on this scheduler has a job {job.key!r}; set key to tell the two apart",
                job.key,
            )
        self._taken.add(job.key)
        self._ours.add(job.key)
        try:
            self._add(job)
            if job.options.run_immediately:
                self._run_at_startup(job)
        except BaseException:
            with suppress(Exception):  # a store that refuses may refuse this, too; its first error is the one to tell
                self.remove(job.key)
            self._forget(job.key)
            raise

    def _add(self, job: RegisteredJob) -> None:
        assert job.schedule is not None
        options, in_memory = job.options, self._bridge.is_in_memory(job.options.jobstore)
        held = {} if in_memory else self._held(job, job.schedule)
        if job.schedule.paused_at is not None:
            held = {"next_run_time": None}
        entry = self._scheduler.add_job(
            self._func(job),
            job.schedule.trigger,
            args=(self._application, job.key, SCHEDULED),
            id=job_id(job.key, SCHEDULED),
            name=job.key,
            executor=options.executor,
            jobstore=options.jobstore,
            misfire_grace_time=options.misfire_grace_time,
            coalesce=options.coalesce,
            max_instances=options.max_instances,
            replace_existing=True,
            **held,
        )
        job.schedule.entry = entry if in_memory else None

    def _held(self, job: RegisteredJob, schedule: Schedule) -> dict[str, datetime | None]:
        """What a persistent store holds of the job from an earlier process, if its schedule is still the same.

        Without it, each restart would forget a run that came due while nothing was running, and un-pause the job.
        """
        row = self._scheduler.get_job(job_id(job.key, SCHEDULED), job.options.jobstore)
        same = row is not None and type(row.trigger) is type(schedule.trigger)
        if not same or row.trigger.__getstate__() != schedule.trigger.__getstate__():
            return {}
        schedule.expected = row.next_run_time
        if row.next_run_time is None:
            schedule.paused_at = datetime.now(UTC)
        return {"next_run_time": row.next_run_time}

    def _run_at_startup(self, job: RegisteredJob) -> None:
        if job.schedule is None or job.schedule.paused_at is None:
            self.run_once(job, STARTUP)
        else:
            self._dropped(job.key, datetime.now(UTC), PAUSED, "the job is paused")

    def run_once(self, job: RegisteredJob, kind: str) -> None:
        """Add a one-shot of the job: at warm-up (`STARTUP`), or one extra run, whose id is `kind`."""
        self._scheduler.add_job(
            self._func(job),
            "date",
            run_date=datetime.now(UTC),
            args=(self._application, job.key, kind),
            id=job_id(job.key, kind),
            name=job.key,
            executor=job.options.executor,
            jobstore=job.options.jobstore,
            misfire_grace_time=None,  # however slow the start is, it is made
            replace_existing=True,
        )

    def pause(self, key: str) -> None:
        """Pause the schedule of a job, and take off its one-shots that have not run yet."""
        self._remove_one_shots(key, PAUSED, "the job was paused first")
        with suppress(NoSuchEntry):  # finished, or taken off by somebody else
            self._scheduler.pause_job(job_id(key, SCHEDULED))

    def resume(self, key: str) -> None:
        """Resume the schedule of a job."""
        with suppress(NoSuchEntry):
            self._scheduler.resume_job(job_id(key, SCHEDULED))

    def remove(self, key: str) -> None:
        """Take a job off, with its one-shots."""
        self._remove_one_shots(key, PAUSED, "the job was removed first")
        with suppress(NoSuchEntry):
            self._scheduler.remove_job(job_id(key, SCHEDULED))
        self._forget(key)

    def clear(self) -> None:
        """Take off all our entries, but for those in persistent stores: their rows stay."""
        in_memory = self._bridge.stores_in_memory() if self._bridge.running else [None]  # pending: in no store yet
        for alias in in_memory:
            for entry in self._entries(alias):
                self._remove(entry, alias, CLOSING, "the jobs are being closed")
        for key in list(self._ours):
            self._forget(key)

    def flush(self, jobs: Collection[str], going: Callable[[], Iterable[Run]]) -> None:
        """Wait until no run waits for a thread of its executor any more, and tell of those that wait all the same.

        Once the jobs are closed, such a run would begin in nobody's name, or in that of the next warm-up.

        Args:
            jobs: The keys of the jobs.
            going: Gives the runs that are going, and need not be waited for.
        """
        deadline = time.monotonic() + waits.flush
        while (waiting := self._waiting(jobs, going())) and time.monotonic() < deadline:
            time.sleep(0.002)
        for key in waiting.elements():
            self._dropped(key, datetime.now(UTC), CLOSING, "no thread of its executor came free before the close")

    def _waiting(self, jobs: Collection[str], going: Iterable[Run]) -> Counter[str]:
        """How many runs of each job wait for a thread."""
        submitted = self._bridge.submitted()
        submitted.subtract(job_id(run.key, run.kind) for run in going)
        waiting = Counter[str]()
        for entry, number in submitted.items():
            name = entry.removeprefix(PREFIX)
            key = name if name in jobs else name.rpartition(":")[0]  # else a one-shot
            if name != entry and key in jobs and number > 0:
                waiting[key] += number
        return waiting

    def _forget(self, key: str) -> None:
        self._ours.discard(key)
        self._taken.discard(key)

    def _remove_one_shots(self, key: str, counted: str, reason: str) -> None:
        for entry in self._entries():
            if entry.args[1] == key and entry.args[2] != SCHEDULED:
                self._remove(entry, None, counted, reason)

    def _remove(self, entry: Any, jobstore: str | None, counted: str, reason: str) -> None:
        """Take an entry off; nothing where it has begun to run in the meantime."""
        with suppress(NoSuchEntry):
            self._scheduler.remove_job(entry.id, jobstore)
            if entry.args[2] != SCHEDULED:
                self._dropped(entry.args[1], entry.trigger.run_date, counted, reason)

    def _entries(self, jobstore: str | None = None) -> Iterator[Any]:
        for entry in self._scheduler.get_jobs(jobstore):
            if entry.func in (fire, fire_async) and entry.args[0] == self._application:
                yield entry

    def _func(self, job: RegisteredJob) -> Any:
        return fire_async if self._bridge.is_asyncio(job.options.executor) else fire
