"""The jobs of settings.toml. ``bgjobs run`` has no resolver, so each of them opens what it needs itself."""

from __future__ import annotations

import atexit
import sqlite3
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from functools import cache

from bgjobs import CancellationToken

from .api import served
from .jobs import CleanupJob, DataSyncJob, InvoiceJob, NotificationJob
from .store import Store

until_exit = ExitStack()
atexit.register(until_exit.close)


@cache
def api() -> str:
    """The address of the API, which is served from the first use on until the process ends."""
    return until_exit.enter_context(served())


@contextmanager
def opened() -> Generator[Store]:
    """The database, for one run."""
    with closing(sqlite3.connect("quickstart.db")) as connection:
        store = Store(connection)
        store.create()
        yield store


def sync_users(cancellation_token: CancellationToken) -> None:
    """Copy the users of the API into the database."""
    with opened() as store:
        DataSyncJob(store, api()).action_to_do(cancellation_token)


async def notify(greeting: str) -> None:
    """Send a notification."""
    with opened() as store:
        await NotificationJob(store, api()).action_to_do(greeting)


def clean_up(retention_days: int) -> None:
    """Delete old e-mails."""
    with opened() as store:
        CleanupJob(store, api()).action_to_do(retention_days)


class FetchInvoices:
    """Fails at every run, and handles it."""

    def action_to_do(self) -> None:
        with opened() as store:
            InvoiceJob(store, api()).action_to_do()

    def on_exception(self, exception: Exception) -> None:
        with opened() as store:
            InvoiceJob(store, api()).on_exception(exception)
