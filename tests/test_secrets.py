"""Passwords stay out of errors and records."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import pytest
from apscheduler.jobstores.memory import MemoryJobStore
from loguru import logger

from bgjobs import BackgroundJobs, configure_logging
from bgjobs._logging import unconfigure_logging  # undoes a set-up that lasts for the process
from stage import NIGHTLY, Records, cold, fail, job_class, nothing, often, until, warm

# -- records, with a sink that shows all that loguru can show ---------------------------------------------------------


@pytest.fixture(name="shown")
def _shown() -> Iterator[list[str]]:
    """What a sink with loguru's most talkative settings writes."""
    lines: list[str] = []
    number = logger.add(lines.append, level=0, diagnose=True, backtrace=True)
    yield lines
    logger.remove(number)


def connect(password: str) -> None:
    """Fail, with a password in this frame, in the caller's, and in those of two other errors."""
    try:
        raise KeyError(len(password))
    except KeyError as error:
        group = ExceptionGroup("both", [ValueError(len(password)), ValueError(2)])
        group.add_note("tried once")
        raise ConnectionError(f"no answer after {len(password)} tries") from (group if password else error)


def hunter() -> str:
    """A password that no source line spells out."""
    return "hunter" + str(2)


class Unwritable(MemoryJobStore):  # type: ignore[misc]
    """A job store that cannot be written to once a job has run."""

    def update_job(self, job: Any) -> None:
        """Fail."""
        connect(hunter())


def a_failed_pass(jobs: BackgroundJobs) -> None:
    """The scheduler cannot process its due jobs."""
    jobs.add_background_job(nothing, trigger=often())


def a_failed_handler(jobs: BackgroundJobs) -> None:
    """An ``on_exception`` raises."""
    jobs.add_background_job(fail, cron=NIGHTLY, run_immediately=True, on_exception=lambda _: connect(hunter()))


@contextmanager
def scope(job_type: type[Any]) -> Generator[Any]:
    """A scope that fails when it is closed after a failure."""
    try:
        yield job_type()
    except ValueError:
        connect(hunter())


def a_failed_scope(jobs: BackgroundJobs) -> None:
    """The closing of a scope raises."""
    jobs.resolver = scope
    jobs.add_background_job(job_class("sync", fail), cron=NIGHTLY, run_immediately=True)


@pytest.mark.parametrize("happens", [a_failed_pass, a_failed_handler, a_failed_scope])
def test_a_record_shows_no_variable(
    happens: Callable[[BackgroundJobs], None], shown: list[str], records: Records
) -> None:
    """There is the traceback with its causes, source lines included, and no value of any frame, ours included."""
    jobs = cold(jobstores={"default": {"class": f"{__name__}:Unwritable"}} if happens is a_failed_pass else {})
    happens(jobs)
    with warm("background", jobs):
        until(lambda: any("ConnectionError" in text for text in records.texts()))
    text = "".join(shown)
    assert "hunter2" not in text
    assert "└" not in text  # what loguru draws below a line whose values it shows
    assert "raise ConnectionError(f" in text
    assert "ConnectionError: no answer after 7 tries" in text
    assert "ExceptionGroup: both (2 sub-exceptions)" in text
    assert "tried once" in text
    error = next(record["exception"] for record in records if record["exception"])
    assert issubclass(error.type, ConnectionError)
    assert "connect" in [frame.f_code.co_name for frame, _ in walk_tb(error.traceback)]
    assert not any(frame.f_locals for frame, _ in walk_tb(error.traceback))


def test_the_traceback_of_a_failed_run_shows_no_variable(shown: list[str], records: Records) -> None:
    """It is APScheduler's record, which `configure_logging` passes on to the sinks of others, too."""

    def job() -> None:
        connect(hunter())

    configure_logging()
    try:
        with warm("background", cold().add_background_job(job, cron=NIGHTLY, run_immediately=True)):
            until(lambda: any(record["exception"] for record in records))
    finally:
        unconfigure_logging()
    assert "ConnectionError: no answer after 7 tries" in "".join(shown)
    assert "hunter2" not in "".join(shown)


class HostileError(Exception):
    """An error that nothing can be asked."""

    def __getattribute__(self, name: str) -> Any:
        """Fail."""
        raise RuntimeError(name)

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError


def test_an_error_that_cannot_be_looked_at(records: Records) -> None:
    """Its record has no traceback, and is there all the same."""

    def handle(_: Exception) -> None:
        raise HostileError

    jobs = cold().add_background_job(fail, cron=NIGHTLY, run_immediately=True, on_exception=handle)
    with warm("background", jobs):
        until(lambda: "on_exception of job 'fail' raised HostileError" in records.texts())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://shop:hunter2@db/shop refuses", "postgresql://shop:***@db/shop refuses"),
        ("'redis://:hunt@er/2@db:6379/0'", "'redis://:***@db:6379/0'"),
        ("http://localhost:8080/health of shop@example.com", "http://localhost:8080/health of shop@example.com"),
    ],
)
def test_the_password_of_a_url_in_an_error(text: str, shown: str, records: Records) -> None:
    """It is in no record and no row of the status, whatever job, driver or job store has put it into its error."""

    def job() -> None:
        raise ConnectionError(text)

    configure_logging()
    jobs = cold().add_background_job(job, cron=NIGHTLY, run_immediately=True)
    try:
        with warm("background", jobs):
            until(lambda: any(record["exception"] for record in records))
    finally:
        unconfigure_logging()
    assert jobs.status()[0].last_error == f"ConnectionError: {shown}"
    assert f"job 'job' failed: ConnectionError: {shown}" in records.texts()
    assert {str(record["exception"].value) for record in records if record["exception"]} == {shown}
