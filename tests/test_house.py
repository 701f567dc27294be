"""The rules of the house: short modules and functions, arrows that run one way, one border with APScheduler."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "bgjobs"
PATHS = sorted(PACKAGE.rglob("*.py"))

#: What the modules of a wing may import from the package: wings, and modules outside of wings. The others may import
#: everything that does not lead back to them.
BELOW = {
    "_cron": {"_cron", "_errors"},
    "_runs": {"_runs", "_job", "_token", "_errors"},
    "_settings": {"_settings", "_options", "_errors"},
    "_apscheduler": {"_apscheduler", "_runs", "_cron", "_errors"},
    "_claims": {"_claims", "_runs", "_errors"},
    "_errors": set(),
    "_token": set(),
    "_job": {"_errors"},
    "_options": {"_cron", "_job", "_errors"},
}

every_module = pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(PACKAGE)))


def name_of(path: Path) -> str:
    """The name of a module within the package; a package has that of its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, Path]:
    """The modules with code; a wing's `__init__` is only its docstring."""
    return {name_of(path): path for path in PATHS if len(tree_of(path).body) > 1}


@cache
def arrows() -> dict[str, set[str]]:
    """Which modules of the package each module imports, anywhere in it, for type checkers or not."""
    return {name: set().union(*map(targets(name), ast.walk(tree_of(path)))) for name, path in modules().items()}


def targets(importer: str):  # type: ignore[no-untyped-def] # a function of a node
    """How to find the modules of the package that a node imports into `importer`."""
    package = importer.split(".") if modules()[importer].stem == "__init__" else importer.split(".")[:-1]
    package = [] if importer == "__init__" else package

    def found(node: ast.AST) -> set[str]:
        if isinstance(node, ast.Import):
            return {"__init__" for alias in node.names if alias.name.split(".")[0] == "bgjobs"}
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            return set()
        base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
        base = [part for part in base if part]
        names = {".".join([*base, alias.name]) for alias in node.names}
        return {name for name in names if name in modules()} or ({".".join(base)} & modules().keys())

    return found


@cache
def floor(name: str, above: tuple[str, ...] = ()) -> int:
    """How many modules lie in the longest way of arrows from this one down; fails at a circle."""
    assert name not in above, f"a circle: {' -> '.join([*above, name])}"
    return 1 + max((floor(below, (*above, name)) for below in arrows()[name]), default=0)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function, without its docstring and its decorators."""
    first = function.body[0]
    docstring = 0
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        docstring = (first.end_lineno or 0) - first.lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


@every_module
def test_modules_stay_short(path: Path) -> None:
    """No module has more than 300 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@every_module
def test_functions_stay_short(path: Path) -> None:
    """No function has more than 40 lines, its docstring not counted."""
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not {f.name: n for f in functions if (n := code_lines(f)) > 40}


@every_module
def test_modules_say_what_they_are_for(path: Path) -> None:
    """Each module and each wing begins with a docstring."""
    assert ast.get_docstring(tree_of(path))


def test_there_are_few_modules() -> None:
    """At most 52, the claims of replicas not counted."""
    assert len([name for name in modules() if not name.startswith("_claims")]) <= 52


def test_arrows_run_one_way() -> None:
    """No circle, not even for type checkers, and at most nine floors."""
    assert max(floor(name) for name in modules()) <= 9


@pytest.mark.parametrize("wing", BELOW)
def test_wings_know_nobody_above(wing: str) -> None:
    """Each wing imports only what lies below it."""
    known = {name.split(".")[0] for module, names in arrows().items() if module.split(".")[0] == wing for name in names}
    assert known <= BELOW[wing]


def test_nobody_inside_imports_the_public_names() -> None:
    """`bgjobs/__init__.py` is for users."""
    assert not [module for module, names in arrows().items() if "__init__" in names]


def test_apscheduler_is_imported_at_the_border_only() -> None:
    """One wing knows APScheduler."""
    found = set()
    for path in PATHS:
        for node in ast.walk(tree_of(path)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {path.parent.name for name in names if name.split(".")[0] == "apscheduler"}
    assert found == {"_apscheduler"}
