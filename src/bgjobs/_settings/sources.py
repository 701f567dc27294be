"""Where settings come from, and how the sources become one.

Highest first: the arguments, the environment, an env file, a secrets directory, a settings file.

Names that users choose (keys of jobs, aliases, names of arguments) are equal when they are equal without case and
separators, in whatever source they stand: the environment cannot say ``morning-notifications`` or ``DataSync``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv import dotenv_values  # comes with pydantic-settings
from dotenv.parser import parse_stream
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from .._errors import ConfigurationError, did_you_mean
from .files import read_file, read_text
from .keys import fold

PREFIX = "BGJOBS__"
DEFAULT_ENV_FILE = Path(".env")

#: The way to a value: ``("jobs", "data-sync", "cron")``.
Way = tuple[str, ...]


def is_free(way: Way) -> bool:
    """Whether the names in this table are the user's own."""
    return way in (("jobs",), ("jobstores",), ("executors",)) or (len(way) == 3 and way[::2] == ("jobs", "kwargs"))


@dataclass(repr=False, eq=False)
class Layer:
    """What one source says.

    Attributes:
        data: Its settings.
        place: Names a place in it, for people.
        spells: Whether its spelling of a name is the one to be shown.
    """

    data: Mapping[str, Any]
    place: Callable[[Way], str]
    spells: bool


@dataclass(repr=False)
class Sources:
    """Everything that the sources of one `BackgroundJobsSettings` say.

    Attributes:
        data: The settings, merged.
        places: Where each value was said, by the way to it.
        problems: The mistakes that stand in the way.
    """

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Way, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def place(self, way: Way) -> str:
        """The place of a value, or of the first in a table."""
        ends = range(len(way), 0, -1)
        near = (place for end in ends for known, place in self.places.items() if known[:end] == way[:end])
        return next(near, "the settings")


def read(settings_cls: type[BaseSettings], values: Mapping[str, Any]) -> Sources:
    """Read all sources, and merge them.

    Args:
        settings_cls: The model of the settings.
        values: Its arguments.
    """
    sources = Sources()
    layers = [Layer(values, lambda way: f"argument {'.'.join(way)}", spells=True)]
    decided = set()
    for name, kind in _KINDS.items():
        above = {key: value for layer in reversed(layers) for key, value in layer.data.items()}
        if DEFAULT_ENV_FILE.is_file():
            above.setdefault("env_file", DEFAULT_ENV_FILE)
        decided.add(name)
        try:
            layer = kind(settings_cls, above.get(name), sources.problems)
        except ConfigurationError as exc:
            sources.problems.append(str(exc))
            continue
        late = decided & layer.data.keys()
        sources.problems += [f"{layer.place((key,))}: {key} is needed before this is read" for key in sorted(late)]
        layers.append(layer)
    _Merge(sources, layers)
    return sources


# -- the sources -----------------------------------------------------------------------------------------------------


class _Variables(EnvSettingsSource):
    """Variables of the environment, or what is named like them."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self.env_vars = parse_env_vars(variables, ignore_empty=True, parse_none_str=self.env_parse_none_str)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """What is meant as JSON, decoded; everything else stays text, and is judged by the type of its setting."""
        if not (isinstance(value, str) and value.startswith(("{", "["))):
            return value
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _layer(
    settings_cls: type[BaseSettings], variables: Mapping[str, str], problems: list[str], where: Callable[[str], str]
) -> Layer:
    """What variables say; `where` names the place of one."""
    names: dict[str, str] = {}
    for name in variables:
        if (other := names.setdefault(name.upper(), name)) != name:
            problems.append(f"{where(name)}: the same variable as {other}; keep one")
        known = name[len(PREFIX) :].split("__", 1)[0].lower()
        if known not in settings_cls.model_fields:
            problems.append(f"{where(name)}: there is no such setting{did_you_mean(known, settings_cls.model_fields)}")

    def place(way: Way) -> str:
        ways = [PREFIX + "__".join(way[:end]).upper() for end in range(len(way), 0, -1)]
        holds = (names[name] for name in ways if name in names)  # the value itself, or JSON with it
        begins = (names[name] for name in names if name.startswith(ways[0]))
        return where(next(holds, None) or next(begins))

    data = _Variables(settings_cls, variables)()
    for table in ("jobstores", "executors"):
        if table in data:
            data[table] = _numbers(data[table])
    return Layer(data, place, spells=False)


def _numbers(value: Any) -> Any:
    """Whole numbers and truth values of text, for what no annotation tells the type of: APScheduler's own options."""
    if isinstance(value, Mapping):
        return {name: _numbers(inner) for name, inner in value.items()}
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, str) and value.lstrip("-").isdecimal() and str(int(value)) == value:
        return int(value)
    return value


def _environment(settings_cls: type[BaseSettings], _: object, problems: list[str]) -> Layer:
    variables = {}
    for name, value in os.environ.items():
        if name.upper().startswith(PREFIX):
            variables[name] = value
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                problems.append(
                    f"{name}: the quotes around the value are part of it; write it without (an env file of Docker "
                    "keeps quotes)"
                )
                variables[name] = value[1:-1]
        elif name.upper().startswith(PREFIX[:-1]):
            rest = name[len(PREFIX) - 1 :]
            if rest.split("__", 1)[0].lower() in settings_cls.model_fields:
                problems.append(f"{name}: two underscores follow BGJOBS; did you mean {PREFIX}{rest}?")
    return _layer(settings_cls, variables, problems, str)


def _env_file(settings_cls: type[BaseSettings], named: Any, problems: list[str]) -> Layer:
    path = Path(named or "").expanduser()
    text = read_text(path) if named is not None else ""
    bindings = list(parse_stream(io.StringIO(text)))
    problems += [
        f"{path}: line {binding.original.line} is not of the form NAME=value"
        for binding in bindings
        if PREFIX in binding.original.string and (binding.error or binding.value is None)
    ]
    readable = "".join(binding.original.string for binding in bindings if not binding.error)
    lines = dotenv_values(stream=io.StringIO(readable))
    variables = {name: value for name, value in lines.items() if value and name.upper().startswith(PREFIX)}
    return _layer(settings_cls, variables, problems, lambda name: f"{path}: {name}")


def _secrets(settings_cls: type[BaseSettings], named: Any, problems: list[str]) -> Layer:
    directory, variables = Path(named or "").expanduser(), {}
    try:
        paths = sorted(directory.iterdir()) if named is not None else []
    except OSError as exc:
        raise ConfigurationError(f"{directory}: the secrets directory cannot be read: {exc.strerror}") from exc
    for path in paths:
        if path.name.upper().startswith(PREFIX):
            variables[path.name] = read_text(path).strip()
    return _layer(settings_cls, variables, problems, lambda name: str(directory / name))


def _settings_file(_: type[BaseSettings], named: Any, __: list[str]) -> Layer:
    path = Path(named or "").expanduser()
    data = read_file(path) if named is not None else {}
    return Layer(data, lambda way: f"{path}: {'.'.join(way)}", spells=True)


#: The sources below the arguments, highest first, by the setting that names each.
_KINDS: dict[str, Callable[[type[BaseSettings], Any, list[str]], Layer]] = {
    "": _environment,
    "env_file": _env_file,
    "secrets_dir": _secrets,
    "config_file": _settings_file,
}


# -- one of many -----------------------------------------------------------------------------------------------------


class _Merge:
    """Merges layers into `Sources`, lowest first, so that a higher one replaces single values of a lower one."""

    def __init__(self, sources: Sources, layers: Sequence[Layer]) -> None:
        self._sources = sources
        self._names: dict[Way, str] = {}  # the spelling to be shown, by the way with its free names folded
        for layer in sorted(layers, key=lambda layer: not layer.spells):
            self._spell(layer.data, ())
        for layer in reversed(layers):
            self._merge(layer, layer.data, sources.data, (), ())

    def _spell(self, data: Mapping[str, Any], folded: Way) -> None:
        for key, value in data.items():
            way = (*folded, fold(str(key)) if is_free(folded) else str(key))
            self._names.setdefault(way, str(key))
            if isinstance(table := _table(value, way), Mapping):
                self._spell(table, way)

    def _merge(self, layer: Layer, data: Mapping[str, Any], into: dict[str, Any], here: Way, folded: Way) -> None:
        """Merge one table of a layer; `here` is the way in the layer, `folded` that way with its free names folded."""
        spelled: dict[str, str] = {}
        for key, value in data.items():
            there, way = (*here, str(key)), (*folded, fold(str(key)) if is_free(folded) else str(key))
            if not isinstance(key, str) and "kwargs" not in here:
                self._tell(layer, there, f"the key {key!r} is no text; put it in quotes")
            if spelled.setdefault(way[-1], str(key)) != str(key):
                self._tell(layer, there, f"{spelled[way[-1]]!r} and {key!r} are the same name; keep one")
            self._put(layer, _table(value, way), into, there, way)

    def _put(self, layer: Layer, value: Any, into: dict[str, Any], there: Way, way: Way) -> None:
        name = self._names[way]
        shown = tuple(self._names[way[:end]] for end in range(1, len(way) + 1))
        if isinstance(value, Mapping):
            if not isinstance(into.get(name), dict):
                into[name] = {}
                self._sources.places.pop(shown, None)
            self._merge(layer, value, into[name], there, way)
            return
        if isinstance(into.get(name), dict):
            for known in [known for known in self._sources.places if known[: len(shown)] == shown]:
                del self._sources.places[known]
        into[name] = value
        self._sources.places[shown] = layer.place(there)

    def _tell(self, layer: Layer, way: Way, problem: str) -> None:
        self._sources.problems.append(f"{layer.place(way)}: {problem}")


def _table(value: Any, way: Way) -> Any:
    """The options that were set in a model that was given as a job."""
    if isinstance(value, BaseModel) and len(way) == 2:
        return {name: getattr(value, name) for name in value.model_fields_set}
    return value
