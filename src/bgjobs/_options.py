"""One job's options, from code or from the settings."""

from collections.abc import Collection, Mapping
from datetime import datetime, tzinfo
from typing import Annotated, Any, Self, TypedDict, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from ._cron.expression import Expression as CronExpression
from ._cron.expression import zone
from ._errors import BgjobsError, ConfigurationError, did_you_mean
from ._job import ExceptionHandler

M = TypeVar("M", bound=BaseModel)

#: A cron text that switches its job off, as in Spring.
OFF = "-"


def optional_zone(value: str | tzinfo | None) -> tzinfo | None:
    """A time zone by name or as it is; ``None`` stays."""
    return None if value is None else zone(value)


#: A time zone, by name in settings files.
Zone = Annotated[
    str | tzinfo | None,
    AfterValidator(optional_zone),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]}),
]


class BackgroundJobOptions(BaseModel):
    """How and when one job runs; the counterpart of .NET's ``BackgroundJobOptions`` with APScheduler's own names.

    Every option is also a keyword of `BackgroundJobs.add_background_job`, and a setting of the job's table in a
    settings file or the environment.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        defer_build=True,
    )

    cron: str | None = None
    """Six fields, seconds first, Sunday = 0 (five fields: second 0; or a macro such as ``@daily``). ``"-"`` switches
    the job off; ``None`` leaves it to `trigger` or to the settings."""
    trigger: Any = None
    """Any APScheduler trigger instead of `cron`; ``None`` for none. Not for settings files."""
    run_immediately: bool = False
    """Whether to run once at warm-up, before the first scheduled time."""
    key: str | None = None
    """The unique name of the job; ``None`` takes the name of the class or function."""
    enabled: bool = True
    """False keeps the job registered, and never runs it."""
    timezone: Zone = None
    """The zone of the schedule, a name or a tzinfo; ``None`` takes the settings', else an existing scheduler's, else
    UTC."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which a run is cancelled (a coroutine) or asked to end (through its token); ``None`` for no
    limit."""
    kwargs: dict[str, Any] = Field(default={}, repr=False)
    """Keyword arguments of the action or function."""
    misfire_grace_time: Annotated[int, Field(gt=0)] | None = None
    """Seconds that a run may be late and still be made; ``None`` for any lateness."""
    coalesce: bool = True
    """Whether several occurrences that are due together are made as one run, the last."""
    max_instances: Annotated[int, Field(ge=1)] = 1
    """How many runs of this key may go at the same time; one more is skipped."""
    jitter: Annotated[float, Field(ge=0)] | None = None
    """Seconds by which each fire time is delayed at random, at most; ``None`` for none."""
    start_date: datetime | None = None
    """No fire time lies before this; without an offset it is in the job's zone; ``None`` for no limit."""
    end_date: datetime | None = None
    """No fire time lies after this; without an offset it is in the job's zone; ``None`` for no limit."""
    executor: str = "default"
    """The alias of the APScheduler executor that runs the job."""
    jobstore: str = "default"
    """The alias of the APScheduler job store that keeps the job."""

    @field_validator("cron")
    @classmethod
    def _cron_is_readable(cls, text: str | None) -> str | None:
        if text is not None and text != OFF:
            CronExpression(text)
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
        """Whether the job is to be scheduled at all."""
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
    """Make `model` of `values`, with one clear error for all that is wrong in them.

    Args:
        model: The pydantic model.
        values: The values by field name.
        where: What the values belong to, for the error: ``"job 'sync'"``.

    Raises:
        BgjobsError: The very error of bgjobs that a value caused, if that is all that is wrong.
        ConfigurationError: A `ConfigurationError` that names every mistake otherwise.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        first = errors[0].get("ctx", {}).get("error")
        if len(errors) == 1 and isinstance(first, BgjobsError) and not isinstance(first, ConfigurationError):
            raise first from None
        field = str(errors[0]["loc"][0]) if errors[0]["loc"] else None
        raise ConfigurationError(
            f"{where}: " + "; ".join(_told(e, model.model_fields) for e in errors), field
        ) from None


def _told(error: Mapping[str, Any], known: Collection[str]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown option {name!r}{did_you_mean(name, known)}"
    cause = error.get("ctx", {}).get("error")
    return f"{name}: {cause or error['msg']}"
