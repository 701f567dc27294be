"""The scope of a run: where it is opened and closed, what it sees, and what a run leaves behind."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from loguru import logger
from loguru._logger import context

from bgjobs import LifecycleError, current_run
from bgjobs.testing import arun_job
from stage import (
    NIGHTLY,
    Waiter,
    cold,
    fail,
    flavoured,
    job_class,
    now,
    often,
    owner,
    recording_resolver,
    stage,
    until,
)


class TestScopes:
    @pytest.mark.parametrize("flavour", ["sync", "async"])
    @pytest.mark.parametrize("fails", [False, True])
    def test_scope_action_handler_and_closing_have_one_owner(
        self, kind: str, colour: str, flavour: str, fails: bool
    ) -> None:
        """The scope is opened, used, told of the failure and closed in one task or thread, exactly once."""
        seen = Waiter()
        variable: ContextVar[str] = ContextVar("variable", default="unset")

        def act(*_: object) -> None:
            variable.set("by the action")
            seen(("act", owner()))
            if fails:
                raise ValueError("boom")

        job = job_class(colour, act, lambda *_: seen(("handle", owner(), variable.get())))
        resolver = recording_resolver(seen, flavour)
        expected = ["open", "act", "handle", "close"] if fails else ["open", "act", "close"]
        with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=now()), resolver=resolver):
            events = seen.wait(len(expected))
        assert [event[0] for event in events] == expected
        if colour == flavour or flavour == "sync":
            assert len({event[1] for event in events}) == 1
            assert not fails or events[2][2] == "by the action"
        else:  # sync code of an async scope goes to a thread, so as not to block the loop
            assert events[0][1] is events[-1][1]
        assert repr(events[-1][2]) == ("ValueError('boom')" if fails else "None")

    def test_a_constructor_that_raises_is_a_failed_run(self, kind: str, records: Any) -> None:
        """There is no instance to handle it; the log says so, and the schedule goes on."""
        seen = Waiter()

        class Broken:
            def __init__(self) -> None:
                seen()
                raise OSError("no connection")

            def action_to_do(self) -> None: ...
            def on_exception(self, exception: Exception) -> None:
                seen("handled")

        with stage(kind, lambda jobs: jobs.add_background_job(Broken, trigger=often())):
            assert set(seen.wait(2)) == {None}
        assert "job 'Broken' failed: OSError: no connection (no instance" in records.texts("ERROR")[0]

    @pytest.mark.parametrize("flavour", ["sync", "async"])
    def test_a_scope_that_raises_on_entry_is_a_failed_run(
        self, kind: str, colour: str, flavour: str, records: Any
    ) -> None:
        """The action is not run, the log tells why, and the schedule goes on."""
        seen = Waiter()

        @contextmanager
        def scope(job_type: type[Any]) -> Generator[Any]:
            seen("entered")
            raise OSError("pool exhausted")
            yield job_type()

        job = job_class(colour, lambda *_: seen("acted"))
        resolver = flavoured(flavour, scope)
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=often()), resolver=resolver):
            assert set(seen.wait(2)) == {"entered"}
        assert "job 'k' failed: OSError: pool exhausted" in records.texts("ERROR")[0]

    @pytest.mark.parametrize("flavour", ["sync", "async"])
    def test_a_scope_that_raises_on_exit_fails_a_good_run(
        self, kind: str, colour: str, flavour: str, records: Any
    ) -> None:
        """A commit that fails at the end is a failed run, and the instance hears of it."""
        seen = Waiter()

        @contextmanager
        def scope(job_type: type[Any]) -> Generator[Any]:
            yield job_type()
            raise OSError("commit failed")

        job = job_class(colour, lambda *_: seen("acted"), lambda _, exc: seen(repr(exc)))
        with stage(
            kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=now()), resolver=flavoured(flavour, scope)
        ):
            assert seen.wait(2) == ["acted", "OSError('commit failed')"]
        assert records.texts("ERROR") == ["job 'k' failed: OSError: commit failed"]

    @pytest.mark.parametrize("flavour", ["sync", "async"])
    def test_a_scope_that_raises_on_exit_after_a_failure_is_logged(
        self, kind: str, colour: str, flavour: str, records: Any
    ) -> None:
        """Both errors are in the log; the handler hears of the first only."""
        seen = Waiter()

        @contextmanager
        def scope(job_type: type[Any]) -> Generator[Any]:
            try:
                yield job_type()
            finally:
                seen("closing")
                raise OSError("rollback failed")

        job = job_class(colour, fail, lambda _, exc: seen(repr(exc)))
        with stage(
            kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=now()), resolver=flavoured(flavour, scope)
        ):
            assert seen.wait(2) == ["ValueError('boom')", "closing"]
        assert records.texts("ERROR") == [
            "job 'k' failed: ValueError: boom",
            "the scope of job 'k' raised when it was closed: OSError: rollback failed",
        ]

    def test_a_resolver_without_a_context_manager_is_told_so(self, kind: str, records: Any) -> None:
        """A resolver that forgot its decorator fails the run with the remedy."""
        seen = Waiter()
        job = job_class("sync", seen)
        resolver: Any = lambda job_type: job_type()  # noqa: E731
        with stage(kind, lambda jobs: jobs.add_background_job(job, key="k", trigger=now()), resolver=resolver):
            until(lambda: records.texts("ERROR"))
        assert "which is no context manager; decorate it with contextlib" in records.texts("ERROR")[0]

    def test_functions_have_no_scope(self, kind: str) -> None:
        """The resolver is asked for classes only."""
        seen = Waiter()
        resolver = recording_resolver(seen, "sync")
        with stage(
            kind, lambda jobs: jobs.add_background_job(lambda: seen("f"), key="f", trigger=now()), resolver=resolver
        ):
            assert seen.wait() == ["f"]


class TestWhatARunLeaves:
    @pytest.mark.parametrize(
        ("flavour", "fails"), [(None, False), (None, True), ("sync", False), ("sync", True), ("async", False)]
    )
    def test_the_instance_is_freed_at_once(self, kind: str, colour: str, flavour: str | None, fails: bool) -> None:
        """It goes when its run is over: nothing holds it in a circle, until the garbage collector comes."""
        instances: list[weakref.ref[Any]] = []

        def act(self: Any, _: object) -> None:
            instances.append(weakref.ref(self))
            if fails:
                raise ValueError

        job = job_class(colour, act, lambda *_: None)
        resolver = recording_resolver(lambda _: None, flavour) if flavour else None
        gc.collect()
        gc.disable()
        try:
            with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=often()), resolver=resolver):
                until(lambda: len(instances) >= 3)
                until(lambda: instances[0]() is None)
        finally:
            gc.enable()

    @pytest.mark.parametrize("fails", [False, True])
    async def test_the_context_is_as_it_was(self, records: Any, fails: bool) -> None:
        """After a run, code that waited for it belongs to no run, nor do its records."""

        async def act() -> None:
            logger.info("inside")
            if fails:
                raise ValueError

        jobs = cold().add_background_job(act, key="k", cron=NIGHTLY)
        with logger.contextualize(request="r"):
            await arun_job(jobs, "k")
            logger.info("outside")
            with pytest.raises(LifecycleError, match="outside a run"):
                current_run()
        inside, outside = (record["extra"] for record in records if record["level"].name == "INFO")
        assert outside == {"request": "r"}
        assert inside.keys() == {"request", "job", "run_id", "scheduled_at"}

    def test_inside_it_what_loguru_binds_is_a_mapping_as_before(self, kind: str) -> None:
        """For whoever looks at the context of loguru, and for `contextualize` inside the job."""
        seen = Waiter()

        def act() -> None:
            bound = context.get()
            with logger.contextualize(step=2):
                seen((len(bound), bound["job"], sorted(context.get())))

        with stage(kind, lambda jobs: jobs.add_background_job(act, trigger=now())):
            assert seen.wait() == [(3, "act", ["job", "run_id", "scheduled_at", "step"])]

    def test_what_apscheduler_does_after_a_run_belongs_to_none(self, kind: str, colour: str) -> None:
        """Its own record of a success, in the task or thread of the run, is written outside the run's context."""
        seen = Waiter()

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "executed successfully" in record.getMessage():
                    try:
                        seen(current_run())
                    except LifecycleError:
                        seen("outside")

        handler, log = Handler(), logging.getLogger("apscheduler.executors.default")
        log.addHandler(handler)
        level = log.level
        log.setLevel(logging.INFO)
        try:
            job = job_class(colour, lambda *_: None)
            with stage(kind, lambda jobs: jobs.add_background_job(job, trigger=now())):
                assert seen.wait() == ["outside"]
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
