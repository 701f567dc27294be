"""From cold to warm and back: starting and closing what one facade runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import tzinfo
from typing import TYPE_CHECKING

from ._apscheduler.executor import Runner
from ._apscheduler.rows import Entries
from ._apscheduler.scheduler import ASYNCIO, BACKGROUND, BLOCKING, SchedulerBridge
from ._apscheduler.tick import applications, enlist
from ._cron.expression import zone
from ._errors import BgjobsError, LifecycleError, raise_all
from ._runs import log as _log
from ._runs.exit import warm
from ._runs.registry import Ledger
from ._runs.run import RegisteredJob
from ._runs.status import Health
from ._runs.threads import LoopThread, waits, within
from ._signals import on_stop_signal

if TYPE_CHECKING:
    from ._settings.model import BackgroundJobsSettings


class Lifecycle:
    """The scheduler, the runner and the event loop of one facade, from warm-up to close.

    Attributes:
        ledger: The jobs, and the runs that are going.
        runner: Makes the runs.
        given: The scheduler of the user; ``None`` to make one at warm-up.
        timezone: The zone of jobs that name none.
        stopped: Set while the jobs are not warm, and when somebody asks `run` to stop.
    """

    def __init__(self, given: SchedulerBridge | None, settings: BackgroundJobsSettings) -> None:
        self.given = given
        self.ledger = Ledger(log_runs=settings.log_runs)
        self.runner = Runner(self.ledger, get_loop=self._loop, await_submission=self._await_submission)
        self.stopped = threading.Event()
        self._settings = settings
        self._loops = LoopThread()
        self._lock = threading.Lock()  # held while warming up and while closing
        self._registering = threading.RLock()  # held for the moment in which jobs turn warm, and one is registered
        self._is_started = False
        self._bridge: SchedulerBridge | None = None  # while warm
        self._entries: Entries | None = None  # while warm, and not closing
        self._name = ""  # while warm: the name in `applications`
        self.timezone = self._default_timezone()
        if given is not None and not given.running:
            given.warn_when_started(self._warn_if_cold)

    @property
    def is_warm(self) -> bool:
        """Whether the jobs are warm."""
        return self._bridge is not None

    def kind(self, otherwise: str | None = None) -> str:
        """The kind of scheduler: the given one's, that of the settings, `otherwise`, or what fits here."""
        named = self.given.kind if self.given else self._settings.scheduler or otherwise
        if named is not None:
            return named
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return BACKGROUND
        return ASYNCIO

    def add(self, job: RegisteredJob) -> None:
        """Take up a job that was registered; schedule it, where the jobs are warm."""
        if self._bridge is not None and job.schedule is not None:
            self._check(job, self._bridge)
        with self._registering:
            self.ledger.jobs[job.key] = job
            is_warm = self._bridge is not None
        if is_warm:
            try:
                self._schedule(job)
            except BaseException:
                self.ledger.jobs.pop(job.key, None)
                raise

    def run_now(self, job: RegisteredJob) -> str:
        """See `BackgroundJobs.run_now`."""
        bridge, entries = self._bridge, self._entries
        if bridge is None or entries is None:
            raise LifecycleError("run_now() needs a scheduler that is running; call warm_up() first")
        self._check(job, bridge)
        run_id = self.ledger.new_run_id()
        entries.run_once(job, run_id)
        return run_id

    def pause(self, job: RegisteredJob) -> None:
        """See `BackgroundJobs.pause`."""
        if (entries := self._entries) is not None:
            entries.pause(job.key)
        self.ledger.pause(job)

    def resume(self, job: RegisteredJob) -> None:
        """See `BackgroundJobs.resume`."""
        if (entries := self._entries) is not None:
            entries.resume(job.key)
        self.ledger.resume(job)

    def remove(self, job: RegisteredJob) -> None:
        """See `BackgroundJobs.remove`."""
        if (entries := self._entries) is not None:
            entries.remove(job.key)
        del self.ledger.jobs[job.key]

    def detached_runner(self) -> Runner:
        """A runner for runs that no scheduler makes, and whose failures no scheduler reports."""
        runner = Runner(self.ledger, get_loop=self._loop, await_submission=self._await_submission)
        runner.resolver = self.runner.resolver
        return runner

    def rest(self) -> None:
        """Stop the event loop that a run started while the jobs are not warm."""
        if self._bridge is None:
            self._loops.stop()

    def health(self) -> Health:
        """See `BackgroundJobs.health`."""
        bridge = self._bridge
        if bridge is None:
            problems = ["the jobs are not warmed up"]
        elif not bridge.running:
            problems = ["the scheduler is not running"]
        else:
            problems = self.ledger.overdue()
        return Health(not problems, tuple(problems))

    def warm_up(self) -> None:
        """See `BackgroundJobs.warm_up`."""
        if not self._lock.acquire(blocking=False):
            raise LifecycleError("these jobs are just being warmed up or closed; wait for that to end")
        with ExitStack() as warming:
            warming.callback(self._lock.release)
            if self._bridge is not None:
                raise LifecycleError("these jobs are warm already; warm_up() is called once, and again after a close")
            bridge = self.given or self._made()
            bridge.prepare()
            self._check_all(bridge)
            with self._registering:  # who adds a job from here on schedules it himself
                jobs = list(self.ledger.jobs.values())
                self._engage(bridge)
            try:
                self._start(bridge, jobs, warming.close)
            except BaseException:
                if not self._is_started:
                    self._release(bridge)
                raise

    def _start(self, bridge: SchedulerBridge, jobs: list[RegisteredJob], warmed: Callable[[], None]) -> None:
        stored = []  # what persistent stores hold already can be looked at only after the start
        for job in jobs:
            if bridge.running or bridge.is_in_memory(job.options.jobstore):
                self._schedule(job)
            else:
                stored.append(job)

        def started() -> None:
            for job in stored:
                self._schedule(job)
            self._is_started = True
            warmed()

        if bridge.kind != BLOCKING or bridge.running:
            bridge.start(started)
            return
        with on_stop_signal(lambda: threading.Thread(target=self.close, name="bgjobs-close").start()):
            try:
                bridge.start(started)
            except Exception:
                if self._is_started:  # its loop has died
                    self.close()
                raise
            self.close()

    def _engage(self, bridge: SchedulerBridge) -> None:
        self._bridge = bridge
        self._is_started = False
        self.ledger.reopen()
        self._name = enlist(self._settings.application, self.runner)
        self._entries = Entries(bridge, self._name, self.ledger.dropped)
        bridge.listen(errored=self.runner.errored, missed=self.ledger.missed, overlapped=self.ledger.overlapped)
        self.runner.listening = True
        warm.add(self)

    def close(self) -> None:
        """See `BackgroundJobs.close`. Blocks this thread, which must be no run's and no event loop's."""
        with self._lock:
            bridge, entries = self._bridge, self._entries
            if bridge is None or entries is None:
                return
            self.ledger.shut()
            deadline = time.monotonic() + self._settings.shutdown_timeout
            try:
                hold = bridge.pause if bridge.started_here else self._clear
                if not within(self._settings.shutdown_timeout, hold):
                    _log.warning(
                        None, "the scheduler does not answer, maybe for a job store that hangs; closing all the same"
                    )
                self.ledger.drain(max(0.0, deadline - time.monotonic()))
                entries.flush(self.ledger.jobs.keys(), self.ledger.going)
            finally:
                self._release(bridge)

    def _clear(self) -> None:
        entries, self._entries = self._entries, None
        if entries is not None:
            entries.clear()

    def _release(self, bridge: SchedulerBridge) -> None:
        """Give everything back, from the last of these to the first, whatever one of them raises."""
        with ExitStack() as steps:
            steps.callback(self.stopped.set)
            steps.callback(self._forget)
            steps.callback(self._loops.stop)
            steps.callback(bridge.unlisten)
            steps.callback(within, waits.scheduler, bridge.stop)
            steps.callback(within, waits.scheduler, self._clear)

    def _forget(self) -> None:
        warm.discard(self)
        self.runner.listening = False
        applications.pop(self._name, None)
        self._bridge = None

    def check(self) -> None:
        """Raise what `warm_up` would find wrong before it starts anything."""
        self._check_all(self.given or self._made(otherwise=ASYNCIO))

    def _made(self, otherwise: str | None = None) -> SchedulerBridge:
        return SchedulerBridge.make(self.kind(otherwise), self.timezone, self._settings.configuration())

    def _check_all(self, bridge: SchedulerBridge) -> None:
        mistakes: list[BgjobsError] = []
        for job in self.ledger.jobs.values():
            try:
                if job.schedule is not None:
                    self._check(job, bridge)
            except BgjobsError as exc:
                mistakes.append(exc)
        raise_all([*mistakes, *self._settings.unmatched(self.ledger.jobs)], "the jobs")

    def _check(self, job: RegisteredJob, bridge: SchedulerBridge) -> None:
        bridge.check(job)
        self.check_instance(job)

    def check_instance(self, job: RegisteredJob) -> None:
        """Raise `InvalidJobError` unless there is a way to an instance of the job's class."""
        if self.runner.resolver is None:
            job.target.check_constructor(job.key)

    def _schedule(self, job: RegisteredJob) -> None:
        if job.schedule is None:
            _log.info(job.key, f"job {job.key!r} is switched off")
            return
        job.schedule.begin()
        entries = self._entries
        if job.schedule.expected is None:
            _log.warning(job.key, f"job {job.key!r} is finished: no fire time is left before its end")
        elif entries is not None:
            entries.add(job)

    def _default_timezone(self) -> tzinfo:
        if self._settings.timezone is not None or self.given is None:
            return zone(self._settings.timezone or "UTC")
        _log.info(None, f"jobs without a time zone of their own run in the scheduler's: {self.given.timezone}")
        return self.given.timezone

    def _warn_if_cold(self) -> None:
        if self._bridge is None and self.ledger.jobs:
            _log.warning(
                None,
                f"the scheduler was started, but its {len(self.ledger.jobs)} background jobs run only "
                "after jobs.warm_up()",
            )

    def _loop(self) -> asyncio.AbstractEventLoop:
        """Where async code goes that a thread waits for."""
        loop = self._bridge.loop if self._bridge else None
        return self._loops.get() if loop is None or loop.is_closed() else loop

    def _await_submission(self, executor: str) -> bool:
        return self._bridge is not None and self._bridge.await_submission(executor)
