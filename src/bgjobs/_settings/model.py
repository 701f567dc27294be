"""The settings as one model, on pydantic-settings, and the JSON Schema of the settings file."""

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_settings import BaseSettings, SettingsConfigDict

from .._errors import ByName, ConfigurationError, did_you_mean, fold, raise_all
from .._options import BackgroundJobOptions, JobDefaults, Loc, Seconds, Zone, mistakes
from .sources import DEFAULT_ENV_FILE, PREFIX, Sources, read


def _reference(text: str) -> str:
    if text.count(":") != 1 or not all(name.isidentifier() for name in text.replace(":", ".").split(".")):
        raise ConfigurationError(f"{text!r} is not of the form 'package.module:Name'")
    return text


#: What APScheduler's ``configure`` takes for job stores and executors, by alias.
Tables = dict[str, dict[str, Any]]
#: A class, function or object by its module and name: ``"package.module:Name"``.
Reference = Annotated[str, AfterValidator(_reference)]


#: The options that are given in code only, and what the settings have instead.
_IN_CODE_ONLY = {
    "key": "the name of the table is the key",
    "trigger": "use cron",
    "only_if": "a function cannot be written here",
}


class JobSettings(BackgroundJobOptions):
    """One job's table in the settings: every option of the job, and where to find it.

    Attributes:
        job: The class or function, as "package.module:Name"; none for a job registered in code.
    """

    job: Reference | None = None

    @field_validator(*_IN_CODE_ONLY)
    @classmethod
    def _is_for_code(cls, value: object, info: ValidationInfo) -> None:
        if value is not None:
            raise ConfigurationError(f"can be given in code only; {_IN_CODE_ONLY[str(info.field_name)]}")

    def overrides(self) -> dict[str, Any]:
        """Return the options that were set, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"job", *_IN_CODE_ONLY}}


class ClaimSettings(BaseModel):
    """Where replicas agree that each occurrence of a job runs once.

    Attributes:
        url: The URL of the claim store: postgresql://, redis:// or rediss://, or sqlite:/// and the path of a file for
            the processes of one machine; none for a process that has no replicas.
        lease: How many seconds a process that died keeps its job from running elsewhere.
    """

    model_config = JobDefaults.model_config

    url: str | None = Field(default=None, min_length=1, repr=False)
    lease: Annotated[Seconds, Field(ge=3)] = 30.0


class BackgroundJobsSettings(BaseSettings):
    """Everything that the environment and a settings file can say about the jobs of one process.

    They are read once, at construction. From highest to lowest precedence: the arguments given here, the environment
    (``BGJOBS__JOBS__DATA_SYNC__CRON``), the env file, the secrets directory, the settings file, the arguments of
    ``add_background_job``, the defaults.

    Attributes:
        config_file: The settings file; not in a settings file itself.
        env_file: A file of variables; not in a settings file.
        secrets_dir: A directory of one-value files; not in a settings file.
        app: For the command line: the BackgroundJobs of the code, or a function that returns them, as
            "package.module:name"; none where the settings name all jobs.
        application: The name under which a persistent job store keeps these jobs.
        enabled: Whether this process runs jobs; false for web processes beside a worker, and for tests.
        scheduler: The kind of scheduler to create; by default asyncio where an event loop is running, else background.
        timezone: The time zone of jobs that name none; by default that of an existing scheduler, else UTC.
        shutdown_timeout: How many seconds running jobs get to finish when the jobs are closed.
        log_runs: Whether to log successful runs too; the command line does unless this is set.
        jobstores: APScheduler's job stores, by alias.
        executors: APScheduler's executors, by alias.
        claims: Where replicas agree that each occurrence of a job runs once.
        status_file: A file in which the process says every ten seconds how its jobs are; none for no such file.
        job_defaults: Options of jobs that do not set them.
        jobs: The jobs, by key.

    Raises:
        ConfigurationError: Settings are wrong; the message names every mistake with its place.
    """

    model_config = SettingsConfigDict(
        **JobDefaults.model_config,  # type: ignore[typeddict-item]  # for mypy it lacks every optional name
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
    )

    config_file: Path | None = None
    env_file: Path | None = DEFAULT_ENV_FILE
    secrets_dir: Path | None = None
    app: Reference | None = None
    application: str = Field(default="bgjobs", min_length=1)
    enabled: bool = True
    scheduler: Literal["asyncio", "background", "blocking"] | None = None
    timezone: Zone = None
    shutdown_timeout: Seconds = 20.0
    log_runs: bool = False
    jobstores: Tables = Field(default={}, repr=False)
    executors: Tables = Field(default={}, repr=False)
    claims: ClaimSettings = Field(default_factory=ClaimSettings)
    status_file: Path | None = None
    job_defaults: JobDefaults = Field(default_factory=JobDefaults)
    jobs: Annotated[dict[str, JobSettings], AfterValidator(lambda jobs: ByName(jobs))] = {}

    _sources: Sources = PrivateAttr(default_factory=Sources)

    def __init__(self, **values: Any) -> None:
        sources = read(type(self), values)
        problems = sources.problems
        try:
            # Not BaseSettings.__init__: it would read the sources again, and log all values if it is asked to debug.
            BaseModel.__init__(self, **sources.data)
        except ValidationError as exc:
            problems += mistakes(exc, "setting", sources.nearest_place, _hint)
        raise_all(problems, "the settings")  # outside the handler: the error of pydantic holds the values
        self._sources = sources

    @classmethod
    def defaults(cls) -> Self:
        """Return the defaults alone; reads neither the environment nor any file."""
        return cls.model_construct()

    def job(self, key: str) -> JobSettings | None:
        """Return the settings of the job with this key, in any spelling; ``None`` where it has none."""
        return (self.jobs if isinstance(self.jobs, ByName) else ByName(self.jobs)).find(key)

    def unmatched(self, keys: Collection[str]) -> list[ConfigurationError]:
        """Return an error for each job in the settings that is not among these keys, which are registered."""
        known = {fold(key) for key in keys}
        return [
            ConfigurationError(
                f"the settings have a job {key!r}, which is not registered{did_you_mean(key, keys)}; register it in "
                "code, or give its class or function: job = 'package.module:Name'",
                "jobs",
            )
            for key in self.jobs
            if fold(key) not in known
        ]

    def place(self, *loc: str) -> str | None:
        """Return where a setting was given: a variable, or a file and the path in it; ``None`` where it was not.

        Args:
            loc: The path to it, such as ``"jobs", "data-sync", "cron"``, with the key of a job in any spelling. For a
                table, the place of the first value in it is returned.
        """
        return self._sources.place(loc)

    def refuse_configuration(self) -> None:
        """Raise `ConfigurationError` if these settings configure the scheduler: the code gives a configured one."""
        problems = [
            f"{self._sources.place((name,))}: the code gives a scheduler, so configure it there"
            for name in ("scheduler", "jobstores", "executors")
            if getattr(self, name)
        ]
        raise_all(problems, "the settings")

    def configuration(self) -> dict[str, Any]:
        """Return the arguments for APScheduler's ``configure``: a copy, because it takes them apart."""
        options = {"jobstores": self.jobstores, "executors": self.executors}
        defaults = self.job_defaults.model_dump(exclude_unset=True)
        return deepcopy({**{name: value for name, value in options.items() if value}, "job_defaults": defaults})


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings file, with which editors complete and check it."""
    found = BackgroundJobsSettings.model_json_schema()
    for name in ("config_file", "env_file", "secrets_dir"):
        del found["properties"][name]
    for name in _IN_CODE_ONLY:
        del found["$defs"]["JobSettings"]["properties"][name]
    found["properties"]["$schema"] = {"type": "string", "description": "Where this schema is, for editors."}
    found["title"] = "Settings of bgjobs"
    found["description"] = "See configuration.md; in the environment the same names follow BGJOBS__."
    return {"$schema": GenerateJsonSchema.schema_dialect, **found}


def _hint(loc: Loc) -> str:
    """The most similar of the settings that exist in the table that `loc` leads into."""
    if loc[0] == "jobs" and len(loc) == 3:
        return did_you_mean(loc[-1], JobSettings.model_fields.keys() - _IN_CODE_ONLY)
    tables: dict[str, type[BaseModel]] = {"job_defaults": JobDefaults, "claims": ClaimSettings}
    table = tables.get(loc[0], BackgroundJobsSettings) if len(loc) == 2 else BackgroundJobsSettings
    return did_you_mean(loc[-1], table.model_fields)
