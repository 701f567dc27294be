"""Sources of the settings that cannot be read, or should not be: one error each, within a second."""

from __future__ import annotations

import difflib
import time
from pathlib import Path
from typing import Any

import pytest

from bgjobs import BackgroundJobsSettings, ConfigurationError
from bgjobs.__main__ import main


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `main` sets in the environment is taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BGJOBS__CONFIG_FILE", "")


class TestPaths:
    def test_the_home_of_nobody(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A settings file of a user who does not exist is a mistake, as one that is missing is."""
        assert main(["check", "--config", "~nosuchuser/x.toml"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("bgjobs: error: BGJOBS__CONFIG_FILE: '~nosuchuser/x.toml' is not a path: ")
        assert said.count("\n") == 1

    def test_the_home_of_nobody_in_a_variable(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """So is a directory of secrets."""
        monkeypatch.setenv("BGJOBS__SECRETS_DIR", "~nosuchuser")
        assert main(["check"]) == 2
        assert "BGJOBS__SECRETS_DIR: '~nosuchuser' is not a path: " in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["config_file", "env_file", "secrets_dir"])
    @pytest.mark.parametrize("path", ["a\0b.toml", "\ud800.toml"], ids=["zero", "surrogate"])
    def test_characters_that_no_path_has(self, name: str, path: str) -> None:
        """They are told with the place of the setting."""
        with pytest.raises(ConfigurationError, match=rf"^argument {name}: '.*' is not a path: .*"):
            BackgroundJobsSettings(**{name: path})

    @pytest.mark.parametrize("name", ["config_file", "env_file", "secrets_dir"])
    def test_values_of_another_type(self, name: str) -> None:
        """They are a mistake of the setting."""
        with pytest.raises(ConfigurationError, match=f"^argument {name}: "):
            BackgroundJobsSettings(**{name: 5})


#: Well above what each file takes, which is a tenth of a second, and below what a parser takes.
SECONDS = 5.0

TOO_DEEP = "more than 100 tables in each other"
DIGITS = "not valid YAML: a number has too many digits"


class TestLargeFiles:
    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            pytest.param("a.toml", "a" + ".a" * 60_000 + " = 1", TOO_DEEP, id="dotted name"),
            pytest.param("a.toml", "[" + "a . " * 60_000 + "a]", TOO_DEEP, id="dotted table"),
            pytest.param("a.toml", "x = {" + '\'a#\'."\\"".' * 30_000 + "a = 1}", TOO_DEEP, id="quoted names"),
            pytest.param("a.yaml", "a: " + ":".join("1" * 100_000), DIGITS, id="sexagesimal number"),
            pytest.param("a.yaml", "a: [{b: 1" + ":59" * 90_000 + ".5}]", DIGITS, id="sexagesimal fraction"),
            pytest.param("a.yaml", "? 1" + ":59" * 90_000 + "\n: 1", DIGITS, id="sexagesimal name"),
        ],
    )
    def test_refused_in_time(self, name: str, text: str, problem: str) -> None:
        """What takes a parser time by the square of its length is refused before it is parsed."""
        Path(name).write_text(text, encoding="utf-8")
        before = time.process_time()
        with pytest.raises(ConfigurationError, match=f"^{name}: not valid") as caught:
            BackgroundJobsSettings(config_file=name)
        assert time.process_time() - before < SECONDS
        assert problem in str(caught.value)

    @pytest.mark.parametrize(
        "line",
        [
            'a = "' + "." * 200 + '"',
            "a = '" + "." * 200 + "'",
            'a = """\n"' + "." * 200 + '\n"""',
            "a = '''\n'" + "." * 200 + "\n'''",
            "# it's " + "." * 200,
            "a = [" + "1.5, " * 200 + "]",
            "\n".join(f"a.b{number} = 1" for number in range(200)),
        ],
        ids=["string", "literal string", "long string", "long literal string", "comment", "list", "lines"],
    )
    def test_dots_that_join_no_names(self, line: str) -> None:
        """They are no deep tables."""
        Path("a.toml").write_text(f'timezone = "Europe/Rome"\n[executors.default]\n{line}\n', encoding="utf-8")
        assert str(BackgroundJobsSettings(config_file="a.toml").timezone) == "Europe/Rome"

    def test_long_texts(self) -> None:
        """Only numbers have a limit in YAML."""
        text = "9 " * 5000
        Path("a.yaml").write_text(f"executors: {{default: {{a: {text}}}}}\n", encoding="utf-8")
        assert BackgroundJobsSettings(config_file="a.yaml").executors["default"]["a"] == text.strip()

    def test_very_many_mistakes(self) -> None:
        """All are counted; fifty are listed."""
        Path("a.toml").write_text("".join(f"[jobs.a.b{number}]\n" for number in range(60)), encoding="utf-8")
        with pytest.raises(ConfigurationError) as caught:
            BackgroundJobsSettings(config_file="a.toml")
        first, *listed, last = str(caught.value).splitlines()
        assert (first, last) == ("60 mistakes in the settings:", "  and 10 more")
        assert listed == [f"  a.toml: jobs.a.b{number}: there is no such setting" for number in range(50)]
        assert caught.value.problems == tuple(line.strip() for line in [*listed, last])

    def test_very_many_mistakes_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A suggestion is looked for where it is listed, and nowhere else."""
        looked: list[str] = []
        real = difflib.get_close_matches

        def get_close_matches(name: str, *more: Any) -> list[str]:
            looked.append(name)
            return real(name, *more)

        monkeypatch.setattr(difflib, "get_close_matches", get_close_matches)
        Path("a.toml").write_text("".join(f"[jobs.a.b{number}]\n" for number in range(6000)), encoding="utf-8")
        with pytest.raises(ConfigurationError, match="6000 mistakes"):
            BackgroundJobsSettings(config_file="a.toml")
        assert len(looked) == 50
