"""Defines what a job is, a class with `action_to_do` or a function, and checks that a given one can run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from numbers import Number
from pathlib import PurePath
from types import FunctionType, MethodType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from ._errors import InvalidJobError, did_you_mean, named, nearest

T = TypeVar("T")

TOKEN = "cancellation_token"

Parameters = Mapping[str, inspect.Parameter]


#: The parameters of a builtin that does not tell them: any call may be right.
_UNKNOWN: Parameters = inspect.signature(lambda *_, **__: None).parameters


class BackgroundJob(Protocol):
    """The shape of a job class; inherit from it or not.

    ``action_to_do`` is called on a fresh instance at each run. It is sync or async, takes a `CancellationToken` if it
    names a parameter ``cancellation_token``, and the job's ``kwargs`` by keyword; what it returns is not used.

    ``on_exception(self, exception)``, sync or async, may stand beside it: it is called on the same instance when the
    run fails. It is left out here because a job need not have it.

    The counterpart of ``IBackgroundJob`` (``ActionToDoAsync``, ``OnException``).
    """

    def action_to_do(self, *args: Any, **kwargs: Any) -> object:
        """What the job does; any signature will do."""
        ...


class Resolver(Protocol):
    """Gives each run its fresh instance, and the scope around it.

    Any function decorated with `contextlib.contextmanager` or `contextlib.asynccontextmanager` that takes the job class
    and yields an instance of it: a dependency injection container, or a few lines by hand.
    """

    def __call__(self, job_type: type[T], /) -> AbstractContextManager[T] | AbstractAsyncContextManager[T]:
        """Open the scope of one run of `job_type`."""
        ...


#: What `BackgroundJobs.add_background_job` takes: a job class, a function, or a `functools.partial` of either.
Job = type[BackgroundJob] | Callable[..., object]
#: What may stand as ``on_exception`` of a function: sync or async, called with the exception.
ExceptionHandler = Callable[[Exception], object]
#: What may stand as ``only_if``: sync or async, called with the `CurrentRun`; whether the run is made.
Condition = Callable[[Any], object]


class Target:
    """A job as given, inspected: what a run calls, and how.

    Attributes:
        name: The name of the class or function, the default of the key; ``None`` for a lambda.
        job_type: The class that a resolver is asked for; ``None`` for functions and for partials of a class.
        is_coroutine: Whether the action is an ``async def``.
        takes_token: Whether the action has a parameter ``cancellation_token``.
        takes_any: Whether the action takes keyword arguments of any name.
        parameters: The parameters of the action, by name.
        globals: The names that the annotations of the parameters may use.
    """

    def __init__(self, job: Job, on_exception: ExceptionHandler | None = None) -> None:
        base: Any = job.func if isinstance(job, functools.partial) else job
        is_class = inspect.isclass(base)
        if not (is_class or inspect.isroutine(base)):
            raise InvalidJobError(_no_job(job))
        action = _class_action(base, on_exception) if is_class else job
        if not is_class and on_exception is not None:
            require_function(on_exception, "on_exception", "the exception")
        _refuse_generator(action, base.__qualname__)
        self._factory: Callable[[], Any] | None = job if is_class else None
        self._function: Callable[..., object] = job
        self._on_exception = on_exception
        self.job_type: type[Any] | None = job if inspect.isclass(job) else None
        self.name: str | None = None if base.__name__ == "<lambda>" else base.__name__
        self.is_coroutine = inspect.iscoroutinefunction(action)
        self.parameters = _parameters_of_method(base, "action_to_do") if is_class else _parameters(job)
        function = action.func if isinstance(action, functools.partial) else action
        self.globals: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
        self.takes_token = TOKEN in self.parameters
        self.takes_any = any(p.kind is p.VAR_KEYWORD for p in self.parameters.values())

    def check_kwargs(self, kwargs: Mapping[str, object], key: str) -> None:
        """Raise `InvalidJobError` unless `kwargs` and the token fill the action's parameters."""
        what = f"job {key!r}: {'action_to_do' if self._factory else 'the function'}"
        if TOKEN in kwargs:
            raise InvalidJobError(f"{what} gets its {TOKEN} from bgjobs; take it out of kwargs", key)
        missing = _unfilled(self.parameters, {*kwargs, TOKEN})
        if missing:
            example = ", ".join(f"{name!r}: ..." for name in missing)
            raise InvalidJobError(
                f"{what} has required parameters that nothing fills: {_listed(missing)}; give kwargs={{{example}}}", key
            )
        unknown = [name for name in kwargs if name not in self.parameters]
        if unknown and not self.takes_any:
            hint = did_you_mean(unknown[0], self.parameters)
            raise InvalidJobError(f"{what} has no parameter {unknown[0]!r} that kwargs could fill{hint}", key)

    def type_of(self, name: str) -> Any:
        """Return the type of a parameter, `Any` where it has no annotation; or raise whatever an annotation raises."""
        annotation = self.parameters[name].annotation
        owner = SimpleNamespace(__annotations__={name: Any if annotation is inspect.Parameter.empty else annotation})
        return get_type_hints(owner, self.globals, include_extras=True)[name]

    def check_types(self, kwargs: object, key: str) -> None:
        """Raise `InvalidJobError` where an argument of the code is plainly not of the type of its parameter."""
        for name, value in kwargs.items() if isinstance(kwargs, Mapping) else ():
            if name not in self.parameters or value is self.parameters[name].default:
                continue
            try:
                is_wrong = _is_wrong(value, self.type_of(name))
            except Exception:  # noqa: BLE001 - whatever an annotation raises; type checkers have another view
                continue
            if is_wrong:
                needed = inspect.formatannotation(self.parameters[name].annotation)
                raise InvalidJobError(f"job {key!r}: kwargs: {name} must be {needed}, not {type(value).__name__}", key)

    def check_constructor(self, key: str) -> None:
        """Raise `InvalidJobError` unless a call without arguments, as happens without a resolver, can construct it."""
        if self._factory is None:
            return
        if inspect.isabstract(self._factory) or getattr(self._factory, "_is_protocol", False):
            raise InvalidJobError(f"job {key!r}: {self.name} is abstract; set a resolver that gives an instance", key)
        factory: Any = self._factory  # looking at the parameters of ``object``'s own methods would be slow
        is_plain = factory.__init__ is object.__init__ and factory.__new__ is object.__new__
        if missing := [] if is_plain else _unfilled(_parameters(factory), ()):
            raise InvalidJobError(
                f"job {key!r}: the constructor of {self.name} needs {_listed(missing)}; set jobs.resolver, or give "
                f"functools.partial({self.name}, ...) instead of the class",
                key,
            )

    def construct(self) -> object:
        """Return a fresh instance for one run, without a resolver; ``None`` for a function."""
        return None if self._factory is None else self._factory()

    def action(self, instance: Any) -> Callable[..., object]:
        """Return what a run calls."""
        return self._function if self._factory is None else instance.action_to_do

    def handler(self, instance: Any) -> ExceptionHandler | None:
        """Return what a failed run calls, if anything: for a class, the method of this very instance."""
        return self._on_exception if self._factory is None else getattr(instance, "on_exception", None)


# -- checks ----------------------------------------------------------------------------------------------------------

#: How the tasks of Celery, taskiq and Dramatiq are enqueued, and what else such a task has.
_ENQUEUE = {"delay": "apply_async", "kiq": "kicker", "send": "send_with_options"}


def _no_job(job: object) -> str:
    name = type(job).__name__
    if hasattr(job, "action_to_do"):
        return (
            f"an instance of {name} is no job, since every run gets a fresh one; give the class {name}, or "
            f"functools.partial({name}, ...) with its constructor arguments"
        )
    task = job.func if isinstance(job, functools.partial) else job
    if enqueue := next(
        (method for method, other in _ENQUEUE.items() if hasattr(task, method) and hasattr(task, other)), None
    ):
        return f"{named(job)} is a task, which is no job; give its method .{enqueue}, which enqueues it, and a key"
    return f"{named(job)} is no job; give a class with action_to_do, a function, or a functools.partial of either"


def _class_action(job_type: type[Any], on_exception: object) -> Callable[..., object]:
    """Return the action of a job class, after checking what the class must and must not have."""
    name = job_type.__name__
    action = getattr(job_type, "action_to_do", None)
    if not callable(action) or action is BackgroundJob.action_to_do:
        near = nearest("action_to_do", [n for n in dir(job_type) if n[0] != "_" and n != "action_to_do"], 0.5)
        hint = f"; if {near!r} is meant to be it, rename that" if near else ""
        raise InvalidJobError(f"{name} has no method action_to_do(self[, cancellation_token]){hint}")
    if on_exception is not None:
        raise InvalidJobError(f"on_exception= is for functions; give {name} a method on_exception(self, exception)")
    if hasattr(job_type, "on_exception"):
        parameters = _parameters_of_method(job_type, "on_exception")
        require_function(job_type.on_exception, f"{name}.on_exception", "the exception", parameters)
    return action  # type: ignore[no-any-return]


def require_function(func: Any, what: str, argument: str, parameters: Parameters | None = None) -> None:
    """Raise `InvalidJobError` unless `func` can be called with one argument, which `argument` names."""
    if not callable(func):
        raise InvalidJobError(f"{what} must be a function that takes {argument}, not {named(func)}")
    _refuse_generator(func, what)
    parameters = _parameters(func) if parameters is None else parameters
    try:
        inspect.Signature([*parameters.values()]).bind(Exception())
    except TypeError as exc:
        raise InvalidJobError(f"{what} must take exactly one argument, {argument}: {exc}") from exc


def _refuse_generator(action: Callable[..., object], what: str) -> None:
    if inspect.isgeneratorfunction(action) or inspect.isasyncgenfunction(action):
        raise InvalidJobError(f"{what} contains a yield, so that calling it runs nothing; a job returns")


# -- parameters ------------------------------------------------------------------------------------------------------


def _parameters(func: Any) -> Parameters:
    try:
        return inspect.signature(func).parameters
    except (ValueError, TypeError):
        return _UNKNOWN


def _parameters_of_method(job_type: Any, name: str) -> Parameters:
    """Return the parameters of a method as a call on an instance sees them, without ``self``."""
    raw = inspect.getattr_static(job_type, name)
    if inspect.isfunction(raw):
        return _without_self(raw)
    is_bound = hasattr(raw, "__get__") and not isinstance(raw, functools.partial)  # which Python 3.13 would warn of
    return _parameters(raw.__get__(job_type, job_type) if is_bound else raw)


# A thousand jobs may be of one class. The cache is small, since a method that it holds may keep its class alive.
@functools.lru_cache(maxsize=64)
def _without_self(method: FunctionType) -> Parameters:
    return _parameters(MethodType(method, method))  # any object will do as the instance


#: Values of plain types that stand for each other; any other value may be right wherever it is given.
_ALIKE: tuple[tuple[type[Any], ...], ...] = (
    (Number,),
    (str, PurePath),
    (bytes, bytearray),
    (list, tuple, set, frozenset),
    (dict,),
    (type(None),),
)


def _is_wrong(value: object, hint: Any) -> bool:
    """Whether a value is of a plain type, and its parameter of quite another one, as with a str for an int."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return all(_is_wrong(value, one) for one in get_args(hint))
    if origin is Annotated:
        return _is_wrong(value, get_args(hint)[0])
    if origin is Literal:
        return value not in get_args(hint)
    needed = origin or (type(None) if hint is None else hint)
    if hasattr(needed, "__get_pydantic_core_schema__") and not hasattr(needed, "model_fields"):
        return False  # only pydantic knows what it stands for: a value of EmailStr is a str
    alike = next((types for types in _ALIKE if isinstance(value, types)), None)
    return alike is not None and not isinstance(value, needed) and not issubclass(needed, alike)


def _unfilled(parameters: Parameters, given: Collection[str]) -> list[str]:
    return [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and (p.name not in given or p.kind is p.POSITIONAL_ONLY)
    ]


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
