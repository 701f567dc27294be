"""One job's options, from code or from the settings, and how mistakes in them are worded."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from inspect import cleandoc
from typing import Annotated, Any, Literal, Self, TypedDict

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from ._cron.expression import LONGEST, Expression, zone
from ._errors import MOST_MISTAKES, BgjobsError, ConfigurationError, did_you_mean
from ._job import Condition, ExceptionHandler

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

#: A time in seconds, finite and not absurdly long.
Seconds = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]


def describe_fields(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Copy what the docstrings of a model say about its fields into its JSON Schema, for editors."""
    schema["description"] = cleandoc(model.__doc__ or "").partition("\n\n")[0]
    for docstring in (base.__doc__ or "" for base in model.__mro__):
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", cleandoc(docstring), re.MULTILINE):
            if name in schema["properties"]:
                schema["properties"][name]["description"] = " ".join(text.replace("`", "").split())


class JobDefaults(BaseModel):
    """The options that the settings can give for all jobs at once; APScheduler's ``job_defaults``.

    Attributes:
        misfire_grace_time: How many seconds late a run may start, else it is skipped; none for any lateness.
        coalesce: Whether occurrences that are due together become one run.
        max_instances: How many runs of a job may be in progress at a time.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True, json_schema_extra=describe_fields
    )

    misfire_grace_time: Annotated[int, Field(gt=0, le=LONGEST)] | None = None
    coalesce: bool = True
    max_instances: Annotated[int, Field(gt=0, le=1_000_000)] = 1


class BackgroundJobOptions(JobDefaults):
    """How and when one job runs; the counterpart of .NET's ``BackgroundJobOptions`` with APScheduler's own names.

    Every option is also a keyword of `BackgroundJobs.add_background_job`, and a setting in the job's table of a
    settings file or the environment.

    Attributes:
        cron: A cron expression: six fields, seconds first, Sunday = 0 (five fields mean second 0), or a macro such as
            @daily. "-" switches the job off; none leaves the schedule to trigger or to the settings.
        trigger: Any APScheduler trigger instead of cron; in code only.
        run_immediately: Whether to run once at warm-up, before the schedule.
        key: The unique name; by default that of the class or function.
        enabled: False keeps the job registered but never runs it.
        timezone: The zone of the schedule; by default that of the settings.
        timeout: Seconds after which a coroutine is cancelled and a function is asked to stop through its token; none
            for no limit.
        only_if: A function, sync or async, that is asked before each scheduled or immediate run, with its `CurrentRun`:
            where the answer is false, the run is skipped; in code only.
        kwargs: Arguments of the function or of action_to_do.
        jitter: The longest random delay of a run, in seconds.
        start_date: The earliest fire time; in the job's zone.
        end_date: The latest fire time; in the job's zone.
        executor: The alias of the APScheduler executor that runs the job.
        jobstore: The alias of the APScheduler job store that keeps the job.
        on_claim_error: What a run does while the claim store does not answer: "skip" it, or "run" it, in every replica.
    """

    cron: str | None = None
    trigger: Any = None
    run_immediately: bool = False
    key: str | None = None
    enabled: bool = True
    timezone: Zone = None
    timeout: Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)] | None = None
    only_if: Any = None
    kwargs: dict[str, Any] = Field(default={}, repr=False)
    jitter: Seconds | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    executor: str = "default"
    jobstore: str = "default"
    on_claim_error: Literal["skip", "run"] = "skip"

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
        for end, runs in ((":startup", "immediate"), (":late", "late")):
            if key is not None and key.endswith(end):
                raise ConfigurationError(f"the key {key!r} ends in {end!r}, which marks {runs} runs", "key")
        return key

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        for name in ("cron", "timezone", "jitter", "start_date", "end_date"):
            if self.trigger is not None and getattr(self, name) is not None:
                raise ConfigurationError(f"{name} and trigger are both given; a trigger is the whole schedule", name)
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
    only_if: Condition | None
    misfire_grace_time: int | None
    coalesce: bool
    max_instances: int
    jitter: float | None
    start_date: datetime | str | None
    end_date: datetime | str | None
    executor: str
    jobstore: str
    on_claim_error: Literal["skip", "run"]


class Registration(JobOptions, total=False):
    """The keywords of ``add_background_job``, for type checkers."""

    cron: str | None
    trigger: Any
    run_immediately: bool
    key: str | None
    on_exception: ExceptionHandler | None
    kwargs: dict[str, Any] | None
    options: BackgroundJobOptions | None


_INTERVAL = ("weeks", "days", "hours", "minutes", "seconds")
_FIELDS = ("year", "month", "day", "week", "day_of_week", "hour", "minute", "second")
#: What stands here for arguments of APScheduler's ``add_job``; ``{}`` is the argument itself.
_INSTEAD = {
    "args": "give kwargs={'name': value}, or functools.partial(job, value) as the job",
    "func": "give the function first, without a name",
    "id": "give key",
    "name": "give key, which names the job everywhere",
    "next_run_time": "give run_immediately=True to run at once, or start_date for the earliest run",
    "replace_existing": "leave it out, since a job takes over its row in a job store",
    "run_date": "give trigger=DateTrigger(run_date=...) of apscheduler.triggers.date",
    **dict.fromkeys(_INTERVAL, "give trigger=IntervalTrigger({}=...) of apscheduler.triggers.interval"),
    **dict.fromkeys(_FIELDS, "give cron; on the command line, `bgjobs convert {}=...` prints it"),
}


def _hint(loc: Loc) -> str:
    """What to write instead of an option that does not exist."""
    name = loc[-1]
    if instead := _INSTEAD.get(name):
        return f"; {instead.replace('{}', name)}"
    return did_you_mean(name, BackgroundJobOptions.model_fields)


def build(values: Mapping[str, Any], where: str) -> BackgroundJobOptions:
    """Make the options of a job, with one error for everything that is wrong in them.

    Args:
        values: The options by name.
        where: What they belong to, for the error: ``"job 'sync'"``.

    Raises:
        BgjobsError: An option is wrong in a way that has its own error, and nothing else is wrong.
        ConfigurationError: Anything else is wrong; the message names every mistake.
    """
    try:
        return BackgroundJobOptions.model_validate(values)
    except ValidationError as exc:
        first, *others = exc.errors(include_url=False, include_input=False)
        cause = first.get("ctx", {}).get("error")
        if not others and isinstance(cause, BgjobsError) and not isinstance(cause, ConfigurationError):
            raise cause from None
        problems = mistakes(exc, "option", place=".".join, hint=_hint)
        field = str(first["loc"][0]) if first["loc"] else None
        raise ConfigurationError(f"{where}: {'; '.join(problems)}", field) from None


def mistakes(exc: ValidationError, what: str, place: Callable[[Loc], str], hint: Callable[[Loc], str]) -> list[str]:
    """Say what pydantic found wrong, without the values, which may be passwords.

    `raise_all` lists the first mistakes and counts the others.

    Args:
        exc: What pydantic raised.
        what: What the names in the validated tables are called: ``"option"``.
        place: Returns where the value at a path was given.
        hint: Returns what to say, after a semicolon, of the last name of a path, which does not exist.
    """
    found: list[str] = []
    for error in exc.errors(include_url=False, include_input=False):
        if len(found) >= MOST_MISTAKES:  # counted, but not listed
            found.append(error["msg"])
            continue
        loc = tuple(map(str, error["loc"]))
        cause = error.get("ctx", {}).get("error")
        problem = str(cause) if isinstance(cause, Exception) else error["msg"]
        if error["type"] == "extra_forbidden":
            problem = f"there is no such {what}{hint(loc)}"
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
