"""The command line: ``bgjobs run``, ``check``, ``next`` and ``schema``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from loguru import logger

from ._check import as_json, as_text, rows
from ._errors import BgjobsError, ConfigurationError, LifecycleError, masked
from ._jobs import BackgroundJobs
from ._logging import configure_logging
from ._preview import preview
from ._registration import load
from ._runs.status import SUCCEEDED
from ._settings.model import BackgroundJobsSettings, schema
from ._settings.sources import PREFIX
from ._signals import on_stop_signal
from ._zone import zone
from .testing import arun_job

#: Exit statuses: a job failed (``run --once``) or had to be left behind; a mistake in the command or the configuration.
FAILED, MISTAKE = 1, 2

APP = f"{PREFIX}APP"
CONFIG_FILE = f"{PREFIX}CONFIG_FILE"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
    except BgjobsError as exc:
        if getattr(arguments, "format", "text") == "json":
            print(json.dumps({"mistakes": getattr(exc, "problems", [str(exc)])}, indent=2, ensure_ascii=False))
        print(f"bgjobs: error: {exc}", file=sys.stderr)
        return MISTAKE
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


# -- arguments -------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bgjobs", description="Background jobs on six-field cron schedules.")
    parser.add_argument("--version", action="version", version=f"bgjobs {version('bgjobs')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run the jobs until Ctrl-C or SIGTERM",
        description="Run the jobs until Ctrl-C or SIGTERM; jobs that are running then are awaited.",
    )
    _add_source(run)
    run.add_argument("--once", metavar="KEY", help="run one job, now, and exit with 0 if it succeeds, else with 1")
    run.add_argument("--log-level", metavar="LEVEL", default="INFO", type=_level, help="least level (default: INFO)")
    run.add_argument("--log-json", action="store_true", help="log JSON, one object a line")
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "check",
        help="show the jobs, where each value came from, and the next runs",
        description="Show the jobs as code, settings file and environment make them together, where each value came "
        "from, the next runs, and the days on which a change of the clock moves or doubles a run. Runs nothing.",
    )
    _add_source(check)
    check.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    check.set_defaults(command=_check)

    following = commands.add_parser("next", help="show the next fire times of a cron text")
    following.add_argument("cron", help='six fields, seconds first: "0 0 9 * * MON-FRI"')
    following.add_argument("--timezone", metavar="ZONE", default="UTC", help="the zone of the hours (default: UTC)")
    following.add_argument("--count", metavar="N", type=_positive, default=5, help="how many (default: 5)")
    following.add_argument("--after", metavar="TIME", type=_time, help="ISO 8601 (default: now)")
    following.set_defaults(command=_next)

    described = commands.add_parser("schema", help="print the JSON Schema of the settings file, for editors")
    described.set_defaults(command=_schema)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help=f"the settings file (also: {CONFIG_FILE})")
    parser.add_argument(
        "--app",
        metavar="MODULE:NAME",
        help=f"the BackgroundJobs of an application, or a function that returns them (also: {APP})",
    )


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO 8601 time, as in 2026-12-31T23:59:00+01:00") from None


def _level(text: str) -> str:
    levels = ["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"]
    if text.upper() not in levels:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(levels)}")
    return text.upper()


# -- commands --------------------------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    configure_logging(arguments.log_level, json=arguments.log_json)
    jobs = _jobs(arguments)
    if "log_runs" not in jobs._settings.model_fields_set:
        jobs._lifecycle.ledger.log_runs = True
    if arguments.once is not None:
        return _once(jobs, arguments.once)
    try:
        jobs.run()
    except BgjobsError:
        raise
    except Exception as exc:  # most often a job store that cannot be reached
        logger.opt(exception=exc).debug("the jobs could not be run")
        told = masked(f"{type(exc).__name__}: {exc}", jobs._settings.configuration())
        raise LifecycleError(f"the jobs could not be run: {told}") from exc
    if jobs._lifecycle.ledger.abandoned:
        _leave()
    return 0


def _once(jobs: BackgroundJobs, key: str) -> int:
    """One run outside any scheduler; Ctrl-C and SIGTERM ask it to end."""
    ledger = jobs._lifecycle.ledger

    def drain() -> None:
        ledger.drain(jobs._settings.shutdown_timeout)
        if ledger.abandoned:
            _leave()

    with on_stop_signal(lambda: threading.Thread(target=drain, name="bgjobs-close").start()):
        result = asyncio.run(arun_job(jobs, key))
    if result.error is not None:  # without a scheduler there is nobody else to log the traceback
        logger.bind(job=key, run_id=result.run_id).opt(exception=result.error).error(f"job {key!r} ends with status 1")
    return 0 if result.outcome == SUCCEEDED else FAILED


def _leave() -> None:
    """End the process in spite of threads that hang, which the interpreter would wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(FAILED)


def _check(arguments: argparse.Namespace) -> int:
    jobs = _jobs(arguments)
    jobs._lifecycle.check()
    found = rows(list(jobs._lifecycle.ledger.jobs.values()), jobs._settings, datetime.now(UTC))
    print(json.dumps(as_json(found), indent=2, ensure_ascii=False) if arguments.format == "json" else as_text(found))
    return 0


def _next(arguments: argparse.Namespace) -> int:
    where = zone(arguments.timezone)
    after = arguments.after or datetime.now(UTC)
    if after.tzinfo is None:
        after = after.replace(tzinfo=where)
    print(*preview(arguments.cron, where, after, arguments.count), sep="\n")
    return 0


def _schema(_: argparse.Namespace) -> int:
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0


# -- the jobs --------------------------------------------------------------------------------------------------------


def _jobs(arguments: argparse.Namespace) -> BackgroundJobs:
    """The jobs of an application, or of the settings alone; references count from the current directory, too."""
    here = Path.cwd()
    if not any(Path(path or ".").absolute() == here for path in sys.path):
        sys.path.insert(0, str(here))
    settings = BackgroundJobsSettings(**({"config_file": arguments.config} if arguments.config else {}))
    reference = arguments.app or settings.app
    if reference is None:
        if not any(entry.job for entry in settings.jobs.values()):
            raise ConfigurationError(
                "there are no jobs; name a settings file with --config, or an application with --app"
            )
        return BackgroundJobs(settings=settings)
    if arguments.config is not None:
        os.environ[CONFIG_FILE] = arguments.config  # where the settings that an application reads itself look
    place = "--app" if arguments.app else settings.place("app") or APP
    found = load(reference, place)
    if callable(found):
        found = found()
    if not isinstance(found, BackgroundJobs):
        raise ConfigurationError(f"{place}: {reference!r} gives no BackgroundJobs, but {type(found).__name__}", "app")
    return found


if __name__ == "__main__":
    sys.exit(main())
