"""`configure_logging`: the log of an application that has none of its own, as text or as JSON.

    a job, bgjobs  ->  loguru ------------------------------------>  our sink -> stderr: a line a record
    APScheduler    ->  logging, logger "apscheduler"  ->  loguru -^
    a job, if asked -> logging, any logger            ->  loguru -^

A record is one line, whatever its message contains; in text, what belongs to it and has more lines (a traceback, a
message with line breaks) is indented below.
"""

from __future__ import annotations

import json as _json
import logging
import sys
import traceback
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

from ._runs.log import indented, printable, without_passwords, without_variables

if TYPE_CHECKING:
    from loguru import Message

#: The logger of APScheduler, which logs through the standard library.
APSCHEDULER = "apscheduler"

_installed = ExitStack()  # removes what `configure_logging` has set up


def configure_logging(level: str | int = "INFO", json: bool = False, *, root: bool = False) -> None:
    """Set up loguru for an application: one sink on stderr, which APScheduler's records reach as well.

    For applications only; a library leaves the log alone. It replaces loguru's default sink and what an earlier call
    has set up; other sinks stay. Tracebacks never show the values of local variables.

    APScheduler logs to the logger ``apscheduler`` of the standard library. Its records now go to loguru instead of the
    handlers of the root logger; only warnings and errors do, unless that logger has a level already. A warning that
    bgjobs logs itself (a run was missed, or overlapped) is left out, so that it appears once.

    Args:
        level: The lowest level that is written, a name or number of loguru.
        json: Whether each record is one line of JSON; else text, in colour on a terminal.
        root: Whether the records of all loggers of the standard library reach the sink, from this level on: those that
            the root logger gets. Handlers that it has already go on. `bgjobs run` asks for this.
    """
    head = "" if json else "<green>{time:YYYY-MM-DDTHH:mm:ss.SSSZ}</green> <level>{level: <8}</level> "
    sink = _Sink(sys.stderr, json=json)
    number = logger.add(sink, level=level, format=lambda _: head, diagnose=False, backtrace=False)
    unconfigure_logging()  # not before: a wrong level leaves the log as it was
    with suppress(ValueError):  # the default sink was removed already
        logger.remove(0)
    _installed.callback(_remove_sink, number)
    apscheduler = logging.getLogger(APSCHEDULER)
    _intercept(apscheduler, apscheduler.level or logging.WARNING)
    apscheduler.propagate = False
    if root:
        _intercept(logging.getLogger(), logger.level(level).no if isinstance(level, str) else level)


def unconfigure_logging() -> None:
    """Remove what `configure_logging` has set up."""
    _installed.close()


def _remove_sink(number: int) -> None:
    with suppress(ValueError):  # the application has removed all sinks
        logger.remove(number)


def _intercept(log: logging.Logger, level: int) -> None:
    """Send the records of a standard logger to loguru, from this level on."""
    handler = _ToLoguru()
    _installed.callback(log.removeHandler, handler)
    _installed.callback(setattr, log, "propagate", log.propagate)
    _installed.callback(log.setLevel, log.level)
    log.addHandler(handler)
    log.setLevel(level)


#: The attributes of a standard record; what else it has, its code has given as ``extra``.
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime"}


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
        if record.name.partition(".")[0] == "bgjobs":
            return  # it comes from loguru, by a sink that sends our records to the standard library
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno

        def keep_origin(to: Any) -> None:
            to.update(name=record.name, module=record.module, function=record.funcName, line=record.lineno)
            to["file"].name, to["file"].path = record.filename, record.pathname

        bound = logger.bind(**{name: value for name, value in vars(record).items() if name not in _OWN})
        bound = bound if key is None else bound.bind(job=key)
        exception = without_variables(record.exc_info[1] if record.exc_info else None)
        bound.opt(exception=exception).patch(keep_origin).log(level, printable(without_passwords(record.getMessage())))


def _key(record: logging.LogRecord) -> str | None:
    """Return the key of the job of ours that APScheduler logs about, if any: the job is the record's first argument."""
    job = record.args[0] if isinstance(record.args, tuple) and record.args else None
    ours = str(getattr(getattr(job, "func", None), "__module__", "")).startswith("bgjobs.")
    return str(getattr(job, "name", "")) if ours else None


class _Sink:
    """Writes records to a stream, for loguru, which asks whether it is a terminal and gives the coloured head."""

    def __init__(self, stream: TextIO, *, json: bool) -> None:
        knows_all = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
        self._as_line = partial(_as_json, ensure_ascii=not knows_all) if json else _as_text
        self._stream = stream
        self.isatty = stream.isatty
        self.flush = stream.flush

    def write(self, message: Message) -> None:
        self._stream.write(self._as_line(message) + "\n")


def _as_text(message: Message) -> str:
    """Return the head (time and level), the message, the run that it belongs to, and the traceback, indented."""
    record = message.record
    extra = record["extra"]
    run = (
        printable(f" [{_text_of(extra['job'])} {_text_of(extra['run_id'])}]")
        if "job" in extra and "run_id" in extra
        else ""
    )
    below = "".join(f"\n    {indented(line)}" for line in _traceback(record["exception"]).splitlines())
    return f"{message}{indented(record['message'])}{run}{below}"


def _as_json(message: Message, *, ensure_ascii: bool) -> str:
    """Return a record as one flat line of JSON; what JSON cannot say becomes text.

    The record's own fields stay; what is bound under the name of one of them is found under ``extra.<name>``.
    """
    record: Any = message.record
    own = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "logger": (record["name"] or "").partition("._")[0],  # without our private modules
        "message": record["message"],
        "exception": _traceback(record["exception"]),
    }
    extra = {f"extra.{name}" if name in own else name: value for name, value in record["extra"].items()}
    if not own["exception"]:
        del own["exception"]
    encode = partial(_json.dumps, default=_text_of, allow_nan=False, ensure_ascii=ensure_ascii)
    pairs = []
    for name, value in {**own, **extra}.items():
        try:
            encoded = encode(value)
        except Exception:  # noqa: BLE001 - no number, a table in itself, a name that is no text
            encoded = encode(_text_of(value))
        pairs.append(f"{encode(_text_of(name))}: {encoded}")
    return printable(f"{{{', '.join(pairs)}}}")


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a __str__ that raises
        return f"an object of type {type(value).__name__}"


def _traceback(exception: Any) -> str:
    return "" if exception is None else "".join(traceback.format_exception(*exception)).rstrip()
