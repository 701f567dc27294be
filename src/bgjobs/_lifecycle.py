"""From cold to warm and back: starting and closing what one facade runs."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - its exit handler, which joins all workers, is to come after ours
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import tzinfo

from . import _log
from ._entries import Entries
from ._errors import BgjobsError, ConfigurationError, LifecycleError, did_you_mean, raise_all
from ._ledger import Ledger
from ._loop import LoopThread
from ._run import RegisteredJob
from ._runner import Runner
from ._scheduler import ASYNCIO, BACKGROUND, BLOCKING, SchedulerBridge
from ._settings import BackgroundJobsSettings
from ._signals import on_stop_signal
from ._sources import fold
from ._status import Health
from ._tick import applications
from ._zone import zone

_warm: set[Lifecycle] = set()


def _close_at_exit() -> None:
    """Close what is still warm when the interpreter exits.

    Before `concurrent.futures` joins its workers, which would wait for jobs that nobody has asked to end: `atexit`
    comes too late for that. A script in the tests pins this function of `threading`, which is not public.
    """
    for lifecycle in list(_warm):
        lifecycle.close()


threading._register_atexit(_close_at_exit)  # type: ignore[attr-defined]  # noqa: SLF001


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
        self._bridge: SchedulerBridge | None = None  # while warm
        self._entries: Entries | None = None  # while warm, and not closing
        self._name = ""  # while warm: the name in `applications`
        self.timezone = self._default_timezone()
        if given is not None and not given.running:
            given.warn_when_started(self._warn_if_cold)

    @property
    def is_warm(self) -> bool:
        """Whether the jobs are warmed up and not closed."""
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
        self.ledger.jobs[job.key] = job
        if self._bridge is not None:
            try:
                self._schedule(job)
            except BaseException:
                del self.ledger.jobs[job.key]
                raise

    def run_now(self, job: RegisteredJob) -> str:
        """See `BackgroundJobs.run_now`."""
        if self._bridge is None or self._entries is None:
            raise LifecycleError("run_now() needs a scheduler that is running; call warm_up() first")
        self._check(job, self._bridge)
        run_id = self.ledger.new_run_id()
        self._entries.run_once(job, run_id)
        return run_id

    def pause(self, job: RegisteredJob) -> None:
        """See `BackgroundJobs.pause`."""
        if self._entries is not None:
            self._entries.pause(job.key)
        self.ledger.pause(job)

    def resume(self, job: RegisteredJob) -> None:
        """See `BackgroundJobs.resume`."""
        if self._entries is not None:
            self._entries.resume(job.key)
        self.ledger.resume(job)

    def remove(self, job: RegisteredJob) -> None:
        """See `BackgroundJobs.remove`."""
        if self._entries is not None:
            self._entries.remove(job.key)
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
            self._engage(bridge)
            try:
                stored = []  # what persistent stores hold already can be looked at only after the start
                for job in self.ledger.jobs.values():
                    if bridge.running or bridge.is_in_memory(job.options.jobstore):
                        self._schedule(job)
                    else:
                        stored.append(job)

                def started() -> None:
                    for job in stored:
                        self._schedule(job)
                    warming.close()

                if bridge.kind == BLOCKING and not bridge.running:
                    self._block(bridge, started)
                else:
                    bridge.start(started)
            except BaseException:
                self._release(bridge)
                raise

    def _block(self, bridge: SchedulerBridge, started: Callable[[], None]) -> None:
        """Start a blocking scheduler, and come back when all is closed."""
        with on_stop_signal(lambda: threading.Thread(target=self.close, name="bgjobs-close").start()):
            bridge.start(started)
            self.close()

    def _engage(self, bridge: SchedulerBridge) -> None:
        self._bridge = bridge
        self.stopped.clear()
        self.ledger.reopen()
        self._name = _enlist(self._settings.application, self.runner)
        self._entries = Entries(bridge, self._name, self.ledger.dropped)
        bridge.listen(errored=self.runner.errored, missed=self.ledger.missed, overlapped=self.ledger.overlapped)
        self.runner.listening = True
        _warm.add(self)

    def close(self) -> None:
        """See `BackgroundJobs.close`. Blocks this thread, which must be no run's and no event loop's."""
        with self._lock:
            bridge = self._bridge
            if bridge is None:
                return
            try:
                if bridge.started_here:
                    bridge.pause()
                else:
                    self._clear()
                self.ledger.drain(self._settings.shutdown_timeout)
            finally:
                self._release(bridge)

    def _clear(self) -> None:
        if self._entries is not None:
            self._entries.clear()
            self._entries = None

    def _release(self, bridge: SchedulerBridge) -> None:
        _warm.discard(self)
        self._clear()
        bridge.stop()
        bridge.unlisten()
        self.runner.listening = False
        self._loops.stop()
        applications.pop(self._name, None)
        self._bridge = None
        self.stopped.set()

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
        known = {fold(key): key for key in self.ledger.jobs}
        for key in self._settings.jobs:
            if fold(key) not in known:
                told = (
                    f"the settings speak of a job {key!r}, which is not registered{did_you_mean(key, known.values())}"
                )
                told += "; register it in code, or say where it is: job = 'package.module:Name'"
                mistakes.append(ConfigurationError(told, "jobs"))
        raise_all(mistakes, "the jobs")

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
        if job.schedule.expected is None:
            _log.warning(job.key, f"job {job.key!r} is finished: no fire time is left before its end")
        elif self._entries is not None:
            self._entries.add(job)

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


def _enlist(application: str, runner: Runner) -> str:
    """Make a runner known under its application's name, or the nearest that is free in this process."""
    name, n = application, 1
    while applications.setdefault(name, runner) is not runner:
        n += 1
        name = f"{application}#{n}"
    return name
