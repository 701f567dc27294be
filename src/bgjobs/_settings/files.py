"""Reading a settings file: TOML, YAML or JSON; whatever is wrong names the file, and the line where there is one.

The errors of the parsers hold the text of the file, which may have passwords in it: they are neither passed on nor
named as a cause.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._errors import ConfigurationError

_YAML_QUOTES = '; a value that begins with *, ? or @ stands in quotes, as in cron: "*/5 * * * * *"'


class _Broken(Exception):  # noqa: N818 - `read_file` makes the public error of it
    """What is wrong with the text of a file."""


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a file, as they stand.

    Raises:
        ConfigurationError: The file is not there, cannot be read, or is not valid.
    """
    suffix = path.suffix.lower()
    if suffix not in _PARSERS:
        raise ConfigurationError(f"{path}: a settings file ends in .toml, .yaml, .yml or .json", "config_file")
    kind, parse = _PARSERS[suffix]
    text = read_text(path)
    try:
        data = parse(text)
        if not isinstance(data, dict):
            raise _Broken(f"not valid: a {kind} file of settings is a table of names and values")
    except _Broken as exc:
        problem = str(exc)
    else:
        return {name: value for name, value in data.items() if name != "$schema"}  # which is for editors
    raise ConfigurationError(f"{path}: {problem}", "config_file")


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigurationError: The file is not there, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        problem = "there is no such file"
    except UnicodeDecodeError as exc:
        problem = f"cannot be read: it is not UTF-8 (byte {exc.start})"
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror}"
    raise ConfigurationError(f"{path}: {problem}")


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        problem = str(exc)  # the position alone
    raise _Broken(f"not valid TOML: {problem}")


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as exc:
        problem = f"{exc.msg} (at line {exc.lineno}, column {exc.colno})"
    raise _Broken(f"not valid JSON: {problem}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Broken(f"not valid: the key {key!r} stands twice in one table")
        found[key] = value
    return found


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        yaml = None
    if yaml is None:
        raise _Broken("reading YAML needs PyYAML; install bgjobs[yaml], or write the settings as TOML")

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """The safe loader, which refuses a key that stands twice, as TOML does."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return dict(super().construct_mapping(node, deep))

    try:
        data = yaml.load(text, Loader)
    except yaml.YAMLError as exc:
        problem = _yaml_problem(exc, text)
    else:
        return {} if data is None else data
    raise _Broken(f"not valid YAML: {problem}")


def _yaml_problem(exc: Any, text: str) -> str:
    """The problem and its place; not the text around it, which PyYAML would show."""
    mark = getattr(exc, "problem_mark", None)
    if mark is None:
        return "it has characters that are not allowed"
    near = text.splitlines()[mark.line : mark.line + 1]
    hint = _YAML_QUOTES if near and {*"*?@"} & {*near[0][max(mark.column - 1, 0) : mark.column + 1]} else ""
    return f"{exc.problem} (at line {mark.line + 1}, column {mark.column + 1}){hint}"


_PARSERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    ".toml": ("TOML", _toml),
    ".yaml": ("YAML", _yaml),
    ".yml": ("YAML", _yaml),
    ".json": ("JSON", _json),
}
