"""The command line as a process, with streams, directories and files that are not as they should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from bgjobs import BackgroundJobsSettings, ConfigurationError
from bgjobs.__main__ import main

#: Seconds until a process that does not end is killed.
LIMIT = 60

MANY = "9" * 5000
KEY = "caf\u00e9-\u65e5"


@pytest.fixture(autouse=True)
def _in_a_directory_with_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current directory has a module, and settings that name a job in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text("def work(): ...\n", encoding="utf-8")
    settings = {"jobs": {KEY: {"job": "shop:work", "cron": "@daily"}}}
    (tmp_path / "shop.json").write_text(json.dumps(settings), encoding="utf-8")


def bgjobs(*arguments: str, shell: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line, with redirections of a shell, to its end."""
    command = [sys.executable, "-m", "bgjobs", *arguments]
    if shell:
        command = ["/bin/sh", "-c", f'"$@" {shell}', "sh", *command]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", **variables}
    return subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=LIMIT, env=environment)


def without_reader(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with a stdout that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "bgjobs", *arguments]
        return subprocess.run(
            command, check=False, stdout=writer, stderr=subprocess.PIPE, encoding="utf-8", timeout=LIMIT
        )
    finally:
        os.close(writer)


def bomb(first: str, of_aliases: Callable[[str], str]) -> str:
    """YAML of a few lines that stands for a thousand million values."""
    return "\n".join([f"a0: &a0 {first}", *(f"a{n}: &a{n} " + of_aliases(f"*a{n - 1}") for n in range(1, 10))])


def nested(text: str, depth: int) -> str:
    return '{"jobs": ' + text * depth + "1" + "}" * (depth + 1)


IN_TABLES = bomb("{x: 1}", lambda alias: "{" + ", ".join(f"k{n}: {alias}" for n in range(10)) + "}")
IN_LISTS = bomb("[x]", lambda alias: "[" + ", ".join([alias] * 10) + "]")
IN_MERGES = bomb("{x: 1}", lambda alias: "{<<: [" + ", ".join([alias] * 10) + "]}")

TOO_MANY = "settings have more than 500000 values"
TOO_DEEP = "settings have more than 100 tables in each other, or in themselves"
DEEPER = "nested too deeply"
DIGITS = "a number has too many digits"


class TestStreams:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["next", "@daily"],
            ["next", "* * * * * *", "--count", "5000"],
            ["schema"],
            ["check", "--config", "shop.json"],
            ["run", "--config", "shop.json", "--once", KEY],
            ["--help"],
        ],
        ids=["little", "much", "schema", "check", "run", "help"],
    )
    def test_output_that_nobody_reads(self, arguments: list[str]) -> None:
        """The reader has seen enough: a success, without a word, also where the output is only written at the end."""
        ended = without_reader(*arguments)
        assert ended.returncode == 0
        assert "rror" not in ended.stderr

    def test_an_error_that_nobody_reads(self) -> None:
        """The status stays that of the error."""
        assert bgjobs("next", "bad", shell="2>&1 >/dev/null | :; exit 0").returncode == 0
        assert without_reader("check", "--config", "nope.toml", "--format", "json").returncode == 2

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
    def test_a_full_disk(self) -> None:
        """Output that is lost is an error."""
        ended = bgjobs("next", "@daily", shell="> /dev/full")
        assert ended.returncode == 2
        assert ended.stderr == "bgjobs: error: the output cannot be written: No space left on device\n"

    @pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            (["next", "@daily"], 0),
            (["next", "bad"], 2),
            (["check", "--config", "shop.json"], 0),
            (["run", "--config", "shop.json", "--once", KEY], 0),
            (["run", "--config", "shop.json", "--once", KEY, "--log-json"], 0),
        ],
        ids=["next", "mistake", "check", "run", "run-json"],
    )
    def test_closed_streams(self, arguments: list[str], status: int, shell: str) -> None:
        """What would go to a closed stream goes nowhere, and not into the other one."""
        ended = bgjobs(*arguments, shell=shell)
        assert ended.returncode == status
        assert "Traceback" not in ended.stderr
        assert "bgjobs: error" not in ended.stdout
        assert "succeeded" not in ended.stdout

    def test_a_locale_that_knows_ascii_only(self) -> None:
        """Other characters are spelled out; JSON stays JSON."""
        ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        assert "caf\\xe9-\\u65e5  @daily" in bgjobs("check", "--config", "shop.json", **ascii_only).stdout
        found = bgjobs("check", "--config", "shop.json", "--format", "json", **ascii_only)
        assert json.loads(found.stdout)["jobs"][0]["key"] == KEY
        logged = bgjobs(
            "run", "--config", "shop.json", "--once", KEY, "--log-json", LC_ALL="C", PYTHONIOENCODING="ascii"
        )
        assert json.loads(logged.stderr)["job"] == KEY
        refused = bgjobs("run", "--config", "shop.json", "--once", "\u65e5", **ascii_only)
        assert refused.returncode == 2
        assert "no job has the key" in refused.stderr


class TestInThisProcess:
    """The same without a process of its own."""

    def test_closed_streams(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are opened on nothing, since the next file that is opened would take their place."""
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", None)
        assert main(["next", "bad"]) == 2
        with sys.stdout, sys.stderr:
            assert sys.stdout.name != sys.stderr.name

    def test_no_reader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is left in the buffer goes nowhere, too, when the process ends."""
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            assert main(["next", "@daily"]) == 0
            print("more")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
    def test_a_full_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Output that is lost is an error."""
        with Path("/dev/full").open("w", encoding="utf-8") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            assert main(["next", "@daily"]) == 2

    def test_streams_of_other_kinds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Something that an embedding application has put there is used as it is."""
        stdout = StringIO()
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["next", "@daily", "--count", "2"]) == 0
        assert len(stdout.getvalue().splitlines()) == 2

    def test_a_deleted_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It holds no modules and no files."""
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        monkeypatch.setenv("BGJOBS__CONFIG_FILE", "")  # so that what `main` sets is taken back
        assert main(["check", "--config", "shop.json"]) == 2

    @pytest.mark.parametrize(
        ("variable", "problem"),
        [("BGJOBS__JOBS__" + "__".join("A" * 2000), "has too many parts"), ("BGJOBS__JOBS", "a table is needed")],
    )
    def test_hostile_variables(self, variable: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are errors of the settings."""
        monkeypatch.setenv(variable, "[" * 100_000)
        with pytest.raises(ConfigurationError, match=problem):
            BackgroundJobsSettings()

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.yaml", "jobs: &a [*a]"),
            ("b.yaml", IN_LISTS),
            ("c.yaml", ""),
            ("d.json", "[" * 100_000),
            ("e.json", f"[{MANY}]"),
        ],
    )
    def test_hostile_files(self, name: str, text: str) -> None:
        """So are files."""
        Path(name).write_text(text, encoding="utf-8")
        if text:
            with pytest.raises(ConfigurationError, match="not valid"):
                BackgroundJobsSettings(config_file=name)
        else:
            assert BackgroundJobsSettings(config_file=name).jobs == {}


class TestDeletedDirectory:
    def test_with_an_application(self, tmp_path: Path) -> None:
        """Nothing can be found there, which the error says of what was looked for."""
        gone = tmp_path / "gone"

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            gone.mkdir()
            shell = ["/bin/sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(gone)]
            command = [*shell, sys.executable, "-m", "bgjobs", *arguments]
            return subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=LIMIT)

        ended = run("check", "--config", str(tmp_path / "shop.json"))
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert "there is no module 'shop'" in ended.stderr
        assert run("check", "--config", "shop.json").stderr == (
            "bgjobs: error: shop.json: cannot be read: No such file or directory\n"
        )


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            pytest.param("a.yaml", IN_TABLES, f"not valid YAML: {TOO_MANY}", id="bomb of tables"),
            pytest.param("a.yaml", IN_LISTS, f"not valid YAML: {TOO_MANY}", id="bomb of lists"),
            pytest.param("a.yaml", IN_MERGES, f"not valid YAML: {TOO_MANY}", id="bomb of merges"),
            pytest.param("a.yaml", "jobs: &a {b: *a}", f"not valid YAML: {TOO_DEEP}", id="table in itself"),
            pytest.param("a.yaml", "jobs: &a [*a]", f"not valid YAML: {TOO_DEEP}", id="list in itself"),
            pytest.param("a.yaml", "? [a, b]\n: 1", "not valid YAML (at line 1, column 3)", id="a list for a name"),
            pytest.param("a.yaml", "a: " + "[" * 9000, f"not valid YAML: {DEEPER}", id="deep yaml"),
            pytest.param("a.json", "[" * 100_000, f"not valid JSON: {DEEPER}", id="deep json"),
            pytest.param("a.json", nested('{"a": ', 90_000), f"not valid JSON: {DEEPER}", id="deep tables"),
            pytest.param("a.json", nested('{"a": ', 200), f"not valid JSON: {TOO_DEEP}", id="less deep tables"),
            pytest.param("a.toml", "a = " + "[" * 9000, f"not valid TOML: {DEEPER}", id="deep toml"),
            pytest.param("a.toml", ".".join("a" * 2000) + " = 1", f"not valid TOML: {TOO_DEEP}", id="a dotted name"),
            pytest.param("a.toml", f"shutdown_timeout = {MANY}", f"not valid TOML: {DIGITS}", id="toml number"),
            pytest.param("a.json", f'{{"shutdown_timeout": {MANY}}}', f"not valid JSON: {DIGITS}", id="json number"),
            pytest.param("a.yaml", f"shutdown_timeout: {MANY}", f"not valid YAML: {DIGITS}", id="yaml number"),
            pytest.param("a.yaml", "", "", id="nothing"),
        ],
    )
    def test_one_clear_error(self, name: str, text: str, problem: str) -> None:
        """A file that no machine should read to its end is refused at once, in one line."""
        Path(name).write_text(text, encoding="utf-8")
        ended = bgjobs("check", "--config", name)
        expected = f"bgjobs: error: {name}: {problem}\n" if problem else "bgjobs: error: there are no jobs; "
        assert ended.stderr.startswith(expected)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)

    def test_aliases_that_are_meant(self) -> None:
        """Anchors, aliases and merges serve a file without repetitions."""
        text = "jobs:\n  a: &a {job: 'shop:work', cron: '@daily'}\n  b: {<<: *a, cron: '@hourly'}\n  c: *a\n"
        Path("a.yaml").write_text(text, encoding="utf-8")
        found = json.loads(bgjobs("check", "--config", "a.yaml", "--format", "json").stdout)["jobs"]
        assert {job["key"]: job["cron"] for job in found} == {"a": "@daily", "b": "@hourly", "c": "@daily"}


def test_any_spelling_of_a_key() -> None:
    """As in the settings."""
    assert bgjobs("run", "--config", "shop.json", "--once", KEY.upper().replace("-", "_")).returncode == 0


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_help_says_what_is_executed(command: str) -> None:
    """Who checks somebody else's settings must know that it imports what they name."""
    said = " ".join(bgjobs(command, "--help").stdout.split())
    assert "bgjobs run and bgjobs check execute code: they import the modules that --app and the settings name" in said


def test_check_calls_what_the_environment_file_names() -> None:
    """An .env of the current directory can name the application, as the help says."""
    Path(".env").write_text("BGJOBS__APP=shop:make\n", encoding="utf-8")
    Path("shop.py").write_text("def make():\n    raise SystemExit('called')\n", encoding="utf-8")
    assert "called" in bgjobs("check").stderr


class TestVariables:
    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            pytest.param("BGJOBS__SHUTDOWN_TIMEOUT", MANY, "Input should be a finite number", id="seconds"),
            pytest.param("BGJOBS__JOBS__X__MAX_INSTANCES", MANY, "exceeded maximum size", id="count"),
            pytest.param("BGJOBS__JOBS", "[" * 100_000, "a table is needed", id="deep json"),
            pytest.param("BGJOBS__JOBS", "[" * 300 + "]" * 300, TOO_DEEP, id="deep list"),
            pytest.param("BGJOBS__JOBS", nested('{"a": ', 200), TOO_DEEP, id="deep tables"),
            pytest.param("BGJOBS__JOBS__" + "__".join("A" * 2000), "1", "has too many parts", id="a long name"),
        ],
    )
    def test_one_clear_error(self, name: str, text: str, problem: str) -> None:
        """The same in variables."""
        ended = bgjobs("check", **{name: text})
        assert problem in ended.stderr
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)

    def test_a_number_for_apscheduler(self) -> None:
        """Its own options have no type: the text goes to it as it is, and what it says is the error."""
        ended = bgjobs("check", "--config", "shop.json", BGJOBS__EXECUTORS__DEFAULT__TYPE=MANY)
        assert ended.returncode == 2
        assert "APScheduler cannot make them" in ended.stderr

    def test_a_deep_argument_of_a_job(self) -> None:
        """A text that might be JSON is read as such where it fits, and refused where it cannot be read."""
        Path("shop.py").write_text("def work(x: list[int]): ...\n", encoding="utf-8")
        ended = bgjobs("check", "--config", "shop.json", **{f"BGJOBS__JOBS__{KEY}__KWARGS__X": "[" * 100_000})
        assert ended.returncode == 2
        assert "KWARGS__X: a list is needed" in ended.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ["next", "@daily", "--count", MANY],
            ["next", "@daily", "--count", "1000001"],
            ["next", "@daily", "--count", "0"],
            ["next", "@daily", "--count", "inf"],
            ["next", "@daily", "--after", MANY],
            ["next", MANY],
        ],
        ids=["count", "large count", "no count", "inf", "after", "cron"],
    )
    def test_arguments(self, arguments: list[str]) -> None:
        """An argument that cannot be meant is refused, and not repeated at full length."""
        ended = bgjobs(*arguments)
        assert ended.returncode == 2
        assert "error: " in ended.stderr
        assert len(ended.stderr) < 500
