"""Arguments of actions from settings: names, types, and the errors about those that do not fit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, SecretStr
from pydantic_core import PydanticCustomError

from bgjobs import CancellationToken, ConfigurationError
from bgjobs._job import Job, Target  # what a registration holds, which `converted` asks
from bgjobs._registration import converted  # hundreds of annotations without a file for each

if TYPE_CHECKING:
    from nowhere import Elsewhere  # type: ignore[import-not-found]


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


class Server(BaseModel):
    host: str
    port: int = 80


def refuse(value: str) -> str:
    """What pydantic's own types do with values that they refuse."""
    raise PydanticCustomError("value_error", "not a valid {what}", {"what": "address"})


class Plain:
    pass


def convert(job: Job, **kwargs: Any) -> dict[str, Any]:
    """The arguments as the action gets them."""
    return converted(Target(job), kwargs, lambda name: f"place of {name}")


def mistakes(job: Job, **kwargs: Any) -> tuple[str, ...]:
    """The mistakes in arguments that do not fit, from an error that is chained to none that holds the values."""
    with pytest.raises(ConfigurationError) as caught:
        convert(job, **kwargs)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.problems


def taking(annotation: Any) -> Callable[..., None]:
    """An action with one parameter `x`."""

    def action(x: Any) -> None: ...

    action.__annotations__["x"] = annotation
    return action


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (int, "30", 30),
        (int, 30, 30),
        (float, "1.5", 1.5),
        (bool, "yes", True),
        (str, "30", "30"),
        (Decimal, "1.50", Decimal("1.50")),
        (date, "2026-12-31", date(2026, 12, 31)),
        (date, date(2026, 12, 31), date(2026, 12, 31)),
        (datetime, "2026-12-31T23:59:00", datetime(2026, 12, 31, 23, 59)),  # noqa: DTZ001 - as it is given
        (time, "09:30", time(9, 30)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (timedelta, "00:01:30", timedelta(seconds=90)),
        (timedelta, "90", timedelta(seconds=90)),
        (timedelta, 90, timedelta(seconds=90)),
        (Path, "/data", Path("/data")),
        (Mode, "fast", Mode.FAST),
        (Literal["a", "b"], "b", "b"),
        (list[str], '["a", "b"]', ["a", "b"]),
        (list[int], ["1", "2"], [1, 2]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Server, {"host": "h", "port": "8080"}, Server(host="h", port=8080)),
        (Server, '{"host": "h"}', Server(host="h")),
        (SecretStr, "x", SecretStr("x")),
        (int | None, None, None),
        (int | None, "5", 5),
        (Annotated[int, Field(ge=1)], "5", 5),
        (Any, "5", "5"),
        ("int", "5", 5),
        ("list[Mode]", '["slow"]', [Mode.SLOW]),
    ],
    ids=repr,
)
def test_a_value_has_the_type_of_its_parameter(annotation: Any, given: Any, expected: object) -> None:
    """Text of the environment and values of a file are converted alike."""
    found = convert(taking(annotation), x=given)["x"]
    assert found == expected
    assert type(found) is type(expected)


def test_a_class_that_pydantic_does_not_know() -> None:
    """An instance of it, from code, is taken as it is."""
    plain = Plain()
    assert convert(taking(Plain), x=plain) == {"x": plain}
    assert mistakes(taking(Plain), x="text") == ("place of x: Input should be an instance of Plain",)


def test_without_an_annotation() -> None:
    """The value stays what it is."""

    def action(x) -> None:  # type: ignore[no-untyped-def]
        ...

    assert convert(action, x="5") == {"x": "5"}


def test_a_builtin_that_does_not_tell_its_parameters() -> None:
    """Everything stays what it is."""
    assert convert(max, x="5") == {"x": "5"}


@pytest.mark.parametrize("spelling", ["batchSize", "batchsize", "BATCH_SIZE", "batch-size"])
def test_names_in_any_spelling(spelling: str) -> None:
    """The parameter's own is what counts in the end."""

    def action(batchSize: int) -> None: ...  # noqa: N803 - as people write

    assert convert(action, **{spelling: "5"}) == {"batchSize": 5}


def test_the_exact_name_goes_first() -> None:
    """Two parameters may differ in their spelling alone."""

    def action(a_b: int, ab: int) -> None: ...

    assert convert(action, ab="1", a_b="2") == {"ab": 1, "a_b": 2}


def test_names_that_are_no_parameters() -> None:
    """With the place, and the nearest parameter."""

    def action(retention_days: int, cancellation_token: CancellationToken) -> None: ...

    message = "place of retention_day: there is no such parameter; did you mean 'retention_days'?"
    assert mistakes(action, retention_day="5") == (message,)


def test_any_name_where_the_action_takes_any() -> None:
    """``**kwargs`` gets what is given, as it is; or as annotated."""

    def action(x: int, **more: Any) -> None: ...

    assert convert(action, x="1", Y="2") == {"x": 1, "Y": "2"}


def test_actions_of_classes_partials_and_decorated_functions() -> None:
    """The annotations are found behind all of them."""

    class Job:
        def action_to_do(self, x: int) -> None: ...

    def function(y: int, x: int) -> None: ...

    @functools.wraps(function)
    def decorated(*args: Any, **kwargs: Any) -> None: ...

    for job in (Job, functools.partial(Job), functools.partial(functools.partial(function, 1)), decorated):
        assert convert(job, x="5") == {"x": 5}


def test_an_annotation_for_type_checkers_alone() -> None:
    """It is in nobody's way, until its parameter is to be converted."""

    def action(x: int, y: Elsewhere) -> None: ...

    assert convert(action, x="5") == {"x": 5}
    with pytest.raises(ConfigurationError, match=r"^place of y: the annotation 'Elsewhere' cannot be read"):
        convert(action, y="5")


@pytest.mark.parametrize(
    ("annotation", "given", "message"),
    [
        (int, "s3cr3t", "Input should be a valid integer, unable to parse string as an integer"),
        (list[str], "s3cr3t,b", 'a list is needed; in a variable as JSON: ["a", "b"]'),
        (list[int], '["s3cr3t"]', "0: Input should be a valid integer, unable to parse string as an integer"),
        (Mode, "s3cr3t", "Input should be 'fast' or 'slow'"),
        (str, 5, "a string is needed, in quotes"),
        (Server, {"host": "h", "port": "s3cr3t"}, "port: Input should be a valid integer, unable to parse"),
        (Server, '{"port": 1}', "host: Field required"),
        (Annotated[str, AfterValidator(refuse)], "s3cr3t", "not a valid address"),
        (timedelta, "s3cr3t", "Input should be a valid timedelta, invalid character in hour"),
    ],
)
def test_values_that_do_not_fit(annotation: Any, given: Any, message: str) -> None:
    """The error says what is wrong, without the value, which may be a password."""
    (problem,) = mistakes(taking(annotation), x=given)
    assert problem.startswith(f"place of x: {message}")
    assert "s3cr3t" not in problem


def test_all_mistakes_at_once() -> None:
    """One error names each, those inside an argument too."""

    def action(x: int, y: Server, z: int, e: Elsewhere) -> None: ...

    problems = mistakes(action, x="a", y={"port": "b"}, z="5", q="", e="")
    assert [problem.partition(": ")[0] for problem in problems] == [
        "place of e",
        "place of x",
        "place of y",
        "place of y",
        "place of q",
    ]
    assert problems[2] == "place of y: host: Field required"
