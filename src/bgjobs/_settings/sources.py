"""Reads the sources of the settings and merges them into one table that knows where each value was given.

From highest to lowest precedence: the arguments, the environment, the env file, the secrets directory, the settings
file. Each source becomes a flat list of values:

    path                                place                              value
    ("jobs", "data_sync", "cron")       BGJOBS__JOBS__DATA_SYNC__CRON      "@hourly"
    ("jobs", "data-sync", "timeout")    jobs.toml: jobs.data-sync.timeout  30

Names that users choose (keys of jobs, aliases, names of arguments) are equal when they are equal without case and
separators, in every source: the environment cannot say ``data-sync`` or ``DataSync``.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dotenv import dotenv_values  # comes with pydantic-settings
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from .._errors import ConfigurationError, fold, is_password
from .._options import Loc
from .files import bounded, load, text_of

PREFIX = "BGJOBS__"
DEFAULT_ENV_FILE = Path(".env")


class Value(NamedTuple):
    """A value as one source gives it.

    Attributes:
        loc: The path to it, in the spelling of the source.
        place: Where it was given, for people.
        value: The value; never a table, except an empty one.
    """

    loc: Loc
    place: str
    value: Any


@dataclass(repr=False)
class Sources:
    """Everything that the sources of one `BackgroundJobsSettings` say.

    Attributes:
        data: The merged settings.
        places: Where each value was given, by its folded path.
        problems: Mistakes in the sources themselves.
    """

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Loc, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def place(self, loc: Loc) -> str | None:
        """Where a value, or the first value in a table, was given; ``None`` where no source gives one."""
        folded = _folded(loc)
        inside = (place for known, place in self.places.items() if known[: len(folded)] == folded)
        return self.places.get(folded) or next(inside, None)

    def nearest_place(self, loc: Loc) -> str:
        """Where a value or, for one that is missing or inside another one, the nearest table around it was given."""
        places = (self.place(loc[:end]) for end in range(len(loc), 0, -1))
        return next((place for place in places if place), "the settings")


def read(settings_cls: type[BaseSettings], arguments: Mapping[str, Any]) -> Sources:
    """Read all sources and merge them.

    Args:
        settings_cls: The model of the settings.
        arguments: The arguments of its constructor.
    """
    sources = Sources()
    layers = [
        [Value(loc, f"argument {'.'.join(loc)}", value) for loc, value in _flat(bounded(arguments))],
        _variables(settings_cls, {name: (value, name) for name, value in os.environ.items()}),
    ]
    read_already: set[str] = set()
    for name, source in _SOURCES.items():
        default = DEFAULT_ENV_FILE if name == "env_file" and DEFAULT_ENV_FILE.is_file() else None
        given = (value for layer in layers for value in layer if value.loc == (name,))
        _, place, path = next(given, Value((name,), name, default))
        try:
            # The model refuses what is of another type.
            layers.append(source(settings_cls, _path(path, place)) if isinstance(path, str | os.PathLike) else [])
        except ConfigurationError as exc:
            sources.problems.append(str(exc))
            layers.append([])
        read_already.add(name)
        late = [place for loc, place, _ in layers[-1] if loc[0] in read_already]
        sources.problems += [f"{place}: set this in a source of higher precedence" for place in late]
    _merge(layers, sources)
    return sources


def _path(given: str | os.PathLike[str], place: str) -> Path:
    try:
        path = Path(given).expanduser()
        with suppress(OSError):  # told by whoever opens it
            path.stat()
    except (RuntimeError, ValueError) as exc:  # no such user; a character that no path can have
        raise ConfigurationError(f"{place}: {str(given)!r} is not a path: {exc}") from exc
    return path


# -- the sources -----------------------------------------------------------------------------------------------------


def _flat(table: Mapping[Any, Any], loc: Loc = ()) -> Iterator[tuple[Loc, Any]]:
    """The values in a table and in the tables in it, with their paths."""
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, (*loc, str(name)))
        else:
            yield (*loc, str(name)), value


class _Variables(EnvSettingsSource):
    """Reads variables as pydantic-settings reads the environment, wherever they come from."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Decode a JSON table or list; keep everything else as text, which its setting or its parameter converts."""
        if isinstance(value, str) and value.startswith(("{", "[")):
            with suppress(ValueError, RecursionError):
                return super().decode_complex_value(field_name, field, value)
        return value


def _variables(settings_cls: type[BaseSettings], variables: Mapping[str, tuple[str, str]]) -> list[Value]:
    """The values of variables, which are given by name as text and place."""
    ours = {name.upper(): found for name, found in variables.items() if _is_ours(name)}
    texts = {name: text for name, (text, _) in ours.items()}
    source = _Variables(settings_cls)
    source.env_vars = parse_env_vars(texts, ignore_empty=True, parse_none_str=source.env_parse_none_str)
    try:
        found = source()
    except RecursionError:
        raise ConfigurationError("the name of a variable has too many parts") from None
    values = []
    for loc, value in _flat(bounded(found)):
        # The variable of this value, or the one with the JSON that it stands in.
        names = (PREFIX + "__".join(loc[:end]).upper() for end in range(len(loc), 0, -1))
        place = next(ours[name][1] for name in names if name in ours)
        values.append(Value(loc, place, _scalar(value, loc) if loc[0] in ("jobstores", "executors") else value))
    for name, (text, place) in ours.items():  # pydantic-settings reads no others; the model is to refuse them
        setting = name.removeprefix(PREFIX).split("__", 1)[0].lower()
        if setting not in settings_cls.model_fields:
            values.append(Value((setting,), place, text))
    return values


#: Numbers of many more digits cannot be meant.
_SCALAR = re.compile(r"true|false|-?(0|[1-9][0-9]{0,18})")


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX)


def _scalar(value: Any, loc: Loc) -> Any:
    """A whole number or truth value in a text: APScheduler's own options have no annotations that would convert it.

    A password stays a text, which its driver wants.
    """
    is_text = not isinstance(value, str) or is_password(loc[-1])
    return json.loads(value) if not is_text and re.fullmatch(_SCALAR, value) else value


def _env_file(settings_cls: type[BaseSettings], path: Path) -> list[Value]:
    lines = dotenv_values(stream=io.StringIO(text_of(path)))
    return _variables(settings_cls, {name: (text, f"{path}: {name}") for name, text in lines.items() if text})


def _secrets(settings_cls: type[BaseSettings], path: Path) -> list[Value]:
    try:
        files = sorted(file for file in path.iterdir() if _is_ours(file.name))
    except OSError as exc:
        raise ConfigurationError(f"{path}: the secrets directory cannot be read: {exc.strerror}") from exc
    return _variables(settings_cls, {file.name: (text_of(file).strip(), str(file)) for file in files})


def _settings_file(_: type[BaseSettings], path: Path) -> list[Value]:
    values = {name: value for name, value in load(path).items() if name != "$schema"}  # which is for editors
    return [Value(loc, f"{path}: {'.'.join(loc)}", value) for loc, value in _flat(values)]


#: The sources that a setting names, from highest to lowest precedence.
_SOURCES: dict[str, Callable[[type[BaseSettings], Path], list[Value]]] = {
    "env_file": _env_file,
    "secrets_dir": _secrets,
    "config_file": _settings_file,
}


# -- the merge -------------------------------------------------------------------------------------------------------


def _folded(loc: Loc) -> Loc:
    """A path in which the names that users choose are folded."""
    return tuple(fold(name) if _is_free(loc[:depth]) else name for depth, name in enumerate(loc))


def _is_free(loc: Loc) -> bool:
    """Whether users choose the names in this table."""
    return loc in (("jobs",), ("jobstores",), ("executors",)) or (len(loc) == 3 and loc[::2] == ("jobs", "kwargs"))


def _merge(layers: Sequence[Sequence[Value]], sources: Sources) -> None:
    """Merge layers, given from highest to lowest: a value of a higher layer replaces that of a lower one."""
    names = _names(layers, sources.problems)
    places: dict[Loc, str] = {}
    for loc, place, value in (value for layer in reversed(layers) for value in layer):
        folded = _folded(loc)
        *tables, last = (names[folded[:end]] for end in range(1, len(loc) + 1))
        into = sources.data
        for name in tables:
            if not isinstance(into.get(name), dict):
                into[name] = {}
            into = into[name]
        if value != {} or not isinstance(into.get(last), dict):  # an empty table replaces no other one
            into[last] = value
        places[folded] = place
    found = (_folded(loc) for loc, _ in _flat(sources.data))
    sources.places = {loc: places[loc] for loc in found}  # without those of values that were replaced


def _names(layers: Sequence[Sequence[Value]], problems: list[str]) -> dict[Loc, str]:
    """The name to show for each folded path: code and files show names as people write them, variables cannot."""
    code, *variables, file = layers
    names: dict[Loc, str] = {}
    for layer in (code, file, *variables):
        spellings: dict[Loc, dict[str, str]] = {}  # of each folded path, with the place of each
        for loc, place, _ in layer:
            for end, name in enumerate(loc, 1):
                spellings.setdefault(_folded(loc[:end]), {}).setdefault(name, place)
        for folded, (first, *others) in spellings.items():
            names.setdefault(folded, first)
            problems.extend(
                f"{spellings[folded][other]}: {first!r} and {other!r} are the same name; keep one" for other in others
            )
    return names
