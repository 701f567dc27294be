"""What the command line writes harms nobody: closed streams, pipes without a reader, terminals that know only ASCII."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from .._errors import LifecycleError


@contextmanager
def output() -> Generator[None]:
    """Make stdout and stderr such that whatever is printed harms nobody: closed ones, pipes without reader, ASCII."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed: else the next file that is opened would become it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # the interpreter would try again, complain, and end with another status
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def write(text: str) -> None:
    """Print a text; nobody need read it.

    Raises:
        LifecycleError: It cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has seen enough
        pass
    except OSError as exc:
        raise LifecycleError(f"the output cannot be written: {exc.strerror}") from exc


def tell(text: str) -> None:
    """Print a line on stderr, where somebody reads it."""
    with suppress(OSError):  # nobody reads it
        print(f"bgjobs: {text}", file=sys.stderr)


def write_json(value: object) -> None:
    """Print a value as JSON."""
    write(json.dumps(value, indent=2))
