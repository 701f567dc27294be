"""What is still warm when the interpreter exits is closed then."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its exit handler, which joins all workers, is to come after ours
import threading
from typing import Protocol


class Closable(Protocol):
    def close(self) -> None: ...


#: What is to be closed at the exit.
warm: set[Closable] = set()


def _close_all() -> None:
    """Close what is warm.

    Before `concurrent.futures` joins its workers, which would wait for jobs that nobody has asked to end: `atexit`
    comes too late for that. A script in the tests pins this function of `threading`, which is not public.
    """
    for closable in list(warm):
        closable.close()


threading._register_atexit(_close_all)  # type: ignore[attr-defined]  # noqa: SLF001
