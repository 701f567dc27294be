"""The harness behind docs/reliability.md, a few trials of its quick parts; the rest is run by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent.parent / "benchmarks" / "reliability.py"


@pytest.mark.skipif(not HARNESS.exists(), reason="the source distribution has no benchmarks")
@pytest.mark.parametrize("part", ["closes", "clock"])
def test_nothing_is_wrong(part: str) -> None:
    """Closes at random moments, and walks over clock changes, find nothing to complain of."""
    command = [sys.executable, str(HARNESS), "--quick", "--only", part]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {part}" in done.stdout
