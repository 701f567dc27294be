"""Backups of the database: a copy of an SQLite file, or the work of ``pg_dump``."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, make_url

SUFFIXES = {"sqlite": ".db", "postgresql": ".dump"}
LIMIT = 1800  #: seconds that pg_dump may take


def suffix_of(database_url: str) -> str:
    """How the names of backups of this database end."""
    return SUFFIXES[make_url(database_url).get_backend_name()]


def dump(database_url: str, target: Path) -> None:
    """Write a backup that is consistent, whoever writes to the database meanwhile; blocks until it is there.

    Raises:
        RuntimeError: pg_dump has failed; the message is its own.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database))) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
        return
    where = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    command = ["pg_dump", "--format=custom", f"--file={target}", f"--dbname={where}"]
    secret = {"PGPASSWORD": str(url.password)} if url.password else {}  # everybody can read the arguments of a process
    done = subprocess.run(
        command, env={**os.environ, **secret}, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
