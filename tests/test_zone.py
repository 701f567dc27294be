"""Time zones by name, and what is said about names that do not exist."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from bgjobs import ConfigurationError
from bgjobs._cron.expression import zone  # one rule that many public arguments follow


class Pytz(tzinfo):
    """What matters of a zone of pytz."""

    def __init__(self, name: str | None, offset: timedelta | None = None) -> None:
        self.zone = name
        self.offset = offset

    def localize(self, moment: object) -> object:
        raise NotImplementedError

    def utcoffset(self, moment: object) -> timedelta | None:
        return self.offset

    dst = tzname = None  # type: ignore[assignment]


def test_name() -> None:
    """A name gives the zone of the time zone database."""
    assert ZoneInfo("Europe/Rome") is zone("Europe/Rome")


def test_utc_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """UTC is there on a machine without a time zone database."""
    monkeypatch.delattr(zoneinfo, "ZoneInfo")
    assert UTC is zone("UTC")


@pytest.mark.parametrize("given", [UTC, timezone(timedelta(hours=2)), ZoneInfo("Asia/Tokyo")])
def test_tzinfo(given: tzinfo) -> None:
    """A tzinfo is taken as it is."""
    assert given is zone(given)


def test_pytz() -> None:
    """A zone of pytz becomes the one of the same name, or of the same fixed offset."""
    assert ZoneInfo("Europe/Rome") is zone(Pytz("Europe/Rome"))
    assert timezone(timedelta(hours=1)) == zone(Pytz(None, timedelta(hours=1)))


def test_unknown_to_all() -> None:
    """A zone that only looks like one of pytz is taken as it is."""
    given = Pytz(None)
    assert given is zone(given)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GMT+2", 'names look like "Europe/Rome"'),
        ("CEST", 'names look like "Europe/Rome"'),
        ("Europe/Roma", "did you mean Europe/Rome?"),
        ("europe/rome", "did you mean Europe/Rome?"),
        ("Rom", "did you mean Europe/Rome?"),
        ("Rome", "did you mean Europe/Rome?"),
        ("Asia/Rome", "did you mean "),
        ("new york", "did you mean America/New_York?"),
        ("utc", "did you mean UTC?"),
        ("", 'names look like "Europe/Rome" or "UTC"'),
        ("../x", 'names look like "Europe/Rome" or "UTC"'),
        ("/x", 'names look like "Europe/Rome" or "UTC"'),
        ("Europe", 'names look like "Europe/Rome" or "UTC"'),
        ("local", 'names look like "Europe/Rome" or "UTC"'),
        ("\0", 'names look like "Europe/Rome" or "UTC"'),
        ("\ud800", 'names look like "Europe/Rome" or "UTC"'),
    ],
)
def test_no_such_zone(name: str, hint: str) -> None:
    """A name that does not exist is shown with the nearest one."""
    with pytest.raises(ConfigurationError) as caught:
        zone(name, "jobs.cleanup.timezone")
    assert str(caught.value).startswith(f"jobs.cleanup.timezone: there is no time zone {name!r}; {hint}")
    assert caught.value.field == "jobs.cleanup.timezone"


def test_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no zone is known at all, the error says what to install."""
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(ConfigurationError, match=r"no time zone database .* install the package tzdata"):
        zone("Europe/Roma")


@pytest.mark.parametrize("value", [None, 5, b"UTC"])
def test_no_zone(value: object) -> None:
    """Anything but a name or a tzinfo is refused by its type."""
    with pytest.raises(ConfigurationError, match=f"or a tzinfo is needed, not {type(value).__name__}"):
        zone(value)  # type: ignore[arg-type]
