"""examples/django_project at work: `manage.py runjobs` and `manage.py runserver`, in processes, on a SQLite file."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from servers import free_port, listens
from stage import LIMIT, until

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "examples" / "django_project"


def blocks(page: str) -> list[str]:
    """The Python blocks of the section on Django."""
    section = (ROOT / page).read_text(encoding="utf-8").partition("\n## Django\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def query(database: Path, statement: str) -> list[Any]:
    """The rows of a statement."""
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(statement).fetchall()


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> Path:
    """The database of the project, with an order of long ago and one of tomorrow."""
    subprocess.run([sys.executable, PROJECT / "manage.py", "migrate", "--verbosity=0"], cwd=tmp_path, check=True)
    database = tmp_path / "shop.sqlite3"
    orders = "('open', '2000-01-01 00:00:00'), ('open', '9999-01-01 00:00:00')"
    query(database, f"INSERT INTO orders_order (state, placed_at) VALUES {orders}")
    return database


@contextmanager
def manage(database: Path, *arguments: str, **env: str) -> Generator[subprocess.Popen[bytes]]:
    """A management command in a process, which writes to `output.txt` beside the database."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
    with database.with_name("output.txt").open("w") as file:
        process = subprocess.Popen(
            [sys.executable, PROJECT / "manage.py", *arguments],
            cwd=database.parent,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_command_runs_sync_and_async_jobs_on_the_orm(database: Path) -> None:
    """Each job has done its work, the log is empty, and SIGTERM ends the process well."""
    with manage(database, "runjobs") as process:
        until(lambda: query(database, "SELECT count(*) FROM orders_order WHERE state = 'expired'") == [(1,)])
        until(lambda: query(database, "SELECT count(*) FROM orders_report") == [(1,)])
        process.send_signal(signal.SIGTERM)
        assert process.wait(2 * LIMIT) == 0
    assert query(database, "SELECT state FROM orders_order ORDER BY placed_at") == [("expired",), ("open",)]
    assert "Traceback" not in database.with_name("output.txt").read_text()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no list of the files of a process")
def test_no_connection_stays_open_after_a_run(database: Path) -> None:
    """A run of each job, one in a thread and one in the event loop, leaves no open file of the database behind."""
    once = {f"BGJOBS__JOBS__{key}__CRON": "@yearly" for key in ("EXPIRE_ORDERS", "WRITE_REPORT")}
    with manage(database, "runjobs", **once) as process:

        def is_open() -> bool:
            names = []
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                try:
                    names.append(str(descriptor.readlink()))
                except FileNotFoundError:  # closed in between
                    continue
            return str(database) in names

        until(lambda: query(database, "SELECT count(*) FROM orders_order WHERE state = 'expired'") == [(1,)])
        until(lambda: query(database, "SELECT count(*) FROM orders_report") == [(1,)])
        until(lambda: not is_open())


def test_the_web_server_and_its_reloader_run_no_job(database: Path) -> None:
    """Both processes of `runserver` load the project; the page shows that no order has expired."""
    port = free_port()
    with manage(database, "runserver", f"127.0.0.1:{port}") as server:

        def shown() -> Any:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=LIMIT) as response:
                return json.load(response)

        until(lambda: listens(port))
        assert shown() == {"open": 2}
        assert server.poll() is None
    assert query(database, "SELECT count(*) FROM orders_report") == [(0,)]


def test_the_page_shows_the_hook_of_the_project() -> None:
    """What docs/frameworks.md shows is what the project has, word for word."""
    (shown,) = blocks("docs/frameworks.md")
    hook = shown[shown.index("class FreshConnections") : shown.index("class Command")]
    assert hook.strip() in (PROJECT / "orders" / "jobs.py").read_text(encoding="utf-8")
