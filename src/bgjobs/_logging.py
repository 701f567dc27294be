"""Sets up the log of an application that has no set-up yet: one sink, with APScheduler's records in it."""

from __future__ import annotations

import json as _json
import logging
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from loguru import logger

from ._apscheduler.tick import PREFIX

if TYPE_CHECKING:
    from loguru import Message, Record

#: The logger of APScheduler, which logs through the standard library.
APSCHEDULER = "apscheduler"

_installed = ExitStack()  # removes what `configure_logging` has set up


def configure_logging(level: str | int = "INFO", json: bool = False) -> None:
    """Set up loguru for an application: one sink on stderr, which APScheduler's records reach as well.

    For applications only; a library leaves the log alone. It replaces loguru's default sink and what an earlier call
    has set up; other sinks stay. Tracebacks never show the values of local variables.

    APScheduler logs to the logger ``apscheduler`` of the standard library. Its records now go to loguru instead of the
    handlers of the root logger; only warnings and errors do, unless that logger has a level already. A warning that
    bgjobs logs itself (a run was missed, or overlapped) is left out, so that it appears once.

    Args:
        level: The lowest level that is written, a name or number of loguru.
        json: Whether each record is one line of JSON; else text, in colour on a terminal.
    """
    unconfigure_logging()
    with suppress(ValueError):  # the default sink was removed already
        logger.remove(0)
    stream = sys.stderr
    number = logger.add(
        (lambda message: print(_as_json(message), file=stream, flush=True)) if json else stream,
        level=level,
        format=(lambda _: "{exception}") if json else _as_text,
        diagnose=False,
        backtrace=False,
    )
    _installed.callback(_remove_sink, number)
    _intercept(logging.getLogger(APSCHEDULER))


def unconfigure_logging() -> None:
    """Remove what `configure_logging` has set up."""
    _installed.close()


def _remove_sink(number: int) -> None:
    with suppress(ValueError):  # the application has removed all sinks
        logger.remove(number)


def _intercept(log: logging.Logger) -> None:
    """Send the records of a standard logger to loguru instead of the handlers of its parents."""
    handler = _ToLoguru()
    _installed.callback(log.removeHandler, handler)
    _installed.callback(setattr, log, "propagate", log.propagate)
    _installed.callback(log.setLevel, log.level)
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(log.level or logging.WARNING)


class _ToLoguru(logging.Handler):
    """Passes standard records on to loguru, as if they had been logged there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._pass_on(record)
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not harm the code that logged it
            self.handleError(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        key = _key(record)
        if key is not None and record.levelno == logging.WARNING:
            return  # bgjobs logs this itself
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno

        def keep_origin(to: Any) -> None:
            to.update(name=record.name, module=record.module, function=record.funcName, line=record.lineno)
            to["file"].name, to["file"].path = record.filename, record.pathname

        bound = logger if key is None else logger.bind(job=key)
        bound.opt(exception=record.exc_info).patch(keep_origin).log(level, record.getMessage())


def _key(record: logging.LogRecord) -> str | None:
    """Return the key of the job of ours that APScheduler logs about, if any: the job is the record's first argument."""
    job = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return str(getattr(job, "name", "")) if str(getattr(job, "id", "")).startswith(PREFIX) else None


def _as_text(record: Record) -> str:
    """Return the template of a line: time, level, message, and the run that it belongs to."""
    extra = record["extra"]
    run = " <dim>[{extra[job]} {extra[run_id]}]</dim>" if "job" in extra and "run_id" in extra else ""
    line = "<green>{time:YYYY-MM-DDTHH:mm:ss.SSSZ}</green> <level>{level: <8}</level> <level>{message}</level>"
    return f"{line}{run}\n{{exception}}"


def _as_json(message: Message) -> str:
    """Return a record as one flat line of JSON; values that JSON does not know become text."""
    record: Any = message.record
    line = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "logger": record["name"].partition("._")[0],  # without our private modules
        "message": record["message"],
        **record["extra"],
    }
    if traceback := str(message).strip():
        line["exception"] = traceback
    return _json.dumps(line, default=str, ensure_ascii=False)
