"""The two records about all jobs of a process: at the warm-up, and at the end of a close."""

from __future__ import annotations

import os
import re
import socket
import threading
from importlib.metadata import version

import pytest
from apscheduler.triggers.date import DateTrigger
from loguru import logger

from bgjobs import CancellationToken
from stage import CLASSES, LIMIT, NIGHTLY, Records, Waiter, cold, nothing, until, warm

HERE = f"{socket.gethostname()}:{os.getpid()}"


def told(records: Records) -> list[str]:
    """The records about all jobs."""
    return [text for text in records.texts("INFO") if text.startswith("bgjobs is ") or " is warm on " in text]


def test_a_warm_up_and_a_close(kind: str, records: Records) -> None:
    """One record each, on every kind of scheduler: version, process, jobs, and the first run of all."""
    jobs = cold(CLASSES[kind](timezone="Asia/Tokyo"))
    jobs.add_background_job(nothing, key="late", cron="0 0 0 1 1 *")
    jobs.add_background_job(nothing, key="early", cron="0 0 3 * * *")
    jobs.add_background_job(nothing, key="off", cron="-")
    with warm(kind, jobs):
        due = min(row.next_run_time for row in jobs.status() if row.next_run_time)
    first, last = told(records)
    assert first == (f"bgjobs {version('bgjobs')} is warm on {HERE}; jobs: 3; next run: 'early' at {due.isoformat()}")
    assert re.fullmatch(rf"bgjobs is closed on {HERE}, in \d+\.\d s; runs that ended meanwhile: 0; abandoned: 0", last)


def test_no_run_is_due(records: Records) -> None:
    """A paused job has no next run, nor has one that is finished."""
    jobs = cold().add_background_job(nothing, key="paused", cron=NIGHTLY)
    jobs.add_background_job(nothing, key="finished", cron=NIGHTLY, end_date="2020-01-01T00:00:00Z")
    jobs.pause("paused")
    with jobs:
        assert told(records)[0].endswith("; jobs: 2; next run: none")


def test_runs_in_progress_are_counted(records: Records) -> None:
    """Those that end because they are asked to, and those that do not."""
    begun, go = Waiter(), threading.Event()

    def polite(cancellation_token: CancellationToken) -> None:
        begun()
        cancellation_token.wait(LIMIT)

    def deaf() -> None:
        begun()
        go.wait(LIMIT)

    jobs = cold(shutdown_timeout=0.5)
    for key, job in (("polite", polite), ("rude", deaf)):
        jobs.add_background_job(job, key=key, trigger=DateTrigger(timezone="UTC"))
    try:
        with jobs:
            begun.wait(2)
        assert told(records)[-1].endswith("; runs that ended meanwhile: 1; abandoned: 1")
    finally:
        go.set()


def test_what_does_nothing_tells_nothing(records: Records) -> None:
    """A close of cold jobs, and a warm-up that fails."""
    jobs = cold().add_background_job(nothing, cron=NIGHTLY, executor="none")
    jobs.close()
    with pytest.raises(ValueError, match="none"):
        jobs.warm_up()
    assert told(records) == []


def test_no_lock_is_held() -> None:
    """While the first record is written another thread can close the jobs; while the second one is, warm them up."""
    jobs = cold().add_background_job(nothing, cron=NIGHTLY)
    threads: list[threading.Thread] = []

    def sink(text: str) -> None:
        is_warm = " is warm on " in text
        if len(threads) < 2:
            threads.append(threading.Thread(target=jobs.close if is_warm else jobs.warm_up))
            threads[-1].start()  # it comes as far as its own record, for which it waits for this one
            until(lambda: jobs.is_warm != is_warm)

    number = logger.add(sink, format="{message}", catch=False)
    try:
        jobs.warm_up()
        until(lambda: len(threads) == 2)
        for thread in threads:
            thread.join(LIMIT)
        assert jobs.is_warm
    finally:
        logger.remove(number)
        jobs.close()
