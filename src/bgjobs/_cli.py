"""The command line: ``bgjobs run``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ._errors import BgjobsError
from ._jobs import BackgroundJobs
from ._logging import configure_logging
from ._settings import BackgroundJobsSettings

#: Exit statuses: all is well, and a mistake in the configuration or on the command line.
OK, WRONG = 0, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if "" not in sys.path:
        sys.path.insert(0, "")  # references are looked up in the current directory, too
    try:
        return _run(arguments)
    except BgjobsError as exc:
        print(f"bgjobs: {exc}", file=sys.stderr)
        return WRONG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bgjobs", description="Recurring background jobs on six-field cron schedules."
    )
    parser.add_argument("--version", action="version", version=f"bgjobs {metadata.version('bgjobs')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the jobs until Ctrl-C or SIGTERM")
    run.add_argument("--config", metavar="FILE", type=Path, help="the settings file")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    configure_logging()
    values = {} if arguments.config is None else {"config_file": arguments.config}
    settings = BackgroundJobsSettings(**values)
    if "log_runs" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_runs": True})
    BackgroundJobs(settings=settings).run()
    return OK
