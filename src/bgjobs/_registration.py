"""From what the user gave and what the settings say to one registered job, with every check that needs no scheduler."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Mapping
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


def register_settings(settings: BackgroundJobsSettings, add: Callable[..., object]) -> None:
    """Register the jobs that the settings name by reference.

    Args:
        settings: The settings.
        add: `BackgroundJobs.add_background_job`.

    Raises:
        BgjobsError: A job cannot be imported or registered; for several, one error that names all.
    """
    errors: list[BgjobsError] = []
    for key, entry in settings.jobs.items():
        if entry.job is not None:
            place = settings.place("jobs", key, "job") or f"job {key!r}"
            try:
                add(load(entry.job, place), key=key)
            except InvalidJobError as exc:
                errors.append(InvalidJobError(f"{place}: {exc}", key))
            except BgjobsError as exc:
                errors.append(exc)
    raise_all(errors, "the jobs of the settings")


def registered(
    job: Job,
    values: Mapping[str, Any],
    *,
    on_exception: ExceptionHandler | None,
    settings: BackgroundJobsSettings,
    timezone: tzinfo,
) -> RegisteredJob:
    """Inspect a job, merge its options with those of the settings (which win), and make its schedule.

    Raises:
        BgjobsError: Whatever is wrong with the job or its options.
    """
    target = Target(job, on_exception)
    key = values.get("key", target.name)
    if key is None:
        raise InvalidJobError("a lambda has no name of its own; set key")
    where = f"job {key!r}"
    merged = _merged(target, {**values, "key": key}, settings)
    options = build(BackgroundJobOptions, merged, where)
    target.check_kwargs(options.kwargs, key)
    return RegisteredJob(key, target, options, _schedule(options, where, timezone) if options.is_on else None)


def _merged(target: Target, values: dict[str, Any], settings: BackgroundJobsSettings) -> dict[str, Any]:
    """The options of a job: from the settings' table of the job, else from code, else the settings' defaults."""
    defaults = {name: getattr(settings.job_defaults, name) for name in settings.job_defaults.model_fields_set}
    entry = settings.job(str(values["key"]))
    overrides = {} if entry is None else entry.overrides()
    if overrides.get("cron") is not None:
        values.pop("trigger", None)  # a schedule of the settings takes the place of that in code, of either kind
    merged = {**defaults, **values, **overrides}
    if "kwargs" in overrides:

        def place(name: str) -> str:
            return str(settings.place("jobs", values["key"], "kwargs", name))

        merged["kwargs"] = {**values.get("kwargs", {}), **converted(target, overrides["kwargs"], place)}
    return merged


def _schedule(options: BackgroundJobOptions, where: str, timezone: tzinfo) -> Schedule:
    if options.trigger is not None:
        if not is_trigger(options.trigger):
            raise ConfigurationError(
                f"{where}: trigger must be an APScheduler trigger, not {options.trigger!r}", "trigger"
            )
        return Schedule(options.trigger, following(options.trigger))
    if options.cron is None:
        raise ConfigurationError(
            f"{where} has no schedule; give cron or trigger, or set its cron in the settings", "cron"
        )
    trigger = CronExpression(options.cron).trigger(
        options.timezone or timezone,
        start_date=options.start_date,
        end_date=options.end_date,
        jitter=options.jitter,
    )
    return Schedule(trigger, following(trigger))


# -- references ------------------------------------------------------------------------------------------------------


def load(reference: str, place: str) -> Any:
    """What ``"package.module:name"`` names.

    Args:
        reference: The reference.
        place: Where it was given, for the error.

    Raises:
        ConfigurationError: It cannot be imported, or is not there.
    """
    module_name, _, name = reference.partition(":")
    if not (module_name and name):
        raise ConfigurationError(f"{place}: {reference!r} is not of the form 'package.module:name'", "job")
    what = f"{place}: {reference!r} cannot be imported"
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        raise ConfigurationError(f"{what}: there is no module {exc.name!r}", "job") from exc
    except Exception as exc:  # whatever the module raises
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        at = (
            "" if isinstance(exc, SyntaxError) else f" ({frame.filename}, line {frame.lineno})"
        )  # which tells it itself
        raise ConfigurationError(f"{what}: {type(exc).__name__}: {exc}{at}", "job") from exc
    for part in name.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, [known for known in dir(found) if not known.startswith("_")])
            raise ConfigurationError(f"{what}: {module_name} has no {part!r}{hint}", "job")
        found = getattr(found, part)
    return found
