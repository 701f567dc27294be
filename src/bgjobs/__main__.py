"""The command line: ``bgjobs run``, ``check``, ``next``, ``convert``, ``schema``, ``status``, ``pause``, ``resume``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from contextvars import copy_context
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from ._apscheduler.convert import converted
from ._check import aligned, as_text, number_of, preview, row_of, time_of
from ._cli.output import output, tell, write, write_json
from ._cli.process import as_text as as_status
from ._cron.expression import zone
from ._errors import BgjobsError, ConfigurationError, LifecycleError, masked
from ._exit import end
from ._jobs import BackgroundJobs
from ._logging import configure_logging
from ._registration import load
from ._runs import log
from ._runs.calls import InThread, drive, in_task
from ._runs.status import Outcome
from ._runs.threads import waits
from ._settings.model import BackgroundJobsSettings, schema
from ._settings.sources import PREFIX
from ._signals import on_stop_signal
from ._status_file import read

if TYPE_CHECKING:
    from ._claims.fleet import Fleet

#: Exit statuses: a job failed (``run --once``) or was abandoned; the command or the configuration is wrong.
FAILED, MISTAKE = 1, 2

CONFIG_FILE = f"{PREFIX}CONFIG_FILE"
TRUST = """\
bgjobs run and bgjobs check execute code: they import the modules that --app and the settings name, also from the
current directory, read the file .env there, and call the function that --app names. Whoever can write these, or a job
store, can run code as you."""
LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    with output():
        arguments = _parser().parse_args(argv)
        try:
            return arguments.command(arguments) or 0
        except BgjobsError as exc:
            if getattr(arguments, "format", "text") == "json":
                write_json({"mistakes": getattr(exc, "problems", [str(exc)])})
            tell(f"error: {exc}")
            return MISTAKE


# -- arguments -------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bgjobs", description="Background jobs on six-field cron schedules.")
    parser.add_argument("--version", action="version", version=f"bgjobs {version('bgjobs')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    source = _source(f" (also: {PREFIX}APP)")

    does = "run the jobs until Ctrl-C or SIGTERM, then let them end"
    run = commands.add_parser("run", parents=[source], help=does, epilog=TRUST)
    run.add_argument("--once", metavar="KEY", help="run one job, now, and exit with 0 if it succeeds, else with 1")
    level = "lowest level (default: INFO)"
    run.add_argument("--log-level", metavar="LEVEL", default="INFO", type=str.upper, choices=LEVELS, help=level)
    run.add_argument("--log-json", action="store_true", help="log JSON, one object a line")
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "check",
        parents=[source],
        help="show the jobs, where each value came from, and the next runs",
        description="Show the jobs as code, settings file and environment define them together, where each value came "
        "from, the next runs, and the days on which a clock change moves or repeats a run. It starts no job and no "
        "scheduler.",
        epilog=TRUST,
    )
    check.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    check.set_defaults(command=_check)

    _cron_commands(commands)
    describe = commands.add_parser("schema", help="print the JSON Schema of the settings file, for editors")
    describe.set_defaults(command=lambda _: write_json(schema()))
    _fleet_commands(commands, _source())
    return parser


def _source(also: str = "") -> argparse.ArgumentParser:
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--config", metavar="FILE", help=f"the settings file (also: {CONFIG_FILE})")
    app = "the BackgroundJobs of an application, or a function that returns them"
    source.add_argument("--app", metavar="MODULE:NAME", help=app + also)
    return source


def _cron_commands(commands: Any) -> None:
    following = commands.add_parser("next", help="show the next fire times of a cron expression")
    following.add_argument("cron", help='six fields, seconds first: "0 0 9 * * MON-FRI"')
    following.add_argument("--timezone", metavar="ZONE", default="UTC", help="the zone of the hours (default: UTC)")
    following.add_argument("--count", metavar="N", type=number_of, default=5, help="how many (default: 5)")
    following.add_argument("--after", metavar="TIME", type=time_of, help="ISO 8601 (default: now)")
    following.set_defaults(command=_next)

    convert = commands.add_parser("convert", help="translate a schedule of APScheduler into a cron expression")
    crontab = 'five fields, or keywords of CronTrigger: "0 4 * * 0" (a Monday, as in from_crontab), or hour=4 day=last'
    convert.add_argument("crontab", nargs="+", help=crontab)
    convert.set_defaults(command=_convert)


def _fleet_commands(commands: Any, source: argparse.ArgumentParser) -> None:
    told = "It asks the claim store of the settings, and imports the code of an application only where --app is given."
    status = commands.add_parser(
        "status",
        parents=[source],
        help="show the jobs of all replicas, or those of one process",
        description="Show the jobs of all replicas, from the claim store of the settings, or, where they name none, "
        "those of one process, from its status_file; then the exit status is 1 if something is wrong there. It "
        "imports the code of an application only where --app is given.",
    )
    as_text = {"dest": "format", "action": "store_const", "const": "json", "default": "text"}
    status.add_argument("--json", help="for machines", **as_text)
    status.add_argument("--local", action="store_true", help="read the status_file, even if there is a claim store")
    status.set_defaults(command=_status)
    for name, what in (("pause", "skip the runs of a job in all replicas"), ("resume", "end a pause, in all replicas")):
        command = commands.add_parser(name, parents=[source], help=what, description=told)
        command.add_argument("key", metavar="KEY", help="the job")
        command.set_defaults(command=_pause, paused=name == "pause")


# -- commands --------------------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    configure_logging(arguments.log_level, json=arguments.log_json, root=True)
    jobs = _jobs(arguments)
    if "log_runs" not in jobs._settings.model_fields_set:
        jobs._lifecycle.registry.log_runs = True
    if arguments.once is not None:
        return _once(jobs, arguments.once)
    try:
        jobs.run()
    except BgjobsError:
        raise
    except Exception as exc:  # most often, a job store cannot be reached
        logger.opt(exception=log.without_variables(exc)).debug("the jobs could not be run")
        why = masked(f"{type(exc).__name__}: {exc}", jobs._settings.configuration())
        raise LifecycleError(f"the jobs could not be run: {why}") from exc
    return 0


def _once(jobs: BackgroundJobs, key: str) -> int:
    """Run one job outside any scheduler; Ctrl-C and SIGTERM request its cancellation."""

    def drain() -> None:
        registry.drain(timeout)
        if registry.abandoned:
            end(f"job {job.key!r} did not end")

    lifecycle, registry, timeout = jobs._lifecycle, jobs._lifecycle.registry, jobs._settings.shutdown_timeout
    job = registry.job(key)
    lifecycle.checks.instance(job)
    run = registry.new_run(job, registry.new_run_id(), datetime.now(UTC))
    with on_stop_signal(lambda: threading.Thread(target=drain, name="bgjobs-close").start(), timeout + waits.exit):
        if run.target.is_coroutine:
            asyncio.run(registry.run_alone(run, in_task))
        else:
            copy_context().run(drive, registry.run_alone(run, InThread(lifecycle.loop)))
    if run.error is not None:  # without a scheduler nothing else logs the traceback
        log.failure(f"job {job.key!r} ends with status 1:", run.error, run)
    return 0 if run.outcome == Outcome.SUCCEEDED else FAILED


def _check(arguments: argparse.Namespace) -> None:
    jobs = _jobs(arguments)
    jobs._lifecycle.check()
    now = datetime.now(UTC)
    found = [row_of(job, jobs._settings, now) for job in list(jobs._lifecycle.registry.jobs.values())]
    if arguments.format == "json":
        write_json({"jobs": [asdict(row) for row in found]})
    else:
        write(as_text(found))


def _next(arguments: argparse.Namespace) -> None:
    where = zone(arguments.timezone)
    after = arguments.after or datetime.now(UTC)
    if after.tzinfo is None:
        after = after.replace(tzinfo=where)
    write("\n".join(preview(arguments.cron, where, after, arguments.count)))


def _convert(arguments: argparse.Namespace) -> None:
    cron, differences = converted(arguments.crontab)
    write(cron)
    for difference in differences:
        tell(f"note: {difference}")


def _status(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    if settings.claims.url is not None and not arguments.local:
        with closing(_fleet(settings)) as fleet:
            if arguments.format == "json":
                write_json({"jobs": fleet.as_json()})
            else:
                write(aligned(fleet.as_table()))
        return 0
    if settings.status_file is None:
        message = "the settings name no status_file (BGJOBS__STATUS_FILE)"
        message += "" if arguments.local else " and no claim store (claims.url, BGJOBS__CLAIMS__URL)"
        raise ConfigurationError(f"{message}; give one in a settings file, or name an application with --app")
    found = read(settings.status_file)
    if arguments.format == "json":
        write_json(found)
    else:
        write(as_status(found))
    return 0 if found["health"]["ok"] else FAILED


def _pause(arguments: argparse.Namespace) -> None:
    with closing(_fleet(_settings(arguments))) as fleet:
        key = fleet.pause(arguments.key, paused=arguments.paused)
    write(f"job {key!r} is {'paused' if arguments.paused else 'resumed'} in all replicas")


# -- the jobs --------------------------------------------------------------------------------------------------------


def _fleet(settings: BackgroundJobsSettings) -> Fleet:
    from ._claims.fleet import Fleet  # only here: nothing else needs claims without a store

    return Fleet(settings.claims.url, settings.application)


def _settings(arguments: argparse.Namespace) -> BackgroundJobsSettings:
    """Return the settings of an application that was named, or those of the environment and files alone."""
    return _read(arguments) if arguments.app is None else _jobs(arguments)._settings


def _read(arguments: argparse.Namespace) -> BackgroundJobsSettings:
    if arguments.config is not None:
        os.environ[CONFIG_FILE] = arguments.config  # also for the settings that an application reads itself
    return BackgroundJobsSettings() if arguments.app is None else BackgroundJobsSettings(app=arguments.app)


def _jobs(arguments: argparse.Namespace) -> BackgroundJobs:
    """Return the jobs of an application, or of the settings alone; modules of the current directory are found, too."""
    with suppress(OSError):  # the current directory was deleted, and holds no modules
        here = str(Path.cwd())
        if not {"", here} & {*sys.path}:
            sys.path.insert(0, here)
    settings = _read(arguments)
    if settings.app is None:
        if not any(entry.job for entry in settings.jobs.values()):
            message = "there are no jobs; name a settings file with --config, or an application with --app"
            raise ConfigurationError(message)
        return BackgroundJobs(settings=settings)
    place = str(settings.place("app"))
    found = load(settings.app, place)
    if callable(found):
        found = found()
    if not isinstance(found, BackgroundJobs):
        message = f"{place}: {settings.app!r} gives no BackgroundJobs, but {type(found).__name__}"
        raise ConfigurationError(message, "app")
    return found


if __name__ == "__main__":
    sys.exit(main())
