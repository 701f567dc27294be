"""Reads the files of the settings: TOML, YAML and JSON, of a size that can be read, with errors that quote nothing."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from .._errors import ConfigurationError

T = TypeVar("T")

#: How deep and how large one source may be. Beyond that are mistakes, and YAML whose aliases would fill the memory.
_DEEPEST, _MOST = 100, 500_000
_TOO_DEEP = f"settings have more than {_DEEPEST} tables in each other, or in themselves"
#: How many characters a number in YAML may have; that of ``1:1:1:...`` takes time by their square.
_LONGEST_NUMBER = 1000
#: In TOML, strings of four kinds, ended or not, and comments: their dots join no names.
_NO_NAMES = re.compile(
    r'''"""(?s:\\.|(?!""")[^\\])*+(?:""")?|\'{3}(?s:(?!\'{3}).)*+(?:\'{3})?|"(?:\\.|[^"\\\n])*+"?|'[^'\n]*+'?|#.*'''
)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def bounded(root: T, inside: Callable[[Any], Iterable[Any]] = _inside) -> T:
    """Return a source as it is, if it is of a size that can be read; aliases count as often as they are used."""
    level: list[Any] = [root]
    count = 0
    for _ in range(_DEEPEST):
        level = list(islice((inner for outer in level for inner in inside(outer)), _MOST - count))
        count += len(level)
        if not level and count < _MOST:
            return root
    if count == _MOST:
        raise ConfigurationError(f"settings have more than {_MOST} values")
    raise ConfigurationError(_TOO_DEEP)


def load(path: Path) -> dict[Any, Any]:
    """Return what a settings file says, as a table.

    Raises:
        ConfigurationError: It cannot be read; the message does not quote it.
    """
    if path.suffix.lower() not in _LOADERS:
        raise ConfigurationError(f"{path}: a settings file ends in .toml, .yaml, .yml or .json")
    kind, read = _LOADERS[path.suffix.lower()]
    text = text_of(path)
    try:
        data = bounded(read(text))
    except ImportError as exc:
        raise ConfigurationError(
            f"{path}: reading YAML needs PyYAML; install bgjobs[yaml], or write the settings as TOML"
        ) from exc
    except Exception as exc:  # each parser has its own, and values can be out of range
        raise ConfigurationError(f"{path}: not valid {kind}{_position(exc)}") from exc
    if not isinstance(data, dict | None):
        raise ConfigurationError(f"{path}: not valid: a {kind} file of settings is a table of names and values")
    return data or {}


def text_of(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path}: cannot be read: it is not UTF-8 (byte {exc.start})") from exc
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot be read: {exc.strerror}") from exc


def _toml(text: str) -> Any:
    # Before it is parsed, which takes time by the square of the names in a dotted one.
    dotted = re.findall(r"[^\n=,\[\]{}]+", _NO_NAMES.sub("_", text))
    if any(name.count(".") > _DEEPEST for name in dotted):
        raise ConfigurationError(_TOO_DEEP)
    return tomllib.loads(text)


def _yaml(text: str) -> Any:
    import yaml

    def inside(node: Any) -> Iterable[Any]:
        value = getattr(node, "value", node)
        if isinstance(value, str) and len(value) > _LONGEST_NUMBER and node.tag.endswith((":int", ":float")):
            raise ConfigurationError("a number has too many digits")
        return _inside(value)

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        bounded(node, inside)  # merging aliases can take long, too
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _position(exc: Exception) -> str:
    """What a parser says, unless it quotes the file, which may hold passwords; then the position alone."""
    if isinstance(exc, tomllib.TOMLDecodeError | json.JSONDecodeError | ConfigurationError):
        return f": {exc}"
    if isinstance(exc, RecursionError):
        return ": nested too deeply"
    if isinstance(exc, ValueError) and "digits" in str(exc):
        return ": a number has too many digits"
    mark = getattr(exc, "problem_mark", None)
    return f" (at line {mark.line + 1}, column {mark.column + 1})" if mark else ""


_LOADERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    ".toml": ("TOML", _toml),
    ".yaml": ("YAML", _yaml),
    ".yml": ("YAML", _yaml),
    ".json": ("JSON", json.loads),
}
