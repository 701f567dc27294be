"""The end of this process, and its children: what is warm is closed at the exit, and cold after a fork.

exit      the interpreter is about to join its threads  -> what is warm is closed; where `run` has left runs behind,
the process ends here
end       what hangs must not keep the process          -> ``atexit`` functions, buffers, status 1
fork      a child begins                                -> all facades are cold there
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # whose exit handler, which joins all workers, must come after ours
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

from ._runs import log
from ._runs.run import Run
from ._runs.threads import waits
from ._token import CancellationToken

#: The signals that ask `run` to stop.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Facade(Protocol):
    """What this module knows of a facade."""

    def close(self) -> None:
        """Close the jobs; nothing where they are cold."""

    def forked(self) -> None:
        """Turn cold, in a forked child."""


#: All facades of this process.
facades: WeakSet[Facade] = WeakSet()

#: Those that are to be closed at the exit of the interpreter.
warm: set[Facade] = set()

#: Runs that `run` has left behind: the process ends without them.
abandoned: list[Run] = []

#: What else is to be called first in a forked child.
in_child: list[Callable[[], object]] = []

#: What must live as long as the process: freed in a forked child, some connections say good-bye to the server for both.
kept: list[object] = []

_deadline, _left = 0.0, 0.0
_mask = threading.local()


def run_in_loop(main: Coroutine[Any, Any, None], left: Callable[[], list[Run]]) -> None:
    """As `asyncio.run`, which would wait for the runs that are `left`, whatever they do about a cancellation."""
    runner, process = asyncio.Runner(), os.getpid()
    try:
        runner.run(main)
    finally:
        if left():  # a fresh executor has no thread that hangs
            runner.get_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        if os.getpid() != process or any(run.task is not None for run in left()):
            kept.append(runner)
        else:
            runner.close()


def exit_by(deadline: float) -> None:
    """Have the exit of the interpreter, if that comes next, not take longer than from now until then.

    What the script does in between is its own business, and so is an exit after that moment (`time.monotonic`).
    """
    global _deadline, _left
    _deadline, _left = deadline, deadline - time.monotonic()


def end(why: str) -> NoReturn:
    """End the process with status 1, whatever hangs; ``atexit`` functions and buffers get `waits.last` seconds."""
    _end_in(waits.last)
    log.warning(f"{why}; it ends now, with status 1")
    _flush()
    atexit._run_exitfuncs()  # noqa: SLF001 - as the interpreter would
    _flush()  # pragma: no cover - one of them has ended the measurement
    os._exit(1)  # pragma: no cover


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or None
            stream.flush()


def _end_in(seconds: float) -> None:
    """Have the process end then, with status 1 and what its threads are doing on stderr; no lock can hold that up."""
    try:
        faulthandler.dump_traceback_later(seconds, exit=True)
    except Exception:  # noqa: BLE001 - there is no stderr, or it is no file
        faulthandler.dump_traceback_later(seconds, exit=True, file=os.open(os.devnull, os.O_WRONLY))


def _at_exit() -> None:
    """Close what is warm, and end the process where a thread would keep it for ever.

    Before `concurrent.futures` joins its workers, which would wait for jobs that nobody has asked to end: `atexit`
    comes too late for that. A script in the tests pins this function of `threading`, which is not public.
    """
    if time.monotonic() < _deadline:
        _end_in(max(_left, waits.last))
    for facade in list(warm):
        try:
            facade.close()
        except Exception as error:  # noqa: BLE001 - whatever a job store raises; the other facades are closed as well
            log.failure("closing the jobs at the exit of the interpreter failed:", error)
    if keys := sorted({run.key for run in abandoned if run.is_live}):
        end(f"the process leaves runs behind that did not end (of the jobs {', '.join(map(repr, keys))})")


def _before_fork() -> None:
    """While `run` serves, have a signal to the child wait until that has its own handlers."""
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS if in_child else ())


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _in_forked_child() -> None:
    """Nothing of the parent's runs here: neither its threads nor its loops. What it holds is not ours to close."""
    exit_by(0.0)
    CancellationToken.forked()
    warm.clear()
    abandoned.clear()
    with ExitStack() as each:  # calls the others after one that raises, and the last added first
        each.callback(_after_fork)
        for forked in [*(facade.forked for facade in facades), *in_child]:
            each.callback(forked)


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # noqa: SLF001
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_forked_child)
