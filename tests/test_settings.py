"""What each source of settings gives, how the sources are merged, and how mistakes in them are reported."""

from __future__ import annotations

import logging
import re
import sys
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from bgjobs import BackgroundJobs, BackgroundJobsSettings, ConfigurationError

JOBS = "BGJOBS__JOBS__"
JobSettings = get_args(BackgroundJobsSettings.model_fields["jobs"].annotation)[1]
SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the machine reaches a test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(name="env")
def _env(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets variables, the names of settings without the prefix."""

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"BGJOBS__{name}", value)

    return set_variables


def file(name: str, text: str) -> Path:
    """A file in the directory of the test."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(**values: Any) -> tuple[str, ...]:
    """The mistakes in wrong settings, from an error that is chained to none that holds values."""
    with pytest.raises(ConfigurationError) as caught:
        BackgroundJobsSettings(**values)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


class TestSources:
    """Each source alone."""

    def test_without_any_source(self) -> None:
        """Without any source, settings equal the defaults."""
        assert BackgroundJobsSettings() == BackgroundJobsSettings.defaults()

    def test_defaults_read_nothing(self, env: Any) -> None:
        """Not even wrong variables and files reach them."""
        env(TIMEZON="x", SHUTDOWN_TIMEOUT="3")
        file(".env", "BGJOBS__SHUTDOWN_TIMEOUT=4")
        assert BackgroundJobsSettings.defaults().shutdown_timeout == 20

    def test_environment(self, env: Any) -> None:
        """Variables alone are enough, as in a container."""
        env(TIMEZONE="Europe/Rome", LOG_RUNS="true", JOBS__DATA_SYNC__CRON="@daily", JOBS__DATA_SYNC__JOB="a.b:C.d")
        settings = BackgroundJobsSettings()
        assert settings.timezone == ZoneInfo("Europe/Rome")
        assert settings.log_runs
        assert settings.jobs["data_sync"].overrides() == {"cron": "@daily"}
        assert settings.jobs["data_sync"].job == "a.b:C.d"

    def test_an_empty_variable_is_none(self, env: Any) -> None:
        """An empty value is ignored, as compose files leave them."""
        env(SHUTDOWN_TIMEOUT="", JOBS__A__CRON="")
        assert BackgroundJobsSettings() == BackgroundJobsSettings.defaults()

    def test_null_in_a_variable(self, env: Any) -> None:
        """The word null means None, even against a value of the code."""
        env(JOBS__A__TIMEOUT="null", JOBS__A__TRIGGER="null")
        assert BackgroundJobsSettings().jobs["a"].overrides() == {"timeout": None}

    def test_a_table_in_a_variable(self, env: Any) -> None:
        """JSON gives a whole table, in which keys may have capitals and dashes."""
        env(JOBS='{"Data-Sync": {"cron": "@daily"}}', JOBS__B='{"max_instances": 2}')
        settings = BackgroundJobsSettings()
        assert settings.jobs["Data-Sync"].cron == "@daily"
        assert settings.jobs["b"].max_instances == 2
        assert settings.place("jobs", "Data-Sync", "cron") == "BGJOBS__JOBS"

    def test_the_env_file_is_read_by_default(self) -> None:
        """Its lines with our prefix count, quotes and export taken off; those of others do not matter."""
        file(
            ".env",
            "DATABASE_URL=x y\nbroken line\nBGJOBS__TIMEZONE='Europe/Rome'\nexport BGJOBS__JOBS__A__CRON=\"@daily\"\n",
        )
        settings = BackgroundJobsSettings()
        assert settings.timezone == ZoneInfo("Europe/Rome")
        assert settings.jobs["a"].cron == "@daily"

    def test_the_env_file_may_be_named_or_switched_off(self, env: Any) -> None:
        """By a variable or an argument; None reads none."""
        file(".env", "BGJOBS__SHUTDOWN_TIMEOUT=4")
        file("prod.env", "BGJOBS__SHUTDOWN_TIMEOUT=5")
        env(ENV_FILE="prod.env")
        assert BackgroundJobsSettings().shutdown_timeout == 5
        assert BackgroundJobsSettings(env_file=None).shutdown_timeout == 20

    def test_secrets_directory(self, env: Any) -> None:
        """Each file with the name of a variable holds its value; other files are left alone, whatever is in them."""
        file("secrets/BGJOBS__JOBS__A__KWARGS__TOKEN", f"{SECRET}\n")
        Path("secrets/other.bin").write_bytes(b"\xff")
        env(SECRETS_DIR="secrets")
        assert BackgroundJobsSettings().jobs["a"].kwargs == {"token": SECRET}

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("settings.toml", '[jobs.Data-Sync]\ncron = "*/5 * * * * *"\n'),
            ("settings.yaml", 'jobs:\n  Data-Sync:\n    cron: "*/5 * * * * *"\n'),
            ("settings.yml", 'jobs: {Data-Sync: {cron: "*/5 * * * * *"}}'),
            ("settings.json", '{"jobs": {"Data-Sync": {"cron": "*/5 * * * * *"}}}'),
        ],
    )
    def test_settings_file(self, name: str, text: str) -> None:
        """TOML, YAML and JSON give the same settings."""
        settings = BackgroundJobsSettings(config_file=file(name, text))
        assert settings.jobs["Data-Sync"].cron == "*/5 * * * * *"
        assert settings.place("jobs", "Data-Sync", "cron") == f"{name}: jobs.Data-Sync.cron"

    def test_an_empty_yaml_file(self) -> None:
        """It is no mistake."""
        assert BackgroundJobsSettings(config_file=file("a.yaml", "# nothing\n")).jobs == {}

    @pytest.mark.parametrize("where", ["env", ".env", "secrets"])
    def test_the_settings_file_is_named_anywhere_above_it(self, where: str, env: Any) -> None:
        """By a variable, in the env file, in the secrets directory."""
        file("a.toml", "shutdown_timeout = 7")
        if where == "env":
            env(CONFIG_FILE="a.toml")
        elif where == ".env":
            file(".env", "BGJOBS__CONFIG_FILE=a.toml")
        else:
            file("secrets/BGJOBS__CONFIG_FILE", "a.toml")
        settings = BackgroundJobsSettings(secrets_dir="secrets" if where == "secrets" else None)
        assert settings.shutdown_timeout == 7

    def test_values_have_their_types(self) -> None:
        """Dates and numbers of a file arrive as such."""
        text = "[jobs.a]\nstart_date = 2026-01-01T00:00:00Z\ntimeout = 1.5\n"
        job = BackgroundJobsSettings(config_file=file("a.toml", text)).jobs["a"]
        assert job.start_date == datetime(2026, 1, 1, tzinfo=UTC)
        assert job.timeout == 1.5


class TestPrecedence:
    """Which source counts."""

    @pytest.mark.parametrize("highest", [0, 1, 2, 3, 4])
    def test_order(self, highest: int, env: Any) -> None:
        """Arguments, environment, env file, secrets directory, settings file: the first that gives a value wins."""
        values: dict[str, Any] = {"config_file": file("a.toml", "shutdown_timeout = 4"), "secrets_dir": "secrets"}
        file("secrets/BGJOBS__SHUTDOWN_TIMEOUT" if highest <= 3 else "secrets/x", "3")
        if highest <= 2:
            file(".env", "BGJOBS__SHUTDOWN_TIMEOUT=2")
        if highest <= 1:
            env(SHUTDOWN_TIMEOUT="1")
        if highest == 0:
            values["shutdown_timeout"] = 0
        assert BackgroundJobsSettings(**values).shutdown_timeout == highest

    def test_single_values_are_replaced(self, env: Any) -> None:
        """A variable replaces one value of a table, and the place of each is known."""
        text = '[jobs.a]\ncron = "@daily"\ntimeout = 3\nkwargs = { x = { y = 1, z = 2 } }\n'
        env(JOBS__A__CRON="@hourly", JOBS__A__KWARGS__X__Y="5")
        settings = BackgroundJobsSettings(config_file=file("a.toml", text))
        assert settings.jobs["a"].overrides() == {
            "cron": "@hourly",
            "timeout": 3.0,
            "kwargs": {"x": {"y": "5", "z": 2}},
        }
        assert settings.place("jobs", "a", "cron") == "BGJOBS__JOBS__A__CRON"
        assert settings.place("jobs", "a", "timeout") == "a.toml: jobs.a.timeout"
        assert settings.place("jobs", "a", "jitter") is None

    def test_a_value_replaces_a_table(self, env: Any) -> None:
        """And with it the places of what was in the table; and the other way round."""
        text = "[jobs.a.kwargs]\nx = { y = 1 }\nz = 3\n"
        env(JOBS__A__KWARGS__X="5", JOBS__A__KWARGS__Z__Y="6")
        settings = BackgroundJobsSettings(config_file=file("a.toml", text))
        assert settings.jobs["a"].kwargs == {"x": "5", "z": {"y": "6"}}
        assert settings.place("jobs", "a", "kwargs", "x") == "BGJOBS__JOBS__A__KWARGS__X"
        assert settings.place("jobs", "a", "kwargs", "x", "y") is None
        assert settings.place("jobs", "a", "kwargs", "z") == "BGJOBS__JOBS__A__KWARGS__Z__Y"

    def test_an_empty_table_replaces_nothing(self) -> None:
        """It only adds a table that does not exist yet, as in a file that only names a job."""
        text = "[jobs.a]\ntimeout = 3\n[jobs.b]\n"
        settings = BackgroundJobsSettings(config_file=file("a.toml", text), jobs={"a": {}})
        assert settings.jobs["a"].overrides() == {"timeout": 3.0}
        assert settings.jobs["b"].overrides() == {}
        assert settings.place("jobs", "b") == "a.toml: jobs.b"


class TestKeys:
    """Spellings of one name."""

    @pytest.mark.parametrize("spelling", ["DATA_SYNC", "DATASYNC", "data_sync", "Data-Sync"])
    def test_all_spellings_are_one_job(self, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Case and separators do not matter; the spelling of the file is the one that is shown."""
        monkeypatch.setenv(f"{JOBS}{spelling}__CRON", "@hourly")
        settings = BackgroundJobsSettings(config_file=file("a.toml", "[jobs.DataSync]\ncron = '@daily'"))
        assert list(settings.jobs) == ["DataSync"]
        assert settings.jobs["DataSync"].cron == "@hourly"

    @pytest.mark.parametrize("spelling", ["morning-mail", "morning_mail", "MorningMail", "MORNING MAIL"])
    def test_a_job_is_found_in_any_spelling(self, spelling: str, env: Any) -> None:
        """So that code and settings need not agree."""
        env(JOBS__MORNING_MAIL__CRON="@daily")
        job = BackgroundJobsSettings().job(spelling)
        assert job is not None
        assert job.cron == "@daily"

    def test_an_unknown_job_is_none(self) -> None:
        """Nothing is said of it."""
        assert BackgroundJobsSettings().job("a") is None

    def test_arguments_spell_too(self, env: Any) -> None:
        """The spelling of code goes before that of the environment."""
        env(JOBS__DATA_SYNC__CRON="@daily")
        assert list(BackgroundJobsSettings(jobs={"Data-Sync": {"timeout": 1}}).jobs) == ["Data-Sync"]

    def test_names_of_arguments_and_aliases(self, env: Any) -> None:
        """Names of kwargs and aliases of job stores are the user's own, too."""
        text = "[jobs.a.kwargs]\nbatchSize = 1\n[jobstores.Main]\ntype = 'memory'\n"
        env(JOBS__A__KWARGS__BATCH_SIZE="2", JOBSTORES__MAIN__X="3", EXECUTORS__SLOW__MAX_WORKERS="4")
        settings = BackgroundJobsSettings(config_file=file("a.toml", text))
        assert settings.jobs["a"].kwargs == {"batchSize": "2"}
        assert settings.jobstores == {"Main": {"type": "memory", "x": 3}}
        assert settings.executors == {"slow": {"max_workers": 4}}

    def test_names_deeper_down_are_left_alone(self) -> None:
        """What is inside an argument is data."""
        text = "[jobs.a.kwargs.headers]\nX-A = '1'\nx_a = '2'\n"
        settings = BackgroundJobsSettings(config_file=file("a.toml", text))
        assert settings.jobs["a"].kwargs == {"headers": {"X-A": "1", "x_a": "2"}}

    def test_two_spellings_in_one_file(self) -> None:
        """They are a mistake, which names both."""
        path = file("a.toml", "[jobs.a-b]\ncron = '@daily'\n[jobs.aB]\ncron = '@daily'\n")
        assert mistakes(config_file=path) == ("a.toml: jobs.aB.cron: 'a-b' and 'aB' are the same name; keep one",)

    def test_two_spellings_in_the_environment(self, env: Any) -> None:
        """The mistake names a variable of the second."""
        env(JOBS__A_B__CRON="@daily", JOBS__AB__TIMEOUT="1")
        (problem,) = mistakes()
        assert problem == "BGJOBS__JOBS__AB__TIMEOUT: 'a_b' and 'ab' are the same name; keep one"


class TestMistakes:
    """Each is reported with its place, the problem, and what would be right."""

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("TIMEZON", "UTC", "there is no such setting; did you mean 'timezone'?"),
            ("JOBS__A__CRONN", "x", "there is no such setting; did you mean 'cron'?"),
            ("JOBS__A__KEY", "x", "can be given in code only; the name of the table is the key"),
            ("JOBS__A__TRIGGER", "x", "can be given in code only; use cron"),
            ("JOBS__A__CRON", "0 0 25 * * *", 'hour: 25 is outside 0-23 in "0 0 25 * * *"'),
            ("JOBS__A__MAX_INSTANCES", "0", "Input should be greater than 0"),
            ("JOBS__A", "{x", "a table is needed; in a variable as JSON, or with a variable for each name in it"),
            ("JOBS", "x", "a table is needed; in a variable as JSON, or with a variable for each name in it"),
            ("JOBS__A__JOB", "a.B", "'a.B' is not of the form 'package.module:Name'"),
            ("JOB_DEFAULTS__COALESC", "1", "there is no such setting; did you mean 'coalesce'?"),
            ("SCHEDULER", "twisted", "Input should be 'asyncio', 'background' or 'blocking'"),
            ("TIMEZONE", "Europe/Rom", "there is no time zone 'Europe/Rom'; did you mean Europe/Rome"),
            ("JOBS__A__TIMEZONE", "Europe/Rom", "there is no time zone 'Europe/Rom'; did you mean Europe/Rome"),
        ],
    )
    def test_variables(self, name: str, value: str, message: str, env: Any) -> None:
        """One sentence about the variable."""
        env(**{name: value})
        (problem,) = mistakes()
        assert problem.startswith(f"BGJOBS__{name}: {message}")

    def test_env_file(self) -> None:
        """A typo names the variable and the file; a line that is no assignment is ignored."""
        path = file("x.env", "BGJOBS__LOG_RUNS\nA=1\nBGJOBS__TIMEZON=UTC\n")
        assert mistakes(env_file=path) == (
            "x.env: BGJOBS__TIMEZON: there is no such setting; did you mean 'timezone'?",
        )

    def test_secrets_directory(self) -> None:
        """A typo names the file."""
        file("secrets/BGJOBS__TIMEZON", "UTC")
        (problem,) = mistakes(secrets_dir="secrets")
        assert problem == "secrets/BGJOBS__TIMEZON: there is no such setting; did you mean 'timezone'?"

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"config_file": "no.toml"}, "no.toml: cannot be read: No such file or directory"),
            ({"env_file": "no.env"}, "no.env: cannot be read: No such file or directory"),
            ({"secrets_dir": "no"}, "no: the secrets directory cannot be read: No such file or directory"),
            ({"config_file": "settings.ini"}, "settings.ini: a settings file ends in .toml, .yaml, .yml or .json"),
        ],
    )
    def test_what_is_named_must_be_there(self, values: dict[str, str], message: str) -> None:
        """A missing file is never passed over."""
        assert mistakes(**values) == (message,)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.toml", "x = 1\ny = [\n", "not valid TOML: Invalid value (at end of document)"),
            ("a.toml", "cron = */5\n", "not valid TOML: Invalid value (at line 1, column 8)"),
            ("a.json", '{\n"a" 1\n}', "not valid JSON: Expecting ':' delimiter: line 2"),
            ("a.json", "[1]", "not valid: a JSON file of settings is a table of names and values"),
            ("a.yaml", "a: [\n", "not valid YAML (at line 2, column 1)"),
            ("a.yaml", "a:\n  b: @daily\n", "not valid YAML (at line 2, column 6)"),
            ("a.yaml", "a: \x01", "not valid YAML"),
            ("a.yaml", "- 1", "not valid: a YAML file of settings is a table of names and values"),
        ],
    )
    def test_broken_files(self, name: str, text: str, message: str) -> None:
        """A file that cannot be read is named, with the line where there is one."""
        (problem,) = mistakes(config_file=file(name, text))
        assert problem.startswith(f"{name}: {message}")

    def test_names_inside_arguments_may_be_anything(self) -> None:
        """In YAML numbers are keys of a dict that a job takes."""
        settings = BackgroundJobsSettings(config_file=file("a.yaml", "jobs: {a: {kwargs: {x: {5: y}}}}"))
        assert settings.jobs["a"].kwargs == {"x": {"5": "y"}}

    def test_without_pyyaml(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The extra is named."""
        monkeypatch.setitem(sys.modules, "yaml", None)
        (problem,) = mistakes(config_file=file("a.yaml", "a: 1"))
        assert problem == ("a.yaml: reading YAML needs PyYAML; install bgjobs[yaml], or write the settings as TOML")

    def test_files_that_are_no_text(self) -> None:
        """Neither bytes nor a directory."""
        Path("a.toml").write_bytes(b"x = '\xff'")
        assert mistakes(config_file="a.toml") == ("a.toml: cannot be read: it is not UTF-8 (byte 5)",)
        Path("b.toml").mkdir()
        assert mistakes(config_file="b.toml") == ("b.toml: cannot be read: Is a directory",)

    def test_where_the_sources_are_is_said_above_them(self) -> None:
        """A file cannot name itself, or what was read before."""
        path = file("a.toml", "config_file = 'b.toml'\nenv_file = 'x'\n")
        assert mistakes(config_file=path) == (
            "a.toml: config_file: set this in a source of higher precedence",
            "a.toml: env_file: set this in a source of higher precedence",
        )

    def test_without_a_time_zone_database(self, monkeypatch: pytest.MonkeyPatch, env: Any) -> None:
        """The remedy is named: a name that exists is no typo."""

        def not_found(name: str) -> None:
            raise zoneinfo.ZoneInfoNotFoundError(name)

        monkeypatch.setattr(zoneinfo, "ZoneInfo", not_found)
        monkeypatch.setattr(zoneinfo, "available_timezones", set)
        env(TIMEZONE="Europe/Rome")
        (problem,) = mistakes()
        assert problem.startswith("BGJOBS__TIMEZONE: no time zone database is on this machine")
        assert "tzdata" in problem

    def test_all_at_once(self, env: Any) -> None:
        """Every mistake of every source is in one error, a line each."""
        env(TIMEZON="x", JOBS__A__CRON="*", JOBS__B__TIMEOUT="soon")
        path = file("a.toml", "[jobs.a]\nmax_instances = 0\nmax_instance = 1\n")
        with pytest.raises(ConfigurationError) as caught:
            BackgroundJobsSettings(config_file=path, env_file="no.env", shutdown_timeout=-1)
        head, *lines = str(caught.value).splitlines()
        assert head == "7 mistakes in the settings:"
        assert [line.strip().split(": ")[0] for line in lines] == [
            "no.env",
            "argument shutdown_timeout",
            "a.toml",
            "BGJOBS__JOBS__A__CRON",
            "a.toml",
            "BGJOBS__JOBS__B__TIMEOUT",
            "BGJOBS__TIMEZON",
        ]

    def test_a_single_mistake_is_one_line(self, env: Any) -> None:
        """Nothing is counted."""
        env(SHUTDOWN_TIMEOUT="-1")
        with pytest.raises(ConfigurationError, match=r"^BGJOBS__SHUTDOWN_TIMEOUT: Input should be greater[^\n]*$"):
            BackgroundJobsSettings()

    def test_a_job_that_is_no_table(self) -> None:
        """A job that is no table is reported beside mistakes in other jobs."""
        (problem,) = mistakes(jobs={"a": {"cron": "@daily", "timeout": 0}, "b": 5})[1:]
        assert problem == (
            "argument jobs.b: a table is needed; in a variable as JSON, or with a variable for each name in it"
        )


class TestSecrets:
    """Values are shown to nobody."""

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.toml", f"[jobstores.default]\nurl = '{SECRET}\n"),
            ("a.yaml", f"url: '{SECRET}\n"),
            ("b.yaml", f"url: @{SECRET}\n"),
            ("c.yaml", f"url: *{SECRET}\n"),
            ("d.yaml", f"url: !{SECRET} x\n"),
            ("e.yaml", f"url: !!int {SECRET}\n"),
            ("a.json", f'{{"url": "{SECRET}"'),
        ],
    )
    def test_broken_files_are_not_quoted(self, name: str, text: str) -> None:
        """Parsers show the text around a mistake; we do not."""
        assert SECRET not in "".join(mistakes(config_file=file(name, text)))

    @pytest.mark.parametrize(
        "variable",
        [
            "JOBSTORES",
            "JOBSTORES__DEFAULT",
            "JOBS__A",
            "JOBS__A__KWARGS",
            "JOBS__A__TOKEN",
            "TOKEN",
            "SHUTDOWN_TIMEOUT",
        ],
    )
    def test_wrong_values_are_not_quoted(self, variable: str, env: Any) -> None:
        """Whatever is wrong with a value, it is not shown."""
        env(**{variable: SECRET})
        assert SECRET not in "".join(mistakes())

    def test_reprs(self) -> None:
        """Job stores and arguments are left out."""
        settings = BackgroundJobsSettings(
            jobstores={"default": {"url": SECRET}},
            executors={"default": {"token": SECRET}},
            jobs={"a": {"kwargs": {"token": SECRET}}},
        )
        assert SECRET not in f"{settings!r} {settings} {settings.jobs['a']}"

    def test_the_debug_log_of_pydantic_settings(
        self, env: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It would print the values of every source."""
        monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
        env(JOBS__A__KWARGS__TOKEN=SECRET)
        with caplog.at_level(logging.DEBUG):
            BackgroundJobsSettings()
        assert SECRET not in caplog.text


class TestDocumentation:
    """The page on configuration has every setting."""

    PAGE = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    PROCESS, JOB = (
        set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))
        for part in re.findall(r"\n## Every setting\n(.*?)\nSettings of one job(.*?)\n## ", PAGE, re.DOTALL)[0]
    )

    def test_settings(self) -> None:
        """Each setting of the process, with the name of its variable, and nothing else."""
        assert set(BackgroundJobsSettings.model_fields) == self.PROCESS
        for name in self.PROCESS:
            assert re.search(rf"^\| `{name}` \| `BGJOBS__{name.upper()}", self.PAGE, re.MULTILINE), name

    def test_options_of_a_job(self) -> None:
        """Each option of a job that files and variables can set, and nothing else."""
        assert JobSettings.model_fields.keys() - {"trigger", "key", "only_if"} == self.JOB


def test_settings_do_not_change() -> None:
    """They are read once."""
    with pytest.raises(ValueError, match="frozen"):
        BackgroundJobsSettings().log_runs = True


class TestGivenSchedulers:
    def test_their_configuration_is_their_owners(self) -> None:
        """Job stores and executors in the settings would be without effect, so they are refused, with their places."""
        settings = BackgroundJobsSettings(
            scheduler="background",
            jobstores={"default": {"type": "memory"}},
            executors={"slow": {"type": "threadpool"}},
        )
        with pytest.raises(ConfigurationError, match="the code gives a scheduler") as caught:
            BackgroundJobs(BackgroundScheduler(), settings=settings)
        assert [problem.partition(":")[0] for problem in caught.value.problems] == [
            "argument scheduler",
            "argument jobstores.default.type",
            "argument executors.slow.type",
        ]

    def test_other_settings_are_welcome(self) -> None:
        """Settings that do not configure the scheduler itself apply to any."""
        settings = BackgroundJobsSettings(timezone="Europe/Rome", job_defaults={"coalesce": False})
        assert BackgroundJobs(BackgroundScheduler(), settings=settings).status() == []


def test_truth_values_of_apschedulers_options(env: Any) -> None:
    """No annotation tells their type, so that a text that reads as one becomes one."""
    env(JOBSTORES__DEFAULT__TYPE="memory", JOBSTORES__DEFAULT__FAST="true", JOBSTORES__DEFAULT__SAFE="false")
    assert BackgroundJobsSettings().jobstores == {"default": {"type": "memory", "fast": True, "safe": False}}
