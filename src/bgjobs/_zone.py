"""Time zones by name: one look-up with one helpful error, for jobs, settings and the command line."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, timezone, tzinfo

from ._errors import ConfigurationError


def zone(value: str | tzinfo, field: str = "timezone") -> tzinfo:
    """Return the time zone of a name, or the one given.

    ``"UTC"`` needs no time zone database. A zone object of pytz, which cannot be used for arithmetic on wall times,
    becomes the zone of the same name.

    Args:
        value: A name of the IANA time zone database such as ``"Europe/Rome"``, or a ``tzinfo``.
        field: The name of the option or setting, for the error.

    Raises:
        ConfigurationError: For a name that does not exist (with similar names), where the machine has no time zone
            database (with the remedy), and for anything that is neither a name nor a ``tzinfo``.
    """
    if isinstance(value, str):
        return UTC if value == "UTC" else _named(value, field)
    if not isinstance(value, tzinfo):
        message = f'{field}: a zone name such as "Europe/Rome" or a tzinfo is needed, not {type(value).__name__}'
        raise ConfigurationError(message, field)
    if hasattr(value, "localize"):
        return _from_pytz(value, field)
    return value


def _named(name: str, field: str) -> tzinfo:
    """The zone of that name; whatever `zoneinfo` finds wrong with a name becomes one kind of error."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(f"{field}: {_remedy(name)}", field) from error


def _from_pytz(value: tzinfo, field: str) -> tzinfo:
    """The standard library's equal of a pytz zone."""
    name = getattr(value, "zone", None)
    if name:
        return zone(str(name), field)
    offset = value.utcoffset(None)
    return value if offset is None else timezone(offset)


def _remedy(name: str) -> str:
    """What to write instead of a name that does not exist."""
    known = {candidate.casefold(): candidate for candidate in zoneinfo.available_timezones()}
    if not known:
        return f"no time zone database is on this machine to look up {name!r} in; install the package tzdata"
    import difflib

    # The last part alone is tried too: people write "Rome" or "Asia/Rome".
    cities = {folded.rpartition("/")[2]: candidate for folded, candidate in sorted(known.items())}
    wanted = name.casefold().replace(" ", "_")
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.75)
    names = [known[match] for match in close] or [
        cities[match] for match in difflib.get_close_matches(wanted.rpartition("/")[2], cities, n=3, cutoff=0.75)
    ]
    hint = f"; did you mean {' or '.join(names)}?" if names else '; names look like "Europe/Rome" or "UTC"'
    return f"there is no time zone {name!r}{hint}"
