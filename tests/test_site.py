"""The built documentation: its links, its sitemap and its search, and how it looks in a headless Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from browser import Browser, browser

ROOT = Path(__file__).parent.parent
NAMES = sorted(page.stem for page in (ROOT / "docs").glob("*.md"))
ADDRESS = "https://docs.example/"

#: Where screenshots are kept, for people to look at; they are thrown away without it.
FOLDER = os.environ.get("BGJOBS_TEST_SCREENSHOTS")

widths = pytest.mark.parametrize("width", [390, 1280])
pages = pytest.mark.parametrize("name", NAMES)

#: Words that are on more than one line. A word is what a reader takes for one: it may have dots, but no dash or slash.
BROKEN = r"""
(() => {
  const found = [], walker = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    for (const word of walker.currentNode.data.matchAll(/\w+/g)) {
      const range = document.createRange();
      range.setStart(walker.currentNode, word.index);
      range.setEnd(walker.currentNode, word.index + word[0].length);
      if (new Set(Array.from(range.getClientRects(), (each) => Math.round(each.top))).size > 1) found.push(word[0]);
    }
  }
  return found;
})()
"""

#: What reaches out of the screen, except in boxes that scroll.
OUTSIDE = r"""
Array.from(document.querySelectorAll("article *"))
  .filter((each) => each.getBoundingClientRect().right > document.documentElement.clientWidth && each.offsetParent)
  .filter((each) => {
    for (let box = each.parentElement; box; box = box.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(box).overflowX) && box.tagName !== "HTML") return false;
    return true;
  })
  .map((each) => each.outerHTML.slice(0, 200))
"""


class Page(HTMLParser):
    """The anchors of a page, and what it refers to.

    Args:
        path: The HTML file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the anchors and the references of one element."""
        for name, value in attrs:
            if value and (name == "id" or (name, tag) == ("name", "a")):
                self.anchors.add(value)
            elif value and name in ("href", "src"):
                self.targets.add(value)


@cache
def parsed(path: Path) -> Page:
    """A page, read once."""
    return Page(path)


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as CI builds it, but for an address of its own."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "CHANGELOG.md", folder)
    settings = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    (folder / "zensical.toml").write_text(
        settings.replace("[project]", f'[project]\nsite_url = "{ADDRESS}"', 1), encoding="utf-8"
    )
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


def test_every_link_and_anchor_is_there(site: Path) -> None:
    """What a page refers to within the site is a file of the site, and an anchor in it."""
    missing = []
    for path in site.rglob("*.html"):
        for target in parsed(path).targets:
            url = urlsplit(target.replace(ADDRESS, "/"))
            if url.scheme or url.netloc:
                continue
            there = (site / url.path[1:] if url.path.startswith("/") else path.parent / url.path) if url.path else path
            there = there / "index.html" if there.is_dir() else there
            anchor = unquote(url.fragment)
            if not there.is_file() or (anchor and there.suffix == ".html" and anchor not in parsed(there).anchors):
                missing.append(f"{path.relative_to(site)}: {target}")
    assert not missing


def test_the_sitemap_has_every_page(site: Path) -> None:
    """Once the site has an address."""
    sitemap = (site / "sitemap.xml").read_text(encoding="utf-8")
    assert all(f"<loc>{ADDRESS}{'' if name == 'index' else name + '/'}</loc>" in sitemap for name in NAMES)


def test_the_changelog_is_that_of_the_repository(site: Path) -> None:
    """The page includes the file, so each of its entries is there."""
    page = (site / "changelog" / "index.html").read_text(encoding="utf-8")
    entries = [line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line[:2] == "- "]
    assert page.count("<li>") >= len(entries) > 10
    assert "keepachangelog.com" in page


@pytest.fixture(name="tab", scope="module")
def _tab() -> Iterator[Browser]:
    """A browser for all tests here."""
    with browser() as tab:
        yield tab


@pytest.fixture(name="address", scope="module")
def _address(site: Path) -> Iterator[str]:
    """Where the site is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # as the base class names it
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def keep(tab: Browser, name: str) -> None:
    """Keep a screenshot, if somebody wants it."""
    if FOLDER is not None:
        Path(FOLDER, f"{name}.png").write_bytes(tab.screenshot())


@pages
@widths
def test_every_page_fits(tab: Browser, address: str, name: str, width: int) -> None:
    """In both palettes nothing reaches out of the screen, no word is broken, and the console stays empty."""
    tab.complaints.clear()
    for dark in (False, True):
        tab.show(address if name == "index" else f"{address}{name}/", width=width, dark=dark)
        keep(tab, f"{name}-{width}-{'dark' if dark else 'light'}")
        assert tab.evaluate("document.querySelectorAll('h1').length") == 1
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert {"broken": tab.evaluate(BROKEN), "outside": tab.evaluate(OUTSIDE)} == {"broken": [], "outside": []}
    assert not tab.complaints


def test_the_palette_is_that_of_the_screen_until_somebody_chooses(tab: Browser, address: str) -> None:
    """The toggle leads from the palette of the system to light, to dark, and back."""
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    click = "document.querySelector('[data-md-component=palette] label:not([hidden])').click()"
    tab.show(address, width=1280, dark=True)
    found = [tab.evaluate(scheme)]
    for _ in range(3):
        tab.evaluate(click)
        found.append(tab.evaluate(scheme))
    assert found == ["slate", "default", "slate", "slate"]


def test_the_search_finds_a_setting(site: Path) -> None:
    """Its index has the text of the pages."""
    assert "misfire_grace_time" in (site / "search.json").read_text(encoding="utf-8")
