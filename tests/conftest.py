"""What every test starts from: no settings in the environment, and records of both logs at hand."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from loguru import logger

from bgjobs._runs.threads import waits as times  # no public name: users have `shutdown_timeout` alone
from servers import database, postgresql_server, redis_server, redis_url
from stage import KINDS, Records


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine reaches a test."""
    for name in list(os.environ):
        if name.upper().startswith("BGJOBS"):
            monkeypatch.delenv(name)


@pytest.fixture(name="kind", params=KINDS)
def _kind(request: pytest.FixtureRequest) -> str:
    """Each kind of scheduler in turn."""
    return str(request.param)


@pytest.fixture(name="waits")
def _waits() -> Generator[Any]:
    """The waiting times of the package, for a test to shorten single ones; as before after it."""
    before = dict(vars(times))
    yield times
    vars(times).clear()
    vars(times).update(before)


@pytest.fixture(name="colour", params=["async", "sync"])
def _colour(request: pytest.FixtureRequest) -> str:
    """Async and sync code in turn."""
    return str(request.param)


@pytest.fixture(name="records")
def _records() -> Iterator[Records]:
    """Everything that is logged through loguru during the test."""
    records = Records()
    number = logger.add(lambda message: records.append(message.record), level=0, format="{message}")  # type: ignore[arg-type]
    yield records
    logger.remove(number)


@pytest.fixture(name="apscheduler_records")
def _apscheduler_records() -> Generator[list[logging.LogRecord]]:
    """Everything that APScheduler logs itself during the test."""
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Handler()
    log = logging.getLogger("apscheduler")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield records
    log.removeHandler(handler)
    log.setLevel(level)


@pytest.fixture(name="postgresql_server", scope="session")
def _postgresql_server() -> Generator[str]:
    """The URL of a PostgreSQL server."""
    with postgresql_server() as url:
        yield url


@pytest.fixture(name="postgresql")
def _postgresql(postgresql_server: str) -> Generator[str]:
    """The URL of an empty PostgreSQL database, for SQLAlchemy."""
    with database(postgresql_server) as url:
        yield url


@pytest.fixture(name="redis_server", scope="session")
def _redis_server() -> Generator[dict[str, Any]]:
    """What a Redis client takes to connect to a server."""
    with redis_server() as arguments:
        yield arguments


@pytest.fixture(name="redis")
def _redis(redis_server: dict[str, Any]) -> str:
    """The URL of a Redis server; others may use it, too."""
    return redis_url(redis_server)
