"""Executes the documentation: every Python, TOML and console block of README.md and docs/*.md is a test.

* ``python`` blocks share one namespace per document and make their own asserts.
* A ``text`` block after ``<!-- printed -->`` is what the Python block before it prints.
* ``toml`` blocks must be valid settings files.
* ``console`` blocks show commands after ``$`` and what they print; ``...`` stands for anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from bgjobs import BackgroundJobsSettings
from bgjobs._logging import unconfigure_logging

PRINTED = re.compile(r"^<!-- printed -->\n+```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class CapturingEvaluator(PythonEvaluator):
    """Runs a block, and keeps what it prints for the next ``<!-- printed -->`` block."""

    def __call__(self, example: Example) -> None:
        """Run a block."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            super().__call__(example)
        example.namespace["_printed"] = printed.getvalue()


def printed_blocks(document: Document) -> Iterable[Region]:
    """The blocks that show what the block before them printed."""
    for match in PRINTED.finditer(document.text):
        yield Region(match.start(), match.end(), parsed=match.group(1), evaluator=compare_printed)


def compare_printed(example: Example) -> None:
    """Fail unless the last block printed what is shown."""
    assert example.namespace["_printed"] == example.parsed


def check_settings(example: Example) -> None:
    """Fail unless a block is a valid settings file."""
    path = Path("settings.toml")
    path.write_text(example.parsed, encoding="utf-8")
    BackgroundJobsSettings(config_file=path)


def run_console(example: Example) -> None:
    """Run each command of a block, and compare what it prints."""
    for session in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, expected = session.partition("\n")
        program, *arguments = shlex.split(command)
        assert program == "bgjobs", f"{program} cannot be run in a test"
        done = subprocess.run(
            [sys.executable, "-m", "bgjobs", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        shown = done.stdout + done.stderr
        assert OutputChecker().check_output(expected, shown, ELLIPSIS), f"$ {command}\n{shown}"


class Module:
    """A document as a module, in which frameworks look up the names of annotations."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.__dict__ = namespace


def enter(namespace: dict[str, Any]) -> None:
    """Start a document in an empty directory, with no settings in the environment."""
    namespace["__name__"] = "document"
    context = namespace["_context"] = contextlib.ExitStack()
    sys.modules["document"] = cast(ModuleType, Module(namespace))
    context.callback(sys.modules.pop, "document")
    context.enter_context(contextlib.chdir(context.enter_context(tempfile.TemporaryDirectory())))
    for name in [name for name in os.environ if name.upper().startswith("BGJOBS")]:
        context.callback(os.environ.__setitem__, name, os.environ.pop(name))


def leave(namespace: dict[str, Any]) -> None:
    """Undo `enter`."""
    namespace["_context"].close()
    unconfigure_logging()


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", CapturingEvaluator()),
        CodeBlockParser("toml", check_settings),
        CodeBlockParser("console", run_console),
        printed_blocks,
        SkipParser(),
    ],
    patterns=["README.md", "docs/*.md"],
    excludes=["examples/**/*.md", "docs/tutorial.md"],  # the tutorial has tests of its own
    setup=enter,
    teardown=leave,
).pytest()
