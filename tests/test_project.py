"""What maintainers rely on: workflows, issue forms, the lowest dependencies, the check of a release."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
every_form = pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)


def read(path: Path) -> Any:
    """What a YAML file says; every value as a text, so that `on` is a name and no truth value."""
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def steps(path: Path) -> list[dict[str, Any]]:
    """The steps of all jobs of a workflow."""
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


# -- workflows and forms ---------------------------------------------------------------------------------------------


@every_workflow
def test_workflows_name_the_major_version_of_each_action(path: Path) -> None:
    """`@v6` or `@release/v1`: corrections come by themselves, and nothing else."""
    actions = [step["uses"] for step in steps(path) if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action)] == []


@every_workflow
def test_workflows_may_only_read(path: Path) -> None:
    """Of the token's rights a workflow has that to read; no step keeps it, and every job has a limit of time."""
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(int(job["timeout-minutes"]) <= 90 for job in workflow["jobs"].values())
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert {step["with"]["persist-credentials"] for step in checkouts} == {"false"}


@every_workflow
def test_workflows_call_scripts_that_are_there(path: Path) -> None:
    """Each file of .ci that a step names is in the repository."""
    named = {name for step in steps(path) for name in re.findall(r"\.ci/[\w.]+", step.get("run", ""))}
    assert named
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_ci_runs_on_every_python_that_is_declared() -> None:
    """From the lowest one that is allowed on; the classifiers claim no other one."""
    pythons = read(GITHUB / "workflows" / "ci.yml")["jobs"]["checks"]["strategy"]["matrix"]["python"]
    minors = [int(python.removeprefix("3.")) for python in pythons]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    declared = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if " :: Python :: 3." in line]
    assert declared == pythons[: len(declared)]


def test_only_the_job_that_publishes_may_ask_for_a_token() -> None:
    """It waits for the build, runs in an environment that asks for approval, and holds no secret."""
    path = GITHUB / "workflows" / "release.yml"
    jobs = read(path)["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert (jobs["publish"]["needs"], jobs["publish"]["environment"]) == ("build", "pypi")
    assert "permissions" not in jobs["build"]
    assert "secrets." not in path.read_text(encoding="utf-8")


@every_form
def test_forms_are_complete(path: Path) -> None:
    """A name, a description, and questions of known types with an id of their own and a label."""
    form = read(path)
    assert form["name"]
    assert form["description"]
    questions = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in questions} <= {"checkboxes", "dropdown", "input", "textarea"}
    ids = [field["id"] for field in questions]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in questions)
    assert any(field.get("validations", {}).get("required") == "true" for field in questions)


def test_nobody_is_led_past_the_private_report() -> None:
    """There is no blank issue, and each form says where a vulnerability goes."""
    assert read(GITHUB / "ISSUE_TEMPLATE" / "config.yml")["blank_issues_enabled"] == "false"
    assert "SECURITY.md" in (GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")


# -- the scripts in .ci ----------------------------------------------------------------------------------------------


def script(name: str, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """One of the scripts in .ci, run to its end."""
    command = [sys.executable, str(root / ".ci" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_lowest_dependencies_are_the_declared_bounds() -> None:
    """Each dependency that users can get has a lower bound, and the script pins it there; tools stay free."""
    done = script("lowest.py")
    assert done.returncode == 0, done.stderr
    extras = [lines for name, lines in PROJECT["optional-dependencies"].items() if name != "dev"]
    declared = {
        line for lines in [PROJECT["dependencies"], *extras] for line in lines if not line.startswith("bgjobs[")
    }
    pinned = {line.replace("==", ">=") for line in done.stdout.splitlines()}
    assert pinned == {line.split(",")[0] for line in declared}


@pytest.fixture(name="release")
def _release(tmp_path: Path) -> Path:
    """A repository in which nothing is missing for the release of version 7.0.0."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    urls = "".join(f'{name} = "https://example.org"\n' for name in ("Changelog", "Documentation", "Issues", "Source"))
    (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "7.0.0"\n[project.urls]\n{urls}')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [7.0.0] - 2030-01-31\n\n## [6.0.0] - 2029-01-31\n")
    (tmp_path / "README.md").write_text("[here](#here), [there](https://example.org)\n")
    return tmp_path


def test_a_release_with_everything_is_let_through(release: Path) -> None:
    """The check prints nothing, and the release goes on."""
    done = script("release.py", "v7.0.0", root=release)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        pytest.param("pyproject.toml", '"7.0.0"', '"7.0.1"', "the tag must be v7.0.1, not v7.0.0", id="tag"),
        pytest.param(
            "CHANGELOG.md", "2030-01-31", "unreleased", 'CHANGELOG.md: there is no "## [7.0.0] - "', id="date"
        ),
        pytest.param("pyproject.toml", "Source =", "Home =", "[project.urls] has no Source", id="url"),
        pytest.param("README.md", "https://example.org", "docs/index.md", "README.md: docs/index.md", id="link"),
    ],
)
def test_a_release_that_lacks_something_is_stopped(release: Path, name: str, old: str, new: str, message: str) -> None:
    """The check says what is missing, in which file, and exits with 1."""
    path = release / name
    path.write_text(path.read_text().replace(old, new))
    done = script("release.py", "v7.0.0", root=release)
    assert done.returncode == 1
    assert message in done.stdout


def test_the_check_of_a_release_wants_a_tag() -> None:
    """Without one it says how it is called."""
    done = script("release.py")
    assert done.returncode == 1
    assert done.stderr.startswith("usage: ")
