"""The log set-up for applications: one sink, APScheduler's records in it, everything taken back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from loguru import logger

from bgjobs import configure_logging
from bgjobs._runs.log import unconfigure_logging  # undoes a set-up that lasts for the process
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


def run_and_fail() -> None:
    """One failed run, from its fire time to its end."""
    jobs = cold().add_background_job(fail, cron="@yearly")
    with warm("background", jobs):
        jobs.run_now("fail")
        until(lambda: jobs.status()[0].outcomes["failed"])


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


class TestAPScheduler:
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
