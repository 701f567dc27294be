"""The command line: ``bgjobs run`` and ``bgjobs next``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from ._errors import BgjobsError, ConfigurationError
from ._jobs import BackgroundJobs
from ._logging import configure_logging
from ._preview import preview
from ._settings import BackgroundJobsSettings
from ._zone import zone

#: Exit statuses: a job failed (``run --once``) or had to be left behind; a mistake in the command or the configuration.
FAILED, MISTAKE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
    except BgjobsError as exc:
        print(f"bgjobs: error: {exc}", file=sys.stderr)
        return MISTAKE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bgjobs", description="Background jobs on six-field cron schedules.")
    parser.add_argument("--version", action="version", version=f"bgjobs {version('bgjobs')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run the jobs until Ctrl-C or SIGTERM")
    run.add_argument("--config", metavar="FILE", type=Path, help="the settings file")
    run.set_defaults(command=_run)

    following = commands.add_parser("next", help="show the next fire times of a cron text")
    following.add_argument("cron", help='six fields, seconds first: "0 0 9 * * MON-FRI"')
    following.add_argument("--timezone", metavar="ZONE", default="UTC", help="the zone of the hours (default: UTC)")
    following.add_argument("--count", metavar="N", type=_positive, default=5, help="how many (default: 5)")
    following.add_argument("--after", metavar="TIME", type=datetime.fromisoformat, help="ISO 8601 (default: now)")
    following.set_defaults(command=_next)
    return parser


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    configure_logging()
    jobs = _jobs(arguments)
    jobs.run()
    return _left_behind(jobs)


def _jobs(arguments: argparse.Namespace) -> BackgroundJobs:
    """The jobs of the settings file, whose references count from the current directory, too."""
    if not any(Path(path or ".").absolute() == Path.cwd() for path in sys.path):
        sys.path.insert(0, str(Path.cwd()))
    given = {} if arguments.config is None else {"config_file": arguments.config}
    settings = BackgroundJobsSettings(**given)
    if "log_runs" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_runs": True})
    if not settings.jobs:
        raise ConfigurationError("there are no jobs to run; name a settings file with --config")
    return BackgroundJobs(settings=settings)


def _left_behind(jobs: BackgroundJobs) -> int:
    """Exit status 0; where threads had to be left behind, which the interpreter would wait for, the process ends."""
    if not jobs._lifecycle.ledger.abandoned:
        return 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(FAILED)


def _next(arguments: argparse.Namespace) -> int:
    where = zone(arguments.timezone)
    after = arguments.after or datetime.now(UTC)
    if after.tzinfo is None:
        after = after.replace(tzinfo=where)
    print(*preview(arguments.cron, where, after, arguments.count), sep="\n")
    return 0
