"""Converts the arguments of a job by the annotations of its action."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, WrapValidator, with_config
from pydantic_core.core_schema import ValidatorFunctionWrapHandler
from typing_extensions import TypedDict  # comes with pydantic, which asks for this one before Python 3.12

from .._errors import ConfigurationError
from .._job import TOKEN, Target
from .._options import fold, mistakes


def converted(target: Target, kwargs: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """Return the arguments under the names of the action's parameters, with the types of their annotations.

    A text that does not fit as it is, is read as JSON: ``'["a", "b"]'``.

    Args:
        target: The job.
        kwargs: The arguments by name, in any spelling.
        place: Returns where an argument was given, for the error.

    Raises:
        ConfigurationError: Arguments cannot be converted; the message names each.
    """
    names = {fold(name): name for name in target.parameters}
    given = {
        name if name in target.parameters else names.get(fold(name), name): value for name, value in kwargs.items()
    }
    problems: list[str] = []
    hints = {name: _hint(target, name, place, problems) for name in given if name in target.parameters}
    takes_any = not target.parameters or any(p.kind is p.VAR_KEYWORD for p in target.parameters.values())
    config = ConfigDict(extra="allow" if takes_any else "forbid", arbitrary_types_allowed=True)
    arguments = with_config(config)(TypedDict("arguments", hints, total=False))  # type: ignore[operator]
    try:
        found: dict[str, Any] = TypeAdapter(arguments).validate_python(given)
    except ValidationError as exc:
        problems += mistakes(
            exc,
            "parameter",
            place=lambda loc: ": ".join((place(loc[0]), *loc[1:])),
            known=lambda _: target.parameters.keys() - {TOKEN},
        )
    if problems:  # outside the handler: the error of pydantic holds the values
        raise ConfigurationError.of_many(problems, "the arguments of the action")
    return found


def _hint(target: Target, name: str, place: Callable[[str], str], problems: list[str]) -> Any:
    """The type that converts one argument; any type, with a problem noted, where its annotation cannot be read."""
    annotation = target.parameters[name].annotation
    owner = SimpleNamespace(__annotations__={name: Any if annotation is inspect.Parameter.empty else annotation})
    try:
        hint = get_type_hints(owner, target.globals, include_extras=True)[name]
    except Exception as exc:  # noqa: BLE001 - whatever an annotation raises; it may be there for type checkers only
        problems.append(f"{place(name)}: the annotation {annotation!r} cannot be read at run time: {exc}")
        return Any
    return Annotated[hint, WrapValidator(_or_json)]


def _or_json(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a value as it is, else as the JSON that it may be."""
    try:
        return validate(value)
    except ValidationError as error:
        try:
            decoded = json.loads(value)
        except (TypeError, ValueError):
            raise error from None
        return validate(decoded)
