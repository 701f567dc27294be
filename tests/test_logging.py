"""The log set-up for applications: one sink, APScheduler's records in it, everything taken back."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from loguru import logger

from bgjobs import configure_logging
from bgjobs._logging import unconfigure_logging  # undoes a set-up that lasts for the process
from stage import NIGHTLY, Records, cold, nothing, until, warm

APSCHEDULER = logging.getLogger("apscheduler")


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Each test leaves the log as it was."""
    before = (APSCHEDULER.level, APSCHEDULER.propagate)
    yield
    unconfigure_logging()
    assert (APSCHEDULER.level, APSCHEDULER.propagate) == before
    assert not ours()


def ours() -> list[logging.Handler]:
    """The handlers on APScheduler's logger that are bgjobs'; the test runner adds some, too."""
    return [handler for handler in APSCHEDULER.handlers if type(handler).__module__.startswith("bgjobs")]


def fail() -> None:
    """A job."""
    secret_of_the_job = "hunter2"  # noqa: F841 - is looked for in the traceback
    raise ValueError("no {luck}")


async def fail_async() -> None:
    """A job."""
    raise ValueError("no {luck}")


def run_and_fail(job: Callable[..., object] = fail, *, kind: str = "background", key: str = "fail") -> str:
    """One failed run, from its fire time to its end; its id."""
    jobs = cold().add_background_job(job, cron="@yearly", key=key)
    with warm(kind, jobs):
        run_id = jobs.run_now(key)
        until(lambda: jobs.status()[0].outcomes["failed"])
    return run_id


class TestLines:
    def test_a_line_is_plain_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Time, level and message, on stderr."""
        configure_logging()
        logger.info("hello {world}")
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith(" INFO     hello {world}\n")

    def test_the_run_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Records of a run, the job's own included, end with its key and id."""
        configure_logging()
        with logger.contextualize(job="sync", run_id="abc-1"):
            logger.info("read")
        assert capsys.readouterr().err.endswith("read [sync abc-1]\n")

    def test_the_least_level(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What is below is left out."""
        configure_logging("WARNING")
        logger.info("hello")
        assert capsys.readouterr().err == ""

    def test_a_wrong_level_leaves_the_log_as_it_was(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The error comes through, and what was set up before goes on."""
        configure_logging()
        with pytest.raises(ValueError, match="LOUD"):
            configure_logging("LOUD")
        logger.info("still here")
        assert "still here" in capsys.readouterr().err

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        """One flat object a line, with what is bound, and the traceback."""
        configure_logging(json=True)
        logger.bind(job="sync", path=pytest).info("hello")
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("broken")
        first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert first["message"] == "hello"
        assert first["job"] == "sync"
        assert "module" in first["path"]
        assert "exception" not in first
        assert second["exception"].endswith("ValueError: no")


class Unspeakable:
    """A value whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


IN_ITSELF: dict[str, Any] = {}
IN_ITSELF["x"] = IN_ITSELF
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


class TestValues:
    @pytest.mark.parametrize(
        ("value", "written"),
        [
            (math.nan, "nan"),
            (-math.inf, "-inf"),
            ({"a": math.inf}, "{'a': inf}"),
            ({math.nan: 1}, "{nan: 1}"),
            (IN_ITSELF, "{'x': {...}}"),
            ({(1, 2): 3}, "{(1, 2): 3}"),
            (Unspeakable(), "an object of type Unspeakable"),
            ([1, Unspeakable()], [1, "an object of type Unspeakable"]),
            ({(1, 2): Unspeakable()}, "an object of type dict"),
            (DEEP, "an object of type list"),
            (10**5000, "an object of type int"),
            ({"a": [1.5, None, True, "x"], "path": Path("p")}, {"a": [1.5, None, True, "x"], "path": "p"}),
        ],
        ids=[
            "nan",
            "infinity",
            "inner-infinity",
            "nan-name",
            "in-itself",
            "tuple-name",
            "no-text",
            "inner-no-text",
            "no-text-at-all",
            "deep",
            "digits",
            "plain",
        ],
    )
    def test_json_is_json(self, value: object, written: object, capsys: pytest.CaptureFixture[str]) -> None:
        """What JSON cannot say is written as text; the rest of the record is as it would be."""
        configure_logging(json=True)
        logger.bind(before=1, value=value, after=[2.5]).info("hello")
        line = json.loads(capsys.readouterr().err, parse_constant=pytest.fail)
        assert line["value"] == written
        assert (line["message"], line["before"], line["after"]) == ("hello", 1, [2.5])

    def test_a_name_of_a_job_in_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Text shows two bound values, and loses no record to them either."""
        configure_logging()
        logger.bind(job=Unspeakable(), run_id=1).info("hello")
        assert capsys.readouterr().err.endswith("hello [an object of type Unspeakable 1]\n")

    def test_a_name_that_is_no_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A patcher can put one there."""
        configure_logging(json=True)
        logger.patch(lambda record: record["extra"].update({(1, 2): 3})).info("hello")
        assert json.loads(capsys.readouterr().err)["(1, 2)"] == 3


#: A text that would look like a record of its own, on a terminal and to whatever splits a log into lines.
FORGED = "no\n2026-01-01T00:00:00.000Z ERROR    forged\r\x1b[2J\x9b1A\x85forged\u2028forged"


def forge() -> None:
    """A job whose error has a text, a cause and a note like that."""
    error = ValueError(FORGED)
    error.add_note(FORGED)
    raise error from KeyError(FORGED)


class TestForgery:
    """Whatever comes from outside, one record looks like one."""

    def test_a_failed_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Its error has lines of its own in the traceback only, all of which are indented."""
        configure_logging("WARNING")
        run_and_fail(forge)
        lines = capsys.readouterr().err.splitlines()
        assert all(line.isprintable() for line in lines)
        heads = [line for line in lines if not line.startswith("    ")]
        assert [head.split()[1:4] for head in heads] == [["ERROR", "job", "'fail'"], ["ERROR", "Job", '"fail']]
        assert (
            r"ValueError: no\n2026-01-01T00:00:00.000Z ERROR    forged\r\u001b[2J\u009b1A\u0085forged\u2028" in heads[0]
        )

    def test_a_key(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The key of a job is escaped as well, in APScheduler's records too."""
        configure_logging("WARNING")
        run_and_fail(key="a\nb\x1b")
        lines = capsys.readouterr().err.splitlines()
        assert len([line for line in lines if not line.startswith("    ")]) == 2
        assert r" [a\nb\u001b " in lines[0]

    def test_the_sinks_of_others(self, records: Records) -> None:
        """The messages of bgjobs and of APScheduler are one printable line each, whatever the sink makes of them."""
        configure_logging()
        run_and_fail(forge, key="a\nb")
        assert len(records.texts("ERROR")) == 2
        assert all(text.isprintable() for text in records.texts())

    def test_a_message_of_the_application(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Its further lines are indented."""
        configure_logging()
        logger.info("a table\n1 2\n\x1b[1m3 4")
        assert capsys.readouterr().err.partition("a table")[2] == "\n    1 2\n    \\u001b[1m3 4\n"

    def test_json_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        """For whatever splits lines, and it says the same when it is read; letters stay readable."""
        configure_logging(json=True)
        logger.info(FORGED + " città")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.isprintable()
        assert "città" in line
        assert json.loads(line)["message"] == FORGED + " città"

    def test_bound_names_replace_no_field(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What a job binds under the name of a field of the record gets another one."""
        configure_logging(json=True)
        logger.bind(message="m", level="l", time="t", logger="n", exception="e", path="p").info("hello")
        line = json.loads(capsys.readouterr().err)
        assert (line["message"], line["level"], line["logger"]) == ("hello", "INFO", "test_logging")
        assert "exception" not in line
        assert line["time"].startswith("20")
        extras = {name: value for name, value in line.items() if name.startswith("extra.")}
        assert extras == {f"extra.{n}": n[0] for n in ["message", "level", "time", "exception"]} | {"extra.logger": "n"}
        assert line["path"] == "p"


class TestAPScheduler:
    @pytest.mark.parametrize("job", [fail, fail_async])
    def test_its_records_name_the_run(self, kind: str, job: Callable[..., object], records: Records) -> None:
        """The traceback of a failed run has the names of that run bound, as bgjobs' own record of it has."""
        configure_logging()
        run_id = run_and_fail(job, kind=kind)
        until(lambda: any(record["exception"] for record in records))
        ours, theirs = (record for record in records if record["level"].name == "ERROR")
        assert ours["extra"]["run_id"] == theirs["extra"]["run_id"] == run_id
        assert ours["extra"]["scheduled_at"] == theirs["extra"]["scheduled_at"]
        assert theirs["extra"].keys() == {"job", "run_id", "scheduled_at"}

    def test_a_failure_has_its_traceback_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        """APScheduler's record has it; the values of local variables are not in it."""
        configure_logging()
        run_and_fail()
        _, err = capsys.readouterr()
        assert err.count("Traceback") == 1
        assert err.count("ValueError: no {luck}\n") == 1
        assert "hunter2" not in err.replace('secret_of_the_job = "hunter2"', "")

    def test_its_records_keep_their_origin(self, records: Records) -> None:
        """Logger, function, file and job are those of the record."""
        configure_logging()
        run_and_fail()
        record = next(record for record in records if record["exception"])
        assert record["name"] == "apscheduler.executors.default"
        assert record["function"] == "run_job"
        assert record["file"].name == "base.py"
        assert record["extra"]["job"] == "fail"

    def test_somebody_elses_records(self, records: Records) -> None:
        """Records without a job of ours are passed on as they are, whatever their level."""
        configure_logging()
        logging.getLogger("apscheduler.scheduler").log(35, "a level of %s own", "its")
        logging.getLogger("apscheduler.scheduler").warning("braces {stay}")
        assert records.texts() == ["a level of its own", "braces {stay}"]
        assert records[0]["level"].no == 35

    def test_a_warning_that_bgjobs_gives_itself(self, records: Records) -> None:
        """It is logged once, by bgjobs."""
        scheduler = BackgroundScheduler(timezone="UTC")
        with cold(scheduler).add_background_job(nothing, cron=NIGHTLY):
            configure_logging()
            logging.getLogger("apscheduler.scheduler").warning("skipped %s", scheduler.get_job("bgjobs:nothing"))
        assert not [text for text in records.texts() if text.startswith("skipped")]

    def test_chatter_is_left_out(self, records: Records) -> None:
        """Below WARNING there would be two lines a run."""
        configure_logging()
        logging.getLogger("apscheduler.scheduler").info("Adding job tentatively")
        assert records.texts() == []

    def test_a_level_of_its_own_counts(self, records: Records) -> None:
        """Who has set a level gets it, and keeps it afterwards."""
        APSCHEDULER.setLevel(logging.INFO)
        try:
            configure_logging()
            logging.getLogger("apscheduler.scheduler").info("Adding job tentatively")
            unconfigure_logging()
            assert APSCHEDULER.level == logging.INFO
        finally:
            APSCHEDULER.setLevel(logging.NOTSET)
        assert records.texts() == ["Adding job tentatively"]

    def test_a_record_that_cannot_be_formatted(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It is reported as by every handler, and reaches nobody."""
        configure_logging()
        logging.getLogger("apscheduler.scheduler").warning("%d jobs", "many")
        assert "--- Logging error ---" in capsys.readouterr().err


class TestTwice:
    def test_a_second_call_takes_the_place_of_the_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nothing is written twice."""
        configure_logging()
        configure_logging("WARNING")
        logger.info("hello")
        logging.getLogger("apscheduler").warning("careful")
        assert capsys.readouterr().err.count("\n") == 1

    def test_sinks_that_are_gone(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An application that removes all sinks meanwhile does no harm."""
        configure_logging()
        logger.remove()
        unconfigure_logging()
        configure_logging()
        logger.info("hello")
        assert "hello" in capsys.readouterr().err

    def test_other_sinks_stay(self, records: Records) -> None:
        """What the application has added goes on."""
        configure_logging()
        unconfigure_logging()
        logger.info("hello")
        assert records.texts() == ["hello"]


def test_the_set_up_is_taken_back() -> None:
    """There is one handler, and then none; the fixture checks the rest."""
    configure_logging()
    assert len(ours()) == 1
    unconfigure_logging()
    assert ours() == []


class TestStandardLibrary:
    """The records of other loggers, which `bgjobs run` asks for."""

    def test_they_reach_the_sink(self, capsys: pytest.CaptureFixture[str]) -> None:
        """From the level on, in text; once."""
        configure_logging(root=True)
        shop = logging.getLogger("shop.orders")
        shop.info("%d orders", 3)
        shop.debug("chatter")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(" INFO     3 orders")

    def test_in_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With the logger, the traceback, and what was given as ``extra``."""
        configure_logging(json=True, root=True)
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("shop").exception("broken", extra={"order": 7})
        line = json.loads(capsys.readouterr().err)
        assert (line["logger"], line["level"], line["message"], line["order"]) == ("shop", "ERROR", "broken", 7)
        assert line["exception"].endswith("ValueError: no")
        assert line.keys() == {"time", "level", "logger", "message", "exception", "order"}

    def test_levels_of_their_own(self, records: Records) -> None:
        """A level that has no name in loguru is passed on by its number."""
        configure_logging(5, root=True)
        logging.getLogger("shop").log(35, "notice")
        logging.getLogger("shop").log(5, "trace")
        assert [(record["message"], record["level"].no) for record in records] == [("notice", 35), ("trace", 5)]

    def test_they_name_the_run(self, kind: str, records: Records) -> None:
        """As what the job logs through loguru does."""
        configure_logging(root=True)

        def job() -> None:
            logging.getLogger("shop").info("from the job")

        jobs = cold().add_background_job(job, cron=NIGHTLY)
        with warm(kind, jobs):
            run_id = jobs.run_now("job")
            jobs.wait(run_id, 20)
        (record,) = [record for record in records if record["message"] == "from the job"]
        assert (record["extra"]["job"], record["extra"]["run_id"]) == ("job", run_id)

    def test_apscheduler_is_not_doubled(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Its records come once, from its own level on."""
        configure_logging(root=True)
        logging.getLogger("apscheduler.scheduler").info("chatter")
        run_and_fail()
        err = capsys.readouterr().err
        assert (err.count("Traceback"), err.count("chatter"), err.count(" ERROR ")) == (1, 0, 2)

    def test_they_are_left_alone_otherwise(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An application has its own set-up of the root logger, with its own level."""
        configure_logging()
        before = logging.getLogger().level
        logging.getLogger("shop").info("hello")
        assert (capsys.readouterr().err, logging.getLogger().level) == ("", before)

    def test_all_is_taken_back(self) -> None:
        """The level and the handlers of the root logger."""
        root = logging.getLogger()
        before = (root.level, list(root.handlers), root.propagate)
        configure_logging("DEBUG", root=True)
        assert root.level == logging.DEBUG
        unconfigure_logging()
        assert (root.level, list(root.handlers), root.propagate) == before

    def test_a_sink_to_the_standard_library_makes_no_circle(
        self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The recipe of the documentation, together with this: each record comes once at either place."""
        configure_logging(root=True)

        def to_standard_logging(message: Any) -> None:
            record = message.record
            named = {"exc_info": record["exception"], "extra": record["extra"]}
            logging.getLogger(record["name"]).log(record["level"].no, record["message"], **named)

        number = logger.add(to_standard_logging, filter="bgjobs", format="{message}", catch=False)
        try:
            run_id = run_and_fail()
        finally:
            logger.remove(number)
        assert capsys.readouterr().err.count("job 'fail' failed: ValueError: no {luck} [") == 1
        (record,) = [record for record in caplog.records if record.levelname == "ERROR" and "fail" in record.message]
        assert record.name.startswith("bgjobs.")
        fields = vars(record)
        assert (fields["run_id"], fields["outcome"], fields["reason"]) == (run_id, "failed", None)


def test_every_record_of_a_run_has_its_outcome(records: Records) -> None:
    """And a reason, which may be none: of successes, failures, skips, and of what goes wrong around a run."""
    jobs = cold(log_runs=True).add_background_job(nothing, key="good", cron=NIGHTLY)
    jobs.add_background_job(fail, key="bad", cron=NIGHTLY, on_exception=fail_again)
    with jobs:
        for key in ("good", "bad"):
            jobs.wait(jobs.run_now(key), 20)
    found = {(r["extra"]["job"], r["extra"]["outcome"]) for r in records if "run_id" in r["extra"]}
    assert found == {("good", "succeeded"), ("bad", "failed")}
    assert all("reason" in r["extra"] for r in records if "run_id" in r["extra"])


def fail_again(error: Exception) -> None:
    """An ``on_exception``."""
    raise KeyError("again")
