"""Builds a registered job from code and settings together, with every check that needs no scheduler."""

from __future__ import annotations

import pkgutil
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from ._apscheduler.scheduler import is_trigger
from ._apscheduler.trigger import CronExpression, following
from ._errors import BgjobsError, ConfigurationError, InvalidJobError, did_you_mean, raise_all
from ._job import ExceptionHandler, Job, Target
from ._options import BackgroundJobOptions, build
from ._runs.run import RegisteredJob
from ._runs.status import Schedule
from ._settings.kwargs import converted

if TYPE_CHECKING:
    from ._settings.model import BackgroundJobsSettings


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
    where = f"job {key!r}"
    merged = _merged(target, {**values, "key": key}, settings)
    options = build(BackgroundJobOptions, merged, where)
    target.check_kwargs(options.kwargs, key)
    return RegisteredJob(key, target, options, _schedule(options, where, timezone) if options.is_on else None)


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


def _schedule(options: BackgroundJobOptions, where: str, timezone: tzinfo) -> Schedule:
    trigger = options.trigger
    if trigger is None:
        if options.cron is None:
            message = f"{where} has no schedule; give cron or trigger, or set its cron in the settings"
            raise ConfigurationError(message, "cron")
        trigger = CronExpression(options.cron).trigger(
            options.timezone or timezone,
            start_date=options.start_date,
            end_date=options.end_date,
            jitter=options.jitter,
        )
    elif not is_trigger(trigger):
        raise ConfigurationError(f"{where}: trigger must be an APScheduler trigger, not {trigger!r}", "trigger")
    return Schedule(trigger, following(trigger))


def load(reference: str, place: str) -> Any:
    """Import what a reference such as ``"package.module:name"`` names.

    Args:
        reference: The reference.
        place: Where it was set, for the error.

    Raises:
        ConfigurationError: It cannot be imported, or there is no such name.
    """
    if reference.count(":") != 1 or not all(part.isidentifier() for part in re.split("[.:]", reference)):
        raise ConfigurationError(f"{place}: {reference!r} is not of the form 'package.module:name'", "job")
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
        return f"SyntaxError: {exc}"
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__}: {exc} ({frame.filename}, line {frame.lineno})"
