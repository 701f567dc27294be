"""Ctrl-C and SIGTERM, while `jobs.run()` serves in the main thread."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest
from apscheduler.events import EVENT_SCHEDULER_STARTED

from bgjobs import BackgroundJobs, CancellationToken, LifecycleError
from stage import CLASSES, LIMIT, Waiter, cold, now, until


def once(kind: str, job: Any) -> BackgroundJobs:
    """Jobs on a scheduler of that kind, one of which runs this once."""
    return cold(CLASSES[kind](timezone="UTC")).add_background_job(job, key="k", trigger=now())


def send(number: signal.Signals) -> None:
    """A signal to the process, as from a terminal or from its service manager."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop(kind: str, number: signal.Signals, waits: Any) -> None:
    """The running job is asked to end; an echo, as of a signal to a process and to its group, is no second one."""
    waits.echo = LIMIT
    asked = Waiter()

    def job(cancellation_token: CancellationToken) -> None:
        send(number)
        asked(cancellation_token.wait(LIMIT))
        send(number)

    jobs = once(kind, job)
    jobs.run()
    assert asked.seen == [True]
    assert not jobs.is_warm


def test_outside_the_main_thread_nothing_is_done(kind: str) -> None:
    """Python takes no signal handlers there; the jobs run all the same, until they are closed."""
    before, seen = signal.getsignal(signal.SIGINT), Waiter()
    jobs = once(kind, lambda: seen(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=jobs.run)
    thread.start()
    assert seen.wait() == [before]
    until(lambda: jobs.is_warm)
    jobs.close()
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_other_signals_are_left_to_their_handlers(kind: str) -> None:
    """A signal that somebody else handles meanwhile asks for nothing."""
    other, asked = Waiter(), Waiter()

    def job(cancellation_token: CancellationToken) -> None:
        send(signal.SIGUSR1)
        other.wait()
        asked(cancellation_token.is_cancellation_requested)
        send(signal.SIGTERM)
        asked(cancellation_token.wait(LIMIT))

    before = signal.signal(signal.SIGUSR1, lambda *_: other())
    try:
        once(kind, job).run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert asked.seen == [False, True]


def test_a_signal_is_seen_where_a_job_has_the_event_loop_handle_another_one() -> None:
    """The event loop then has the interpreter write the numbers of signals to itself, no longer to us."""
    asked = Waiter()

    async def job(cancellation_token: CancellationToken) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, asked)
        send(signal.SIGTERM)
        await asyncio.wait_for(cancellation_token.wait_async(), LIMIT)
        asked(cancellation_token.is_cancellation_requested)
        loop.remove_signal_handler(signal.SIGUSR1)

    once("asyncio", job).run()
    assert asked.seen == [True]


def test_a_handler_that_closes_may_interrupt_a_warm_up() -> None:
    """The jobs turn warm first, and are closed by another thread after that."""
    scheduler = CLASSES["background"](timezone="UTC")
    scheduler.add_listener(lambda _: signal.raise_signal(signal.SIGTERM), EVENT_SCHEDULER_STARTED)
    jobs, closed = cold(scheduler), Waiter()
    before = signal.signal(signal.SIGTERM, lambda *_: closed(jobs.close()))  # type: ignore[func-returns-value]
    try:
        jobs.warm_up()
        closed.wait()
        until(lambda: not jobs.is_warm)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_that_warms_up_again_is_refused() -> None:
    """In the thread that is at it already, which could not wait for itself."""
    scheduler, refused = CLASSES["background"](timezone="UTC"), Waiter()
    jobs = cold(scheduler)

    def again(_: object) -> None:
        with pytest.raises(LifecycleError, match="being warmed up or closed already"):
            jobs.warm_up()
        refused()

    scheduler.add_listener(again, EVENT_SCHEDULER_STARTED)
    with jobs:
        refused.wait()
