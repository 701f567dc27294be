"""Passwords stay out of errors, reprs and what the command line prints; for records see test_secrets.py."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from apscheduler.jobstores.memory import MemoryJobStore
from hypothesis import assume, given
from hypothesis import strategies as st

from bgjobs import BackgroundJobs, BackgroundJobsSettings, BgjobsError
from bgjobs.__main__ import main
from bgjobs._errors import masked  # every error goes through it; cases in a table
from bgjobs.testing import run_job
from stage import NIGHTLY, Records, cold, counts, fail, nothing, now, stage, until

SECRET = "s3cr3t-of-ours"


def with_password(**options: Any) -> dict[str, Any]:
    return {"jobstores": {"default": {"type": "redis", **options}}}


# -- the masking of what others say ----------------------------------------------------------------------------------


def test_values_are_masked_at_every_depth() -> None:
    """Each text of a configuration may be a password, or hold one."""
    configuration = with_password(port=6379, password="hunter2", empty="", nodes=[{"auth": "inner-7"}])
    assert masked("redis at 6379 refuses hunter2 and inner-7", configuration) == "redis at 6379 refuses *** and ***"


def test_the_longest_value_goes_first() -> None:
    """A value that is part of another one does not leave the rest of it behind."""
    assert masked("cannot open abcd-ef", {"a": {"one": "abcd", "two": "abcd-ef"}}) == "cannot open ***"


@pytest.mark.parametrize(
    ("url", "text", "expected"),
    [
        ("postgresql://shop:hunter%402@db/shop", "no hunter@2, no hunter%402", "no ***, no ***"),
        ("postgresql://shop:hunter%402@db/shop", "postgresql://shop:hunter%402@db/shop: db?", "***: db?"),
        ("redis://:pass/word-1@cache", "no port 'pass', no word-1", "no port '***', no ***"),
        ("postgresql://shop:p@ssw0rd@db", 'no host "ssw0rd@db"', 'no host "***@db"'),
        ("postgresql://db/shop?sslpassword=hunter2&sslmode=require", "hunter2: require it", "***: require it"),
        ("postgresql://[broken", "[broken host", "[broken host"),
        ("sqlite:///jobs.db", "cannot open jobs.db", "cannot open jobs.db"),
    ],
)
def test_a_password_in_a_url(url: str, text: str, expected: str) -> None:
    """It is masked where it stands alone, as it is written, as it is meant, and where a driver cuts it to pieces."""
    assert masked(text, with_password(url=url)) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"password": "a"}, "a password, as always, is a word"),
        ({"password": "in"}, "inside of it, in the main"),
        ({"tablename": "jobs"}, "there is no table jobs"),
        ({"host": "db", "database": "shop"}, "no host db with a database shop"),
        ({"password": "word"}, "the password in other words"),
        ({"password": "1"}, "line 1, column 11"),
        ({"port": 6379, "use_token": True}, "True: port 6379 refuses"),
        ({"password": 42}, "error 42 in line 142"),
    ],
)
def test_ordinary_words_stay(options: dict[str, Any], text: str) -> None:
    """A short password is no reason to eat every letter of a message."""
    assert masked(text, with_password(**options)) == text


@pytest.mark.parametrize(
    "context", ['user "{}" refused', "password={}", "login({!r})", "//shop:{}@db", "no '{}', sorry"]
)
@given(secret=st.text(st.characters(exclude_categories=["Cs", "Z"], exclude_characters="*'\\\"=:@"), min_size=1))
def test_no_password_comes_through(context: str, secret: str) -> None:
    """Whatever it is, and wherever it stands as a value."""
    assume(secret not in context)
    assert secret not in masked(context.format(secret), with_password(password=secret)).replace("***", "")


@given(secret=st.text(st.characters(categories=["L", "Nd"]), min_size=1))
def test_no_word_is_cut(secret: str) -> None:
    """A password of letters or digits is never found inside a word."""
    assume(secret.isalpha() or secret.isdigit() or len(secret) < 4)
    words = "the server at port 5432 has closed the connection unexpectedly after 10 s"
    assume(secret not in words.split())
    assert masked(words, with_password(password=secret)) == words


# -- configuration ---------------------------------------------------------------------------------------------------


class Refusing(MemoryJobStore):  # type: ignore[misc]
    """A job store that complains of its password."""

    def __init__(self, password: object) -> None:
        raise RuntimeError(f"cannot log in with {password!r}")


@pytest.mark.parametrize("password", [SECRET, "12345", "7", "true"])
def test_a_password_in_a_variable(
    password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a text, as drivers want it, even where it looks like a number, and is not shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BGJOBS__JOBSTORES__DEFAULT__CLASS", "test_masking:Refusing")
    monkeypatch.setenv("BGJOBS__JOBSTORES__DEFAULT__PASSWORD", password)
    assert BackgroundJobsSettings().jobstores["default"]["password"] == password
    app = ModuleType("shop_secrets")
    app.jobs = BackgroundJobs().add_background_job(nothing, cron=NIGHTLY)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_secrets", app)
    assert main(["check", "--app", "shop_secrets:jobs"]) == 2
    assert capsys.readouterr().err.endswith("RuntimeError: cannot log in with '***'\n")


def test_a_number_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it stays what the file says, and is not shown."""
    monkeypatch.chdir(tmp_path)
    table = {"jobstores": {"default": {"class": "test_masking:Refusing", "password": 12345}}}
    Path("shop.json").write_text(json.dumps(table), encoding="utf-8")
    jobs = BackgroundJobs(settings=BackgroundJobsSettings(config_file="shop.json"))
    with pytest.raises(BgjobsError, match=r"cannot log in with \*\*\*$"):
        jobs.warm_up()


# -- partials --------------------------------------------------------------------------------------------------------


class Instance:
    """No function: a partial of an instance is no job."""

    def __call__(self, password: str) -> None: ...


def log_in(*_: object, password: str) -> None:
    """A job, or a handler."""


class Client:
    def __init__(self, password: str) -> None: ...
    def action_to_do(self) -> None:
        raise ValueError("boom")

    on_exception = staticmethod(functools.partial(log_in, password=SECRET))


def partial(func: Callable[..., Any]) -> Any:
    return functools.partial(func, password=SECRET)


@contextmanager
def scope(job_type: type[Any]) -> Any:
    yield partial(log_in)


MISTAKES: dict[str, Callable[[], object]] = {
    "job": lambda: cold().add_background_job(partial(Instance()), cron=NIGHTLY),
    "jobs": lambda: cold().add_background_job([partial(log_in)], cron=NIGHTLY),  # type: ignore[arg-type]
    "trigger": lambda: cold().add_background_job(nothing, trigger=partial(log_in)),
    "cron": lambda: cold().add_background_job(nothing, cron=partial(log_in)),
    "key": lambda: cold().add_background_job(nothing, cron=NIGHTLY, key=partial(log_in)),
    "timezone": lambda: cold().add_background_job(nothing, cron=NIGHTLY, timezone=partial(log_in)),
    "start_date": lambda: cold().add_background_job(nothing, cron=NIGHTLY, start_date=partial(log_in)),
    "on_exception": lambda: cold().add_background_job(nothing, cron=NIGHTLY, on_exception={"x": partial(log_in)}),  # type: ignore[arg-type]
    "kwargs": lambda: cold().add_background_job(nothing, cron=NIGHTLY, kwargs={"x": partial(log_in)}),
    "scheduler": lambda: cold(partial(log_in)),
    "settings": lambda: BackgroundJobs(settings=partial(log_in)),
}


@pytest.mark.parametrize("where", MISTAKES)
def test_a_partial_in_an_error(where: str) -> None:
    """It is named by its function, without its arguments."""
    with pytest.raises(BgjobsError) as caught:
        MISTAKES[where]()
    assert SECRET not in str(caught.value)


def test_a_resolver_that_gives_a_partial() -> None:
    """Instead of a scope."""
    jobs = cold(resolver=lambda _: partial(log_in)).add_background_job(Client, cron=NIGHTLY)
    assert str(run_job(jobs, "Client").error).startswith(
        "the resolver returned a functools.partial of log_in, which is no context manager"
    )


@pytest.mark.parametrize(
    "job", [partial(Client), functools.partial(fail, SECRET), partial(log_in)], ids=["class", "positional", "function"]
)
def test_a_partial_that_runs(
    job: Any, kind: str, records: Records, apscheduler_records: list[logging.LogRecord], caplog: Any
) -> None:
    """No record, row, repr or line of `check` has its arguments, whether its runs succeed or fail."""
    with (
        caplog.at_level(logging.DEBUG),
        stage(kind, lambda jobs: jobs.add_background_job(job, trigger=now(), key="it"), log_runs=True) as jobs,
    ):
        jobs.run_now("it")
        until(lambda: sum(counts(jobs, "it").values()) == 2)
        shown = [repr(jobs), repr(jobs.status()), repr(jobs.health())]
    shown += [repr(record) for record in records]
    shown += [f"{record.getMessage()} {record.__dict__}" for record in [*apscheduler_records, *caplog.records]]
    assert SECRET not in "".join(shown)


def test_a_partial_in_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The job is shown by its key."""
    app = ModuleType("shop_secrets")
    app.jobs = cold().add_background_job(partial(log_in), cron=NIGHTLY)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_secrets", app)
    for form in ("text", "json"):
        assert main(["check", "--app", "shop_secrets:jobs", "--format", form]) == 0
        out, err = capsys.readouterr()
        assert "log_in" in out
        assert SECRET not in out + err
