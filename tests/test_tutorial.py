"""The tutorial, followed step by step in an empty folder: its files are written, and its commands run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path
from threading import Timer

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    session.partition("\n") for language, block in BLOCKS if language == "console" for session in block.split("$ ")[1:]
]


def follow(folder: Path) -> None:
    """Write every file of the tutorial."""
    for language, block in BLOCKS:
        if language in ("python", "toml"):
            name = re.match(r"# (\S+)\n", block)
            assert name, f"a block does not begin with the name of its file: {block[:40]}"
            (folder / name[1]).write_text(block, encoding="utf-8")


def started(command: str, folder: Path) -> subprocess.Popen[str]:
    """Start a command of the tutorial; programs are those of this virtual environment."""
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words if re.match(r"BGJOBS__\w+=", word))
    program, *arguments = [word for word in words if not re.match(r"BGJOBS__\w+=", word)]
    python = [sys.executable, "-u"] if program == "python" else [sys.executable, "-u", "-m", program]
    return subprocess.Popen(
        [*python, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_shown(text: str, shown: str) -> bool:
    """Whether a text is what the tutorial shows, in which `...` stands for anything."""
    return OutputChecker().check_output(shown.strip(), text.strip(), ELLIPSIS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_prints_what_is_shown(command: tuple[str, str, str], tmp_path: Path) -> None:
    """Programs that go on are interrupted when they have printed it, and end well."""
    follow(tmp_path)
    line, _, shown = command
    goes_on = line.startswith(("python ", "uvicorn "))
    with started(line + (" --port 0" if line.startswith("uvicorn") else ""), tmp_path) as process:
        rescue = Timer(60, process.kill)
        rescue.start()
        if goes_on:
            assert process.stdout is not None
            text = next(text for text in process.stdout if is_shown(text, shown))
            process.send_signal(signal.SIGINT)
            process.communicate()
        else:
            text, _ = process.communicate()
        rescue.cancel()
    assert is_shown(text, shown), text
    if goes_on:
        assert process.returncode in (0, -signal.SIGINT)
    else:
        assert process.returncode == (1 if "failed" in shown else 0)


def test_the_web_application_tells_its_health(tmp_path: Path) -> None:
    """`/health` answers what the tutorial shows."""
    follow(tmp_path)
    (shown,) = [block for language, block in BLOCKS if language == "text"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with started(f"uvicorn web:app --port {port}", tmp_path) as process:
        rescue = Timer(60, process.kill)
        rescue.start()
        assert process.stdout is not None
        next(text for text in process.stdout if "Uvicorn running" in text)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
            assert answer.read().decode() == shown.strip()
        process.send_signal(signal.SIGTERM)
        process.communicate()
        rescue.cancel()


def test_its_code_is_typed(tmp_path: Path) -> None:
    """A reader who checks types strictly can take the files as they stand."""
    follow(tmp_path)
    files = sorted(path.name for path in tmp_path.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", *files]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert checked.returncode == 0, checked.stdout
