"""The registered jobs by key, and those that were removed while their runs last."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

from .._errors import ByName, DuplicateJobError, UnknownJobError, did_you_mean
from .schedule import RegisteredJob


class Jobs:
    """Finds jobs by their keys, in any spelling.

    Attributes:
        jobs: The registered jobs by key.
        removed: Those that were removed, while their runs last.
    """

    jobs: ByName[RegisteredJob]
    removed: WeakValueDictionary[str, RegisteredJob]

    def add(self, job: RegisteredJob) -> None:
        """Register a job. Runs in progress of one that was removed under its key count for its overlap guard.

        Raises:
            DuplicateJobError: The key is taken.
        """
        if (taken := self.jobs.spelling(job.key)) is not None:
            same = "" if taken == job.key else f", which is the same name as {job.key!r},"
            message = f"a job with the key {taken!r}{same} is registered already; set key to tell the two apart"
            raise DuplicateJobError(message, job.key)
        if (removed := self.removed.get(job.key)) is not None:
            job.lock, job.running = removed.lock, removed.running
        self.jobs[job.key] = job

    def remove(self, job: RegisteredJob) -> None:
        """Forget a job, unless another one has its key by now."""
        if self.jobs.get(job.key) is job:
            self.jobs.pop(job.key)
            with job.lock:  # a run in progress keeps its own job alive, which may be an earlier one of that key
                self.removed[job.key] = job.running[0].job if job.running else job

    def after_removed(self, job: RegisteredJob, start: Callable[[], object]) -> bool:
        """Call `start` when the run of a removed job with the same key has ended. Returns False where there is none."""
        with job.lock:
            former = next((run for run in job.running if run.job is not job), None)
            if former is not None:
                former.followers = (*former.followers, (job, start))
        return former is not None

    def job(self, key: str) -> RegisteredJob:
        """The job with this key, in any spelling.

        Raises:
            UnknownJobError: There is none.
        """
        job = self.jobs.find(key)
        if job is None:
            raise UnknownJobError(f"no job has the key {key!r}{did_you_mean(key, list(self.jobs))}", key)
        return job
