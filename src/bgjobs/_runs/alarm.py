"""Alarms for code that no event loop can time: one thread waits for all of them.

An alarm costs an entry in a dictionary; most are cancelled, since most code ends in time.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from .threads import start_thread


class Alarm:
    """Calls `ring` in a thread of its own after so many seconds, unless it is cancelled first."""

    __slots__ = ("at", "ring")

    def __init__(self, seconds: float, ring: Callable[[], object]) -> None:
        self.at = time.monotonic() + seconds
        self.ring = ring
        _clock.add(self)

    def cancel(self) -> None:
        """Do not ring."""
        _clock.alarms.pop(self, None)


class _Clock:
    """The thread that waits for the next alarm, started at the first one."""

    def __init__(self) -> None:
        self.alarms: dict[Alarm, None] = {}
        self._changed = threading.Condition()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    def add(self, alarm: Alarm) -> None:
        self.alarms[alarm] = None
        if alarm.at >= self._wakes_at:  # it finds this one when it wakes up
            return
        with self._changed, suppress(RuntimeError):  # no thread can be had: nobody rings
            if self._thread is None or not self._thread.is_alive():
                self._thread = start_thread(self._run, "bgjobs-alarms")
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._wakes_at = math.inf  # who adds an alarm from here on waits for the lock, and notifies
                self._wakes_at = min((alarm.at for alarm in list(self.alarms)), default=math.inf)
                seconds = max(0.0, self._wakes_at - time.monotonic())
                self._changed.wait(min(seconds, threading.TIMEOUT_MAX))
            self._ring()

    def _ring(self) -> None:  # a frame of its own: a variable that lasts would keep an alarm, and so its run, alive
        for alarm in list(self.alarms):
            if alarm.at <= time.monotonic() and self.alarms.pop(alarm, alarm) is None:
                with suppress(RuntimeError):  # no thread can be had
                    start_thread(alarm.ring, "bgjobs-alarm")


_clock = _Clock()


def forked() -> None:
    """Forget the alarms of the parent in a forked child, to which its thread did not come along."""
    global _clock
    _clock = _Clock()
