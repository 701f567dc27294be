"""Looking at exceptions without calling their own methods, which may raise."""

from __future__ import annotations

from types import TracebackType


def is_a(error: BaseException | None, kind: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """As `isinstance`, which would ask the error itself for its class; some errors raise at that."""
    return issubclass(type(error), kind)


def traceback_of(error: BaseException) -> TracebackType | None:
    """The traceback of an error, whatever its class makes of the attribute."""
    found: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    return found


def without_our_frames(error: BaseException) -> BaseException:
    """Drop our frames from the traceback: users read less, and APScheduler formats less.

    Clearing them frees the instance, which they would keep alive.
    """
    traceback = traceback_of(error)
    while traceback is not None and str(traceback.tb_frame.f_globals.get("__package__")).startswith("bgjobs"):
        try:  # noqa: SIM105 - `suppress` would cost more than the rest
            traceback.tb_frame.clear()
        except RuntimeError:  # still running
            pass
        traceback = traceback.tb_next
    return error if traceback is None else BaseException.with_traceback(error, traceback)
