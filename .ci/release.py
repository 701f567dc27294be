"""Says what is missing for a release, and exits with 1 until nothing is: `python3 .ci/release.py v0.1.0`.

The release workflow asks it before it builds; CONTRIBUTING.md has the steps of a release.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

URLS = ("Changelog", "Documentation", "Issues", "Source")
LINK = re.compile(r"\]\((?!https://|#)([^)]+)\)")


def missing(root: Path, tag: str) -> Iterator[str]:
    """One sentence for each thing that has to be mended before the tag can be released."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    if tag != f"v{version}":
        yield f"pyproject.toml: the version is {version}, so the tag must be v{version}, not {tag}"
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE) is None:
        yield f'CHANGELOG.md: there is no "## [{version}] - " with the date of the release'
    if urls := [name for name in URLS if name not in project.get("urls", {})]:
        yield f"pyproject.toml: [project.urls] has no {', '.join(urls)}"
    for link in LINK.findall((root / "README.md").read_text(encoding="utf-8")):
        yield f"README.md: {link} leads nowhere outside the repository; write the whole URL"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} TAG")
    found = list(missing(Path(__file__).parent.parent, sys.argv[1]))
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.exit(1 if found else 0)
