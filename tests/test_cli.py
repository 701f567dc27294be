"""The command line: what it prints, and with what status it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from bgjobs.__main__ import main
from bgjobs._logging import unconfigure_logging  # undoes a set-up that lasts for the process
from stage import Records

JOBS = """
import asyncio, logging, time
from bgjobs import BackgroundJobs

def work():
    print("working", flush=True)

def fail():
    raise ValueError("no luck")

def tell():
    logging.getLogger("shop").info("%d orders", 3, extra={"order": 7})

class Patient:
    def action_to_do(self, cancellation_token):
        print("begun", flush=True)
        cancellation_token.wait(60)
        print("asked to end", flush=True)

def hang():
    print("begun", flush=True)
    time.sleep(60)

async def swallow():
    print("begun", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

def make():
    return (
        BackgroundJobs()
        .add_background_job(work, cron="0 0 3 * * *")
        .add_background_job(fail, cron="0 0 4 * * *")
        .add_background_job(Patient, cron="0 0 5 * * *")
        .add_background_job(tell, cron="0 0 6 * * *")
        .add_background_job(hang, cron="0 0 6 * * *")
    )
"""
APP = "from shop_jobs import *\njobs = make()\nlogged = make()\n"
ONE = '[jobs.work]\njob = "shop_jobs:work"\ncron = "0 0 3 * * *"\n'

#: Seconds until a process that does not end is killed.
LIMIT = 30


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory with jobs, an application and a settings file, which is the current one."""
    (tmp_path / "shop_jobs.py").write_text(JOBS, encoding="utf-8")
    (tmp_path / "shop_app.py").write_text(APP, encoding="utf-8")
    (tmp_path / "shop.toml").write_text(ONE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("BGJOBS__CONFIG_FILE", "")  # so that what a test sets is taken back
    yield
    unconfigure_logging()
    for name in ("shop_jobs", "shop_app"):
        sys.modules.pop(name, None)


def status(*arguments: str) -> int:
    """The status that the process would end with, whether it returns or exits."""
    try:
        return main(arguments)
    except SystemExit as exc:
        return int(exc.code or 0)


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["run", "--config", "nope.toml"], "nope.toml"),
            (["check", "--config", "shop.ini"], "shop.ini"),
            (["run"], "there are no jobs; name a settings file with --config, or an application with --app"),
            (["check", "--app", "shop_app"], "'shop_app'"),
            (["check", "--app", "shop_app:nope"], "'nope'"),
            (["check", "--app", "shop_nope:jobs"], "'shop_nope'"),
            (["check", "--app", "shop_app:work"], "'shop_app:work' gives no BackgroundJobs, but NoneType"),
            (["run", "--config", "shop.toml", "--once", "wrok"], "no job has the key 'wrok'"),
            (["next", "0 0 25 * * *"], 'hour: 25 is outside 0-23 in "0 0 25 * * *"'),
            (["next", "@daily", "--timezone", "Rome"], "'Rome'"),
            (["next", "@daily", "--count", "0"], '"0" is not a whole number from 1 to'),
            (["next", "@daily", "--after", "noon"], '"noon" is no ISO 8601 time'),
            (
                ["run", "--config", "shop.toml", "--log-level", "loud"],
                "invalid choice: 'LOUD' (choose from ",
            ),
            ([], "COMMAND"),
        ],
    )
    def test_each_ends_with_status_two(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The message names what is wrong, without a traceback."""
        assert status(*arguments) == 2
        _, err = capsys.readouterr()
        assert message in err
        assert "Traceback" not in err

    def test_a_variable_for_the_application_is_named(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """BGJOBS__APP is what the message blames, not an argument that nobody gave."""
        monkeypatch.setenv("BGJOBS__APP", "shop_app:nope")
        assert status("check") == 2
        assert "BGJOBS__APP: 'shop_app:nope'" in capsys.readouterr().err


class TestInformation:
    def test_the_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """--version prints name and version."""
        assert status("--version") == 0
        assert capsys.readouterr().out.startswith("bgjobs 0.")

    @pytest.mark.parametrize("command", ["run", "check", "status", "pause", "resume"])
    def test_the_help_names_only_variables_that_the_command_reads(
        self, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Those that ask the claim store import an application only where --app is given."""
        assert status(command, "--help") == 0
        assert ("BGJOBS__APP" in capsys.readouterr().out) == (command in ("run", "check"))

    def test_the_help_names_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        """--help lists the commands, each with a line."""
        assert status("--help") == 0
        out, _ = capsys.readouterr()
        assert all(
            f"\n    {command}  " in out for command in ("run", "check", "next", "schema", "status", "pause", "resume")
        )

    def test_the_next_fire_times(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A line for each, in the zone and in UTC; a time without an offset is in that zone."""
        after = ["--timezone", "Europe/Rome", "--after", "2026-12-31T09:00:00", "--count", "1"]
        assert status("next", "30 0 9 * * *", *after) == 0
        assert capsys.readouterr().out.startswith("2026-12-31T09:00:30+01:00  2026-12-31T08:00:30+00:00\n")

    def test_the_next_fire_times_from_now(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Without --after the list begins now, and is five lines long."""
        assert status("next", "*/10 * * * * *") == 0
        assert len(capsys.readouterr().out.splitlines()) == 5

    def test_the_schema_is_that_of_the_docs(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`bgjobs schema > docs/settings.schema.json` has been called since the settings changed."""
        assert status("schema") == 0
        kept = Path(__file__).parent.parent / "docs" / "settings.schema.json"
        assert capsys.readouterr().out == kept.read_text(encoding="utf-8")


class TestCheck:
    def test_jobs_of_a_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The table says where the schedule came from."""
        assert status("check", "--config", "shop.toml") == 0
        assert "work cron 0 0 3 * * * shop.toml: jobs.work.cron" in " ".join(capsys.readouterr().out.split())

    def test_the_file_may_be_named_by_a_variable(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A container needs no arguments."""
        monkeypatch.setenv("BGJOBS__CONFIG_FILE", "shop.toml")
        assert status("check") == 0
        assert "shop.toml: jobs.work.cron" in capsys.readouterr().out

    def test_jobs_of_an_application(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """As JSON, for machines; the application may be named by a variable."""
        monkeypatch.setenv("BGJOBS__APP", "shop_app:jobs")
        assert status("check", "--format", "json") == 0
        found = json.loads(capsys.readouterr().out)["jobs"]
        assert [job["key"] for job in found] == ["work", "fail", "Patient", "tell", "hang"]

    def test_jobs_that_a_function_returns(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An application factory is called."""
        assert status("check", "--app", "shop_app:make") == 0
        assert "Patient" in capsys.readouterr().out

    def test_a_file_for_an_application(self, capsys: pytest.CaptureFixture[str]) -> None:
        """--config reaches the settings that the application reads itself."""
        Path("shop.toml").write_text('[jobs.work]\ncron = "0 0 7 * * *"\n', encoding="utf-8")
        assert status("check", "--app", "shop_app:jobs", "--config", "shop.toml") == 0
        assert "work cron 0 0 7 * * * shop.toml: jobs.work.cron" in " ".join(capsys.readouterr().out.split())

    def test_what_warm_up_would_refuse(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Every mistake that only the scheduler shows is reported, too."""
        Path("shop.toml").write_text(f'{ONE}executor = "fast"\n[jobs.other]\nenabled = false\n', encoding="utf-8")
        assert status("check", "--config", "shop.toml") == 2
        err = capsys.readouterr().err
        assert "no executor 'fast'" in err
        assert "a job 'other', which is not registered" in err

    def test_mistakes_as_json(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Machines get the list, and the same status."""
        monkeypatch.setenv("BGJOBS__TIMEZON", "UTC")
        monkeypatch.setenv("BGJOBS__LOG_RUNS", "maybe")
        assert status("check", "--config", "shop.toml", "--format", "json") == 2
        mistakes = json.loads(capsys.readouterr().out)["mistakes"]
        assert [mistake.split(":")[0] for mistake in mistakes] == ["BGJOBS__LOG_RUNS", "BGJOBS__TIMEZON"]


class TestRun:
    def test_a_job_store_that_cannot_be_reached(self, capsys: pytest.CaptureFixture[str]) -> None:
        """One message without a traceback and without what the settings say of the store; status 2."""
        store = '[jobstores.default]\ntype = "sqlalchemy"\nurl = "sqlite:///s3cr3t/no.db"\n'
        Path("shop.toml").write_text(f"{store}{ONE}", encoding="utf-8")
        assert status("run", "--config", "shop.toml") == 2
        err = capsys.readouterr().err
        assert "bgjobs: error: the jobs could not be run: OperationalError: " in err
        assert "unable to open database file" in err
        assert "Traceback" not in err
        assert "s3cr3t" not in err

    def test_what_only_warm_up_finds(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It is a mistake like those that are found before."""
        Path("shop.toml").write_text(f'{ONE}executor = "fast"\n', encoding="utf-8")
        assert status("run", "--config", "shop.toml") == 2
        assert capsys.readouterr().err.startswith("bgjobs: error: job 'work': the scheduler has no executor 'fast'")

    def test_its_traceback_for_those_who_ask(self, capsys: pytest.CaptureFixture[str]) -> None:
        """At the level DEBUG it is in the log; variables are in no sink."""
        shown: list[str] = []
        number = logger.add(shown.append, diagnose=True, backtrace=True)
        store = '[jobstores.default]\ntype = "sqlalchemy"\nurl = "sqlite:///no/no.db"\n'
        Path("shop.toml").write_text(f"{store}{ONE}", encoding="utf-8")
        try:
            assert status("run", "--config", "shop.toml", "--log-level", "debug") == 2
        finally:
            logger.remove(number)
        assert "Traceback" in capsys.readouterr().err
        assert "└" not in "".join(shown)


class TestOnce:
    def test_a_success(self, capfd: pytest.CaptureFixture[str]) -> None:
        """The job runs, although its schedule is far away, and the status is 0."""
        assert status("run", "--config", "shop.toml", "--once", "work") == 0
        out, err = capfd.readouterr()
        assert out == "working\n"
        assert "job 'work' succeeded" in err

    def test_a_coroutine(self, capfd: pytest.CaptureFixture[str]) -> None:
        """An async job has an event loop for its one run."""
        source = "async def tend(): print('tending', flush=True)\n"
        Path("garden.py").write_text(source, encoding="utf-8")
        Path("garden.toml").write_text(ONE.replace("shop_jobs:work", "garden:tend"), encoding="utf-8")
        assert status("run", "--config", "garden.toml", "--once", "work") == 0
        assert capfd.readouterr().out == "tending\n"

    def test_a_failure(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The status is 1, and the traceback is in the log, once."""
        assert status("run", "--app", "shop_app:jobs", "--once", "fail") == 1
        assert capsys.readouterr().err.count("Traceback") == 1

    def test_the_key_in_another_spelling(self, records: Records) -> None:
        """The log names the job as it is registered."""
        assert status("run", "--app", "shop_app:jobs", "--once", "FAIL") == 1
        assert records.texts()[-1] == "job 'fail' ends with status 1: ValueError: no luck"
        assert "FAIL" not in "".join(records.texts())

    def test_no_variable_is_shown(self, records: Records) -> None:
        """Not by a sink that shows all that loguru can show, either; afterwards the caller belongs to no run."""
        shown: list[str] = []
        number = logger.add(shown.append, diagnose=True, backtrace=True)
        try:
            assert status("run", "--app", "shop_app:jobs", "--once", "fail") == 1
        finally:
            logger.remove(number)
        assert sum("ends with status 1: ValueError: no luck" in text for text in shown) == 1
        assert "└" not in "".join(shown)
        logger.info("afterwards")
        assert records[-1]["extra"] == {}

    def test_a_log_of_json(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Every line is an object; settings that say that successes are not logged are heeded."""
        monkeypatch.setenv("BGJOBS__LOG_RUNS", "false")
        assert status("run", "--app", "shop_app:jobs", "--once", "work", "--log-json", "--log-level", "debug") == 0
        assert "succeeded" not in capsys.readouterr().err
        assert status("run", "--app", "shop_app:jobs", "--once", "fail", "--log-json") == 1
        assert {json.loads(line)["job"] for line in capsys.readouterr().err.splitlines()} == {"fail"}

    def test_the_log_of_the_standard_library(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What a job logs there is in the same place, with the run that it belongs to."""
        assert status("run", "--app", "shop_app:jobs", "--once", "tell") == 0
        assert " INFO     3 orders [tell " in capsys.readouterr().err
        assert status("run", "--app", "shop_app:jobs", "--once", "tell", "--log-json") == 0
        told, succeeded = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert (told["logger"], told["message"], told["order"]) == ("shop", "3 orders", 7)
        assert told["run_id"] == succeeded["run_id"]


def process(*arguments: str) -> subprocess.Popen[str]:
    """``bgjobs`` as a process of its own."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "bgjobs", *arguments], stdout=pipe, stderr=pipe, text=True)


def stopped(bgjobs: subprocess.Popen[str], first_line: str, stop: signal.Signals) -> tuple[str, str]:
    """Its output, after it has printed a first line and was sent a signal."""
    rescue = threading.Timer(LIMIT, bgjobs.kill)
    rescue.start()
    assert bgjobs.stdout is not None
    assert bgjobs.stdout.readline() == f"{first_line}\n"
    bgjobs.send_signal(stop)
    out, err = bgjobs.communicate()
    rescue.cancel()
    return out, err


IMMEDIATELY = '[jobs.it]\njob = "shop_jobs:{}"\ncron = "0 0 3 * * *"\nrun_immediately = true\n'


class TestProcesses:
    @pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
    def test_running_jobs_are_awaited(self, stop: signal.Signals) -> None:
        """Either signal asks the job to end, and the process ends with status 0 after that."""
        Path("shop.toml").write_text(IMMEDIATELY.format("Patient"), encoding="utf-8")
        with process("run", "--config", "shop.toml") as bgjobs:
            out, err = stopped(bgjobs, "begun", stop)
        assert bgjobs.returncode == 0
        assert out == "asked to end\n"
        assert "Traceback" not in err

    @pytest.mark.parametrize("once", [(), ("--once", "it")])
    @pytest.mark.parametrize("job", ["hang", "swallow"])
    def test_a_hung_job_does_not_keep_the_process(self, job: str, once: tuple[str, ...]) -> None:
        """What does not end in time is named, and the status is 1."""
        Path("shop.toml").write_text("shutdown_timeout = 0.1\n" + IMMEDIATELY.format(job), encoding="utf-8")
        with process("run", "--config", "shop.toml", *once) as bgjobs:
            _, err = stopped(bgjobs, "begun", signal.SIGTERM)
        assert bgjobs.returncode == 1
        assert "job 'it' did not end within the shutdown_timeout and was abandoned" in err

    @pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
    def test_one_run_is_asked_to_end(self, stop: signal.Signals) -> None:
        """A signal reaches the run of --once through its token; it ends by itself, well."""
        with process("run", "--app", "shop_app:jobs", "--once", "Patient") as bgjobs:
            out, _ = stopped(bgjobs, "begun", stop)
        assert bgjobs.returncode == 0
        assert out == "asked to end\n"


def test_the_current_directory_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the current directory is in the search path already, it is not put in again."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before = [*sys.path]
    assert status("check", "--config", "shop.toml") == 0
    assert sys.path == before
