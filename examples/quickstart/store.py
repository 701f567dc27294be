"""The database of the quickstart: SQLite, with the few statements that the jobs need."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

TABLES = (
    "users (external_id INTEGER PRIMARY KEY, name TEXT, email TEXT, updates INTEGER DEFAULT 0)",
    "emails (id INTEGER PRIMARY KEY, subject TEXT, created_at TEXT)",
    "failures (id INTEGER PRIMARY KEY, job TEXT, error TEXT)",
)


class Store:
    """One connection. Every method that writes also commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def create(self) -> None:
        """Make the tables, if they are not there, and three e-mails from long ago for the clean-up to find."""
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")  # whoever comes second waits here, and finds the tables
            if self.count("sqlite_master") == 0:
                for table in TABLES:
                    self.connection.execute(f"CREATE TABLE {table}")
                long_ago = (datetime.now(UTC) - timedelta(days=100)).isoformat()
                for number in (1, 2, 3):
                    self.connection.execute(
                        "INSERT INTO emails (subject, created_at) VALUES (?, ?)", (f"newsletter {number}", long_ago)
                    )

    def email_of(self, external_id: int) -> str | None:
        """The address of a user; ``None`` where there is no such user."""
        found = self.connection.execute("SELECT email FROM users WHERE external_id = ?", (external_id,)).fetchone()
        return found[0] if found else None

    def insert_user(self, external_id: int, name: str, email: str) -> None:
        """Add a user."""
        with self.connection:
            self.connection.execute(
                "INSERT INTO users (external_id, name, email) VALUES (?, ?, ?)", (external_id, name, email)
            )

    def update_user(self, external_id: int, name: str, email: str) -> None:
        """Change a user."""
        with self.connection:
            self.connection.execute(
                "UPDATE users SET name = ?, email = ?, updates = updates + 1 WHERE external_id = ?",
                (name, email, external_id),
            )

    def add_email(self, subject: str, created_at: datetime) -> None:
        """Note an e-mail as sent."""
        with self.connection:
            self.connection.execute(
                "INSERT INTO emails (subject, created_at) VALUES (?, ?)", (subject, created_at.isoformat())
            )

    def delete_emails_before(self, cutoff: datetime) -> int:
        """Delete old e-mails, and tell how many they were."""
        with self.connection:
            return self.connection.execute("DELETE FROM emails WHERE created_at < ?", (cutoff.isoformat(),)).rowcount

    def add_failure(self, job: str, error: str) -> None:
        """Note a run that failed."""
        with self.connection:
            self.connection.execute("INSERT INTO failures (job, error) VALUES (?, ?)", (job, error))

    def count(self, what: str) -> int:
        """How many rows a table (with a condition) has."""
        return int(self.connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0])
