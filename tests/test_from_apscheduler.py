"""What meets people who come from APScheduler: errors that name what to write, and the pairs of their page.

The blocks of the page run on their own, too (see conftest.py at the root). Here each pair is a module, whose two sides
are compared.
"""

from __future__ import annotations

import importlib
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED
from flask_apscheduler import APScheduler

from bgjobs import BackgroundJobs, ConfigurationError
from bgjobs.testing import run_job, walk
from stage import LIMIT, NIGHTLY, cold, nothing

PAGE = (Path(__file__).parent.parent / "docs" / "from-apscheduler.md").read_text(encoding="utf-8")
USAGES = re.split(r"^### \d+\. .+$", PAGE.partition("\n## Other names")[0], flags=re.MULTILINE)

#: A moment after which no usage has fired.
START = datetime(2100, 1, 1, 0, 0, 1, tzinfo=UTC)


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


#: What all usages share; then, for each, APScheduler's side, that of bgjobs, and what the page does after both.
SHARED = blocks(USAGES[0])[0]
STORED = SHARED.replace(
    "timezone=", 'jobstores={"default": {"type": "sqlalchemy", "url": "sqlite:///rows.sqlite"}}, timezone='
)
IDS = "\n".join(blocks(USAGES[7])[:2])
Load = Callable[..., ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import blocks as a module, whose functions a job store can refer to; its scheduler and jobs are closed after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # else a second module within a second would be the first
    with ExitStack() as stack:

        def load(*sources: str) -> ModuleType:
            (tmp_path / "usage.py").write_text("\n".join(sources), encoding="utf-8")
            sys.modules.pop("usage", None)
            importlib.invalidate_caches()
            module = importlib.import_module("usage")
            stack.callback(end, module)
            return module

        yield load
    sys.modules.pop("usage", None)


def end(module: ModuleType) -> None:
    """Close the jobs of a module, and stop its scheduler."""
    module.jobs.close()
    if module.scheduler.running:
        module.scheduler.shutdown()
    for store in module.scheduler._jobstores.values():
        if engine := getattr(store, "engine", None):
            engine.dispose()  # again: the scheduler's thread may have connected once more while it was shut down


def start(module: ModuleType) -> None:
    module.scheduler.start()
    module.jobs.warm_up()


# -- the page --------------------------------------------------------------------------------------------------------


def test_there_are_fifteen_usages() -> None:
    """Each has a block for APScheduler and one for bgjobs."""
    assert [len(blocks(usage)) for usage in USAGES[1:]] == [2] * 8 + [3] + [2] * 5 + [3]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13])
def test_both_fire_at_the_same_times(number: int, load: Load) -> None:
    """Twelve times, or as many as there are; intervals begin when they are made, so that their steps are compared."""
    module = load(SHARED, *blocks(USAGES[number])[:2])
    (row,) = module.scheduler.get_jobs()  # bgjobs adds its own when it warms up
    expected: list[datetime] = []
    time: datetime | None = None
    while len(expected) < 12 and (time := row.trigger.get_next_fire_time(time, time or START)):
        expected.append(time)
    assert expected
    steps = walk(module.jobs, START, expected[-1] + timedelta(seconds=1))
    found = [step.scheduled_at for step in steps if step.scheduled_at > START]
    if number == 3:
        assert steps_of(found) == steps_of(expected)
    else:
        assert found == expected


def steps_of(times: list[datetime]) -> set[timedelta]:
    return {later - earlier for earlier, later in pairwise(times)}


@pytest.mark.parametrize("number", [6, 7])
def test_both_call_the_function_in_the_same_way(number: int, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments by position and by name print the same."""
    module = load(SHARED, *blocks(USAGES[number]))
    (row,) = module.scheduler.get_jobs()
    row.func(*row.args, **row.kwargs)
    printed = capsys.readouterr().out
    run_job(module.jobs, module.jobs.status()[0].key)
    assert printed == capsys.readouterr().out


def test_a_restart_has_one_row_each_and_keeps_the_pause_of_bgjobs(load: Load) -> None:
    """APScheduler's ``replace_existing`` has its paused job run again."""
    for _ in range(2):
        module = load(STORED, *blocks(USAGES[8]))
        start(module)
        is_on = {row.id: row.next_run_time is not None for row in module.scheduler.get_jobs()}
        module.scheduler.pause_job("sync")
        module.jobs.pause("sync")
        end(module)
    assert is_on == {"sync": True, "bgjobs:sync": False}


def test_both_run_at_once(load: Load) -> None:
    """``next_run_time`` and ``run_immediately`` run at the start, and the schedule goes on."""
    module = load(SHARED, *blocks(USAGES[9])[:2])
    ran = [threading.Event(), threading.Event()]
    module.scheduler.add_listener(lambda event: ran[event.job_id.startswith("bgjobs:")].set(), EVENT_JOB_EXECUTED)
    start(module)
    assert all(event.wait(LIMIT) for event in ran)
    assert len({row.next_run_time for row in module.scheduler.get_jobs()}) == 1


def test_both_run_now_with_other_arguments(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """bgjobs leaves the job as it was."""
    module = load(SHARED, IDS)
    ran = threading.Event()

    def heard(event: Any) -> None:
        if event.job_id == "evening-report":
            ran.set()

    module.scheduler.add_listener(heard, EVENT_JOB_EXECUTED)
    start(module)
    for block in ("from datetime import UTC, datetime", *blocks(USAGES[10])):
        exec(block, vars(module))
    assert ran.wait(LIMIT)
    assert capsys.readouterr().out == "report for Bergen\n" * 2
    run_job(module.jobs, "evening-report")
    assert capsys.readouterr().out == "report for Rome\n"


def test_both_are_rescheduled(load: Load) -> None:
    """The next run is at the new time."""
    module = load(SHARED, IDS)
    start(module)
    for block in blocks(USAGES[11]):
        exec(block, vars(module))
    ours, theirs = (module.scheduler.get_job(name) for name in ("bgjobs:evening-report", "evening-report"))
    assert ours.next_run_time == theirs.next_run_time
    assert ours.next_run_time.hour == 21


def test_both_hear_of_a_run(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """The listener hears of the jobs of bgjobs, too."""
    module = load(SHARED, IDS, *blocks(USAGES[12]))
    start(module)
    module.jobs.wait(module.jobs.run_now("evening-report"), LIMIT)
    end(module)  # which waits for observers
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("bgjobs:evening-report:") and line.endswith(" None")]
    assert [line for line in lines if line.startswith("evening-report ") and " succeeded " in line]


def test_both_are_in_the_job_store(load: Load) -> None:
    """One row each, in the store of that name."""
    module = load(SHARED, *blocks(USAGES[14]))
    start(module)
    assert {row.id for row in module.scheduler.get_jobs("durable")} == {"bgjobs:tidy", "tidy"}
    with sqlite3.connect("jobs.sqlite") as database:
        assert database.execute("SELECT count(*) FROM apscheduler_jobs").fetchall() == [(2,)]
    database.close()


@pytest.mark.parametrize(
    ("side", "stop", "status"),
    [(0, signal.SIGTERM, -signal.SIGTERM), (1, signal.SIGTERM, 0), (1, signal.SIGINT, 0)],
)
def test_both_block(side: int, stop: signal.Signals, status: int, tmp_path: Path) -> None:
    """A SIGTERM kills APScheduler's; that of bgjobs ends well, as with Ctrl-C."""
    (tmp_path / "script.py").write_text("\n".join([SHARED, blocks(USAGES[15])[side], "main()"]), encoding="utf-8")
    assert until_first_line(tmp_path, stop) == (status, "report for Rome\n")


def until_first_line(directory: Path, stop: signal.Signals) -> tuple[int, str]:
    """Run a script until it has printed a line and hears a signal: its status, and the line."""
    command = [sys.executable, "-u", "script.py"]
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        rescue = threading.Timer(60, process.kill)
        rescue.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(stop)
        _, errors = process.communicate()
        rescue.cancel()
    assert line, errors
    return process.returncode, line


DJANGO = """
import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_apscheduler"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.sqlite"}},
    USE_TZ=True,
)
django.setup()
call_command("migrate", verbosity=0)
from command import Command
call_command(Command())
"""


def test_the_command_of_django_keeps_its_rows_and_its_executions(tmp_path: Path) -> None:
    """The job is stored, and its scheduled runs are in the table of django-apscheduler."""
    (block,) = blocks(PAGE.partition("\n## django-apscheduler")[2].partition("\n## ")[0])
    (tmp_path / "command.py").write_text(block.replace("0 0 4 * * *", "* * * * * *"), encoding="utf-8")
    (tmp_path / "script.py").write_text(DJANGO, encoding="utf-8")
    assert until_first_line(tmp_path, signal.SIGINT) == (0, "tidied\n")
    database = sqlite3.connect(tmp_path / "django.sqlite")
    assert database.execute("SELECT id FROM django_apscheduler_djangojob").fetchall() == [("bgjobs:tidy",)]
    executions = database.execute("SELECT DISTINCT job_id FROM django_apscheduler_djangojobexecution")
    assert executions.fetchall() == [("bgjobs:tidy",)]
    database.close()


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ({"args": ["Rome"]}, "give kwargs={'name': value}, or functools.partial(job, value) as the job"),
        ({"func": nothing}, "give the function first, without a name"),
        ({"id": "report"}, "give key"),
        ({"name": "Report"}, "give key, which names the job everywhere"),
        ({"next_run_time": None}, "give run_immediately=True to run at once, or start_date for the earliest run"),
        ({"replace_existing": True}, "leave it out, since a job takes over its row in a job store"),
        ({"run_date": "2027-01-01"}, "give trigger=DateTrigger(run_date=...) of apscheduler.triggers.date"),
        ({"minutes": 5}, "give trigger=IntervalTrigger(minutes=...) of apscheduler.triggers.interval"),
        ({"day_of_week": "mon"}, "give cron; on the command line, `bgjobs convert day_of_week=...` prints it"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_an_argument_of_add_job_is_refused_with_what_stands_for_it(argument: dict[str, Any], instead: str) -> None:
    """People who write what they know from APScheduler are told what to write here."""
    (name,) = argument
    with pytest.raises(ConfigurationError) as caught:
        cold().add_background_job(nothing, cron=NIGHTLY, **argument)
    assert str(caught.value) == f"job 'nothing': {name}: there is no such option; {instead}"
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("trigger", "instead"),
    [
        ("interval", "IntervalTrigger(...) of apscheduler.triggers.interval"),
        ("date", "DateTrigger(...) of apscheduler.triggers.date"),
        ("calendarinterval", "CalendarIntervalTrigger(...) of apscheduler.triggers.calendarinterval"),
        ("cron", 'cron="0 0 9 * * *" instead'),
        (NIGHTLY, 'cron="0 0 9 * * *" instead'),
    ],
)
def test_a_trigger_by_name_is_refused_with_the_object_to_give(trigger: str, instead: str) -> None:
    """The names that ``add_job`` takes are told apart from an expression that was meant for *cron*."""
    with pytest.raises(ConfigurationError) as caught:
        cold().add_background_job(nothing, trigger=trigger)
    problem = f"job 'nothing': trigger must be an APScheduler trigger, not {trigger!r}"
    assert str(caught.value) == f"{problem}; give {instead}"


def test_the_scheduler_inside_flask_apscheduler_is_named() -> None:
    """Its extension object is no scheduler, but has one, which can run jobs."""
    extension = APScheduler()
    with pytest.raises(ConfigurationError) as caught:
        BackgroundJobs(extension)
    assert str(caught.value) == "an object of type APScheduler cannot run jobs; give its .scheduler"
    assert "BackgroundJobs" in repr(BackgroundJobs(extension.scheduler))
