"""This process and its children: what is warm is closed at the exit of the interpreter, and cold after a fork."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its exit handler, which joins all workers, must come after ours
import os
import threading
from typing import Protocol
from weakref import WeakSet

from ._token import CancellationToken


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

#: What must live as long as the process: freed in a forked child, some connections say good-bye to the server for both.
kept: list[object] = []


def _at_exit() -> None:
    """Close what is warm.

    Before `concurrent.futures` joins its workers, which would wait for jobs that nobody has asked to end: `atexit`
    comes too late for that. A script in the tests pins this function of `threading`, which is not public.
    """
    for facade in list(warm):
        facade.close()


def _in_forked_child() -> None:
    """Nothing of the parent's runs here: neither its threads nor its loops. What it holds is not ours to close."""
    CancellationToken.forked()
    warm.clear()
    for facade in list(facades):
        facade.forked()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # noqa: SLF001
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_in_forked_child)
