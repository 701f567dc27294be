"""The facade: registering jobs, warming them up, closing them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any, Self, TypeVar, Unpack

from . import _settings  # its model is imported when it is first asked for
from ._apscheduler.scheduler import ASYNCIO, BLOCKING, SchedulerBridge
from ._control import Control, refuse_running_loop
from ._errors import LifecycleError
from ._exit import run_in_loop
from ._job import ExceptionHandler, Job, Resolver
from ._lifecycle import Lifecycle
from ._options import BackgroundJobOptions, JobOptions, Registration
from ._registration import registered, registered_by_settings, settings_of
from ._runs.threads import in_daemon_thread

J = TypeVar("J", bound=Job)


class BackgroundJobs(Control):
    """Background jobs on one APScheduler scheduler.

    Register jobs with `add_background_job`, then start them with `warm_up` (or ``async with``, ``with``, `lifespan`,
    `run`). Nothing runs before that. The counterpart of ``AddBackgroundJob`` and ``WarmUpAsync``.

    Args:
        scheduler: An `AsyncIOScheduler`, `BackgroundScheduler` or `BlockingScheduler` of APScheduler 3, running or not;
            its other jobs and listeners are left alone, and it is stopped only if bgjobs started it. ``None`` makes one
            at warm-up: asyncio where an event loop is running, else background, unless the settings name the kind.
        settings: The settings; ``None`` reads the environment and files; `BackgroundJobsSettings.defaults` reads none.
        resolver: Gives each run of a class its instance and scope; ``None`` calls the class. May be set until warm-up.

    Raises:
        ConfigurationError: The scheduler is none that can run jobs, or the settings are wrong.
        BgjobsError: A job of the settings cannot be registered; as in `add_background_job`.
    """

    _lifecycle: Lifecycle

    def __init__(
        self,
        scheduler: Any = None,
        *,
        settings: _settings.BackgroundJobsSettings | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._settings = settings_of(settings)
        given = None if scheduler is None else SchedulerBridge(scheduler)
        if given is not None:
            self._settings.refuse_configuration()
        self._lifecycle = Lifecycle(given, self._settings)
        self._registry = self._lifecycle.registry
        self.resolver = resolver
        for job in registered_by_settings(self._settings, self._lifecycle.timezone):
            self._lifecycle.add(job)

    @property
    def resolver(self) -> Resolver | None:
        """What gives each run of a class its instance and scope; ``None`` calls the class."""
        return self._registry.resolver

    @resolver.setter
    def resolver(self, resolver: Resolver | None) -> None:
        if self.is_warm:
            raise LifecycleError("the resolver can be set until warm_up(); these jobs are warm")
        self._registry.resolver = resolver

    def add_background_job(
        self,
        job: Job,
        *,
        cron: str | None = None,
        trigger: Any = None,
        run_immediately: bool = False,
        key: str | None = None,
        on_exception: ExceptionHandler | None = None,
        kwargs: dict[str, Any] | None = None,
        options: BackgroundJobOptions | None = None,
        **more: Unpack[JobOptions],
    ) -> Self:
        """Register a job; after warm-up, schedule it at once. The counterpart of ``AddBackgroundJob``.

        Settings for the same key win over what is given here.

        Args:
            job: A class with ``action_to_do``, a sync or async function, or a `functools.partial` of either.
            cron: Six fields, seconds first, Sunday = 0; ``None`` where `trigger` or the settings give the schedule.
            trigger: Any APScheduler trigger instead of `cron`.
            run_immediately: Whether to run once more, at warm-up.
            key: The unique name; ``None`` takes the name of the class or function.
            on_exception: For functions: called with the exception when a run fails. A class has its method.
            kwargs: Keyword arguments of the action or function.
            options: A ready model; the other arguments win over it.
            more: Every other option of `BackgroundJobOptions`.

        Returns:
            The facade, so that calls chain.

        Raises:
            CronFormatError: The cron expression cannot be parsed.
            NeverFiresError: No date can match it.
            DuplicateJobError: The key is taken, in this spelling or another.
            InvalidJobError: The job cannot be run as one.
            ConfigurationError: An option is wrong or unknown.
        """
        values = {} if options is None else {name: getattr(options, name) for name in options.model_fields_set}
        once = run_immediately or None  # left out, it is the default, over which a ready model wins
        named = {"cron": cron, "trigger": trigger, "key": key, "kwargs": kwargs, "run_immediately": once}
        values |= {name: value for name, value in named.items() if value is not None} | more
        new = registered(
            job, values, on_exception=on_exception, settings=self._settings, timezone=self._lifecycle.timezone
        )
        self._lifecycle.add(new)
        return self

    def background_job(self, **arguments: Unpack[Registration]) -> Callable[[J], J]:
        """Same as `add_background_job`, as a decorator of the class or function, which it returns unchanged."""

        def register(job: J) -> J:
            self.add_background_job(job, **arguments)
            return job

        return register

    def warm_up(self) -> Self:
        """Schedule the jobs, start the scheduler if it is not running, and make the immediate runs.

        The counterpart of ``WarmUpAsync``. On a `BlockingScheduler` this blocks until the jobs are closed, which Ctrl-C
        and SIGTERM do. Works again after a close.

        Returns:
            The facade.

        Raises:
            LifecycleError: The jobs are warm already, or an asyncio scheduler finds no running event loop.
            InvalidJobError: A constructor needs arguments, and there is no resolver.
            ConfigurationError: An executor or job store is unknown or cannot serve, or settings match no job.
        """
        self._lifecycle.warm_up()
        return self

    def run(self) -> None:
        """The whole of a plain script: warm up, run until Ctrl-C or SIGTERM (or a close), and close.

        On asyncio, unless there is a scheduler or the settings name another kind. Where something hangs, the process
        ends with status 1, ``shutdown_timeout`` and five seconds after the signal at the latest.

        Raises:
            LifecycleError: An event loop is running here already; use ``async with jobs:`` there.
        """
        refuse_running_loop("run() starts an event loop of its own; use `async with jobs:` in one that is running")
        kind = self._lifecycle.kind(otherwise=ASYNCIO)
        if kind == BLOCKING:
            self.warm_up()
            return
        stopping = self._lifecycle.stopping
        stopping.requested.clear()
        with stopping.serving():
            if kind == ASYNCIO:
                run_in_loop(self._serve(), lambda: self._registry.abandoned)
                return
            with closing(self._lifecycle):
                self.warm_up()
                stopping.requested.wait()

    async def _serve(self) -> None:
        async with self:
            await asyncio.wrap_future(in_daemon_thread(self._lifecycle.stopping.requested.wait))

    def close(self) -> None:
        """Stop starting runs, ask running ones to finish, wait for them; then stop the scheduler if bgjobs started it.

        Runs get ``shutdown_timeout`` seconds, ``on_exception`` included; then coroutines are cancelled, and threads are
        named in a warning. Inside a job, and in a signal handler that interrupts `run`, a warm-up or a close, it is
        only requested. Cold jobs are left alone.

        Raises:
            LifecycleError: An event loop is running here, which this would block; use `aclose`.
        """
        if self._registry.is_inside_a_run() or self._lifecycle.stopping.is_serving_here:
            self._lifecycle.stopping.request()
            return
        refuse_running_loop("close() would block the event loop that is running here; use `await jobs.aclose()`")
        self._lifecycle.close()

    async def aclose(self) -> None:
        """Same as `close`, without blocking the event loop; on every kind of scheduler."""
        closed = asyncio.wrap_future(in_daemon_thread(self._lifecycle.close))
        if not self._registry.is_inside_a_run():
            await closed

    def __enter__(self) -> Self:
        refuse_running_loop("`with jobs:` would block the event loop that is running here; use `async with jobs:`")
        if self._lifecycle.kind() == BLOCKING:
            raise LifecycleError(
                "a BlockingScheduler blocks in warm_up(), which closes at the end; call that, not `with`"
            )
        return self.warm_up()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        if self._lifecycle.kind() == BLOCKING:
            raise LifecycleError("a BlockingScheduler would block the event loop that is running here")
        return self.warm_up()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Warm up and close around an application; fits FastAPI, Starlette and Litestar as it stands.

        Args:
            app: The application, as the framework passes it; not used.
        """
        async with self:
            yield

    def __repr__(self) -> str:
        return f"<BackgroundJobs {'warm' if self.is_warm else 'not warm'}, {len(self._registry.jobs)} jobs>"
