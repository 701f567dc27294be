"""The jobs of all replicas as the claim store alone knows them, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from .._errors import ByName, ClaimStoreError, ConfigurationError, UnknownJobError, did_you_mean
from .._runs.log import printable
from .._runs.threads import in_daemon_thread, waits
from . import open_store
from .line import too_late

T = TypeVar("T")

#: The columns of the table, by attribute; a text of any length comes last.
_TITLES = {
    "key": "JOB",
    "schedule": "SCHEDULE",
    "last_occurrence": "LAST OCCURRENCE",
    "holder": "RUNS ON",
    "since": "SINCE",
    "outcome": "OUTCOME",
    "ended": "ENDED",
    "paused": "PAUSED",
    "lost": "LOST ON",
    "lost_at": "LOST AT",
    "error": "ERROR",
}
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class FleetJob:
    """One job, as its replicas have left it in the store. Times are the store's, in UTC.

    Attributes:
        key: Its key.
        schedule: Its schedule, as the replica has it that ran last.
        last_occurrence: The latest fire time that a replica has claimed, or that was skipped by all.
        holder: ``host:pid`` of the process that runs it now.
        since: When that run was granted.
        outcome: How the last run ended that did.
        error: What it failed of.
        ended: When it ended.
        paused: Whether it is paused in all replicas.
        lost: ``host:pid`` of the process that made the last run that did not end.
        lost_at: When the lease of that run was over.
    """

    key: str
    schedule: str | None
    last_occurrence: datetime | None
    holder: str | None
    since: datetime | None
    outcome: str | None
    error: str | None
    ended: datetime | None
    paused: bool
    lost: str | None
    lost_at: datetime | None


class Fleet:
    """The replicas of one application.

    Args:
        url: The URL of their claim store.
        application: Their application.

    Raises:
        ConfigurationError: There is no such store.
    """

    def __init__(self, url: str | None, application: str) -> None:
        if url is None:
            raise ConfigurationError(
                "the settings name no claim store; give claims.url in a settings file, or BGJOBS__CLAIMS__URL, or with "
                "--app an application whose code gives it",
                "claims.url",
            )
        self._store = open_store(url)
        self._application = application

    def jobs(self) -> ByName[FleetJob]:
        """The jobs that a replica has ever asked a claim for, by key.

        Raises:
            ClaimStoreError: The store does not answer.
        """
        prefix = f"{self._application}/"
        rows = _in_time(partial(self._store.rows, prefix))
        return ByName({key: _job(key, row) for row in rows for key in [row["key"].removeprefix(prefix)]})

    def pause(self, key: str, *, paused: bool) -> str:
        """Pause or resume a job in all replicas; return its key as it is spelled in the store.

        Raises:
            UnknownJobError: The store has no such job.
            ClaimStoreError: The store does not answer.
        """
        jobs = self.jobs()
        found = key if key in jobs else jobs.spelling(key)
        if found is None:
            what = f"the claim store has no job {key!r} of the application {self._application!r}"
            raise UnknownJobError(what + did_you_mean(key, jobs), key)
        _in_time(partial(self._store.pause, f"{self._application}/{found}", paused))
        return found

    def as_json(self) -> list[dict[str, Any]]:
        """The jobs for machines: times in ISO 8601."""
        return [
            {
                name: value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
                for name, value in asdict(job).items()
            }
            for job in self.jobs().values()
        ]

    def as_table(self) -> list[tuple[str, ...]]:
        """The jobs for people: lines of cells, the first of them the titles."""
        return [
            tuple(_TITLES.values()),
            *(tuple(_cell(getattr(job, name)) for name in _TITLES) for job in self.jobs().values()),
        ]

    def close(self) -> None:
        """Close all connections."""
        self._store.close()


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    # Whatever has been written into the store, it does nothing to a terminal.
    return "yes" if value is True else printable(str(value or "-"))


def _job(key: str, row: dict[str, Any]) -> FleetJob:
    is_held = row["token"] is not None
    is_alive = is_held and row["lease_until"] > row["now"]
    lost, lost_at = ("holder", "lease_until") if is_held and not is_alive else ("lost", "lost_at")
    return FleetJob(
        key=key,
        schedule=row["schedule"],
        last_occurrence=_time(row["last_fire"]),
        holder=row["holder"] if is_alive else None,
        since=_time(row["started_at"]) if is_alive else None,
        outcome=row["outcome"],
        error=row["error"],
        ended=_time(row["finished_at"]),
        paused=bool(row["paused"]),
        lost=row[lost],
        lost_at=_time(row[lost_at]),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return _EPOCH + timedelta(milliseconds=milliseconds) if milliseconds else None


def _in_time(call: Callable[[], T]) -> T:
    """What the store answers within the time that a run waits for it, too, whatever a driver hangs in."""
    try:
        return in_daemon_thread(call).result(waits.claim)
    except TimeoutError:
        raise ClaimStoreError(too_late()) from None
