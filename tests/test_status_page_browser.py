"""The status page of examples/ as people see it, in a headless Chromium: its text, its layout and its colours."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgjobs import BackgroundJobs
from browser import Browser, browser
from examples.status_page import StatusPage
from examples.status_page.demo import demo_jobs, make_runs
from stage import NIGHTLY, cold, nothing, until
from web import wsgi

ROOT = Path(__file__).parent.parent
STYLE = (ROOT / "examples" / "status_page" / "style.css").read_text(encoding="utf-8")
SCREENSHOT = ROOT / "docs" / "status-page.png"

#: Where screenshots are kept, for people to look at; they are thrown away without it.
FOLDER = os.environ.get("BGJOBS_TEST_SCREENSHOTS")

screens = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
widths = pytest.mark.parametrize("width", [390, 1280])

#: Words that are on more than one line.
BROKEN = r"""
(() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    for (const word of walker.currentNode.data.matchAll(/[\w*]+/g)) {
      const range = document.createRange();
      range.setStart(walker.currentNode, word.index);
      range.setEnd(walker.currentNode, word.index + word[0].length);
      if (new Set(Array.from(range.getClientRects(), (each) => each.top)).size > 1) found.push(word[0]);
    }
  }
  return found;
})()
"""

#: Elements with text that reach out of the screen, or of the box around them.
OUTSIDE = """
Array.from(document.querySelectorAll("main *:not(text)"))
  .filter((each) => each.getBoundingClientRect().right > innerWidth || each.scrollWidth > each.clientWidth + 1)
  .filter((each) => getComputedStyle(each).display !== "inline" && each.textContent.trim() && !each.closest("svg"))
  .map((each) => each.outerHTML.slice(0, 200))
"""


@pytest.fixture(name="tab", scope="module")
def _tab() -> Iterator[Browser]:
    """A browser for all tests here."""
    with browser() as tab:
        yield tab


@pytest.fixture(name="address", scope="module")
def _address() -> Iterator[str]:
    """The page of the demonstration, after its runs; one of its jobs goes on running, and skips what comes due."""
    jobs = demo_jobs()
    page = StatusPage(jobs)
    with jobs, wsgi(page.wsgi) as port:
        make_runs(jobs)
        until(lambda: {"invoice-export", "thumbnails"} <= {problem.key for problem in page.picture().problems})
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(autouse=True)
def _without_complaints(tab: Browser) -> Iterator[None]:
    """The console stays empty: no violation of the policy, nothing that could not be loaded."""
    tab.complaints.clear()
    yield
    assert not tab.complaints


def kept(tab: Browser, name: str) -> bytes:
    """A screenshot, which is a PNG of the width of the screen."""
    png = tab.screenshot()
    if FOLDER is not None:
        Path(FOLDER, f"{name}.png").write_bytes(png)
    return png


def texts(tab: Browser, selector: str) -> list[str]:
    """The texts that are seen."""
    expression = f"Array.from(document.querySelectorAll({json.dumps(selector)}), (each) => each.innerText)"
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in tab.evaluate(expression)]


def colours(dark: bool) -> dict[str, str]:
    """The colours of a palette, by name."""
    palettes = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#\w{6});", palettes[dark]))


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dim, bright = sorted((luminance(first), luminance(second)))
    return (bright + 0.05) / (dim + 0.05)


class TestLayout:
    @screens
    @widths
    def test_everything_fits(self, tab: Browser, address: str, width: int, dark: bool) -> None:
        """Nothing reaches out of the screen or of its box, and no word is broken."""
        tab.show(address, width=width, dark=dark)
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.evaluate(OUTSIDE) == []
        assert tab.evaluate(BROKEN) == []
        assert struct.unpack(">I", kept(tab, f"status-page-{width}-{'dark' if dark else 'light'}")[16:20]) == (width,)

    @widths
    def test_lists_unfold(self, tab: Browser, address: str, width: int) -> None:
        """The latest runs as text fit, too, and say what the marks say on hover."""
        tab.show(address, width=width)
        tab.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        assert tab.evaluate(OUTSIDE) == []
        assert re.search(
            r"\d\d failed after [\d.]+ m?s: ServiceError: 503 from", texts(tab, "article:first-of-type li")[0]
        )

    @screens
    def test_contrast(self, tab: Browser, address: str, dark: bool) -> None:
        """Texts and marks can be told from every ground that they stand on, as WCAG AA asks."""
        tab.show(address, width=1280, dark=dark)
        palette = colours(dark)
        ground = tuple(int(palette["ground"][at : at + 2], 16) for at in (1, 3, 5))
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == f"rgb{ground}"
        for name in ("ground", "card", "red-wash", "amber-wash"):
            for text in ("ink", "quiet", "accent", "red", "amber"):
                assert contrast(palette[text], palette[name]) >= 4.5, (text, name)
            for mark in ("soft", "rest"):
                assert contrast(palette[mark], palette[name]) >= 3, (mark, name)


class TestText:
    def test_what_is_wrong_comes_first(self, tab: Browser, address: str) -> None:
        """One sentence names the jobs in trouble, and they are the first of the list."""
        tab.show(address, width=1280, scripts=False)
        (sentence,) = texts(tab, "h1")
        assert re.fullmatch(
            r"invoice-export has failed \d times in a row, "
            r"and thumbnails skipped a run (just now|\d+ \w+ ago), while the one before was still in progress.",
            sentence,
        )
        assert texts(tab, "h3")[:3] == ["invoice-export", "thumbnails", "newsletter"]
        assert tab.evaluate("document.title").startswith("invoice-export has failed")

    def test_a_job_that_fails(self, tab: Browser, address: str) -> None:
        """It is told when it failed, with what error, since when, and when it runs next."""
        tab.show(address, width=1280)
        told = texts(tab, "article:first-of-type")[0]
        assert re.search(r"Failed\s+(just now|\d+ \w+ ago)", told)
        assert "ServiceError: 503 from https://accounting.example/api/v2/invoices" in told
        assert re.search(r"Has failed \d times in a row; last success", told)
        assert re.search(r"Next (now|in \d+ \w+)\n+(\w+ )?\d\d:\d\d:\d\d", told)

    def test_a_job_that_runs(self, tab: Browser, address: str) -> None:
        """It is told for how long."""
        tab.show(address, width=1280)
        assert re.search(r"Running for \d+ \w+", texts(tab, "article:nth-of-type(2)")[0])

    def test_each_mark_says_what_it_is(self, tab: Browser, address: str) -> None:
        """Shapes differ by outcome, and the time, the duration and the reason are there on hover."""
        tab.show(address, width=1280)
        titles = tab.evaluate("Array.from(document.querySelectorAll('.strip g'), (each) => each.firstChild.innerHTML)")
        assert len(titles) == tab.evaluate("document.querySelectorAll('.strip g').length") > 100
        assert all(re.match(r"(\w+ )?\d\d:\d\d:\d\d [\w ]+( after [\d.]+ m?s|.*: )", title) for title in titles)
        assert tab.evaluate("document.querySelectorAll('.strip .failed path').length") >= 3
        assert tab.evaluate("document.querySelectorAll('.strip .overlapped circle').length") >= 1
        assert tab.evaluate("document.querySelectorAll('.strip .timed_out path').length") >= 3

    def test_only_the_latest_runs_are_shown(self, tab: Browser, address: str) -> None:
        """Of more than forty runs of the job, there are forty marks."""
        tab.show(address, width=1280)
        job = "Array.from(document.querySelectorAll('article')).find((each) => each.innerText.startsWith('exchange'))"
        assert tab.evaluate(f"{job}.querySelectorAll('.strip g').length") == 40

    def test_the_coming_day(self, tab: Browser, address: str) -> None:
        """Each job that runs has a line, with its time on hover; a paused one has none."""
        tab.show(address, width=1280)
        lines = [line.strip() for line in texts(tab, ".day li span") if line.strip()]
        assert set(lines) >= {"BackUpDatabase", "exchange-rates", "invoice-export", "price-feed"}
        assert "newsletter" not in lines
        assert tab.evaluate("document.querySelectorAll('.day rect > title').length") > 40

    def test_the_json_is_one_click_away(self, tab: Browser, address: str) -> None:
        """The link leads to it."""
        tab.show(address, width=1280)
        tab.show(tab.evaluate("document.querySelector('footer a').href"), width=1280)
        assert json.loads(tab.evaluate("document.body.innerText"))["ok"] is False


def evil_jobs(evil: str) -> BackgroundJobs:
    """A job whose key and error want to be more than text."""
    jobs = cold()

    def broken() -> None:
        raise ValueError(evil)

    jobs.add_background_job(broken, cron=NIGHTLY, key=evil)
    return jobs


@widths
def test_what_comes_from_outside_is_text(tab: Browser, width: int) -> None:
    """A key and an error that are HTML are shown as they are, and make no element; neither do long ones overflow."""
    evil = f"""<script>document.title = "seen"</script><img src=x onerror="alert(1)">' </style>{"long" * 30}"""
    jobs = evil_jobs(evil)
    page = StatusPage(jobs, title=evil)
    with jobs, wsgi(page.wsgi) as port:
        jobs.wait(jobs.run_now(evil), timeout=60)
        tab.show(f"http://127.0.0.1:{port}/", width=width)
        assert texts(tab, "h3") == [evil]
        assert texts(tab, ".error") == [f"ValueError: {evil}"]
        assert tab.evaluate("document.querySelectorAll('script, img, [onerror]').length") == 0
        assert tab.evaluate("document.documentElement.scrollWidth") == width


@widths
def test_a_page_without_jobs(tab: Browser, width: int) -> None:
    """It says so, in a calm way."""
    with wsgi(StatusPage(cold()).wsgi) as port:
        tab.show(f"http://127.0.0.1:{port}/", width=width)
    assert texts(tab, "h1") == ["The jobs are not warmed up."]


def test_all_is_well(tab: Browser) -> None:
    """The sentence is short where there is nothing to say, and the sign differs in shape from that of trouble."""
    jobs = cold()
    jobs.add_background_job(nothing, cron=NIGHTLY)
    with jobs, wsgi(StatusPage(jobs).wsgi) as port:
        tab.show(f"http://127.0.0.1:{port}/", width=390)
        kept(tab, "status-page-well")
    assert texts(tab, "h1") == ["All is well."]
    assert tab.evaluate("document.querySelector('h1 svg').getAttribute('aria-label')") == "well"


def test_the_screenshot_of_the_documentation() -> None:
    """It is there, and small."""
    png = SCREENSHOT.read_bytes()
    assert struct.unpack(">I", png[16:20])[0] >= 1280
    assert len(png) < 150_000
