"""What bgjobs logs, through loguru; and `configure_logging`, the set-up for applications that have none.

Every failure and every occurrence that did not run is logged; successes only when asked.

``job``, ``run_id``, ``scheduled_at``, ``seconds``, ``outcome`` and ``reason`` are bound (``record["extra"]``). The
traceback of a failure is APScheduler's to log (logger ``apscheduler.executors.*``). A sink, a patcher or an error's own
text can raise: nothing here does, so that no record can cost a run, a scope or a schedule.
"""

from __future__ import annotations

import json as _json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from loguru import logger

from .status import CANCELLED, COALESCED, FAILED, OVERTAKEN, SUCCEEDED, TIMED_OUT, RunReport

if TYPE_CHECKING:
    from loguru import Message, Record

try:  # not public: a release of loguru without it costs the binding (and fails a test), nothing else
    from loguru._logger import context
except ImportError:  # pragma: no cover
    context = ContextVar("bgjobs_unused_context")
_context: ContextVar[Mapping[str, Any]] = context

#: The levels of the outcomes and reasons that are no warning.
LEVELS = {SUCCEEDED: "INFO", FAILED: "ERROR", TIMED_OUT: "ERROR", OVERTAKEN: "INFO"}


class Named(Protocol):
    """What names a run in a record."""

    key: str
    run_id: str
    scheduled_at: datetime
    is_live: bool


def _write(level: str, message: str, error: BaseException | None = None, **bound: Any) -> None:
    with suppress(BaseException):  # a sink may even raise SystemExit
        bound_logger = logger.bind(**bound)
        (bound_logger if error is None else bound_logger.opt(exception=error)).log(level, message)


def _names(run: Named) -> dict[str, Any]:
    return {"job": run.key, "run_id": run.run_id, "scheduled_at": run.scheduled_at.isoformat()}


def described(error: BaseException) -> str:
    """The error as ``"ValueError: text"``, even where its own text cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a __str__ that raises
        return type(error).__name__


def observe(report: RunReport) -> None:
    """Log how a run ended, or why an occurrence did not run: the log is one observer among others."""
    key, outcome, reason = report.key, report.outcome, report.reason
    bound: dict[str, Any] = {"job": key, "scheduled_at": report.scheduled_at.isoformat(), "outcome": outcome}
    if reason is not None:
        bound["reason"] = reason
    if report.run_id is not None:
        bound |= {"run_id": report.run_id, "seconds": round(report.seconds, 6)}
    if outcome == SUCCEEDED:
        message = f"job {key!r} succeeded in {report.seconds:.3f} s"
    elif report.error is not None:
        message = f"job {key!r} failed: {described(report.error)}" + (f" ({reason})" if reason else "")
    elif outcome == CANCELLED:
        message = f"job {key!r} was cancelled"
    elif outcome == COALESCED:
        message = f"job {key!r}: {reason}"
    else:
        moment = report.scheduled_at.isoformat(timespec="seconds")
        message = f"job {key!r} scheduled at {moment} was skipped: {reason}"
    _write(LEVELS.get(outcome, "WARNING"), message, **bound)


def warning(
    message: str, run: Named | None = None, *, key: str | None = None, error: BaseException | None = None
) -> None:
    """A warning about a run, about a job, or about all jobs."""
    bound: dict[str, Any] = _names(run) if run else {"job": key} if key else {}
    _write("WARNING", message, error, **bound)


def failure(message: str, error: BaseException, run: Named | None = None) -> None:
    """Something around a run, or around all, raised: with its traceback."""
    _write("ERROR", f"{message} {described(error)}", error, **(_names(run) if run else {}))


def info(message: str, key: str | None = None) -> None:
    """A fact about one job, or about all, that is logged once."""
    bound: dict[str, Any] = {"job": key} if key else {}
    _write("INFO", message, **bound)


# -- the job's own records -------------------------------------------------------------------------------------------


def bind_to_context(run: Named) -> None:
    """Have the job's own loguru calls carry ``job``, ``run_id``, ``scheduled_at``, as ``logger.contextualize`` would.

    For the rest of the context, which belongs to the run. `contextualize` itself would take the lock of all sinks twice
    a run, which costs a tenth of a firing.
    """
    _context.set(_Bound(run, _context.get({})))


class _Bound(Mapping[str, Any]):
    """The bound names of a run in progress, formatted only when a record is made; most runs make none."""

    __slots__ = ("_outer", "_run")

    def __init__(self, run: Named, outer: Mapping[str, Any]) -> None:
        self._run = run
        self._outer = outer

    def _all(self) -> dict[str, Any]:
        return {**self._outer, **(_names(self._run) if self._run.is_live else {})}

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


# -- the set-up of an application -------------------------------------------------------------------------------------

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
    ours = str(getattr(getattr(job, "func", None), "__module__", "")).startswith("bgjobs.")
    return str(getattr(job, "name", "")) if ours else None


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
