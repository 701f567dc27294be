"""The recipes of docs/observability.md, as they stand there, with the real libraries on real schedulers."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine, create_engine, func, select

from bgjobs import BackgroundJobs, Resolver
from bgjobs.testing import run_job
from servers import free_port
from stage import (
    LIMIT,
    NIGHTLY,
    Waiter,
    async_scope,
    cold,
    fail,
    job_class,
    nothing,
    now,
    often,
    row,
    stage,
    until,
)

PAGE = (Path(__file__).parent.parent / "docs" / "observability.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The blocks of the page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


#: The block with which the page begins, and those that define a recipe.
RECIPES = [
    block for n, block in enumerate(blocks("python")) if not n or re.search("^def (add_|late)", block, re.MULTILINE)
]


@pytest.fixture(name="recipes", scope="module")
def _recipes() -> dict[str, Any]:
    """The functions that the page has users copy."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in RECIPES:
        exec(block, namespace)
    return namespace


def overlap(jobs: BackgroundJobs, release: threading.Event) -> None:
    """Register a job, `k`, each occurrence of which overlaps the first run until `release` is set."""
    jobs.add_background_job(lambda: release.wait(LIMIT), key="k", trigger=often())


class TestPrometheus:
    def test_each_outcome_is_a_label(self, kind: str, recipes: dict[str, Any]) -> None:
        """Runs that overlap are in the histogram, and in the text that Prometheus reads, like those that succeed."""
        registry, release = CollectorRegistry(), threading.Event()

        def value(name: str, **labels: str) -> float:
            return registry.get_sample_value(f"bgjobs_{name}", {"key": "k", **labels}) or 0.0

        def register(jobs: BackgroundJobs) -> None:
            recipes["add_metrics"](jobs, registry)
            overlap(jobs, release)

        with stage(kind, register) as jobs:
            until(lambda: value("run_seconds_count", outcome="overlapped") >= 2)
            assert value("running") == 1
            release.set()
            until(lambda: value("run_seconds_count", outcome="succeeded"))
        skipped, succeeded = row(jobs, "k").not_run["overlapped"], row(jobs, "k").outcomes["succeeded"]
        assert value("run_seconds_sum", outcome="succeeded") > 0
        assert abs(value("last_success_timestamp_seconds") - datetime.now(UTC).timestamp()) < LIMIT
        lines = generate_latest(registry).decode().splitlines()
        assert f'bgjobs_run_seconds_count{{key="k",outcome="overlapped"}} {skipped}.0' in lines
        assert f'bgjobs_run_seconds_count{{key="k",outcome="succeeded"}} {succeeded}.0' in lines
        assert 'bgjobs_run_seconds_sum{key="k",outcome="overlapped"} 0.0' in lines
        assert 'bgjobs_running{key="k"} 0.0' in lines

    def test_the_rules_ask_for_what_there_is(self, recipes: dict[str, Any]) -> None:
        """Each metric that the page's alerts name is exported."""
        registry = CollectorRegistry()
        jobs = cold().add_background_job(nothing, cron=NIGHTLY)
        recipes["add_metrics"](jobs, registry)
        run_job(jobs, "nothing")
        asked = set(re.findall(r"bgjobs_\w+", blocks("yaml")[0]))
        assert len(asked) == 3  # of four
        assert asked <= set(re.findall(r"^bgjobs_\w+", generate_latest(registry).decode(), re.MULTILINE))


class Spans:
    """A tracer of the real SDK, and the spans that it has ended, by name."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = provider.get_tracer("tests")

    @property
    def ended(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def note(self, name: str) -> None:
        """Make a span, as instrumented code does."""
        self.tracer.start_span(name).end()


def parent_of(span: ReadableSpan) -> int | None:
    """The id of the span around it."""
    return None if span.parent is None else span.parent.span_id


class TestOpenTelemetry:
    @pytest.mark.parametrize("resolver", [None, async_scope], ids=["plain", "async scope"])
    def test_spans_are_nested(
        self, kind: str, colour: str, resolver: Resolver | None, recipes: dict[str, Any], caplog: Any
    ) -> None:
        """What the job and its on_exception trace is inside the span of the run, which has the error and ends last."""
        spans = Spans()

        def act(*_: object) -> None:
            spans.note("work")
            raise ValueError("boom")

        def register(jobs: BackgroundJobs) -> None:
            recipes["add_spans"](jobs, spans.tracer)
            jobs.add_background_job(job_class(colour, act, lambda *_: spans.note("notify")), key="k", trigger=now())

        with caplog.at_level(logging.ERROR, "opentelemetry"), stage(kind, register, resolver=resolver):
            until(lambda: "k" in spans.ended)
        run = spans.ended["k"]
        assert run.context is not None
        assert parent_of(run) is None
        for name in ("work", "notify"):
            child = spans.ended[name]
            assert parent_of(child) == run.context.span_id
            assert (child.end_time or 0) <= (run.end_time or 0)
        assert not run.status.is_ok
        assert run.status.description == "ValueError: boom"
        (event,) = run.events
        assert (event.attributes or {})["exception.type"] == "ValueError"
        assert [r for r in caplog.records if r.name.startswith("opentelemetry")] == []  # no context of another task

    def test_runs_at_the_same_time(self, kind: str, colour: str, recipes: dict[str, Any]) -> None:
        """Each has its own children, and no error where it succeeds."""
        spans = Spans()

        def register(jobs: BackgroundJobs) -> None:
            recipes["add_spans"](jobs, spans.tracer)
            for key in ("a", "b"):
                act = job_class(colour, lambda *_, key=key: spans.note(f"work {key}"))
                jobs.add_background_job(act, key=key, trigger=now())

        with stage(kind, register):
            until(lambda: {"a", "b"} <= set(spans.ended))
        for key in ("a", "b"):
            run = spans.ended[key]
            assert run.context is not None
            assert parent_of(spans.ended[f"work {key}"]) == run.context.span_id
            assert run.events == ()

    def test_a_run_is_a_trace_of_its_own(self, recipes: dict[str, Any]) -> None:
        """Even where the warm-up is inside a span."""
        spans = Spans()
        jobs = cold().add_background_job(nothing, key="k", cron=NIGHTLY)
        recipes["add_spans"](jobs, spans.tracer)
        with spans.tracer.start_as_current_span("startup"), jobs:
            jobs.wait(jobs.run_now("k"), LIMIT)
        assert parent_of(spans.ended["k"]) is None


#: Runs the blocks of the page with a transport that keeps what Sentry would send, then jobs on both kinds of scheduler.
SENTRY = """
import json, logging, sys
from functools import partial

import sentry_sdk
from loguru import logger
from sentry_sdk.transport import Transport

from stage import job_class, now, row, stage, until

class InMemory(Transport):
    def capture_envelope(self, envelope):
        for item in envelope.items:
            sent.append((item.type, item.payload.json))

def act(*_):
    raise ValueError("boom")

def on_exception(*_):
    raise KeyError("in the handler")

def log(*_):
    logger.error("logged by the job")
    logging.getLogger("shop").error("logged by the job through the standard library")

sent, (how, *blocks) = [], json.load(sys.stdin)
sentry_sdk.init = partial(sentry_sdk.init, dsn="http://key@127.0.0.1:9/1", transport=InMemory)
page = {"__name__": "page"}
for block in blocks:
    exec(block, page)
if how == "plain":
    sentry_sdk.init()
for kind in ("asyncio", "background"):
    for colour in ("sync", "async"):
        def register(jobs):
            keys = {f"{case}-{kind}-{colour}": case for case in ("fails", "handles", "logs")}
            page["add_check_ins"](jobs, {key: page["monitors"]["nightly-report"] for key in keys})
            for key, case in keys.items():
                job = job_class(colour, log if case == "logs" else act, on_exception if case == "handles" else None)
                jobs.add_background_job(job, key=key, trigger=now())
        with stage(kind, register) as jobs:
            until(lambda: all(sum(row.outcomes.values()) for row in jobs.status()))
print(json.dumps(sent))
"""


def sentry(how: str) -> list[tuple[str, dict[str, Any]]]:
    """What Sentry sends in a process that begins with the page's blocks: of one of three kinds of set-up.

    It is a process of its own, since Sentry changes the standard library for good.
    """
    begin = {"recipe": "sentry_sdk.init(before_send=once)", "configured": "LoggingIntegration(", "plain": "no block"}[
        how
    ]
    chosen = [block for block in blocks("python") if block in RECIPES or begin in block or block.startswith("monitors")]
    given = json.dumps([how, *chosen])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", SENTRY]
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=3 * LIMIT, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return [(kind, payload) for kind, payload in json.loads(done.stdout)]


def key_of(event: dict[str, Any]) -> tuple[str, str]:
    """The job that an event is about, and its exception or its level."""
    exceptions = event.get("exception", {}).get("values", [{}])
    return event["tags"]["job"], exceptions[-1].get("type", "")


OWNERS = [f"{kind}-{colour}" for kind in ("asyncio", "background") for colour in ("sync", "async")]


@pytest.fixture(name="sent", scope="module", params=["recipe", "configured"])
def _sent(request: pytest.FixtureRequest) -> list[tuple[str, dict[str, Any]]]:
    """What is sent with each of the two set-ups of the page."""
    return sentry(str(request.param))


class TestSentry:
    def test_one_event_a_failure(self, sent: list[tuple[str, dict[str, Any]]]) -> None:
        """With its traceback and its job; what on_exception raises, and what a job logs, are events of their own."""
        events = Counter(key_of(event) for kind, event in sent if kind == "event")
        expected = {
            ("fails", "ValueError"): 1,
            ("handles", "ValueError"): 1,
            ("handles", "KeyError"): 1,
            ("logs", ""): 2,
        }
        assert events == {(f"{case}-{owner}", error): n for (case, error), n in expected.items() for owner in OWNERS}
        for _, event in sent:
            for exception in event.get("exception", {}).get("values", []):
                assert exception["stacktrace"]["frames"][-1]["function"] in ("act", "on_exception")

    def test_check_ins(self, sent: list[tuple[str, dict[str, Any]]]) -> None:
        """`in_progress`, then `ok` or `error`, for the same check-in, with the schedule."""
        check_ins: dict[str, list[tuple[str, str]]] = {}
        for kind, payload in sent:
            if kind == "check_in":
                assert payload["monitor_config"]["schedule"] == {"type": "crontab", "value": "0 3 * * *"}
                check_ins.setdefault(payload["monitor_slug"], []).append((payload["check_in_id"], payload["status"]))
        assert set(check_ins) == {f"{case}-{owner}" for case in ("fails", "handles", "logs") for owner in OWNERS}
        for slug, ((first, begun), (second, ended)) in check_ins.items():
            assert first == second
            assert (begun, ended) == ("in_progress", "ok" if slug.startswith("logs") else "error")

    def test_without_the_recipe_there_are_two(self) -> None:
        """So it is needed; a release of sentry-sdk in which it is not would fail here."""
        events = [key_of(event)[0] for kind, event in sentry("plain") if kind == "event"]
        assert all(events.count(f"fails-{owner}") == 2 for owner in OWNERS)


class Checks:
    """A service that is pinged: a real server, which notes the requests in their order."""

    def __init__(self, url: str, seen: Waiter) -> None:
        self.url = url
        self.seen = seen


@pytest.fixture(name="checks")
def _checks() -> Generator[Checks]:
    seen = Waiter()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            url = urlsplit(self.path)
            seen((url.path, parse_qs(url.query)["rid"][0], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Checks(f"http://127.0.0.1:{server.server_port}", seen)
        server.shutdown()
        thread.join()


class TestPings:
    def test_they_come_in_order(self, kind: str, colour: str, checks: Checks, recipes: dict[str, Any]) -> None:
        """Start, then success or fail with the error, under the id of the run; the job itself comes between."""

        def act(key: str) -> None:
            checks.seen(("run", key, ""))
            if key == "bad":
                raise ValueError("boom")

        def register(jobs: BackgroundJobs) -> None:
            recipes["add_pings"](jobs, {key: f"{checks.url}/{key}" for key in ("good", "bad")})
            for key in ("good", "bad", "unchecked"):
                job = job_class(colour, lambda *_, key=key: act(key))
                jobs.add_background_job(job, key=key, trigger=now())

        with stage(kind, register):
            seen = checks.seen.wait(7)
        for key, end, body in (("good", "/good", ""), ("bad", "/bad/fail", "ValueError('boom')")):
            (start, first, _), run, (path, second, text) = [s for s in seen if key in (s[1], *s[0].split("/"))]
            assert run[0] == "run"
            assert (start, path, text) == (f"/{key}/start", end, body)
            assert first == second
            assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first)

    def test_a_skipped_occurrence_sends_nothing(self, checks: Checks, recipes: dict[str, Any]) -> None:
        """Two pings for the one run, none for those that overlap with it."""
        release = threading.Event()

        def register(jobs: BackgroundJobs) -> None:
            recipes["add_pings"](jobs, {"k": f"{checks.url}/k"})
            overlap(jobs, release)

        with stage("background", register) as jobs:
            until(lambda: row(jobs, "k").not_run["overlapped"] >= 2)
            jobs.pause("k")
            release.set()
            until(lambda: row(jobs, "k").outcomes["succeeded"])
        assert [path for path, *_ in checks.seen.seen] == ["/k/start", "/k"]

    def test_a_service_that_is_down_costs_no_run(self, colour: str, recipes: dict[str, Any], records: Any) -> None:
        """The job runs; the log says twice that a ping failed."""
        jobs = cold().add_background_job(job_class(colour, lambda *_: None), key="k", cron=NIGHTLY)
        recipes["add_pings"](jobs, {"k": f"http://127.0.0.1:{free_port()}"})
        assert run_job(jobs, "k").outcome == "succeeded"
        start, end = records.texts("ERROR")
        assert start.startswith("around_run ")
        assert end.startswith("the observer ")
        assert "Connection refused" in start
        assert "Connection refused" in end


class TestHistory:
    def test_rows_in_sqlite(self, kind: str, tmp_path: Path, recipes: dict[str, Any]) -> None:
        """One a run, and one an occurrence that was skipped, with the reason; all are there after the close."""
        release = threading.Event()
        with closing(sqlite3.connect(":memory:")) as history:

            def register(jobs: BackgroundJobs) -> None:
                nonlocal history
                history = recipes["add_history"](jobs, str(tmp_path / "history.db"))
                overlap(jobs, release)
                jobs.add_background_job(fail, key="f", trigger=now())

            with stage(kind, register) as jobs:
                until(lambda: row(jobs, "k").not_run["overlapped"])
                release.set()
                until(lambda: row(jobs, "k").outcomes["succeeded"])
                until(lambda: row(jobs, "f").outcomes["failed"])
            with closing(history):
                rows = history.execute("SELECT key, outcome, run_id IS NULL, reason FROM runs").fetchall()
        counts = Counter((key, outcome) for key, outcome, *_ in rows)
        assert counts["f", "failed"] == 1
        assert counts["k", "overlapped"] == row(jobs, "k").not_run["overlapped"]
        assert counts["k", "succeeded"] == row(jobs, "k").outcomes["succeeded"]
        assert all(no_id == (outcome == "overlapped") for _, outcome, no_id, _ in rows)
        assert all(text.startswith("still running since") for _, outcome, _, text in rows if outcome == "overlapped")

    @pytest.mark.parametrize("database", ["sqlite", "postgresql"])
    def test_rows_in_any_database(
        self, database: str, request: pytest.FixtureRequest, tmp_path: Path, recipes: dict[str, Any]
    ) -> None:
        """With SQLAlchemy; the outcome is stored as its code, the error as text."""
        url = f"sqlite:///{tmp_path / 'history.db'}" if database == "sqlite" else request.getfixturevalue("postgresql")
        engine: Engine = create_engine(url)
        jobs = cold().add_background_job(nothing, cron=NIGHTLY).add_background_job(fail, cron=NIGHTLY)
        recipes["add_table"](jobs, engine)
        for key in ("nothing", "fail"):
            run_job(jobs, key)
        runs = recipes["runs"].c
        with engine.connect() as connection:
            assert connection.execute(select(runs.key, runs.outcome, runs.error)).all() == [
                ("nothing", "succeeded", None),
                ("fail", "failed", "ValueError('boom')"),
            ]
            assert connection.execute(select(func.count(runs.started_at))).scalar() == 2
        engine.dispose()


class TestLate:
    def test_success_counts_and_failure_does_not(self, recipes: dict[str, Any]) -> None:
        """A job is late when its limit has passed since its latest success, or since the start where there is none."""
        jobs = cold().add_background_job(nothing, cron=NIGHTLY).add_background_job(fail, cron=NIGHTLY)
        limits = {"nothing": timedelta(hours=26), "fail": timedelta(hours=26)}
        with time_machine.travel(recipes["STARTED"] + timedelta(hours=25)):
            run_job(jobs, "nothing")
            run_job(jobs, "fail")
            assert recipes["late"](jobs, limits) == []
        with time_machine.travel(recipes["STARTED"] + timedelta(hours=27)):
            assert recipes["late"](jobs, limits) == ["fail"]
        with time_machine.travel(recipes["STARTED"] + timedelta(hours=52)):
            assert recipes["late"](jobs, limits) == ["nothing", "fail"]
