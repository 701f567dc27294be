"""What the documentation promises beside its blocks of code, which run on their own (see conftest.py at the root)."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)?(?:#([\w-]+))?\)")


def blocks(language: str, text: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_first_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """As a process of its own it prints the lines shown, in that order, and ends well on Ctrl-C."""
    script = tmp_path / "first.py"
    script.write_text(blocks("python", README)[0], encoding="utf-8")
    shown = blocks("text", README)[0].splitlines()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-u", str(script)], stdout=pipe, stderr=pipe, text=True) as process:
        rescue = Timer(60, process.kill)
        rescue.start()
        assert process.stdout is not None
        printed = [process.stdout.readline().rstrip() for _ in shown]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        rescue.cancel()
    assert sorted(printed) == sorted(shown)  # the first tick may come before the immediate run
    assert process.returncode == 0, errors
    assert "ERROR" not in errors


def test_there_are_two_commands_for_a_fresh_machine() -> None:
    """One line runs the quickstart, one runs the tests, and CI runs the latter as it stands."""
    quickstart, tests = blocks("sh", README)
    assert quickstart.endswith("-m examples.quickstart\n")
    assert tests.endswith(".venv/bin/python -m pytest\n")
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_quickstart_readme_has_the_same_command() -> None:
    """What the README of the repository says, that of the quickstart says."""
    assert blocks("sh", README)[0].strip() in (ROOT / "examples" / "quickstart" / "README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and a heading that is in it."""
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(path), f"{target} has no heading #{anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=lambda page: page.name)
def test_pages_are_in_the_navigation(page: Path) -> None:
    """The built documentation leads to every page."""
    assert f'"{page.name}"' in (ROOT / "zensical.toml").read_text(encoding="utf-8")


def scripts(name: str) -> list[str]:
    """The Python of a page: one script, or one for each section where sections stand alone."""
    page = (ROOT / name).read_text(encoding="utf-8")
    parts = page.split("\n## ") if name == "docs/frameworks.md" else [page]
    return ["\n".join(blocks("python", part)) for part in parts]


def test_python_blocks_are_typed(tmp_path: Path) -> None:
    """A reader who checks types strictly can take the code of these pages as it stands."""
    paths = []
    pages = ("index", "from-dotnet", "frameworks", "sessions", "observability")
    for name in ("README.md", *(f"docs/{page}.md" for page in pages)):
        for number, script in enumerate(scripts(name)):
            paths.append(tmp_path / f"{Path(name).stem.lower().replace('-', '_')}_{number}.py")
            paths[-1].write_text(script, encoding="utf-8")
    options = ["--strict", "--allow-redefinition", "--allow-subclassing-any"]  # Django has no types
    command = [sys.executable, "-m", "mypy", *options, *map(str, paths)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert checked.returncode == 0, checked.stdout
