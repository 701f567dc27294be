"""Sources of the settings that cannot be read, or should not be: one error each, within a second."""

from __future__ import annotations

from pathlib import Path

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
