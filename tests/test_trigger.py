"""The border with APScheduler: its arguments, our trigger, and what its own does to people."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bgjobs import BgjobsError, ConfigurationError, CronExpression, NeverFiresError, cron_trigger_arguments
from bgjobs._apscheduler.trigger import SixFieldCronTrigger  # its public name is its entry point
from cron_expressions import clock_expressions, expressions, places_and_starts
from oracle import Oracle

NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(text: str) -> datetime:
    """A moment, in New York where its offset is that of New York."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is UTC else moment.astimezone(NEW_YORK)


def trigger(text: str, zone: str | tzinfo = "UTC", **options: Any) -> SixFieldCronTrigger:
    """A trigger that can fire; other examples of hypothesis are given up."""
    try:
        return CronExpression(text).trigger(zone, **options)
    except NeverFiresError:
        assume(False)
        raise


class TestFields:
    @given(expressions(), places_and_starts())
    @example("0 0 0 15W * *", (NEW_YORK, NOW))
    @example("0 0 0 L-30 * *", (NEW_YORK, NOW))
    @example("0 0 0 1-7 * 5#1", (NEW_YORK, NOW))
    def test_same_times(self, text: str, place: tuple[ZoneInfo, datetime]) -> None:
        """CronTrigger's own search over our `fields`, special forms included, finds the same time in UTC."""
        ours = trigger(text)
        assert CronTrigger.get_next_fire_time(ours, None, place[1]) == ours.get_next_fire_time(None, place[1])

    def test_as_those_of_cron_trigger(self) -> None:
        """Fields are in the order and of the kinds of CronTrigger, and print alike."""
        plain = CronTrigger(**cron_trigger_arguments("0 */5 9-17 L * 1-5"), timezone=UTC)
        fields = trigger("0 */5 9-17 L * 1-5").fields
        assert repr(plain.fields) == repr(fields)
        assert plain.fields == fields
        assert [field.is_default for field in plain.fields] == [field.is_default for field in fields]

    def test_special_forms(self) -> None:
        """A special form prints as it is written, and compares by what it means."""
        ours = trigger("0 0 0 15w * 5#3")
        assert [str(field) for field in ours.fields] == ["*", "*", "15w", "*", "5#3", "0", "0", "0"]
        day, weekday = ours.fields[2].expressions[0], ours.fields[4].expressions[0]
        assert repr(day) == "SpecialExpression('15w', SpecialDay(anchor=15, nearest_weekday=True))"
        [same] = trigger("0 0 9 15W * *").fields[2].expressions
        assert day == same
        assert hash(day) == hash(same)
        assert day != weekday
        assert day != "15w"

    def test_kept(self) -> None:
        """Fields are built once, when they are asked for."""
        ours = trigger("0 0 0 * * *")
        assert ours.fields is ours.fields


class TestSearch:
    @given(expressions() | clock_expressions(), places_and_starts(), st.timedeltas(timedelta(0), timedelta(days=400)))
    def test_previous_far_behind(self, text: str, place: tuple[ZoneInfo, datetime], late: timedelta) -> None:
        """However late it is, the answer is the first time after the previous one, in the trigger's zone."""
        zone, previous = place
        found = trigger(text, zone).get_next_fire_time(previous, previous + late)
        assert found is not None
        assert found.tzinfo is zone
        assert Oracle(text).next_fire_time(previous, zone).isoformat() == found.isoformat()

    def test_first_time(self) -> None:
        """Without a previous time, one at this very moment counts, and a fraction of a second is rounded up."""
        daily = trigger("0 0 12 * * *")
        assert daily.get_next_fire_time(None, NOW) == NOW
        assert daily.get_next_fire_time(None, NOW - timedelta(microseconds=1)) == NOW
        assert daily.get_next_fire_time(None, NOW + timedelta(microseconds=1)) == NOW + timedelta(days=1)

    def test_now_in_any_zone(self) -> None:
        """The zone of `now` and of the previous time does not matter."""
        daily = trigger("0 0 12 * * *")
        assert daily.get_next_fire_time(None, NOW.astimezone(NEW_YORK)) == NOW
        found = daily.get_next_fire_time(NOW.astimezone(NEW_YORK), NOW.astimezone(ZoneInfo("Asia/Tokyo")))
        assert found == NOW + timedelta(days=1)

    def test_clock_set_back(self) -> None:
        """Where the clock was set back before the previous time, the search restarts from now, as in CronTrigger."""
        for daily in (trigger("0 0 12 * * *"), CronTrigger(hour=12, timezone=UTC)):
            assert daily.get_next_fire_time(NOW + timedelta(days=9), NOW) == NOW

    @pytest.mark.parametrize("previous", ["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00"])
    def test_each_passage_has_its_own_answer(self, previous: str) -> None:
        """Two moments that show the same time are not taken for one another."""
        half_hourly = trigger("0 */30 * * * *", NEW_YORK)
        half_hourly.get_next_fire_time(at("2026-11-01T01:30:00-04:00"), at("2026-11-01T01:30:00-04:00"))
        found = half_hourly.get_next_fire_time(at(previous), at(previous))
        assert found is not None
        assert found - at(previous).astimezone(UTC) == timedelta(minutes=30)

    def test_remembered(self) -> None:
        """The question that APScheduler asks twice, with the same objects, is answered once."""
        daily = trigger("0 0 12 * * *")
        found = daily.get_next_fire_time(NOW, NOW)
        assert daily.get_next_fire_time(NOW, NOW) is found

    def test_shared(self) -> None:
        """Jobs of one expression and zone that are due together get the same object, whatever objects they ask with."""
        found = trigger("0 0 12 * * *", NEW_YORK).get_next_fire_time(NOW, NOW)
        assert trigger("0 0 12 * * *", NEW_YORK).get_next_fire_time(NOW.astimezone(NEW_YORK), NOW) is found

    @pytest.mark.parametrize(
        ("zone", "options", "expected"),
        [
            (NEW_YORK, {}, "2026-01-01T12:00:00-05:00"),
            (timezone(timedelta(hours=2)), {}, "2026-01-02T12:00:00+02:00"),
            (timezone(timedelta(), "Z"), {}, "2026-01-02T12:00:00+00:00"),
            ("UTC", {"end_date": NOW}, "None"),
            ("UTC", {"jitter": 1}, "2026-01-02T12:00:0"),
        ],
    )
    def test_not_shared(self, zone: str | tzinfo, options: dict[str, Any], expected: str) -> None:
        """Triggers with other zones, limits or delays answer for themselves, asked with the same objects."""
        usual, other = trigger("0 0 12 * * *"), trigger("0 0 12 * * *", zone, **options)
        for _ in range(2):
            assert usual.get_next_fire_time(NOW, NOW) == NOW + timedelta(days=1)
            found = other.get_next_fire_time(NOW, NOW)
            assert (found.isoformat() if found else "None").startswith(expected)
            assert found is None or found.tzinfo is other.timezone

    @pytest.mark.parametrize("jitter", [None, 60])
    def test_following(self, jitter: int | None) -> None:
        """The fire time after another one is found without jitter, whether the scheduler has asked for it or not."""
        daily = trigger("0 0 12 * * *", jitter=jitter)
        assert daily.following(NOW, NOW) == NOW + timedelta(days=1)
        daily.get_next_fire_time(NOW, NOW)
        assert daily.following(NOW, NOW) == NOW + timedelta(days=1)

    def test_following_in_each_passage(self) -> None:
        """A question about one passage of an overlap is not answered with what was found for the other."""
        half_hourly = trigger("0 */30 * * * *", NEW_YORK)
        first, second = (at(f"2026-11-01T01:30:00{offset}") for offset in ("-04:00", "-05:00"))
        half_hourly.get_next_fire_time(first, first)
        found = half_hourly.following(second, second)
        assert found is not None
        assert found.isoformat() == "2026-11-01T02:00:00-05:00"

    @pytest.mark.parametrize("zone", [UTC, NEW_YORK, timezone(timedelta(hours=-5))])
    def test_end_of_time(self, zone: tzinfo) -> None:
        """After the year 9999 there is nothing."""
        secondly = trigger("* * * * * *", zone)
        last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=zone)
        assert secondly.get_next_fire_time(last, last) is None


class TestLimits:
    @pytest.mark.parametrize(
        "start",
        [
            "2026-02-01 12:00:00",
            "2026-02-01T07:00:00-05:00",
            datetime(2026, 2, 1, 12),  # noqa: DTZ001
            datetime(2026, 2, 1, 7, tzinfo=NEW_YORK),
        ],
    )
    def test_start_date(self, start: datetime | str) -> None:
        """Nothing fires before the start date, which counts itself; without a zone it is in the trigger's."""
        daily = trigger("0 0 12 * * *", start_date=start)
        assert daily.get_next_fire_time(None, NOW) == datetime(2026, 2, 1, 12, tzinfo=UTC)
        assert daily.get_next_fire_time(None, NOW + timedelta(days=90)) == NOW + timedelta(days=90)

    @pytest.mark.parametrize(
        "end", [date(2026, 1, 3), "2026-01-03", "2026-01-02T07:00:00-05:00", "2026-01-02 12:00:00"]
    )
    def test_end_date(self, end: date | str) -> None:
        """Nothing fires after the end date, which counts itself."""
        daily = trigger("0 0 12 * * *", end_date=end)
        tomorrow = NOW + timedelta(days=1)
        assert daily.get_next_fire_time(NOW, NOW) == tomorrow
        assert daily.get_next_fire_time(tomorrow, tomorrow) is None
        assert daily.get_next_fire_time(None, NOW + timedelta(days=30)) is None

    def test_end_date_in_the_first_passage(self) -> None:
        """An end in the first passage of an overlap is before the second one, whatever the clock shows."""
        end = at("2026-11-01T01:45:00-04:00")
        half_hourly = trigger("0 */30 * * * *", NEW_YORK, end_date=end)
        assert half_hourly.get_next_fire_time(at("2026-11-01T01:30:00-04:00"), end) is None

    @pytest.mark.parametrize("end", [datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=NEW_YORK)])
    def test_unlimited(self, end: datetime) -> None:
        """The largest and the smallest time there are do as no limit."""
        endless = trigger("0 0 12 * * *", NEW_YORK, start_date=datetime.min.replace(tzinfo=UTC), end_date=end)
        assert endless.get_next_fire_time(None, NOW) is not None

    @pytest.mark.parametrize("name", ["start_date", "end_date"])
    @pytest.mark.parametrize("value", ["tomorrow", 5])
    def test_wrong_dates(self, name: str, value: object) -> None:
        """A date that cannot be read is refused by name."""
        with pytest.raises(ConfigurationError, match=f"{name}: a time, a date or a string such as .* not {value!r}"):
            SixFieldCronTrigger("0 0 12 * * *", "UTC", **{name: value})  # type: ignore[arg-type]


class TestJitter:
    @given(st.datetimes(datetime(2026, 11, 1, 4), datetime(2026, 11, 1, 8), timezones=st.just(UTC)))  # noqa: DTZ001
    def test_delay(self, now: datetime) -> None:
        """Every firing is late by up to so many seconds, over a change of the clock, too."""
        found = trigger("* * * * * *", NEW_YORK, jitter=3600).get_next_fire_time(None, now)
        assert found is not None
        assert timedelta(0) <= found - now <= timedelta(seconds=3601)
        assert found.tzinfo is NEW_YORK

    def test_not_remembered(self) -> None:
        """With jitter, each question has its own answer."""
        jittery = trigger("0 0 12 * * *", jitter=3600)
        assert len({jittery.get_next_fire_time(NOW, NOW) for _ in range(9)}) > 1

    def test_end_date(self) -> None:
        """The end date limits the delay."""
        jittery = trigger("0 0 12 * * *", jitter=3600, end_date=NOW)
        assert jittery.get_next_fire_time(None, NOW) == NOW
        assert jittery.get_next_fire_time(None, NOW + timedelta(seconds=1)) is None

    def test_negative(self) -> None:
        """A negative delay is refused."""
        with pytest.raises(ConfigurationError, match="jitter: a number of seconds from 0 to"):
            trigger("0 0 12 * * *", jitter=-1)


class TestValue:
    def test_is_a_cron_trigger(self) -> None:
        """Tools that look for a CronTrigger find one, and the expression in it."""
        ours = SixFieldCronTrigger("0 */5 * * * *", "UTC")
        assert isinstance(ours, CronTrigger)
        assert ours.expression == CronExpression("*/5 * * * *")
        assert ours.timezone is UTC

    def test_from_crontab(self) -> None:
        """The classmethod of CronTrigger makes one of ours, with crontab's Sunday."""
        ours = SixFieldCronTrigger.from_crontab("0 0 * * 0", "UTC")
        assert repr(ours) == "<SixFieldCronTrigger ('0 0 * * 0', timezone='UTC')>"

    def test_prints(self) -> None:
        """It prints its expression, and in its repr everything it was made of."""
        limits: dict[str, Any] = {"start_date": "2026-01-01", "end_date": "2026-12-31 23:59:59", "jitter": 5}
        assert str(trigger("0 0 9 LW * *")) == "cron[0 0 9 LW * *]"
        assert repr(trigger("0 0 9 LW * *", NEW_YORK)) == (
            "<SixFieldCronTrigger ('0 0 9 LW * *', timezone='America/New_York')>"
        )
        assert repr(trigger("0 0 9 * * *", **limits)) == (
            "<SixFieldCronTrigger ('0 0 9 * * *', start_date='2026-01-01 00:00:00 UTC', "
            "end_date='2026-12-31 23:59:59 UTC', jitter=5, timezone='UTC')>"
        )

    @pytest.mark.parametrize("again", [lambda ours: pickle.loads(pickle.dumps(ours)), copy.copy, copy.deepcopy])
    def test_copies(self, again: Any) -> None:
        """A copy or what was pickled fires at the same times; what was looked up is not carried along."""
        ours = trigger("0 0 9 15W * *", NEW_YORK, start_date="2026-01-01", end_date="2026-12-31", jitter=None)
        found, _ = ours.get_next_fire_time(None, NOW), ours.fields
        copied = again(ours)
        assert repr(copied) == repr(ours)
        assert copied.get_next_fire_time(None, NOW) == found
        assert copied.fields == ours.fields

    def test_state(self) -> None:
        """The state holds the expression as text and a version, nothing of the tables."""
        assert trigger("0 0 9 * * *").__getstate__() == {
            "version": 1,
            "expression": "0 0 9 * * *",
            "timezone": UTC,
            "start_date": None,
            "end_date": None,
            "jitter": None,
        }

    def test_newer_version(self) -> None:
        """What a newer release stored is refused."""
        ours = trigger("0 0 9 * * *")
        with pytest.raises(ConfigurationError, match="stored by a newer bgjobs"):
            ours.__setstate__({"version": 2})

    @pytest.mark.parametrize(
        ("options", "zone"),
        [
            ({"timezone": "Europe/Rome"}, "Europe/Rome"),
            ({"start_date": NOW.astimezone(NEW_YORK)}, "America/New_York"),
            ({"end_date": NOW.astimezone(NEW_YORK)}, "America/New_York"),
            ({"start_date": "2026-01-01"}, "Asia/Tokyo"),
            ({}, "Asia/Tokyo"),
        ],
    )
    def test_zone(self, options: dict[str, Any], zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a zone, that of a limit is taken, else the machine's, as in CronTrigger."""
        monkeypatch.setattr("tzlocal.get_localzone", lambda: ZoneInfo("Asia/Tokyo"))
        assert str(SixFieldCronTrigger("0 0 9 * * *", **options).timezone) == zone

    @pytest.mark.parametrize(
        ("expression", "zone"),
        [("x", "UTC"), ("0 0 0 30 2 *", "UTC"), ("0 0 9 * * *", "Rome/Italy"), ("0 0 9 * * *", "")],
    )
    def test_errors(self, expression: str, zone: str) -> None:
        """Everything wrong is refused at once."""
        with pytest.raises(BgjobsError):
            SixFieldCronTrigger(expression, zone)


class TestScheduler:
    def test_by_name(self) -> None:
        """A scheduler finds the trigger by its name, and gives it its own zone."""
        scheduler = BackgroundScheduler(timezone="Europe/Rome")
        scheduler.start(paused=True)
        job = scheduler.add_job(print, "six_field_cron", expression="0 */5 * * * *")
        scheduler.shutdown()
        assert isinstance(job.trigger, SixFieldCronTrigger)
        assert str(job.trigger.timezone) == "Europe/Rome"

    def test_job_store(self, tmp_path: Path) -> None:
        """A trigger comes back from a database with its zone and its special day."""
        options = {"expression": "0 0 9 15W * *", "timezone": "Europe/Rome", "end_date": "2999-12-31"}
        triggers: list[SixFieldCronTrigger] = []
        for _ in range(2):
            store = SQLAlchemyJobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
            scheduler = BackgroundScheduler(jobstores={"default": store})
            scheduler.start(paused=True)
            if not triggers:
                scheduler.add_job(print, "six_field_cron", **options)
            triggers += [job.trigger for job in scheduler.get_jobs()]
            scheduler.shutdown()
            store.engine.dispose()
        assert repr(triggers[0]) == repr(triggers[1])
        assert triggers[1].get_next_fire_time(None, NOW) == datetime(2026, 1, 15, 8, tzinfo=UTC)


class TestPain:
    """What APScheduler's own trigger does, and ours does not."""

    def test_daily_job_runs_twice(self) -> None:
        """A job at 01:30 runs twice on the day the clock goes back; ours runs once."""
        start, runs = at("2026-10-31T12:00:00-04:00"), {}
        for daily in (CronTrigger(hour=1, minute=30, timezone=NEW_YORK), trigger("0 30 1 * * *", NEW_YORK)):
            moment: Any = start
            times = []
            for _ in range(2):
                moment = daily.get_next_fire_time(moment, moment)
                times.append(moment.isoformat())
            runs[type(daily)] = times
        assert runs[CronTrigger] == ["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00"]
        assert runs[SixFieldCronTrigger] == ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]

    def test_daily_job_is_lost(self) -> None:
        """A job at midnight is lost on the day the clock jumps over midnight; ours runs when the jump is over."""
        start = datetime(2026, 9, 5, 12, tzinfo=UTC)
        triggers: list[Any] = [
            CronTrigger(hour=0, timezone="America/Santiago"),
            trigger("0 0 0 * * *", "America/Santiago"),
        ]
        plain, ours = (midnight.get_next_fire_time(start, start) for midnight in triggers)
        assert [time.isoformat() for time in (plain, ours)] == [
            "2026-09-07T00:00:00-03:00",
            "2026-09-06T01:00:00-03:00",
        ]

    def test_weekday_0_is_monday(self) -> None:
        """A crontab expression for Sunday runs on Monday; ours on Sunday."""
        plain = CronTrigger.from_crontab("0 0 * * 0", timezone=UTC).get_next_fire_time(None, NOW)
        ours = trigger("0 0 * * 0").get_next_fire_time(None, NOW)
        assert [f"{time:%A}" for time in (plain, ours)] == ["Monday", "Sunday"]

    def test_never(self) -> None:
        """A job for 30 February is taken without a word and never runs; ours is refused."""
        assert CronTrigger(month=2, day=30, timezone=UTC).get_next_fire_time(None, NOW) is None
        with pytest.raises(NeverFiresError):
            CronExpression("0 0 0 30 2 *")

    def test_name_with_a_step(self) -> None:
        """A step after a weekday's name is dropped; ours keeps it."""
        assert str(CronTrigger(day_of_week="mon/2").fields[4]) == "mon"
        assert str(trigger("0 0 0 * * MON/2").fields[4]) == "mon,wed,fri,sun"
