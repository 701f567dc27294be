"""Who owns a run, and the runs that are going.

A run is owned by one task or one thread, which opens its scope, runs its action, calls ``on_exception`` and closes the
scope. The owner depends on the executor of the job and on the job:

    executor        job      owner                                  at the error event
    asyncio         async    APScheduler's own task (no resolver)   a task of its own settles, in the same context
    asyncio         async    a task of its own (resolver)           that task goes on
    asyncio         sync     a worker thread of the loop            that thread goes on
    thread pool     sync     the worker thread that called us       the event is dispatched in it: it settles there
    thread pool     async    a task in the facade's loop            that task goes on

A sync job whose resolver gives an async scope is owned by a task, too, and its action goes to a thread.

What APScheduler does not tell: it fires no event for an asyncio job after its shutdown; the wait for it is bounded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import datetime
from functools import partial
from typing import Any

from .._job import Resolver
from .._runs.calls import InThread, drive, in_task
from .._runs.outcome import Cancelled, NeedsTask, Outcome, Skipped
from .._runs.registry import Ledger
from .._runs.run import Run
from .._runs.threads import waits
from .tick import Ticket, job_id


class Runner:
    """Makes the runs of one facade.

    Attributes:
        ledger: The jobs, and the runs that are going.
        resolver: What gives a run its scope and instance; ``None`` to call the class.
        listening: Whether the scheduler's error events reach `errored`.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        get_loop: Callable[[], asyncio.AbstractEventLoop],
        await_submission: Callable[[str], bool],
    ) -> None:
        self.ledger = ledger
        self.resolver: Resolver | None = None
        self.listening = False
        self._get_loop = get_loop
        self._await_submission = await_submission
        self._in_thread = InThread(get_loop)
        self._expected: dict[Ticket, Callable[[], object]] = {}  # failed runs that wait for their error event

    def fire(self, key: str, kind: str, scheduled_at: datetime) -> Outcome | Skipped:
        """Make a run from an executor's worker thread, and return what APScheduler is to be told of it."""
        run = self.ledger.begin(key, kind, scheduled_at)
        if isinstance(run, Skipped):
            return run
        try:
            outcome: Outcome = NeedsTask(None)
            context = copy_context()
            if not run.job.target.is_coroutine:
                outcome = context.run(drive, run.perform(self._in_thread, self.resolver))
            if isinstance(outcome, NeedsTask):
                reported: Future[Outcome | Skipped] = Future()
                self._start_task(self._get_loop(), run, reported, outcome.scope)
                with suppress(CancelledError):
                    return reported.result()
                return Cancelled()
        except BaseException:
            self.ledger.drop(run)
            raise
        error = self.ledger.acted(run, outcome)
        if error is not None:
            self._settle_in_worker(run, context, error)
        return outcome

    async def fire_async(self, key: str, kind: str, scheduled_at: datetime) -> Outcome | Skipped:
        """Make a run from an asyncio executor's task, and return what APScheduler is to be told of it."""
        run = self.ledger.begin(key, kind, scheduled_at)
        if isinstance(run, Skipped):
            return run
        target = run.job.target
        try:
            if target.is_coroutine and (self.resolver is None or target.job_type is None):
                run.task = asyncio.current_task()
                acted = await run.perform(in_task, None)
                error = self.ledger.acted(run, acted)
                if error is not None:
                    self._settle_in_task(run, error)
                return acted
            outcome: Outcome | Skipped = NeedsTask(None)
            if not target.is_coroutine:
                reported: Future[Outcome | Skipped] = Future()
                own = partial(copy_context().run, self._own_in_worker, run, reported)
                asyncio.get_running_loop().run_in_executor(None, own)
                outcome = await _reported(run, reported)
            if isinstance(outcome, NeedsTask):
                reported = Future()
                self._start_task(asyncio.get_running_loop(), run, reported, outcome.scope)
                outcome = await _reported(run, reported)
            return outcome
        except BaseException:
            self.ledger.drop(run)
            raise

    # -- the owners ----------------------------------------------------------------------------------------------

    def _settle_in_task(self, run: Run, error: BaseException) -> None:
        """Have a run that APScheduler's own task made settled in a task, when the event comes."""
        loop, context = asyncio.get_running_loop(), copy_context()

        def settle() -> None:
            run.task = loop.create_task(self._settle(run, error), context=context)

        self._expect(run, settle, loop)

    async def _settle(self, run: Run, error: BaseException) -> None:
        await run.settle(in_task, error)
        self.ledger.ended(run)

    def _start_task(
        self, loop: asyncio.AbstractEventLoop, run: Run, reported: Future[Outcome | Skipped], scope: Any
    ) -> None:
        def start() -> None:
            run.task = loop.create_task(self._own_in_task(run, reported, scope))
            run.task.add_done_callback(never_began)

        def never_began(_: object) -> None:  # for a task that was cancelled before its first step; else nothing
            reported.cancel()
            if run in run.job.running:
                run.token.request_cancellation()
                self.ledger.withdraw(run)

        loop.call_soon_threadsafe(start)

    async def _own_in_task(self, run: Run, reported: Future[Outcome | Skipped], scope: Any) -> None:
        """The whole life of a run in a task of its own."""
        skipped = self.ledger.withdraw(run)
        if skipped is not None:
            if reported.set_running_or_notify_cancel():
                reported.set_result(skipped)
            return
        outcome = await run.perform(in_task, self.resolver, scope)
        alone = not reported.set_running_or_notify_cancel()
        error = self.ledger.acted(run, outcome, alone=alone)
        loop = asyncio.get_running_loop()
        routed = asyncio.Event()
        if alone:
            routed.set()
        else:
            if error is not None:
                self._expect(run, lambda: loop.call_soon_threadsafe(routed.set), loop)
            reported.set_result(outcome)
        if error is not None:
            with suppress(asyncio.CancelledError):  # a drain that cancels the wait does not cancel on_exception
                await routed.wait()
            await self._settle(run, error)

    def _own_in_worker(self, run: Run, reported: Future[Outcome | Skipped]) -> None:
        """The whole life of a sync run in a worker thread of the event loop."""
        skipped = self.ledger.withdraw(run)
        if skipped is not None:
            if reported.set_running_or_notify_cancel():
                reported.set_result(skipped)
            return
        outcome = drive(run.perform(self._in_thread, self.resolver))
        alone = not reported.set_running_or_notify_cancel()
        if isinstance(outcome, NeedsTask):
            if alone:
                self.ledger.drop(run)
            else:
                reported.set_result(outcome)
            return
        error = self.ledger.acted(run, outcome, alone=alone)
        routed = threading.Event()
        if alone:
            routed.set()
        else:
            if error is not None:
                self._expect(run, routed.set)
            reported.set_result(outcome)
        if error is not None:
            routed.wait(waits.report if self.listening else 0)
            self._expected.pop(_ticket(run), None)
            drive(run.settle(self._in_thread, error))
            self.ledger.ended(run)

    def _settle_in_worker(self, run: Run, context: Context, error: BaseException) -> None:
        """Have a sync run of a thread pool settled in this very thread, when it has raised and the event comes."""
        owner = threading.get_ident()

        def settle() -> None:
            context.run(drive, run.settle(self._in_thread, error))
            self.ledger.settling.discard(owner)
            self.ledger.ended(run)

        def resume() -> None:
            if here and threading.get_ident() == owner:
                settle()
            else:  # an executor with other habits: never on the scheduler's own thread
                threading.Thread(target=settle, name=f"bgjobs-{run.key}", daemon=True).start()

        if self.listening and run.generation == self.ledger.generation:
            self.ledger.settling.add(owner)
            here = self._await_submission(run.job.options.executor)
            self._expect(run, resume)
        else:
            settle()

    # -- what APScheduler tells ----------------------------------------------------------------------------------

    def _expect(self, run: Run, resume: Callable[[], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
        ticket = _ticket(run)
        self._expected[ticket] = resume
        if loop is not None:
            loop.call_later(waits.report if self.listening else 0, self.errored, ticket)

    def errored(self, ticket: Ticket) -> None:
        """APScheduler has logged the error of this run and fired its event: let the owner settle."""
        resume = self._expected.pop(ticket, None)
        if resume is not None:
            resume()


def _ticket(run: Run) -> Ticket:
    return job_id(run.key, run.kind), run.scheduled_at


async def _reported(run: Run, reported: Future[Outcome | Skipped]) -> Outcome | Skipped:
    """Wait for what the owner of a run reports; when cancelled meanwhile, pass that on and leave the owner alone."""
    try:
        return await asyncio.wrap_future(reported)
    except asyncio.CancelledError:
        run.cancel()
        if reported.cancel():
            return Cancelled()
        return await asyncio.wrap_future(reported)
