"""Reads from the sources what bgjobs may say: the texts of its errors and records, with ``…`` for what is filled in."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "bgjobs"

#: The level of the records that each function of `bgjobs._runs.log` makes.
LEVELS = {"warning": "WARNING", "info": "INFO", "failure": "ERROR", "write": ""}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def normal(text: str) -> str:
    """A text without the punctuation at its ends, and without what is filled in there, or right behind a word."""
    return re.sub(r"(?<=\w)…(?=\W)", "", re.sub(r"(…\W*)+…|\{[\w.]*\}", "…", text)).strip(" \n.,:;…")


def from_sources(least: int = 3) -> dict[str, str]:
    """Every text, with the class of its error or the level of its record; nothing where that is decided elsewhere.

    Args:
        least: Of how many words a text is, at least, that is given neither to an error nor to a record.
    """
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in ("sql.py", "redis.py"):  # statements, for a server
            found |= {text: kind or found.get(text, "") for text, kind in _Module(path).texts(least)}
    return found


class _Module:
    """The texts of one module."""

    def __init__(self, path: Path) -> None:
        self._tree = ast.parse(path.read_text(encoding="utf-8"))
        self._constants = _assigned(self._tree.body)
        self._used: set[ast.AST] = set()

    def texts(self, least: int) -> Iterator[tuple[str, str]]:
        """What errors and records are given; then every other text."""
        for scope in [self._tree, *(node for node in ast.walk(self._tree) if isinstance(node, Function))]:
            names = self._constants | (_assigned(ast.walk(scope)) if isinstance(scope, Function) else {})
            for node in _own(scope):
                if isinstance(node, ast.Call) and (given := _given(node)) is not None:
                    kind, text = given
                    yield from ((normal(one), kind) for one in self._alternatives(text, names) if _words(one) > 1)
        for node in _literals(self._tree):
            if node not in self._used:
                yield from ((normal(one), "") for one in self._alternatives(node, {}) if _is_long(one, least))

    def _alternatives(self, node: ast.AST, names: dict[str, list[ast.AST]]) -> list[str]:
        """The texts that an expression may be."""
        match node:
            case ast.Constant(value=str(text)):
                self._used.add(node)
                return [text]
            case ast.JoinedStr(values=parts):
                self._used.add(node)
                return self._joined(parts, names)
            case ast.FormattedValue(value=value):
                return self._alternatives(value, names)
            case ast.BinOp(op=ast.Add()):
                return self._joined([node.left, node.right], names)
            case ast.IfExp():
                return self._alternatives(node.body, names) + self._alternatives(node.orelse, names)
            case ast.Name(id=name) if name in names:
                less = {other: values for other, values in names.items() if other != name}
                return [text for value in names[name] for text in self._alternatives(value, less)]
        return ["…"]

    def _joined(self, parts: list[ast.expr], names: dict[str, list[ast.AST]]) -> list[str]:
        return ["".join(each) for each in itertools.product(*(self._alternatives(part, names) for part in parts))]


def _words(text: str) -> int:
    return len(re.findall(r"(?<!\S)[^\w\s<]*[a-z_]{2,}(?=\W*\s|\W*$)", text, re.IGNORECASE))


def _is_long(text: str, least: int) -> bool:
    """Whether a text has so many words, two of its own (if need be) and what is filled in."""
    return _words(text) >= min(least, 2) and _words(text) + len(re.findall(r"…|\{[\w.]*\}", text)) >= least


def _given(call: ast.Call) -> tuple[str, ast.expr] | None:
    """What an error or a record is made of, with its class or level; ``None`` for any other call."""
    if isinstance(call.func, ast.Name) and call.func.id.endswith("Error") and call.args:
        return call.func.id, call.args[0]
    if isinstance(call.func, ast.Attribute) and call.args:
        owner, name = ast.unparse(call.func.value), call.func.attr
        if owner == "log" and name in LEVELS:
            return LEVELS[name], call.args[name == "write"]
    return None


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.AST]]:
    """What names are given in plain assignments."""
    found: dict[str, list[ast.AST]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            for name, given in pairs:
                if isinstance(name, ast.Name):
                    found.setdefault(name.id, []).append(given)
    return found


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the functions in it, which see names of their own."""
    for node in ast.iter_child_nodes(scope):
        if not isinstance(node, Function):
            yield node
            yield from _own(node)


def _literals(node: ast.AST) -> Iterator[ast.AST]:
    """The texts in a tree, outermost first, without docstrings and without the help of the command line."""
    if isinstance(node, ast.Constant | ast.JoinedStr):
        yield node
    if isinstance(node, Function) and "add_argument" in ast.dump(node):
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            yield from _literals(child)
