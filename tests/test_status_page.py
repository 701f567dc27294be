"""The status page of examples/: real runs, served by real servers, and looked at in a real browser."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from wsgiref.util import shift_path_info

import pytest
from apscheduler.triggers.interval import IntervalTrigger
from starlette.applications import Starlette
from starlette.routing import Mount

from bgjobs import Health, JobStatus, Outcome, RunReport
from examples.status_page import StatusPage
from examples.status_page.model import Run, bands, coming, picture, span, took
from stage import NIGHTLY, cold, fail, nothing, row
from web import asgi, request, wsgi

ROOT = Path(__file__).parent.parent
README = ROOT / "examples" / "status_page" / "README.md"

NOW = datetime(2026, 3, 28, 22, 50, tzinfo=UTC)
EVIL = """<script>alert("key")</script>'"""


def status(key: str = "report", **changes: Any) -> JobStatus:
    """A row of a job that is well, with changes."""
    values: dict[str, Any] = {
        "key": key, "cron": NIGHTLY, "timezone": "UTC", "next_run_time": NOW + timedelta(hours=4), "paused": False,
        "finished": False, "running": 0, "last_started_at": NOW, "last_finished_at": NOW, "last_succeeded_at": NOW,
        "last_seconds": 1.0, "last_outcome": "succeeded", "last_error": None, "consecutive_failures": 0,
        "outcomes": {}, "not_run": {},
    }  # fmt: skip
    return JobStatus(**{**values, **changes})


def said(*rows: JobStatus, problems: tuple[str, ...] = (), **history: list[Run]) -> str:
    """The sentence on top."""
    told = picture(rows, Health(not problems, problems), history, NOW).as_dict()["sentence"]
    assert isinstance(told, str)
    return told


class TestSentence:
    def test_all_is_well(self) -> None:
        """Without any trouble it says so."""
        assert said(status(), status("other", paused=True)) == "All is well."

    def test_no_jobs(self) -> None:
        """A facade without jobs is nothing to praise."""
        assert said() == "No jobs are registered."

    def test_cold_jobs(self) -> None:
        """What `health()` says of all jobs comes first, as a sentence."""
        assert said(status(), problems=("the jobs are not warmed up",)) == "The jobs are not warmed up."

    def test_one_failure(self) -> None:
        """A run that failed is named with how it ended."""
        assert said(status(consecutive_failures=1, last_outcome="failed")) == "report failed in its latest run."
        assert said(status(consecutive_failures=1, last_outcome="timed_out")) == "report timed out in its latest run."

    def test_a_job_that_is_overdue(self) -> None:
        """What `health()` says of one job is said once, and by its name."""
        assert said(status(), problems=("job 'report' is overdue by 30 s",)) == "report is overdue by 30 s."

    def test_the_worst_comes_first(self) -> None:
        """Two problems are named, and the rest are counted; surprises come after failures."""
        late = [Run(NOW - timedelta(hours=2), 0, Outcome.MISSED)]
        rows = status("a"), *(status(key, consecutive_failures=number) for number, key in enumerate("bcde", start=1))
        assert (
            said(*rows, a=late) == "e has failed 4 times in a row, d has failed 3 times in a row, and 3 more problems."
        )
        assert said(*rows[:2], a=late) == "b failed in its latest run, and a missed a run 2 h ago."

    def test_what_is_meant_is_no_trouble(self) -> None:
        """A run that only_if ruled out, or that another replica makes, is not worth a word."""
        assert said(status(), report=[Run(NOW, 0, Outcome.CONDITION), Run(NOW, 0, Outcome.CLAIMED)]) == "All is well."


class TestComingDay:
    def test_a_daily_job(self) -> None:
        """Its one run, on the clock of its zone: the night has an hour less there."""
        rome = status(cron="0 30 2 * * *", timezone="Europe/Rome", next_run_time=datetime(2026, 3, 29, 1, tzinfo=UTC))
        assert coming(rome, NOW) == [datetime(2026, 3, 29, 1, tzinfo=UTC)]

    def test_a_job_of_every_second(self) -> None:
        """It costs a search a quarter of an hour, and is one band."""
        moments = coming(status(cron="* * * * * *", next_run_time=NOW), NOW)
        assert len(moments) <= 98
        (band,) = bands(moments)
        assert band[0] == NOW
        assert band[1] > NOW + timedelta(hours=23, minutes=30)

    def test_a_job_of_every_hour(self) -> None:
        """Each of its runs stands alone."""
        moments = coming(status(cron="0 0 * * * *", next_run_time=NOW + timedelta(minutes=10)), NOW)
        assert bands(moments) == [(moment, moment) for moment in moments]
        assert len(moments) == 24

    @pytest.mark.parametrize("changes", [{"cron": None}, {"timezone": "UTC+01:00"}])
    def test_other_schedules(self, changes: dict[str, Any]) -> None:
        """Where the page cannot know more, it shows the next run."""
        assert coming(status(**changes), NOW) == [NOW + timedelta(hours=4)]

    @pytest.mark.parametrize("due", [None, NOW + timedelta(days=1)])
    def test_nothing_comes(self, due: datetime | None) -> None:
        """A job without a next run, or with one on another day, has no line."""
        assert coming(status(next_run_time=due), NOW) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.4, "59 s"), (61, "1 min"), (3900, "1 h 5 min"), (3600 * 30, "30 h"), (86400 * 3, "3 days")],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    """They are told with one unit, or two."""
    assert span(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0421, "42 ms"), (4.12, "4.1 s"), (125, "2 min 5 s")])
def test_durations(seconds: float, text: str) -> None:
    """They are told as exactly as somebody wants to know."""
    assert took(seconds) == text


class TestHistory:
    def test_it_is_bounded(self) -> None:
        """The latest runs are kept, and the others forgotten."""
        jobs = cold()
        jobs.add_background_job(nothing, cron=NIGHTLY)
        page = StatusPage(jobs, latest=3)
        for number in range(9):
            page.record(RunReport("nothing", str(number), NOW, NOW, number, Outcome.SUCCEEDED))
        assert [run.seconds for run in page.picture().jobs[0].runs] == [6, 7, 8]

    def test_what_did_not_run_is_one_mark(self) -> None:
        """Occurrences in a row that were skipped for one reason are counted in one place."""
        jobs = cold()
        jobs.add_background_job(nothing, cron=NIGHTLY)
        page = StatusPage(jobs)
        for outcome in (Outcome.PAUSED, Outcome.PAUSED, Outcome.MISSED):
            page.record(RunReport("nothing", None, NOW, None, 0, outcome, "because"))
        assert [(run.outcome, run.times) for run in page.picture().jobs[0].runs] == [("paused", 2), ("missed", 1)]

    def test_jobs_that_are_removed_are_forgotten(self) -> None:
        """Jobs that come and go leave nothing behind."""
        jobs = cold()
        page = StatusPage(jobs)
        for key in ("first", "second"):
            jobs.add_background_job(nothing, cron=NIGHTLY, key=key)
            page.record(RunReport(key, "run", NOW, NOW, 1, Outcome.SUCCEEDED))
            jobs.remove(key)
        jobs.add_background_job(nothing, cron=NIGHTLY, key="first")
        assert page.picture().jobs[0].runs == ()

    def test_real_runs_with_their_errors(self) -> None:
        """What a run raised is told as `status()` tells it, without passwords."""
        jobs = cold()
        jobs.add_background_job(fail, cron=NIGHTLY)
        page = StatusPage(jobs)
        with jobs:
            jobs.wait(jobs.run_now("fail"), timeout=60)
        (run,) = page.picture().jobs[0].runs
        assert (run.outcome, run.reason) == ("failed", row(jobs, "fail").last_error)


# -- served ---------------------------------------------------------------------------------------------------------


def evil_page() -> StatusPage:
    """A page about a job whose key, error and zone want to be more than text."""
    jobs = cold()
    jobs.add_background_job(nothing, trigger=IntervalTrigger(hours=1, timezone="UTC"), key=EVIL)

    def broken() -> None:
        raise ValueError(f"{EVIL} \ud800 \0")

    jobs.add_background_job(broken, cron=NIGHTLY)
    page = StatusPage(jobs, title=EVIL)
    with jobs:
        jobs.wait(jobs.run_now("broken"), timeout=60)
    page.record(RunReport(EVIL, None, NOW, None, 0, Outcome.MISSED, EVIL))
    return page


@pytest.fixture(name="port", scope="module", params=["asgi", "wsgi"])
def _port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server of either kind, with the page mounted at /ops/jobs."""
    page = evil_page()

    def mounted(environ: dict[str, Any], start_response: Any) -> Any:
        assert (shift_path_info(environ), shift_path_info(environ)) == ("ops", "jobs")
        return page.wsgi(environ, start_response)

    with (
        asgi(Starlette(routes=[Mount("/ops/jobs", app=page.asgi)]))
        if request.param == "asgi"
        else wsgi(mounted) as port
    ):
        yield port


class TestServed:
    def test_the_page(self, port: int) -> None:
        """It is HTML that may not be cached, framed or made to load anything, and everything from outside is text."""
        response, text = request(port, "/ops/jobs/")
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "<script" not in text
        assert "&lt;script&gt;" in text

    def test_the_json(self, port: int) -> None:
        """The page leads to it, wherever it is mounted; it has the rows of status() and the latest runs."""
        link = re.search(r'href="(/[^"]*)"', request(port, "/ops/jobs/")[1])
        assert link is not None
        response, text = request(port, link[1])
        told = json.loads(text)
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert [job["key"] for job in told["jobs"]] == ["broken", EVIL]
        assert told["jobs"][0]["latest"][0]["outcome"] == "failed"
        assert told["ok"] is False
        assert told["health"]["problems"] == ["the jobs are not warmed up"]

    def test_an_unknown_path(self, port: int) -> None:
        """There is nothing else."""
        assert request(port, "/ops/jobs/other")[0].status == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
    def test_other_methods(self, port: int, method: str) -> None:
        """It only reads."""
        response, _ = request(port, "/ops/jobs/", method)
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"

    def test_head(self, port: int) -> None:
        """HEAD has the headers of GET, and no body."""
        response, text = request(port, "/ops/jobs/", "HEAD")
        assert (response.status, text) == (200, "")
        assert int(response.headers["Content-Length"]) > 1000


async def test_websockets_and_lifespans_are_refused() -> None:
    """As an ASGI application it answers HTTP alone."""
    page, sent = StatusPage(cold()), []

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    await page.asgi({"type": "websocket"}, receive, send)
    assert sent == [{"type": "websocket.close"}]
    with pytest.raises(RuntimeError, match="HTTP only, not lifespan"):
        await page.asgi({"type": "lifespan"}, receive, send)


def test_the_demonstration() -> None:
    """It serves its page, and ends well on Ctrl-C, with all of its jobs."""
    command = [sys.executable, "-m", "examples.status_page", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = re.search(r"127\.0\.0\.1:(\d+)/", process.stdout.readline())
            assert port is not None
            response, text = request(int(port[1]), "/")
            assert response.status == 200
            assert "invoice-export" in text
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors


def test_it_loads_again_where_asked() -> None:
    """A browser is asked for it on a screen on the wall alone."""
    assert b'http-equiv="refresh" content="30"' in StatusPage(cold(), refresh=30).answer("GET", "").body
    assert b"http-equiv" not in StatusPage(cold()).answer("GET", "").body


# -- behind the authentication of its host --------------------------------------------------------------------------


@pytest.fixture(name="hosts", scope="module")
def _hosts() -> dict[str, Any]:
    """What the blocks of its README define."""
    namespace: dict[str, Any] = {"__name__": "hosts"}
    for block in re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(README), "exec", dont_inherit=True), namespace)
    return namespace


def basic(password: str) -> str:
    """The header of HTTP Basic Authentication."""
    return f"Basic {b64encode(f'me:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("name", "serve", "right", "wrong", "refusal"),
    [
        ("app", asgi, basic("of your own"), basic("guessed"), 401),
        ("starlette", asgi, "Bearer of-your-own", "Bearer guessed", 400),
        ("flask", wsgi, basic("of your own"), basic("guessed"), 401),
    ],
)
def test_hosts_ask_who_it_is(
    hosts: dict[str, Any], name: str, serve: Any, right: str, wrong: str, refusal: int
) -> None:
    """Mounted as its README says, nothing of it is seen without authentication, and all of it with."""
    with serve(hosts[name]) as port:
        for path in ("/jobs/", "/jobs/status.json"):
            refused, text = request(port, path, Authorization=wrong)
            assert refused.status == refusal
            assert "jobs" not in text
            assert request(port, path, Authorization=right)[0].status == 200
        (link,) = re.findall(r'href="(/[^"]*)"', request(port, "/jobs/", Authorization=right)[1])
        assert link == "/jobs/status.json"
        assert request(port, "/jobs/other", Authorization=right)[0].status == 404


DJANGO = """
import re, sys, types
import django
from django.conf import settings
from django.test import RequestFactory
from django.urls import resolve

urls = types.ModuleType("urls")
for block in re.findall(r"^```python\\n(.*?)^```", sys.stdin.read(), re.MULTILINE | re.DOTALL):
    exec(block, vars(urls))
apps = ["django.contrib.auth", "django.contrib.contenttypes"]
settings.configure(SECRET_KEY="for tests", INSTALLED_APPS=apps, ALLOWED_HOSTS=["testserver"], ROOT_URLCONF=urls)
django.setup()
from django.contrib.auth.models import AnonymousUser, User

for path in ("/jobs/", "/jobs", "/jobs/status.json", "/jobs/other"):
    view, given, _ = resolve(path)
    for user in (AnonymousUser(), User(username="customer"), User(username="operator", is_staff=True)):
        request = RequestFactory().get(path)
        request.user = user
        response = view(request, *given)
        print(path, user, response.status_code, response.content.decode()[:15].split("\\n")[0])
"""


def test_django_asks_who_it_is() -> None:
    """Its view sends others to the log-in page, and shows the page to the staff."""
    command = [sys.executable, "-c", DJANGO]
    text = README.read_text(encoding="utf-8")
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stdout.splitlines() if "operator" not in line] == [
        f"{path} {user} 302 "
        for path in ("/jobs/", "/jobs", "/jobs/status.json", "/jobs/other")
        for user in ("AnonymousUser", "customer")
    ], done.stderr
    assert [line for line in done.stdout.splitlines() if "operator" in line] == [
        "/jobs/ operator 200 <!doctype html>",
        "/jobs operator 200 <!doctype html>",
        "/jobs/status.json operator 200 {",
        "/jobs/other operator 404 There are the p",
    ]
