"""The applications of docs/frameworks.md, started as their users start them: by servers, reloaders and test clients."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient as AiohttpClient
from aiohttp.test_utils import TestServer
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from litestar import Litestar
from litestar.testing import TestClient as LitestarClient

from bgjobs import BackgroundJobs, CancellationToken, LifecycleError
from servers import free_port
from stage import LIMIT, NIGHTLY, Waiter, cold, nothing, until

PAGE = (Path(__file__).parent.parent / "docs" / "frameworks.md").read_text(encoding="utf-8")

#: A job that is running when the server is told to stop, and needs its time.
SLOW = """
import os
from bgjobs import CancellationToken

async def slow(cancellation_token: CancellationToken) -> None:
    os.write(1, f"begun {os.getpid()}\\n".encode())
    await cancellation_token.wait_async()
    os.write(1, f"drained {os.getpid()}\\n".encode())

"""


def application(heading: str) -> str:
    """The file of a section of the page, with the slow job in it."""
    section = PAGE.partition(f"# {heading}\n")[2]
    found = re.search(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    register = 'jobs.add_background_job(slow, cron="@yearly", run_immediately=True)'
    text, times = re.subn(r"^( *)jobs = .*", rf"\g<0>\n\1{register}", found[1], flags=re.MULTILINE)
    assert times == 1
    return SLOW + text


class Server:
    """A process that serves an application, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def shown(self) -> str:
        """What it and its children have printed; of several threads, so a line may begin in another one."""
        return self._output.read_text(encoding="utf-8")

    def pids(self, word: str) -> list[str]:
        """The processes that have written this word."""
        return re.findall(rf"{word} (\d+)\n", self.shown)

    def until_begun(self, times: int = 1) -> None:
        """Wait until the slow job has begun so many times."""
        until(lambda: self.process.poll() is not None or len(self.pids("begun")) >= times)
        assert self.process.poll() is None, self.shown

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Have it end by a signal, and fail unless it ends well."""
        self.process.send_signal(number)
        status = self.process.wait(2 * LIMIT)
        assert status in (0, -number), self.shown  # uvicorn ends as if it had not handled the signal
        assert "Traceback" not in self.shown


@contextmanager
def started(folder: Path, command: str, port: int) -> Generator[Server]:
    """Start a server in a folder; it and its children are gone at the end."""
    program, *arguments = command.replace("PORT", str(port)).split()
    path = sys.executable if program == "python" else f"{sysconfig.get_path('scripts')}/{program}"
    output = folder / "output.txt"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with output.open("w") as file:
        process = subprocess.Popen(
            [path, *arguments], cwd=folder, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        yield Server(process, output)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def serving(folder: Path, heading: str, command: str) -> Generator[Server]:
    """Start the application of a section of the page."""
    port = free_port()
    text = application(heading).replace("run_app(app)", f"run_app(app, port={port})")
    # Not the reloader of watchdog, where that is installed: it watches all of site-packages, and loses changes.
    text = text.replace("run(debug=True)", f"run(debug=True, reloader_type='stat', port={port})")
    (folder / "shop.py").write_text(text, encoding="utf-8")
    with started(folder, command, port) as server:
        yield server


@pytest.mark.parametrize(
    ("heading", "command", "shown"),
    [
        ("FastAPI", "uvicorn shop:app --port PORT", "refreshed"),
        ("FastAPI", "hypercorn shop:app --bind 127.0.0.1:PORT", "refreshed"),
        ("FastAPI", "gunicorn -k asgi shop:app --no-control-socket --bind 127.0.0.1:PORT", "refreshed"),
        ("What the application opens", "uvicorn shop:app --port PORT", "the pool is open: True"),
        ("Starlette", "hypercorn shop:app --bind 127.0.0.1:PORT", "refreshed"),
        ("Litestar", "litestar --app shop:app run --port PORT", "refreshed"),
        ("Litestar", "hypercorn shop:app --bind 127.0.0.1:PORT", "refreshed"),
        ("Quart", "quart --app shop run --port PORT", "hello"),
        ("Quart", "hypercorn shop:app --bind 127.0.0.1:PORT", "hello"),
        ("Quart", "uvicorn shop:app --port PORT", "hello"),
        ("aiohttp", "python shop.py", "the client is closed: False"),
        ("Flask", "flask --app shop run-jobs", "hello"),
        ("Flask", "gunicorn shop:serve_and_run_jobs() --no-control-socket --bind 127.0.0.1:PORT", "hello"),
    ],
    ids=lambda value: value.split()[0],
)
def test_a_server_runs_the_jobs_and_drains_them_on_sigterm(
    tmp_path: Path, heading: str, command: str, shown: str
) -> None:
    """The job of the page runs, in its context; one that is running at SIGTERM ends on its own terms."""
    with serving(tmp_path, heading, command) as server:
        server.until_begun()
        until(lambda: shown in server.shown)
        server.stop()
        assert server.pids("drained") == server.pids("begun")
        assert len(server.pids("begun")) == 1


def change(path: Path) -> int:
    """Change a file."""
    with path.open("a") as file:
        return file.write("# changed\n")


class TestReloaders:
    @pytest.mark.parametrize(
        ("heading", "command"),
        [
            ("FastAPI", "uvicorn shop:app --port PORT --reload"),
            ("FastAPI", "hypercorn --reload shop:app --bind 127.0.0.1:PORT"),
            ("Flask", "python shop.py"),
        ],
        ids=["uvicorn", "hypercorn", "flask"],
    )
    def test_a_change_drains_the_old_process_before_the_new_one_begins(
        self, tmp_path: Path, heading: str, command: str
    ) -> None:
        """One process at a time runs the jobs: that which serves, not the one that watches the files."""
        with serving(tmp_path, heading, command) as server:
            server.until_begun()
            until(lambda: change(tmp_path / "shop.py") and server.pids("drained"))  # it may not watch yet
            server.until_begun(2)
            first, second = server.pids("begun")
            assert first != second
            assert server.shown.index(f"drained {first}") < server.shown.index(f"begun {second}")
            assert str(server.process.pid) not in (first, second)

    def test_the_web_processes_of_flask_run_no_job(self, tmp_path: Path) -> None:
        """`flask run --debug` builds the application in two processes, and neither warms the jobs up."""
        with serving(tmp_path, "Flask", "flask --app shop run --debug --port PORT") as server:
            until(lambda: "Debugger PIN" in server.shown)  # the process that serves
            (address,) = set(re.findall(r"on (http://\S+)", server.shown))
            with pytest.raises(HTTPError, match="404"):
                urlopen(address, timeout=LIMIT)
            assert not server.pids("begun")


class TestClients:
    def test_only_one_client_at_a_time_can_be_in_the_lifespan(self) -> None:
        """The second one finds warm jobs, and is told so; one after the other is fine."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        app = FastAPI(lifespan=jobs.lifespan)
        with TestClient(app), pytest.raises(LifecycleError, match="already warmed up"), TestClient(app):
            pass
        with TestClient(app):
            assert jobs.is_warm
        assert not jobs.is_warm

    def test_the_lifespan_of_an_included_router_runs(self) -> None:
        """FastAPI merges it into that of the application."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        app = FastAPI()
        app.include_router(APIRouter(lifespan=jobs.lifespan))
        with TestClient(app):
            assert jobs.is_warm
        assert not jobs.is_warm

    def test_litestar_leaves_its_lifespans_in_the_reverse_order(self) -> None:
        """What comes before the jobs in the list is open until they are closed."""
        events: list[tuple[str, bool]] = []
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)

        @asynccontextmanager
        async def pool(_: Litestar) -> AsyncGenerator[None]:
            events.append(("open", jobs.is_warm))
            yield
            events.append(("close", jobs.is_warm))

        with LitestarClient(Litestar(lifespan=[pool, jobs.lifespan])):
            assert jobs.is_warm
        assert events == [("open", False), ("close", False)]


class TestAiohttp:
    async def test_its_test_server_runs_the_jobs_of_a_sub_application(self) -> None:
        """Its clean-up contexts run with those of the outer application."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        outer, inner = web.Application(), web.Application()
        inner.cleanup_ctx.append(jobs.lifespan)
        outer.add_subapp("/inner", inner)
        async with AiohttpClient(TestServer(outer)):
            assert jobs.is_warm
        assert not jobs.is_warm

    async def test_what_is_opened_before_the_jobs_is_closed_after_them(self) -> None:
        """A job that ends during the shutdown still has it."""
        seen, begun = Waiter(), asyncio.Event()
        app = web.Application()
        state = web.AppKey("state", dict[str, bool])

        async def resource(app: web.Application) -> AsyncGenerator[None]:
            app[state] = {"open": True}
            yield
            app[state]["open"] = False

        async def slow(cancellation_token: CancellationToken) -> None:
            begun.set()
            await cancellation_token.wait_async()
            seen(app[state]["open"])

        jobs: BackgroundJobs = cold().add_background_job(slow, cron=NIGHTLY, run_immediately=True)
        app.cleanup_ctx.extend([resource, jobs.lifespan])
        async with AiohttpClient(TestServer(app)):
            await begun.wait()
        assert seen.seen == [True]
        assert app[state] == {"open": False}
