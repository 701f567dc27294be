"""What is published."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tarfile
import tomllib
import typing
import zipfile
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType

import pytest

import bgjobs
import bgjobs.testing

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "bgjobs"
MODULES = sorted(PACKAGE.rglob("*.py"))
PUBLIC = sorted(bgjobs.__all__)
ERRORS = [name for name in PUBLIC if name.endswith("Error")]
BUILTINS = {
    "ClaimStoreError": ConnectionError,
    "ConfigurationError": ValueError,
    "CronFormatError": ValueError,
    "DuplicateJobError": ValueError,
    "InvalidJobError": TypeError,
    "LifecycleError": RuntimeError,
    "NeverFiresError": ValueError,
    "ResolverError": TypeError,
    "UnknownJobError": LookupError,
    "UnknownRunError": LookupError,
}
#: Names that stand for types and have no docstring of their own.
ALIASES = {"Job"}

every_public_name = pytest.mark.parametrize("name", PUBLIC)


# -- what is exported ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [bgjobs, bgjobs.testing], ids=lambda module: module.__name__)
def test_all_is_sorted(module: ModuleType) -> None:
    """The list of public names is in order, without doubles, and each of them is there, with a docstring."""
    assert module.__all__ == sorted(set(module.__all__))
    assert all(inspect.getdoc(getattr(module, name)) for name in module.__all__ if name not in ALIASES)


def test_all_names_what_the_package_imports() -> None:
    """What `__init__` imports is public, and nothing else is."""
    assert bgjobs.BackgroundJobsSettings in vars(bgjobs).values()  # from when it is asked for
    public = {name for name, value in vars(bgjobs).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert set(bgjobs.__all__) == public


def test_the_settings_are_imported_when_they_are_asked_for() -> None:
    """A module that only defines jobs does not wait for pydantic-settings; `dir` knows the name all the same."""
    script = """if True:
        import sys, bgjobs, typing
        assert "pydantic_settings" not in sys.modules
        assert "BackgroundJobsSettings" in dir(bgjobs)
        hints = typing.get_type_hints(bgjobs.BackgroundJobs.__init__)
        assert hints["settings"] == bgjobs.BackgroundJobsSettings | None
        assert "pydantic_settings" in sys.modules
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_unknown_name_is_no_attribute() -> None:
    """As of any other module."""
    with pytest.raises(AttributeError, match="module 'bgjobs' has no attribute 'BackgroundJob5'"):
        bgjobs.BackgroundJob5  # type: ignore[attr-defined] # noqa: B018


def test_an_unknown_name_of_the_settings_is_no_attribute() -> None:
    """What is imported when it is asked for is one name."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bgjobs._settings.nothing  # type: ignore[attr-defined] # noqa: B018 - the wing's own look-up, which a misspelled import would reach


def test_star_import_gives_every_public_name() -> None:
    """`from bgjobs import *` works."""
    namespace: dict[str, object] = {}
    exec("from bgjobs import *", namespace)
    assert set(bgjobs.__all__) <= set(namespace)


@every_public_name
def test_public_objects_are_documented(name: str) -> None:
    """Every public class and function has a docstring that says more than its name; so have their public methods."""
    if name in ALIASES:
        return
    value = getattr(bgjobs, name)
    undocumented = [] if inspect.getdoc(value) else [name]
    for attribute, member in vars(value).items() if inspect.isclass(value) else ():
        if (
            not attribute.startswith("_")
            and inspect.isfunction(member)
            and not inspect.getdoc(getattr(value, attribute))
        ):
            undocumented.append(f"{name}.{attribute}")
    assert not [u for u in undocumented if not u.endswith(".settings_customise_sources")]


@every_public_name
def test_type_hints_can_be_resolved(name: str) -> None:
    """`typing.get_type_hints` works on it, and on the constructor of a class, as containers use it."""
    value = getattr(bgjobs, name)
    if name not in ALIASES:
        typing.get_type_hints(value)
    if inspect.isclass(value) and "__init__" in vars(value):
        typing.get_type_hints(value.__init__)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(bgjobs.BackgroundJobs(), id="BackgroundJobs"),
        pytest.param(bgjobs.BackgroundJobOptions(cron="@daily"), id="BackgroundJobOptions"),
        pytest.param(bgjobs.BackgroundJobsSettings.defaults(), id="BackgroundJobsSettings"),
        pytest.param(bgjobs.CancellationToken(), id="CancellationToken"),
        pytest.param(bgjobs.Cancelled(), id="Cancelled"),
        pytest.param(bgjobs.CronExpression("@daily"), id="CronExpression"),
        pytest.param(bgjobs.Skipped("still running"), id="Skipped"),
        pytest.param(bgjobs.CronExpression("@daily").trigger("UTC"), id="SixFieldCronTrigger"),
    ],
)
def test_reprs_name_the_class_and_no_address(value: object) -> None:
    """A repr says what it is, and is the same at each run."""
    assert type(value).__name__ in repr(value)
    assert " at 0x" not in repr(value)


# -- the errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_in_the_tree(name: str) -> None:
    """Every error is a `BgjobsError`, can be made from a message alone, and tells it."""
    error = getattr(bgjobs, name)("what is wrong")
    assert isinstance(error, bgjobs.BgjobsError)
    assert str(error) == "what is wrong"


@pytest.mark.parametrize("name", [name for name in ERRORS if name != "BgjobsError"])
def test_errors_are_also_builtin_ones(name: str) -> None:
    """Who does not know bgjobs catches the builtin error."""
    assert issubclass(getattr(bgjobs, name), BUILTINS[name])


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_drawn_in_the_tree(name: str) -> None:
    """The picture of the tree has every error."""
    # the picture stands where its maintainers look
    assert name in (sys.modules["bgjobs._errors"].__doc__ or "")


# -- the package -----------------------------------------------------------------------------------------------------


def test_the_version_is_the_top_entry_of_the_changelog() -> None:
    """pyproject.toml, the installed package and the changelog agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    top = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert top is not None
    assert top[1] == project["version"] == metadata.version("bgjobs")


def test_it_is_typed() -> None:
    """The marker for type checkers is there."""
    assert resources.files("bgjobs").joinpath("py.typed").is_file()


def test_runtime_dependencies_are_three() -> None:
    """APScheduler, pydantic-settings and loguru; nothing else without an extra."""
    required = [line for line in metadata.requires("bgjobs") or [] if "extra ==" not in line]
    assert sorted(re.split(r"[<>=!~ ]", line)[0] for line in required) == ["apscheduler", "loguru", "pydantic-settings"]


def test_an_apscheduler_that_sleeps_an_hour_too_long_is_not_enough() -> None:
    """Before 3.11.3 it computed its last sleep before the clocks go forward on the wall clock."""
    (line,) = [line for line in metadata.requires("bgjobs") or [] if line.startswith("apscheduler")]
    assert ">=3.11.3" in line


def build(target: str, directory: Path) -> Path:
    """The wheel or the source distribution, built from this tree."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (path,) = directory.iterdir()
    return path


@pytest.fixture(name="wheel", scope="module")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel")))


def test_the_wheel_has_every_module_and_the_marker(wheel: zipfile.ZipFile) -> None:
    """All of src/bgjobs, the metadata, and nothing else."""
    names = set(wheel.namelist())
    modules = {f"bgjobs/{path.relative_to(PACKAGE).as_posix()}" for path in MODULES}
    assert modules | {"bgjobs/py.typed"} <= names
    assert {name.split("/")[0] for name in names} == {"bgjobs", f"bgjobs-{metadata.version('bgjobs')}.dist-info"}


def test_the_wheel_has_its_entry_points_and_licence(wheel: zipfile.ZipFile) -> None:
    """The command, the trigger plugin and the licence text are in the metadata."""
    folder = f"bgjobs-{metadata.version('bgjobs')}.dist-info"
    entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "bgjobs = bgjobs.__main__:main" in entry_points
    assert "six_field_cron = bgjobs._apscheduler.trigger:SixFieldCronTrigger" in entry_points
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()


def test_the_source_distribution_can_run_its_tests(tmp_path: Path) -> None:
    """It has all that the tests read: each file of these folders, and the configuration of the tools."""
    with tarfile.open(build("sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    needed = {
        "conftest.py",
        "pyproject.toml",
        "zensical.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "CONTRIBUTING.md",
    }
    for folder in (".ci", ".github", "benchmarks", "docs", "examples", "src", "tests"):
        files = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
        needed |= {path.as_posix() for path in files if "__pycache__" not in path.parts}
    assert needed - names == set()
    assert {name.split("/")[0] for name in names} & {".git", ".venv", "site", "dist"} == set()
