"""The jobs of the quickstart. A job is a class with `action_to_do`; each run gets a fresh instance of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

from bgjobs import CancellationToken, current_run

from .store import Store


def say(message: str) -> None:
    """Print what a run did, under the key of its job."""
    print(f"{datetime.now(UTC):%H:%M:%S}  {current_run().key:<22} {message}", flush=True)


class DataSyncJob:
    """Copies the users of the API into the database: new ones are inserted, changed ones updated."""

    def __init__(self, store: Store, api: str) -> None:
        self.store = store
        self.api = api

    def action_to_do(self, cancellation_token: CancellationToken) -> None:
        inserted = updated = 0
        with urlopen(f"{self.api}/users", timeout=10) as response:
            users = json.load(response)
        for user in users:
            cancellation_token.raise_if_cancellation_requested()
            known = self.store.email_of(user["id"])
            if known is None:
                self.store.insert_user(user["id"], user["name"], user["email"])
                inserted += 1
            elif known != user["email"]:
                self.store.update_user(user["id"], user["name"], user["email"])
                updated += 1
        say(f"{len(users)} users read, {inserted} inserted, {updated} updated")


class NotificationJob:
    """Sends a notification; registered twice, under two keys."""

    def __init__(self, store: Store, api: str) -> None:
        self.store = store

    async def action_to_do(self, greeting: str) -> None:  # async and sync jobs may be mixed
        self.store.add_email(greeting, datetime.now(UTC))
        say(f"e-mail sent: {greeting}")


class CleanupJob:
    """Deletes e-mails that are older than `retention_days`."""

    def __init__(self, store: Store, api: str) -> None:
        self.store = store

    def action_to_do(self, retention_days: int) -> None:
        deleted = self.store.delete_emails_before(datetime.now(UTC) - timedelta(days=retention_days))
        say(f"{deleted} e-mails older than {retention_days} days deleted")


class InvoiceJob:
    """Fetches invoices from a part of the API that is out of order: every run fails, and is handled."""

    def __init__(self, store: Store, api: str) -> None:
        self.store = store
        self.api = api

    def action_to_do(self) -> None:
        urlopen(f"{self.api}/invoices", timeout=10).close()

    def on_exception(self, exception: Exception) -> None:
        self.store.add_failure(current_run().key, str(exception))
        say(f"failed, and handled: {exception}")
