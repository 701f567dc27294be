"""What bgjobs logs, through loguru.

Every failure and every occurrence that did not run is logged; successes only when asked.

``job``, ``run_id``, ``scheduled_at``, ``seconds``, ``outcome`` and ``reason`` are bound (``record["extra"]``). The
traceback of a failure is APScheduler's to log (logger ``apscheduler.executors.*``). A sink, a patcher or an error's own
text can raise: nothing here does, so that no record can cost a run, a scope or a schedule.

Texts of errors come from outside. A message is one line, whatever they contain, without the passwords of URLs. The
error in a record is a stand-in, since loguru's ``diagnose`` prints the variables of every frame that it can reach.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from types import FrameType, FunctionType, TracebackType
from typing import Any, Protocol

from loguru import logger

try:  # not public: a release of loguru without it costs the binding (and fails a test), nothing else
    from loguru._logger import context
except ImportError:  # pragma: no cover
    context = ContextVar("bgjobs_unused_context")
_context: ContextVar[Mapping[str, Any]] = context


class Named(Protocol):
    """What names a run in a record."""

    key: str
    run_id: str
    scheduled_at: datetime
    is_live: bool

    @property
    def outcome(self) -> str | None:
        """How it has ended, if it has."""

    @property
    def reason(self) -> str | None:
        """More about that."""


def write(level: str, message: str, error: BaseException | None = None, **bound: Any) -> None:
    """Make a record. Raises nothing."""
    with suppress(BaseException):  # a sink may even raise SystemExit
        ours = logger.bind(**bound)
        (ours if error is None else ours.opt(exception=without_variables(error))).log(level, printable(message))


def _names(run: Named) -> dict[str, Any]:
    return {"job": run.key, "run_id": run.run_id, "scheduled_at": run.scheduled_at.isoformat()}


def _about(run: Named) -> dict[str, Any]:
    return {**_names(run), "outcome": run.outcome, "reason": run.reason}


def described(error: BaseException) -> str:
    """The error as ``"ValueError: text"``, even where its own text cannot be had."""
    try:
        return f"{type(error).__name__}: {without_passwords(str(error))}"
    except BaseException:  # noqa: BLE001 - a __str__ that raises
        return type(error).__name__


def warning(
    message: str, run: Named | None = None, *, key: str | None = None, error: BaseException | None = None
) -> None:
    """A warning about a run, about a job, or about all jobs."""
    bound: dict[str, Any] = _about(run) if run else {"job": key} if key else {}
    write("WARNING", message, error, **bound)


def failure(message: str, error: BaseException, run: Named | None = None) -> None:
    """Something around a run, or around all, raised: with its traceback."""
    write("ERROR", f"{message} {described(error)}", error, **(_about(run) if run else {}))


def info(message: str, key: str | None = None) -> None:
    """A fact about one job, or about all, that is logged once."""
    bound: dict[str, Any] = {"job": key} if key else {}
    write("INFO", message, **bound)


# -- the job's own records -------------------------------------------------------------------------------------------


def bind_to_context(run: Named) -> None:
    """Have the job's own loguru calls carry ``job``, ``run_id``, ``scheduled_at``, as ``logger.contextualize`` would.

    For the rest of the context, which belongs to the run. `contextualize` itself would take the lock of all sinks twice
    a run, which costs a tenth of a firing.
    """
    _context.set(_Bound(run, _context.get({})))


class _Bound(Mapping[str, Any]):
    """The bound names of a run, formatted only when a record is made; most runs make none."""

    __slots__ = ("_outer", "_run")

    def __init__(self, run: Named, outer: Mapping[str, Any]) -> None:
        self._run = run
        self._outer: Mapping[str, Any] = outer._outer if isinstance(outer, _Bound) else outer  # noqa: SLF001

    def _all(self) -> dict[str, Any]:
        run = self._run  # which may not have been admitted; after its end, APScheduler logs its traceback
        return {**self._outer, **(_names(run) if run.is_live or run.outcome else {})}

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


# -- what comes from outside ------------------------------------------------------------------------------------------

_PASSWORD = re.compile(r"""(://[^\s:/@'"]{0,9999}:)[^\s'"]{1,9999}@""")
_IN_QUERY = re.compile(r"""([?&][\w-]*(?:pass|pwd|secret|token)[\w-]*=)[^\s&'"]+""", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """The text, with ``***`` for the password of each URL in it."""
    if "://" not in text and "=" not in text:  # as most texts; each failing run pays for this
        return text
    return _IN_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def printable(text: str) -> str:
    """The text in one line: what could move the cursor, colour or break the line is escaped, as JSON does it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def indented(text: str) -> str:
    """A text that may have several lines: all but the first are indented, and escaped as by `printable`."""
    return "\n    ".join(map(printable, text.splitlines()))


def without_variables(
    error: BaseException | None,
) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
    """What to give loguru for an error: it prints the same traceback, and leads to no variable of any frame."""
    if error is None:
        return None
    try:
        stand_in = _stand_in(error, {})
        return type(error), stand_in, stand_in.__traceback__
    except BaseException:  # noqa: BLE001 - the error's own methods raise
        return None


def _stand_in(error: BaseException, made: dict[int, Exception]) -> Exception:
    """An error of a class with the same name, text, notes, causes and traceback; `made` has those of the chain."""
    kind, get = type(error), partial(BaseException.__getattribute__, error)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    stand_in: Exception
    if isinstance(error, BaseExceptionGroup):
        inner = [_stand_in(each, made) for each in error.exceptions]
        stand_in = type(kind.__name__, (ExceptionGroup,), names)(indented(without_passwords(error.message)), inner)
    else:
        stand_in = type(kind.__name__, (Exception,), names)(indented(without_passwords(str(error))))
    made[id(error)] = stand_in
    for link in ("__cause__", "__context__"):
        if (other := get(link)) is not None:
            setattr(stand_in, link, made.get(id(other)) or _stand_in(other, made))
    stand_in.__suppress_context__ = get("__suppress_context__")
    for note in getattr(error, "__notes__", ()):
        stand_in.add_note(indented(without_passwords(str(note))))
    return stand_in.with_traceback(_without_variables(get("__traceback__")))


def _without_variables(real: TracebackType | None) -> TracebackType | None:
    stand_in = None
    for frame, line in reversed(list(traceback.walk_tb(real))):
        stand_in = TracebackType(stand_in, _frame(frame), -1, line)
    return stand_in


def _frame(real: FrameType) -> FrameType:
    """A frame at the same place, without variables, and without a caller: that of a generator that never started."""
    code = real.f_code
    here = _nothing.__code__.replace(co_filename=code.co_filename, co_name=code.co_name, co_qualname=code.co_qualname)
    frame: FrameType = FunctionType(here, {"__name__": real.f_globals.get("__name__")})().gi_frame
    return frame


def _nothing() -> Iterator[None]:
    yield  # pragma: no cover - only its code is used
