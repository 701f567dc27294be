"""Prints pip requirements that hold every dependency of bgjobs, its extras included, at its lower bound.

The bounds are read from pyproject.toml, so that what is tested is what is declared. After an installation of the
extra `dev`, this takes the dependencies down and leaves the tools as they are:

    python3 .ci/lowest.py > lowest.txt && .venv/bin/pip install -r lowest.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

BOUND = re.compile(r"([\w-]+(?:\[[\w,]+\])?)>=([\w.]+)")


def requirements(project: dict[str, dict[str, list[str]]]) -> list[str]:
    """`name==version` for each dependency with a lower bound; those of the extra `dev` are left out."""
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "dev"}
    found = {BOUND.match(line) for lines in [project["dependencies"], *extras.values()] for line in lines}
    return sorted(f"{bound[1]}=={bound[2]}" for bound in found if bound is not None)


if __name__ == "__main__":
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write("\n".join([*requirements(tomllib.loads(text)["project"]), ""]))
