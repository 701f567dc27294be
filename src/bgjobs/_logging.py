"""A log set-up for applications that have none of their own: one sink, APScheduler's records included."""

from __future__ import annotations

import json as _json
import logging
import sys
from contextlib import ExitStack, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from loguru import logger

from ._apscheduler.tick import PREFIX

if TYPE_CHECKING:
    from loguru import Message, Record

#: The logger of APScheduler, which logs through the standard library.
APSCHEDULER = "apscheduler"

_installed = ExitStack()  # takes off what `configure_logging` has set up


def configure_logging(level: str | int = "INFO", json: bool = False) -> None:
    """Set loguru up for an application: one sink on stderr, with the records of APScheduler.

    For applications only; a library leaves the log alone. It takes the place of loguru's default sink, and of what an
    earlier call has set up; other sinks stay. Values of local variables are never printed with a traceback.

    APScheduler's records come through the logger ``apscheduler`` of the standard library. They go to loguru, and no
    longer to the handlers of the root logger; warnings and errors only, unless that logger has a level of its own.
    What APScheduler warns of and bgjobs tells, too (a run that was missed, or overlapped), is told once.

    Args:
        level: The least level that is written, a name or number of loguru.
        json: Whether each record is one line of JSON; else text, in colours on a terminal.
    """
    unconfigure_logging()
    with suppress(ValueError):  # somebody has taken the default sink off
        logger.remove(0)
    if json:
        stream = sys.stderr
        number = logger.add(
            lambda message: print(_as_json(message), file=stream, flush=True),
            level=level,
            format=lambda _: "{exception}",
            diagnose=False,
            backtrace=False,
        )
    else:
        number = logger.add(sys.stderr, level=level, format=_as_text, diagnose=False, backtrace=False)
    _installed.callback(_remove_sink, number)
    _intercept(logging.getLogger(APSCHEDULER))


def unconfigure_logging() -> None:
    """Take off what `configure_logging` has set up."""
    _installed.close()


def _remove_sink(number: int) -> None:
    with suppress(ValueError):  # the application has removed all sinks
        logger.remove(number)


def _intercept(log: logging.Logger) -> None:
    """Have the records of a logger of the standard library go to loguru instead of its parents' handlers."""
    handler = _ToLoguru()
    _installed.callback(log.removeHandler, handler)
    _installed.callback(setattr, log, "propagate", log.propagate)
    _installed.callback(log.setLevel, log.level)
    log.addHandler(handler)
    log.propagate = False
    if log.level == logging.NOTSET:
        log.setLevel(logging.WARNING)


class _ToLoguru(logging.Handler):
    """Passes records on to loguru, as if they had been logged there in the first place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._pass_on(record)
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not reach who logged it
            self.handleError(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        key = _key(record)
        if key is not None and record.levelno == logging.WARNING:
            return  # bgjobs tells of it
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - where this was called: inside logging
        depth = 2
        while frame is not None and frame.f_code.co_filename == logging.__file__:
            frame, depth = frame.f_back, depth + 1
        bound = logger.opt(depth=depth, exception=record.exc_info)
        if key is not None:
            bound = bound.bind(job=key)
        bound.patch(lambda to: to.__setitem__("name", record.name)).log(level, record.getMessage())


def _key(record: logging.LogRecord) -> str | None:
    """The key of our job that a record of APScheduler speaks of, if any: it passes the job as first argument."""
    job = record.args[0] if isinstance(record.args, tuple) and record.args else None
    known = str(getattr(job, "id", ""))
    return str(getattr(job, "name", "")) if known.startswith(PREFIX) else None


def _as_text(record: Record) -> str:
    """The template of a line: time, level, message, and the run that it belongs to."""
    extra = record["extra"]
    run = " <dim>[{extra[job]} {extra[run_id]}]</dim>" if "job" in extra and "run_id" in extra else ""
    return (
        "<green>{time:YYYY-MM-DDTHH:mm:ss.SSSZ}</green> <level>{level: <8}</level> <level>{message}</level>"
        + run
        + "\n{exception}"
    )


def _as_json(message: Message) -> str:
    """A record as one flat line of JSON; what cannot be said in JSON is said as text."""
    record: Any = message.record
    line = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "logger": record["name"].partition("._")[0],  # a private module is nobody's business
        "message": record["message"],
        **record["extra"],
    }
    if traceback := str(message).strip():
        line["exception"] = traceback
    return _json.dumps(line, default=str, ensure_ascii=False)
