"""From what the user gave and what the settings say to one registered job, with every check that needs no scheduler."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from ._cron import CronExpression
from ._errors import ConfigurationError, InvalidJobError
from ._job import ExceptionHandler, Job, Target
from ._options import BackgroundJobOptions, build
from ._run import RegisteredJob
from ._scheduler import is_trigger
from ._settings import BackgroundJobsSettings
from ._status import Schedule


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
    entry = settings.job(str(key))
    options = build(BackgroundJobOptions, {**values, "key": key, **(entry.overrides() if entry else {})}, where)
    target.check_kwargs(options.kwargs, key)
    return RegisteredJob(key, target, options, _schedule(options, where, timezone) if options.is_on else None)


def _schedule(options: BackgroundJobOptions, where: str, timezone: tzinfo) -> Schedule:
    if options.trigger is not None:
        if not is_trigger(options.trigger):
            raise ConfigurationError(
                f"{where}: trigger must be an APScheduler trigger, not {options.trigger!r}", "trigger"
            )
        return Schedule(options.trigger)
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
    return Schedule(trigger, None if options.jitter else trigger.following)


def load(reference: str, key: str) -> Job:
    """The class or function that ``"package.module:Name"`` names.

    Raises:
        ConfigurationError: It cannot be imported, or is not there.
    """
    module_name, _, name = reference.partition(":")
    if not (module_name and name):
        raise ConfigurationError(f"job {key!r}: {reference!r} is not of the form 'package.module:Name'", "job")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(f"job {key!r}: cannot import {reference!r}: {exc}", "job") from exc
    return found  # type: ignore[no-any-return]
