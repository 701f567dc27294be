"""Arguments of actions as settings give them: converted by the action's annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from .._errors import ConfigurationError, did_you_mean
from .._job import Target
from .keys import fold


def converted(target: Target, kwargs: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """Arguments under the names of the action's parameters, each with the type that its annotation asks for.

    A text is taken as it is, else as JSON: ``"30"``, ``"2026-12-31"``, ``"PT90S"`` or ``'["a", "b"]'``.

    Args:
        target: The job.
        kwargs: The arguments by name, in whatever spelling.
        place: Where one of them was given, for the error.

    Raises:
        ConfigurationError: Values cannot be converted; the message names each.
    """
    names = {fold(name): name for name in target.parameters}
    found, problems = {}, []
    for given, value in kwargs.items():
        name = given if given in target.parameters else names.get(fold(given), given)
        try:
            found[name] = _convert(value, _annotation(target, name), target.globals)
        except ConfigurationError as exc:
            problems.append(f"{place(given)}: {exc}")
    if problems:
        raise ConfigurationError.of_many(problems, "the arguments of the action")
    return found


def _annotation(target: Target, name: str) -> Any:
    parameters = target.parameters
    if name in parameters:
        return parameters[name].annotation
    if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise ConfigurationError(f"the action has no parameter {name!r}{did_you_mean(name, parameters)}")
    return inspect.Parameter.empty


def _convert(value: Any, annotation: Any, names: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return value
    adapter = _adapter(annotation, names)
    try:
        return adapter.validate_python(value)
    except ValidationError as exc:
        problem = _problem(exc, value)
    if isinstance(value, str):
        try:
            return adapter.validate_json(value)
        except ValidationError as exc:
            problem = problem if _is_no_json(exc) else _problem(exc, value)
    raise ConfigurationError(problem)


def _adapter(annotation: Any, names: dict[str, Any]) -> TypeAdapter[Any]:
    try:
        hint = get_type_hints(SimpleNamespace(__annotations__={"_": annotation}), names, include_extras=True)["_"]
    except Exception as exc:  # whatever an annotation raises; most often it is imported for type checkers only
        raise ConfigurationError(
            f"cannot be converted, since the annotation {annotation!r} cannot be read at run time: {exc}"
        ) from exc
    try:
        return TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))


def _is_no_json(exc: ValidationError) -> bool:
    return exc.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"


def _problem(exc: ValidationError, value: Any) -> str:
    """What is wrong, without the value, which may be a password."""
    told = []
    for error in exc.errors(include_url=False, include_input=False):
        hint = (
            '; a list is given as JSON: ["a", "b"]' if error["type"] == "list_type" and isinstance(value, str) else ""
        )
        way = "".join(f"{part}: " for part in error["loc"])
        told.append(f"{way}{error['msg']}{hint}")
    return "; ".join(told)
