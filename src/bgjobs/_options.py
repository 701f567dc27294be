"""One job's options, from code or from the settings, and how mistakes in them are worded."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Annotated, Any, Self, TypedDict, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from ._cron.expression import Expression, zone
from ._errors import BgjobsError, ConfigurationError, did_you_mean
from ._job import ExceptionHandler

M = TypeVar("M", bound=BaseModel)

#: The path to a value through tables, as pydantic calls it: ``("jobs", "data-sync", "cron")``.
Loc = tuple[str, ...]

#: The cron expression that switches a job off, as in Spring.
OFF = "-"

#: A time zone, by name in settings files.
Zone = Annotated[
    str | tzinfo | None,
    PlainValidator(lambda value: None if value is None else zone(value)),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]}),
]


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """Drop case and separators from a name, so that ``data-sync``, ``data_sync`` and ``DataSync`` are equal."""
    return re.sub(r"[\W_]+", "", name.casefold())


class JobDefaults(BaseModel):
    """The options that the settings can give for all jobs at once; APScheduler's ``job_defaults``."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True, defer_build=True
    )

    misfire_grace_time: PositiveInt | None = Field(
        default=None, description="How many seconds late a run may start, else it is skipped; none for any lateness."
    )
    coalesce: bool = Field(default=True, description="Whether occurrences that are due together become one run.")
    max_instances: PositiveInt = Field(default=1, description="How many runs of a job may be in progress at a time.")


class BackgroundJobOptions(JobDefaults):
    """How and when one job runs; the counterpart of .NET's ``BackgroundJobOptions`` with APScheduler's own names.

    Every option is also a keyword of `BackgroundJobs.add_background_job`, and a setting in the job's table of a
    settings file or the environment. Each has a description in ``BackgroundJobOptions.model_fields``.
    """

    cron: str | None = Field(
        default=None,
        description="A cron expression: six fields, seconds first, Sunday = 0 (five fields mean second 0), or a macro "
        'such as @daily. "-" switches the job off; none leaves the schedule to trigger or to the settings.',
    )
    trigger: Any = Field(default=None, description="Any APScheduler trigger instead of cron; in code only.")
    run_immediately: bool = Field(default=False, description="Whether to run once at warm-up, before the schedule.")
    key: str | None = Field(default=None, description="The unique name; by default that of the class or function.")
    enabled: bool = Field(default=True, description="False keeps the job registered but never runs it.")
    timezone: Zone = Field(default=None, description="The zone of the schedule; by default that of the settings.")
    timeout: PositiveFloat | None = Field(
        default=None,
        description="Seconds after which a coroutine is cancelled and a function is asked to stop through its token; "
        "none for no limit.",
    )
    kwargs: dict[str, Any] = Field(default={}, repr=False, description="Arguments of the function or of action_to_do.")
    jitter: NonNegativeFloat | None = Field(default=None, description="The longest random delay of a run, in seconds.")
    start_date: datetime | None = Field(default=None, description="The earliest fire time; in the job's zone.")
    end_date: datetime | None = Field(default=None, description="The latest fire time; in the job's zone.")
    executor: str = Field(default="default", description="The alias of the APScheduler executor that runs the job.")
    jobstore: str = Field(default="default", description="The alias of the APScheduler job store that keeps the job.")

    @field_validator("cron")
    @classmethod
    def _cron_is_readable(cls, text: str | None) -> str | None:
        if text is not None and text != OFF:
            Expression(text)
        return text

    @field_validator("key")
    @classmethod
    def _key_is_usable(cls, key: str | None) -> str | None:
        if key is not None and not key.strip():
            raise ConfigurationError("the key is empty; give a name that is unique among the jobs", "key")
        if key is not None and key.endswith(":startup"):
            raise ConfigurationError(f"the key {key!r} ends in ':startup', which marks immediate runs", "key")
        return key

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.trigger is None:
            return self
        if self.cron is not None:
            raise ConfigurationError("cron and trigger are both given; a job has one schedule", "trigger")
        for name in ("timezone", "jitter", "start_date", "end_date"):
            if getattr(self, name) is not None:
                raise ConfigurationError(f"{name} goes into the trigger itself when trigger is given", name)
        return self

    @property
    def is_on(self) -> bool:
        """Whether the job is scheduled at all."""
        return self.enabled and self.cron != OFF


class JobOptions(TypedDict, total=False):
    """The options of `BackgroundJobOptions` that are plain keywords of ``add_background_job``, for type checkers."""

    enabled: bool
    timezone: str | tzinfo | None
    timeout: float | None
    misfire_grace_time: int | None
    coalesce: bool
    max_instances: int
    jitter: float | None
    start_date: datetime | str | None
    end_date: datetime | str | None
    executor: str
    jobstore: str


class Registration(JobOptions, total=False):
    """The keywords of ``add_background_job``, for type checkers."""

    cron: str | None
    trigger: Any
    run_immediately: bool
    key: str | None
    on_exception: ExceptionHandler | None
    kwargs: dict[str, Any] | None
    options: BackgroundJobOptions | None


def build(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """Make `model` of `values`, with one error for everything that is wrong in them.

    Args:
        model: The pydantic model.
        values: The values by field name.
        where: What the values belong to, for the error: ``"job 'sync'"``.

    Raises:
        BgjobsError: A value is wrong in a way that has an error of its own, and nothing else is wrong.
        ConfigurationError: Anything else is wrong; the message names every mistake.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        first = errors[0].get("ctx", {}).get("error")
        if len(errors) == 1 and isinstance(first, BgjobsError) and not isinstance(first, ConfigurationError):
            raise first from None
        problems = mistakes(exc, "option", place=".".join, known=lambda _: model.model_fields)
        field = next((str(name) for name in errors[0]["loc"]), None)
        raise ConfigurationError(f"{where}: {'; '.join(problems)}", field) from None


def mistakes(
    exc: ValidationError, what: str, place: Callable[[Loc], str], known: Callable[[Loc], Iterable[str]]
) -> list[str]:
    """Say what pydantic found wrong, without the values, which may be passwords.

    Args:
        exc: What pydantic raised.
        what: What the names in the validated tables are called: ``"option"``.
        place: Returns where the value at a path was given.
        known: Returns the names that exist where an unknown name was found.
    """
    found = []
    for error in exc.errors(include_url=False, include_input=False):
        loc = tuple(map(str, error["loc"]))
        cause = error.get("ctx", {}).get("error")
        problem = str(cause) if isinstance(cause, Exception) else error["msg"]
        if error["type"] == "extra_forbidden":
            problem = f"there is no such {what}{did_you_mean(loc[-1], known(loc))}"
        elif error["type"] in _NEEDED:
            problem = _NEEDED[error["type"]]
        elif loc:
            problem = problem.removeprefix(f"{loc[-1]}: ")
        found.append(": ".join(part for part in (place(loc), problem) if part))
    return found


_TABLE = "a table is needed; in a variable as JSON, or with a variable for each name in it"
#: What is needed, where pydantic's own words would not help with a settings file or a variable.
_NEEDED = {
    "dict_type": _TABLE,
    "model_type": _TABLE,
    "model_attributes_type": _TABLE,
    "list_type": 'a list is needed; in a variable as JSON: ["a", "b"]',
    "string_type": "a string is needed, in quotes",
}
