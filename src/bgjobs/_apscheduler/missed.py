"""What comes due in this process while its application is not warm here: it is not run, but noted, and told once."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

from .._runs import log
from .._runs.status import MANY, Skipped

#: The latest of them: the name of the application, the key, the kind of run, and when it came.
_notes: deque[tuple[str, str, str, datetime]] = deque(maxlen=MANY)

#: The names and keys of those that were told of.
_told: set[tuple[str, str]] = set()

#: The applications that are warm in this process, by their names here.
warm: dict[str, str] = {}


def note(name: str, key: str, kind: str) -> Skipped:
    """Note a run that cannot be made here. The first one of each job is told of, not all of them for ever."""
    reason = f"no job of the application {name!r} is warm under this key in this process"
    _notes.append((name, key, kind, datetime.now(UTC)))
    if (name, key) not in _told:
        _told.add((name, key))
        log.warning(f"job {key!r} was skipped: {reason}; this is told once", key=key)
    return Skipped(reason)


def applications(since: datetime) -> set[str]:
    """The names of those whose runs came due here since then."""
    return {name for name, _, _, moment in _notes.copy() if moment >= since}
