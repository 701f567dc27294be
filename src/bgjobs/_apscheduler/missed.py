"""What comes due in this process while its application is not warm here: it is not run, but noted, and told once.

The last such occurrence of each job is made up for when its application warms up in this process.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from .._runs import log
from .._runs.schedule import MANY, Following
from .._runs.status import Skipped


class Note(NamedTuple):
    """A run that could not be made: the name of its application here, its key and its kind."""

    name: str
    key: str
    kind: str


class Warm(Protocol):
    """An application that is warm in this process."""

    application: str

    def hear(self, name: str) -> None:
        """Hear that a run of that name was noted. Raises nothing."""


#: When each was last noted, `MANY` at most.
_notes: dict[Note, datetime] = {}

#: By their names here.
warm: dict[str, Warm] = {}


def note(name: str, key: str, kind: str) -> Skipped:
    """Note a run that cannot be made here. The first one of each job is told of, not all of them for ever."""
    reason = f"no job of the application {name!r} is warm under this key in this process"
    is_told = any(known[:2] == (name, key) for known in list(_notes))
    _notes[Note(name, key, kind)] = datetime.now(UTC)
    for oldest in list(_notes)[:-MANY]:
        _notes.pop(oldest, None)
    if not is_told:
        log.warning(f"job {key!r} was skipped: {reason}; this is told once", key=key)
    for rows in list(warm.values()):
        rows.hear(name)
    return Skipped(reason)


def take(wanted: Callable[[Note], bool]) -> list[tuple[Note, datetime]]:
    """The notes that are wanted, and when that was; each is given to one who asks."""
    return [(note, at) for note in list(_notes) if wanted(note) and (at := _notes.pop(note, None)) is not None]


def latest(following: Following | None, moment: datetime) -> datetime | None:
    """The latest fire time that is not after `moment` (UTC); that itself where the trigger cannot be asked."""
    if following is None:
        return moment

    def first(start: datetime) -> datetime | None:
        fire_time = following(None, start)
        return None if fire_time is None or fire_time > moment else fire_time.astimezone(UTC)

    found, end = first(moment - timedelta(days=36525)), moment
    while found is not None and found < end:
        middle = end - (end - found) // 2
        if (later := first(middle)) is not None:
            found = later
        else:
            end = middle - timedelta(microseconds=1)
    return found
