"""Builds a registered job from code and settings together, with every check that needs no scheduler."""

from __future__ import annotations

import json
import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import tzinfo
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, WrapValidator, with_config
from pydantic_core.core_schema import ValidatorFunctionWrapHandler
from typing_extensions import TypedDict  # comes with pydantic, which asks for this one before Python 3.12

from ._errors import BgjobsError, ConfigurationError, InvalidJobError, did_you_mean, fold, named, raise_all
from ._job import TOKEN, ExceptionHandler, Job, Target, require_function
from ._options import build, mistakes
from ._runs.log import described
from ._runs.schedule import RegisteredJob
from ._schedules import schedule_of

if TYPE_CHECKING:
    from ._settings.model import BackgroundJobsSettings


def settings_of(given: object) -> BackgroundJobsSettings:
    """Return the settings that code gives, or read them where it gives none.

    Raises:
        ConfigurationError: What it gives are no settings; or the environment and files are wrong.
    """
    from ._settings.model import BackgroundJobsSettings  # only now, since importing it takes time

    if given is None:
        return BackgroundJobsSettings()
    if not isinstance(given, BackgroundJobsSettings):
        file = str(given) if isinstance(given, str | PurePath) else "settings.toml"
        message = f"settings must be a BackgroundJobsSettings, not {named(given)}; a settings file is read with"
        raise ConfigurationError(f'{message} settings=BackgroundJobsSettings(config_file="{file}")', "settings")
    return given


def registered_by_settings(settings: BackgroundJobsSettings, timezone: tzinfo) -> list[RegisteredJob]:
    """Return the jobs that the settings name by reference, checked and ready to be added.

    Args:
        settings: The settings.
        timezone: The time zone of jobs that name none.

    Raises:
        BgjobsError: A job cannot be imported or is wrong; for several, one error that names all.
    """
    found: list[RegisteredJob] = []
    errors: list[BgjobsError] = []
    for key, entry in settings.jobs.items():
        if entry.job is not None:
            place = settings.place("jobs", key, "job") or f"job {key!r}"
            try:
                job = load(entry.job, place)
                found.append(registered(job, {"key": key}, on_exception=None, settings=settings, timezone=timezone))
            except InvalidJobError as exc:
                errors.append(InvalidJobError(f"{place}: {exc}", key))
            except BgjobsError as exc:
                errors.append(exc)
    raise_all(errors, "the jobs of the settings")
    return found


def registered(
    job: Job,
    values: Mapping[str, Any],
    *,
    on_exception: ExceptionHandler | None,
    settings: BackgroundJobsSettings,
    timezone: tzinfo,
) -> RegisteredJob:
    """Inspect a job, merge its options with those of the settings (which win), and build its schedule.

    Args:
        job: The job class, function, or partial of either.
        values: Its options as code gives them, by name.
        on_exception: What a failed run of a function calls; ``None`` for nothing.
        settings: The settings.
        timezone: The time zone of jobs that name none.

    Raises:
        BgjobsError: Whatever is wrong with the job or its options.
    """
    target = Target(job, on_exception)
    key = values.get("key", target.name)
    if key is None:
        raise InvalidJobError("a lambda has no name; set key")
    where = f"job {named(key)}"
    target.check_types(values.get("kwargs"), key)
    options = build(_merged(target, {**values, "key": key}, settings), where)
    target.check_kwargs(options.kwargs, key)
    if options.only_if is not None:
        require_function(options.only_if, f"{where}: only_if", "the CurrentRun")
    schedule = schedule_of(options, where, timezone, settings.jobs) if options.is_on else None
    return RegisteredJob(key, target, options, schedule)


def _merged(target: Target, values: dict[str, Any], settings: BackgroundJobsSettings) -> dict[str, Any]:
    """Merge the options of a job: the settings for this job win over code, code wins over the settings' defaults."""
    defaults = {name: getattr(settings.job_defaults, name) for name in settings.job_defaults.model_fields_set}
    entry = settings.job(str(values["key"]))
    overrides = {} if entry is None else entry.overrides()
    if overrides.get("cron") is not None:
        values.pop("trigger", None)  # the settings replace the schedule of code, of whichever kind
    merged = {**defaults, **values, **overrides}
    if "kwargs" in overrides:
        given = converted(
            target, overrides["kwargs"], lambda name: str(settings.place("jobs", values["key"], "kwargs", name))
        )
        merged["kwargs"] = {**values.get("kwargs", {}), **given}
    return merged


def load(reference: str, place: str) -> Any:
    """Import what a reference such as ``"package.module:name"`` names.

    Args:
        reference: The reference.
        place: Where it was set, for the error.

    Raises:
        ConfigurationError: It cannot be imported, or there is no such name.
    """
    try:
        return pkgutil.resolve_name(reference)
    except Exception as exc:  # whatever the module raises
        why = _why_not_imported(exc, reference.partition(":")[0])
        raise ConfigurationError(f"{place}: {reference!r} cannot be imported: {why}", "job") from exc


def _why_not_imported(exc: Exception, module: str) -> str:
    if isinstance(exc, ModuleNotFoundError):
        return f"there is no module {exc.name!r}"
    if isinstance(exc, AttributeError) and exc.name and module in sys.modules:  # only the name is missing
        public = [name for name in dir(exc.obj) if not name.startswith("_")]
        return f"{module} has no {exc.name!r}{did_you_mean(exc.name, public)}"
    if isinstance(exc, SyntaxError):  # its message names the file and the line
        return described(exc)
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{described(exc)} ({frame.filename}, line {frame.lineno})"


# -- the arguments of an action -------------------------------------------------------------------------------------


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
    takes_any = not target.parameters or target.takes_any
    config = ConfigDict(extra="allow" if takes_any else "forbid", arbitrary_types_allowed=True)
    arguments = with_config(config)(TypedDict("arguments", hints, total=False))  # type: ignore[operator]
    try:
        found: dict[str, Any] = TypeAdapter(arguments).validate_python(given)
    except ValidationError as exc:
        problems += mistakes(
            exc,
            "parameter",
            place=lambda loc: ": ".join((place(loc[0]), *loc[1:])),
            hint=lambda loc: did_you_mean(loc[-1], target.parameters.keys() - {TOKEN}),
        )
    raise_all(problems, "the arguments of the action")  # outside the handler: the error of pydantic holds the values
    return found


def _hint(target: Target, name: str, place: Callable[[str], str], problems: list[str]) -> Any:
    """The type that converts one argument; any type, with a problem noted, where its annotation cannot be read."""
    try:
        hint = target.type_of(name)
    except Exception as exc:  # noqa: BLE001 - whatever an annotation raises; it may be there for type checkers only
        annotation = target.parameters[name].annotation
        problems.append(f"{place(name)}: the annotation {annotation!r} cannot be read at run time: {exc}")
        return Any
    return Annotated[hint, WrapValidator(_or_json)]


def _or_json(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a value as it is, else as the JSON that it may be."""
    try:
        return validate(value)
    except ValidationError:
        with suppress(TypeError, ValueError, RecursionError):
            value = json.loads(value)
        return validate(value)
