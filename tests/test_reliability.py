"""The harnesses behind docs/reliability.md and docs/replicas.md, a few quick trials; the rest is run by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("part", ["closes", "clock"])
def test_nothing_is_wrong(part: str) -> None:
    """Closes at random moments, and walks over clock changes, find nothing to complain of."""
    command = [sys.executable, str(BENCHMARKS / "reliability.py"), "--quick", "--only", part]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {part}" in done.stdout


def test_four_replicas_make_each_occurrence_once() -> None:
    """Four processes whose clocks are off double nothing, and lose nothing without a reason."""
    quick = ["--seconds", "9", "--store", "sqlite", "--only", "clocks off by"]
    command = [sys.executable, str(BENCHMARKS / "replicas.py"), *quick]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| sqlite | claims" in done.stdout
