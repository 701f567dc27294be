"""From cold to warm and back: starting and closing what one facade runs.

    warm_up   check every job -> engage (listen, stand in for the executors) -> start, paused -> rows agree -> resume
    close     hold the schedule back -> admit no more runs -> take back what waits for a thread -> drain -> release

What is still warm when the interpreter exits is closed then, and a forked child is cold (see `_exit`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import _exit, _phases
from ._apscheduler.executor import Owners, errored
from ._apscheduler.rows import Rows
from ._apscheduler.scheduler import ASYNCIO, BACKGROUND, BLOCKING, SchedulerBridge
from ._apscheduler.stored import share
from ._checks import Checks
from ._errors import LifecycleError
from ._phases import COLD, DISABLED, FORKED
from ._runs import log
from ._runs.registry import Registry
from ._runs.schedule import RegisteredJob
from ._runs.status import Health
from ._runs.threads import LoopThread, in_daemon_thread, waits, within
from ._schedules import default_timezone
from ._signals import Stopping
from ._status_file import StatusFile

if TYPE_CHECKING:
    from ._claims.keeper import Keeper
    from ._settings.model import BackgroundJobsSettings


class Lifecycle:
    """The scheduler, the runs and the event loop of one facade, from warm-up to close.

    Attributes:
        registry: The jobs, and the runs in progress.
        given: The scheduler of the user; ``None`` to make one at warm-up.
        rows: The jobs in the scheduler's job stores; ``None`` while the jobs are not warm, or are being closed.
        timezone: The zone of jobs that name none.
        remedy: What to say to who needs warm jobs.
        stopping: How the jobs are asked to close.
    """

    def __init__(self, given: SchedulerBridge | None, settings: BackgroundJobsSettings) -> None:
        self.given = given
        self.registry = Registry(self.loop, log_runs=settings.log_runs)
        self._settings = settings
        self.checks = Checks(self.registry, settings)
        self._cold = COLD
        self.remedy = "call warm_up() first" if settings.enabled else DISABLED
        self._begin()
        self.timezone = default_timezone(settings.timezone, given)
        _exit.facades.add(self)
        if given is not None:
            share(given.scheduler, self.registry, settings.application)
        if given is not None and not given.running and settings.enabled:
            given.warn_when_started(self._warn_if_cold)

    def _begin(self) -> None:
        """What belongs to one process, and has threads, loops or locks."""
        self.rows: Rows | None = None
        self.stopping = Stopping(self.close, self._settings.shutdown_timeout + waits.exit)
        self._loops = LoopThread()
        about = (self._settings.status_file, self._settings.application)
        self._status_file = StatusFile(*about, self.health, lambda: self.registry.status(is_warm=self.is_warm))
        self._registering = threading.RLock()  # held for the moment in which jobs turn warm, and one is registered
        self._is_started = False
        self._bridge: SchedulerBridge | None = None  # while warm
        self._owners: Owners | None = None  # while warm
        self._keeper: Keeper | None = None  # while warm, where runs are claimed
        self._closing: list[Future[Any]] = []  # the steps of the last close, which may hang in a job store

    def forked(self) -> None:
        """Turn cold in a forked child, without a touch to what the parent runs."""
        _exit.kept.append((self._bridge, self._loops, self._keeper))
        self._cold = FORKED if self._bridge else self._cold
        for parents in (self.rows, self._owners):
            if parents is not None:
                parents.release()
        if self.given is not None:
            self.given.forked()
        self._begin()
        self.registry.forked()

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

    def loop(self) -> asyncio.AbstractEventLoop:
        """Where async code runs that a thread waits for."""
        loop = self._bridge.loop if self._bridge else None
        return self._loops.get() if loop is None or loop.is_closed() else loop

    def rest(self) -> None:
        """Stop the event loop that a run started while the jobs are not warm."""
        if self._bridge is None:
            self._loops.stop()

    def add(self, job: RegisteredJob) -> None:
        """Take up a job that was registered; schedule it, where the jobs are warm."""
        if job.schedule is not None:
            self.check_job(job)
        with self._registering:
            self.registry.add(job)
            is_warm = self._bridge is not None
        if is_warm:
            try:
                self.schedule(job)
            except BaseException:
                self.registry.remove(job)
                raise

    def check_job(self, job: RegisteredJob) -> None:
        """Raise what is wrong with a job, or with another schedule of it, on the scheduler that is warm."""
        if self._bridge is not None:
            self.checks.job(job, self._bridge)

    def check(self) -> None:
        """Raise what `warm_up` would find wrong before it starts anything."""
        self.checks.all(self.given or self._made(otherwise=ASYNCIO))

    def _made(self, otherwise: str | None = None) -> SchedulerBridge:
        return SchedulerBridge.make(self.kind(otherwise), self.timezone, self._settings.configuration())

    def health(self) -> Health:
        """See `BackgroundJobs.health`."""
        bridge, rows = self._bridge, self.rows
        if bridge is None:
            problems = [self._cold] if self._settings.enabled else []
        elif not bridge.running:
            problems = ["the scheduler is not running"]
        else:
            problems = self.registry.problems() + (rows.problems() if rows else [])
            problems += self._keeper.problems() if self._keeper else []
        return Health(not problems, tuple(problems))

    # -- warming up ----------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """See `BackgroundJobs.warm_up`."""
        if not self._settings.enabled:
            log.info(f"{DISABLED}; nothing is scheduled")
            self.stopping.requested.set()  # for `run`, which has nothing to wait for
            return
        with ExitStack() as warming:
            if not warming.enter_context(self.stopping.turn(0)):
                raise LifecycleError("the jobs are being warmed up or closed already; wait for that to end")
            if self._bridge is not None:
                raise LifecycleError("the jobs are already warmed up; close them before calling warm_up() again")
            if wait(self._closing, waits.close).not_done:
                raise LifecycleError("the last close has not ended: a job store of the scheduler does not answer")
            bridge = self.given or self._made()
            bridge.prepare()
            self.checks.all(bridge)
            serves_jobs_only = self.stopping.is_serving or bridge.kind == BLOCKING
            keeper = self.checks.keeper(self._heard, serves_jobs_only=serves_jobs_only)
            with self._registering:  # who adds a job from here on schedules it himself
                jobs = list(self.registry.jobs.values())
                owners, rows = self._engage(bridge, keeper)
            try:
                self._start(bridge, rows, jobs, warming.close)
            except BaseException:
                if not self._is_started:
                    self._release(bridge, owners, rows, time.monotonic() + waits.close)
                raise

    def _heard(self, claimed: dict[str, Any]) -> datetime | None:
        rows = self.rows
        return None if rows is None else rows.catch_up(claimed)

    def _engage(self, bridge: SchedulerBridge, keeper: Keeper | None) -> tuple[Owners, Rows]:
        self._bridge = bridge
        self._keeper = self.registry.claims = keeper
        self._is_started = False
        self.registry.reopen()
        owners = self._owners = Owners(self.registry, self.loop, self._settings.application)
        rows = self.rows = Rows(bridge, self._settings.application, owners, self.registry)
        bridge.listen(
            adopt=owners.adopt,
            errored=errored,
            overlapped=lambda row_id, scheduled_at: self.registry.overlapped(rows.key_of(row_id), scheduled_at),
        )
        _exit.warm.add(self)
        return owners, rows

    def _start(
        self, bridge: SchedulerBridge, rows: Rows, jobs: list[RegisteredJob], warmed: Callable[[], None]
    ) -> None:
        def started() -> None:  # the scheduler runs nothing yet, unless somebody else started it
            rows.agree()
            for job in jobs:
                self.schedule(job)
            rows.ready()
            bridge.resume()
            if self._keeper is not None:
                self._keeper.start()
            self._status_file.start()
            self._is_started = True
            warmed()
            _phases.warmed(self.registry)

        if bridge.kind != BLOCKING or bridge.running:
            bridge.start(started)
            return
        with self.stopping.serving():
            bridge.start(started)
            self.close()

    def schedule(self, job: RegisteredJob, *, at_startup: bool = True) -> None:
        """Have the scheduler run a job, `at_startup` with its immediate run."""
        if job.schedule is None:
            log.info(f"job {job.key!r} is switched off", job.key)
            return
        if self._keeper is not None:
            job.schedule.share(job.key)
        job.schedule.begin()
        rows = self.rows
        if rows is not None and not rows.add(job, at_startup=at_startup):
            log.warning(f"job {job.key!r} is finished: no fire time is left before its end", key=job.key)

    # -- closing -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """See `BackgroundJobs.close`. Blocks this thread, which must be no run's and no event loop's."""
        begun = time.monotonic()
        with self.stopping.turn(self._settings.shutdown_timeout + waits.close) as is_ours:
            if not is_ours:  # another thread hangs in it, or a signal handler has interrupted this one
                log.warning("a warm-up or a close is in progress; the jobs are closed when it has ended")
                self.stopping.request()
                return
            bridge, owners, rows = self._bridge, self._owners, self.rows
            if bridge is None or owners is None or rows is None:
                return
            self.rows = None  # from here on nothing is scheduled any more
            deadline = time.monotonic() + self._settings.shutdown_timeout
            try:
                hold = in_daemon_thread(bridge.pause if bridge.started_here else rows.clear)
                self._closing = [hold]
                wait([hold], waits.hold)  # what comes due from there on stays in its store
                in_progress = self.registry.shut()
                if wait([hold], max(0.0, deadline - time.monotonic())).done:
                    hold.result()
                else:
                    log.warning("the scheduler does not answer, maybe for a job store that hangs; closing all the same")
                owners.take_all_back()
                self.registry.drain(max(0.0, deadline - time.monotonic()))
            finally:
                self._release(bridge, owners, rows, deadline + waits.close)
        _phases.closed(time.monotonic() - begun, in_progress, len(self.registry.abandoned))

    def _release(self, bridge: SchedulerBridge, owners: Owners, rows: Rows, deadline: float) -> None:
        """Give everything back, whatever a step raises; none is waited for beyond the deadline."""
        self.rows = None
        steps = [rows.clear, bridge.stop, bridge.unlisten, owners.take_all_back, owners.release]
        steps += [self.registry.finish, self._loops.stop]
        steps += [self._keeper.close] if self._keeper else []
        with ExitStack() as stack:
            stack.callback(within, deadline, self._status_file.stop)  # at the very end: it says that all is closed
            stack.callback(self._forget)
            for step in reversed(steps):  # after one that hangs, the others get a moment each
                stack.callback(lambda step: self._closing.append(within(deadline, step)), step)

    def _forget(self) -> None:
        _exit.warm.discard(self)
        if self.stopping.is_serving:
            _exit.abandoned.extend(self.registry.abandoned)
        self._bridge, self._cold = None, COLD
        self._keeper = self.registry.claims = None
        self.stopping.requested.set()

    # -- what the constructor asks -------------------------------------------------------------------------------

    def _warn_if_cold(self) -> None:
        if not self.is_warm:
            _phases.started_cold(self.registry)
