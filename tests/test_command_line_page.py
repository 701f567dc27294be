"""The page of the command line has every command, with its options as ``--help`` shows them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bgjobs.__main__ import main

PAGE = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## bgjobs (\w+)$(.+?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def usage(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What ``--help`` says first, in one line, without the option that everybody knows."""
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    return " ".join(capsys.readouterr().out.partition("\n\n")[0].replace("[-h]", "").split())


def test_every_command_has_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    """One for each that ``bgjobs --help`` lists."""
    with pytest.raises(SystemExit):
        main(["--help"])
    assert sorted(SECTIONS) == sorted(re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.MULTILINE))


@pytest.mark.parametrize("command", SECTIONS)
def test_a_section_shows_the_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option and argument, as ``--help`` has it."""
    shown = re.search(r"^```text\n(.+?)\n```", SECTIONS[command], re.MULTILINE)
    assert shown is not None
    assert shown[1] == usage([command], capsys)


@pytest.mark.parametrize("command", SECTIONS)
def test_a_section_has_an_example(command: str) -> None:
    """A block that the tests execute."""
    assert f"\n```console\n$ bgjobs {command}" in SECTIONS[command]
