"""What can be a job, and what is told to whoever gives something else."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, Protocol

import pytest

from bgjobs import BackgroundJob, BackgroundJobs, CancellationToken, InvalidJobError, LifecycleError
from stage import NIGHTLY, cold


class Fine:
    def action_to_do(self) -> None: ...


class TakesArguments:
    def __init__(self, users: object, api: object, *, retries: int = 3) -> None: ...
    def action_to_do(self, cancellation_token: CancellationToken) -> None: ...


class Misspelt:
    def actionToDo(self) -> None: ...  # noqa: N802


class NoMethod: ...


class Inherited(BackgroundJob): ...


class BadHandler:
    def action_to_do(self) -> None: ...
    def on_exception(self) -> None: ...


class HandlerIsNoMethod:
    on_exception = "log it"

    def action_to_do(self) -> None: ...


class GeneratorJob:
    async def action_to_do(self) -> Any:
        yield 1


def generator() -> Any:
    yield 1


def wants(user: str, /, report: str, copies: int = 1) -> None: ...


def refused(job: Any, message: str, **options: Any) -> None:
    """Registration is refused with that message, at once."""
    with pytest.raises(InvalidJobError) as caught:
        cold().add_background_job(job, cron=NIGHTLY, **options)
    assert str(caught.value) == message
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        pytest.param(
            Misspelt,
            "Misspelt has no method action_to_do(self[, cancellation_token]); if 'actionToDo' is meant to be it, "
            "rename that",
            id="misspelt",
        ),
        pytest.param(
            Inherited,
            "Inherited has no method action_to_do(self[, cancellation_token])",
            id="inherits-only-the-protocol",
        ),
        pytest.param(NoMethod, "NoMethod has no method action_to_do(self[, cancellation_token])", id="no-method"),
        pytest.param(
            Fine(),
            "an instance of Fine is no job, since every run gets a fresh one; give the class Fine, or "
            "functools.partial(Fine, ...) with its constructor arguments",
            id="instance",
        ),
        pytest.param(
            42,
            "42 is no job; give a class with action_to_do, a function, or a functools.partial of either",
            id="number",
        ),
        pytest.param(
            generator, "generator contains a yield, so that calling it runs nothing; a job returns", id="generator"
        ),
        pytest.param(
            GeneratorJob,
            "GeneratorJob contains a yield, so that calling it runs nothing; a job returns",
            id="async-generator",
        ),
        pytest.param(
            BadHandler,
            "BadHandler.on_exception must take exactly one argument, the exception: too many positional arguments",
            id="handler-signature",
        ),
        pytest.param(
            HandlerIsNoMethod,
            "HandlerIsNoMethod.on_exception must be a function that takes the exception, not 'log it'",
            id="handler-no-method",
        ),
        pytest.param(lambda: None, "a lambda has no name; set key", id="lambda"),
    ],
)
def test_what_is_no_job_is_refused(job: Any, message: str) -> None:
    """Each kind of thing that cannot run as a job is named, with what to give instead."""
    refused(job, message)


@pytest.mark.parametrize(
    ("job", "kwargs", "message"),
    [
        pytest.param(
            functools.partial(wants, "eva"),
            None,
            "job 'wants': the function has required parameters that nothing fills: 'report'; give "
            "kwargs={'report': ...}",
            id="missing",
        ),
        pytest.param(
            wants,
            {"user": "eva", "report": "daily"},
            "job 'wants': the function has required parameters that nothing fills: 'user'; give kwargs={'user': ...}",
            id="positional-only",
        ),
        pytest.param(
            functools.partial(wants, "eva"),
            {"report": "daily", "copy": 2},
            "job 'wants': the function has no parameter 'copy' that kwargs could fill; did you mean 'copies'?",
            id="unknown",
        ),
        pytest.param(
            Fine,
            {"cancellation_token": None},
            "job 'Fine': action_to_do gets its cancellation_token from bgjobs; take it out of kwargs",
            id="token",
        ),
    ],
)
def test_kwargs_must_fit_the_action(job: Any, kwargs: dict[str, Any] | None, message: str) -> None:
    """Parameters that nothing fills, and kwargs that fit none, are named at registration."""
    refused(job, message, kwargs=kwargs)


def test_catch_all_parameters_take_any_kwargs() -> None:
    """A function with ``**kwargs``, and a builtin that does not tell its parameters, are not second-guessed."""

    def anything(**everything: object) -> None: ...

    jobs = cold()
    jobs.add_background_job(anything, cron=NIGHTLY, kwargs={"a": 1})
    jobs.add_background_job(print, cron=NIGHTLY, kwargs={"end": ""})
    jobs.add_background_job(functools.partial(max, [1]), key="max", cron=NIGHTLY)
    assert repr(jobs) == "<BackgroundJobs not warm, 3 jobs>"


def test_a_class_method_may_be_the_action() -> None:
    """Static and class methods, partial methods and callable attributes are checked as they are called."""

    class Static:
        @staticmethod
        async def action_to_do(cancellation_token: CancellationToken) -> None: ...

        @classmethod
        def on_exception(cls, exception: Exception) -> None: ...

    class Partial:
        def report(self, user: str, copies: int = 1) -> None: ...
        def on_exception(self, *problems: Exception) -> None: ...

        action_to_do = functools.partialmethod(report, "eva")

    class Attribute:
        action_to_do = functools.partial(wants, "eva", "daily")

    cold().add_background_job(Static, cron=NIGHTLY)
    cold().add_background_job(Partial, cron=NIGHTLY, kwargs={"copies": 2})
    cold().add_background_job(Attribute, cron=NIGHTLY)


def test_a_handler_argument_is_for_functions() -> None:
    """A class has its own method, and the error says so."""
    refused(
        Fine,
        "on_exception= is for functions; give Fine a method on_exception(self, exception)",
        on_exception=lambda exception: None,
    )


def test_a_handler_argument_must_take_the_exception() -> None:
    """A function that does not is refused, a builtin without a signature is not."""
    refused(
        print_nothing,
        "on_exception must take exactly one argument, the exception: too many positional arguments",
        on_exception=lambda: None,
    )
    cold().add_background_job(print_nothing, cron=NIGHTLY, on_exception=max)  # type: ignore[arg-type]


def print_nothing() -> None: ...


class Abstract(ABC):
    @abstractmethod
    def action_to_do(self) -> None: ...


class Shape(Protocol):
    def action_to_do(self) -> None: ...


@pytest.mark.parametrize(
    ("job", "message"),
    [
        pytest.param(
            TakesArguments,
            "job 'TakesArguments': the constructor of TakesArguments needs 'users', 'api'; set jobs.resolver, or give "
            "functools.partial(TakesArguments, ...) instead of the class",
            id="constructor",
        ),
        pytest.param(
            functools.partial(TakesArguments, 1),
            "job 'TakesArguments': the constructor of TakesArguments needs 'api'; set jobs.resolver, or give "
            "functools.partial(TakesArguments, ...) instead of the class",
            id="partial",
        ),
        pytest.param(
            Abstract, "job 'Abstract': Abstract is abstract; set a resolver that gives an instance", id="abstract"
        ),
        pytest.param(Shape, "job 'Shape': Shape is abstract; set a resolver that gives an instance", id="protocol"),
    ],
)
def test_without_a_resolver_the_class_must_be_callable(job: Any, message: str) -> None:
    """What a plain call cannot construct is refused at warm-up, until when a resolver may come."""
    jobs = cold().add_background_job(job, cron=NIGHTLY)
    with pytest.raises(InvalidJobError) as caught:
        jobs.warm_up()
    assert str(caught.value) == message
    assert not jobs.is_warm


def test_a_resolver_may_come_until_warm_up() -> None:
    """Set late, it takes care of the constructor; once the jobs are warm it stays."""
    jobs: BackgroundJobs = cold().add_background_job(TakesArguments, cron=NIGHTLY)
    jobs.resolver = lambda job_type: None  # type: ignore[assignment]
    with jobs:
        with pytest.raises(LifecycleError, match="can be set until warm_up"):
            jobs.resolver = None
        assert jobs.resolver is not None
