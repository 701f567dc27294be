"""What the environment, an env file, a secrets directory and a settings file can say, on pydantic-settings."""

from collections.abc import Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from .._errors import ConfigurationError, did_you_mean
from .._options import BackgroundJobOptions, Zone
from .keys import fold
from .sources import DEFAULT_ENV_FILE, PREFIX, Sources, Way, read


def _reference(text: str) -> str:
    if text.count(":") != 1 or not all(name.isidentifier() for name in text.replace(":", ".").split(".")):
        raise ConfigurationError(f"{text!r} is not of the form 'package.module:Name'")
    return text


#: A class, function or object by its place: ``"package.module:Name"``.
Reference = Annotated[str, AfterValidator(_reference)]


class JobSettings(BackgroundJobOptions):
    """One job's table in the settings: every option of the job, and where to find it."""

    job: Reference | None = None
    """The class or function, as ``"package.module:Name"``; ``None`` where the job is registered in code."""

    @field_validator("trigger", "key")
    @classmethod
    def _is_for_code(cls, value: object, info: ValidationInfo) -> None:
        if value is not None:
            instead = "use cron" if info.field_name == "trigger" else "the name of the table is the key"
            raise ConfigurationError(f"can be given in code only; {instead}")

    def overrides(self) -> dict[str, Any]:
        """The options that were set, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"job", "key", "trigger"}}


class JobDefaults(BaseModel):
    """What jobs get that do not say it themselves; APScheduler's ``job_defaults``."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    misfire_grace_time: Annotated[int, Field(gt=0)] | None = None
    """Seconds that a run may be late and still be made; ``None`` for any lateness."""
    coalesce: bool = True
    """Whether several occurrences that are due together are made as one run, the last."""
    max_instances: Annotated[int, Field(ge=1)] = 1
    """How many runs of one key may go at the same time; one more is skipped."""


class BackgroundJobsSettings(BaseSettings):
    """Everything that the environment and a settings file can say about the jobs of one process.

    Read once, at construction. The first of these that says something counts: the arguments given here, the environment
    (``BGJOBS__JOBS__DATA_SYNC__CRON``), the env file, the secrets directory, the settings file, the arguments of
    ``add_background_job``, the defaults.

    Raises:
        ConfigurationError: Something in them is wrong; the message names every mistake with its place.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,
    )

    config_file: Path | None = None
    """The settings file (``.toml``, ``.yaml``, ``.yml`` or ``.json``); ``None`` for none. Not for a file itself."""
    env_file: Path | None = DEFAULT_ENV_FILE
    """A file of variables, of which those with our prefix are read; ``None`` for none. Not for a file itself."""
    secrets_dir: Path | None = None
    """A directory with one value a file, each named as its variable; ``None`` for none. Not for a settings file."""
    app: Reference | None = None
    """For the command line: the `BackgroundJobs` of the code, or a function that returns them, as
    ``"package.module:name"``; ``None`` where the settings name all jobs."""
    application: Annotated[str, Field(min_length=1)] = "bgjobs"
    """The name under which a persistent job store keeps these jobs."""
    scheduler: Literal["asyncio", "background", "blocking"] | None = None
    """The kind of scheduler to make; ``None`` for asyncio where an event loop is running, else background."""
    timezone: Zone = None
    """The zone of jobs that name none themselves; ``None`` for an existing scheduler's, else UTC."""
    shutdown_timeout: Annotated[float, Field(ge=0)] = 20.0
    """Seconds that running jobs get to end when the jobs are closed."""
    log_runs: bool = False
    """Whether successful runs are logged, too; the command line does so unless this is set."""
    jobstores: dict[str, dict[str, Any]] = Field(default={}, repr=False)
    """APScheduler's job stores by alias, as its ``configure`` takes them, for the scheduler that bgjobs makes."""
    executors: dict[str, dict[str, Any]] = Field(default={}, repr=False)
    """APScheduler's executors by alias, as its ``configure`` takes them, for the scheduler that bgjobs makes."""
    job_defaults: JobDefaults = Field(default_factory=JobDefaults)
    """What jobs get that do not say it themselves."""
    jobs: dict[str, JobSettings] = {}
    """The jobs, by key; see `job` for other spellings."""

    _sources: Sources = PrivateAttr(default_factory=Sources)

    def __init__(self, **values: Any) -> None:
        sources = read(type(self), values)
        problems = list(sources.problems)
        try:
            # Past BaseSettings, whose part is done: with PYDANTIC_SETTINGS_DEBUG it would log all values.
            BaseModel.__init__(self, **sources.data)
        except ValidationError as exc:
            problems += [_problem(error, sources) for error in exc.errors(include_url=False, include_input=False)]
        if problems:  # outside the handler: the error of pydantic holds the values
            raise ConfigurationError.of_many(problems, "the settings")
        self._sources = sources

    @classmethod
    def defaults(cls) -> Self:
        """Settings that nobody has set: reads neither environment nor file."""
        return cls.model_construct()

    def job(self, key: str) -> JobSettings | None:
        """What the settings say of the job with this key, in whatever spelling; ``None`` for nothing."""
        if key in self.jobs:
            return self.jobs[key]
        return next((job for name, job in self.jobs.items() if fold(name) == fold(key)), None)

    def unmatched(self, keys: Collection[str]) -> list[ConfigurationError]:
        """An error for each job that is none of these, which are registered."""
        known = {fold(key) for key in keys}
        return [
            ConfigurationError(
                f"the settings speak of a job {key!r}, which is not registered{did_you_mean(key, keys)}; register it "
                "in code, or say where it is: job = 'package.module:Name'",
                "jobs",
            )
            for key in self.jobs
            if fold(key) not in known
        ]

    def place(self, *way: str) -> str | None:
        """Where a setting was given: a variable, or a file and the key in it; ``None`` for one that was not.

        Args:
            way: The way to it, as in ``"jobs", "data-sync", "cron"``; the key of a job in any spelling. For a table,
                the place of the first value in it is returned.
        """
        places, wanted = self._sources.places, _folded(way)
        if way in places:
            return places[way]
        return next((place for known, place in places.items() if _folded(known[: len(way)]) == wanted), None)

    def refuse_configuration(self) -> None:
        """Raise `ConfigurationError` where these settings configure a scheduler, which the code gives configured."""
        problems = [
            f"{self._sources.place((name,))}: the code gives a scheduler, which is configured there"
            for name in ("scheduler", "jobstores", "executors")
            if getattr(self, name)
        ]
        if problems:
            raise ConfigurationError.of_many(problems, "the settings")

    def configuration(self) -> dict[str, Any]:
        """What APScheduler's ``configure`` is given, which takes it apart: a copy."""
        options = {"jobstores": self.jobstores, "executors": self.executors}
        defaults = self.job_defaults.model_dump(exclude_unset=True)
        return deepcopy({**{name: value for name, value in options.items() if value}, "job_defaults": defaults})


def _problem(error: Mapping[str, Any], sources: Sources) -> str:
    """A mistake that pydantic found, with its place and what would be right."""
    way = tuple(map(str, error["loc"]))
    place = sources.place(way)
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"{place}: there is no such setting{did_you_mean(way[-1], _known(way))}"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"{place}: a table is needed; in a variable as JSON, or with a variable for each name in it"
    if kind == "string_type":
        return f"{place}: a text is needed, in quotes"
    text = str(error.get("ctx", {}).get("error") or error["msg"])
    return f"{place}: {text.removeprefix(''.join(f'{name}: ' for name in way[-1:]))}"


def _known(way: Way) -> Collection[str]:
    """The settings that there are where `way` leads."""
    if way[0] == "jobs" and len(way) == 3:
        return JobSettings.model_fields.keys() - {"trigger", "key"}
    return (JobDefaults if way[0] == "job_defaults" and len(way) == 2 else BackgroundJobsSettings).model_fields


def _folded(way: Way) -> Way:
    return tuple(fold(name) for name in way)
