"""What the environment and a settings file can say, on pydantic-settings."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ._errors import ConfigurationError, did_you_mean
from ._options import BackgroundJobOptions, optional_zone

PREFIX = "BGJOBS__"


def fold(key: str) -> str:
    """The form in which two spellings of one key are equal: ``data-sync``, ``data_sync`` and ``DataSync``."""
    return re.sub(r"[\W_]+", "", str(key).casefold())


class JobSettings(BackgroundJobOptions):
    """One job's table in the settings: every option of the job, and where to find it."""

    job: str | None = None
    """``"package.module:Name"`` of the class or function; ``None`` where the job is registered in code."""

    @field_validator("trigger")
    @classmethod
    def _trigger_is_for_code(cls, value: object) -> None:
        if value is not None:
            raise ConfigurationError("a trigger object can be given in code only; use cron", "trigger")

    def overrides(self) -> dict[str, Any]:
        """The options that were set, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"job", "key"}}


class _Folded(PydanticBaseSettingsSource):
    """A source whose jobs are found under their folded keys, so that all sources speak of the same jobs.

    The spelling is kept as ``key``; the environment, which has capitals only, does not count as a spelling.
    """

    def __init__(self, inner: PydanticBaseSettingsSource, name: str, *, spells: bool) -> None:
        super().__init__(inner.settings_cls)
        self._inner = inner
        self._name = name
        self._spells = spells

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._inner.get_field_value(field, field_name)  # pragma: no cover - only the base class calls it

    def __call__(self) -> dict[str, Any]:
        self._inner._set_current_state(self.current_state)  # noqa: SLF001 - what the sources before this one have said
        data = dict(self._inner())
        jobs = data.get("jobs")
        if isinstance(jobs, Mapping):
            data["jobs"] = self._fold(jobs)
        return data

    def _fold(self, jobs: Mapping[str, Any]) -> dict[str, Any]:
        folded: dict[str, Any] = {}
        spelled: dict[str, str] = {}
        for key, job in jobs.items():
            name = fold(key)
            if name in spelled:
                raise ConfigurationError(
                    f"{self._name}: {spelled[name]!r} and {key!r} are the same job; keep one", "jobs"
                )
            spelled[name] = key
            folded[name] = {"key": str(key), **job} if self._spells and isinstance(job, Mapping) else job
        return folded


class _File(TomlConfigSettingsSource):
    """The settings file, once the arguments and the environment have said which."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, None)

    def __call__(self) -> dict[str, Any]:
        named = self.current_state.get("config_file")
        return self._read(Path(named)) if named is not None else {}

    def _read(self, path: Path) -> dict[str, Any]:
        if path.suffix != ".toml":
            raise ConfigurationError(f"{path}: a settings file ends in .toml", "config_file")
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as exc:
            raise ConfigurationError(f"{path}: there is no such settings file", "config_file") from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{path}: cannot be read: {exc}", "config_file") from exc
        except tomllib.TOMLDecodeError as exc:
            raise ConfigurationError(f"{path}: not valid TOML: {exc}", "config_file") from exc


class BackgroundJobsSettings(BaseSettings):
    """Everything that the environment and a settings file can say about the jobs of one process.

    Read once, at construction. The first of these that says something counts: the arguments given here, the environment
    (``BGJOBS__JOBS__DATA_SYNC__CRON``), the file, the arguments of ``add_background_job``, the defaults.

    Raises:
        ConfigurationError: Something in them is wrong; the message names every mistake.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        env_parse_none_str="null",
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    config_file: Path | None = None
    """The settings file (``.toml``); ``None`` for none. In the environment: ``BGJOBS__CONFIG_FILE``."""
    application: Annotated[str, Field(min_length=1)] = "bgjobs"
    """The name under which a persistent job store keeps these jobs."""
    scheduler: Literal["asyncio", "background", "blocking"] | None = None
    """The kind of scheduler to make; ``None`` for asyncio where an event loop is running, else background."""
    timezone: Annotated[tzinfo | None, BeforeValidator(optional_zone)] = None
    """The zone of jobs that name none themselves; ``None`` for an existing scheduler's, else UTC."""
    shutdown_timeout: Annotated[float, Field(ge=0)] = 20.0
    """Seconds that running jobs get to end when the jobs are closed."""
    log_runs: bool = False
    """Whether successful runs are logged, too."""
    jobs: dict[str, JobSettings] = {}
    """The jobs, by folded key; see `job`."""

    def __init__(self, **values: Any) -> None:
        problems = _unknown_variables(type(self).model_fields)
        try:
            super().__init__(**values)
        except ValidationError as exc:
            problems += [_problem(error) for error in exc.errors(include_url=False, include_input=False)]
        if problems:
            raise ConfigurationError("the settings are wrong: " + "; ".join(problems))

    @classmethod
    def defaults(cls) -> Self:
        """Settings that nobody has set: reads neither environment nor file."""
        return cls.model_construct()

    def job(self, key: str) -> JobSettings | None:
        """What the settings say of the job with this key, in whatever spelling; ``None`` for nothing."""
        return self.jobs.get(fold(key))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            _Folded(init_settings, "arguments", spells=True),
            _Folded(env_settings, "environment", spells=False),
            _Folded(_File(settings_cls), "settings file", spells=True),
        )


def _unknown_variables(known: Mapping[str, object]) -> list[str]:
    """Variables with our prefix that name no setting; pydantic-settings passes them over."""
    problems = []
    for variable in os.environ:
        if variable.upper().startswith(PREFIX):
            name = variable[len(PREFIX) :].split("__", 1)[0].lower()
            if name not in known:
                problems.append(f"{variable}: there is no such setting{did_you_mean(name, known)}")
    return problems


def _problem(error: Mapping[str, Any]) -> str:
    *_, last = location = [str(part) for part in error["loc"]] or ["settings"]
    if error["type"] == "extra_forbidden":
        known = JobSettings.model_fields if len(location) > 1 else BackgroundJobsSettings.model_fields
        return f"{'.'.join(location)}: there is no such setting{did_you_mean(last, known)}"
    return f"{'.'.join(location)}: {error.get('ctx', {}).get('error') or error['msg']}"
