"""What comes due in this process while its application is not warm here: it is not run, but noted, and told once.

The last such occurrence of each job is made up for when its application warms up in this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from .._runs import log
from .._runs.schedule import MANY
from .._runs.status import Skipped


class Note(NamedTuple):
    """A run that could not be made: the name of its application here, its key, its kind, and when that was."""

    name: str
    key: str
    kind: str
    moment: datetime


class Warm(Protocol):
    """An application that is warm in this process."""

    application: str

    def make_up(self) -> None:
        """Make up for what was noted of it. Raises nothing."""


_notes: deque[Note] = deque(maxlen=MANY)

#: The names and keys of those that were told of.
_told: set[tuple[str, str]] = set()

#: By their names here.
warm: dict[str, Warm] = {}


def note(name: str, key: str, kind: str) -> Skipped:
    """Note a run that cannot be made here. The first one of each job is told of, not all of them for ever."""
    reason = f"no job of the application {name!r} is warm under this key in this process"
    _notes.append(Note(name, key, kind, datetime.now(UTC)))
    if (name, key) not in _told:
        _told.add((name, key))
        log.warning(f"job {key!r} was skipped: {reason}; this is told once", key=key)
    if (rows := warm.get(name)) is not None:  # since the scheduler asked its executor, which took its time
        rows.make_up()
    return Skipped(reason)


def take(wanted: Callable[[Note], bool]) -> list[Note]:
    """The notes that are wanted, oldest first; each is given to one who asks."""
    taken = []
    for found in _notes.copy():
        if wanted(found):
            with suppress(ValueError):  # another thread was faster
                _notes.remove(found)
                _told.discard((found.name, found.key))
                taken.append(found)
    return taken


def applications(since: datetime) -> set[str]:
    """The names of those whose runs came due here since then, and were not made up for."""
    return {found.name for found in _notes.copy() if found.moment >= since}


def latest(trigger: Any, moment: datetime) -> datetime | None:
    """The latest fire time of a trigger that is not after `moment` (UTC), without jitter; ``None`` where none is."""
    plain = copy(trigger)
    if getattr(plain, "jitter", None):
        plain.jitter = None

    def after(previous: datetime | None, start: datetime) -> datetime | None:
        fire_time = plain.get_next_fire_time(previous, start)
        return None if fire_time is None or fire_time > moment else fire_time.astimezone(UTC)

    windows = (timedelta(seconds=2**n) for n in range(33))  # up to a century
    found, end = next(filter(None, (after(None, moment - window) for window in windows)), None), moment
    while found is not None and end - found > timedelta(seconds=1):
        middle = found + (end - found) / 2
        later = after(None, middle)
        if later is not None and later > found:
            found = later
        else:  # nothing fires from there on, unless the trigger looks at the previous fire time alone
            end = middle
    while found is not None and (later := after(found, found)) is not None and later > found:
        found = later
    return found
