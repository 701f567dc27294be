"""From a picture of the jobs to HTML: no template, no script; whatever is not `Html` already is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from statistics import median
from urllib.parse import quote

from bgjobs import Outcome

from .markup import Html, breakable, cut, joined, tag, tight
from .model import DAY, RAN, Job, Level, Phrase, Picture, Run, ago, bands, coming, counted, span, took

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")

STEP, HIGH, HEAD = 8, 32, 9  # of the strip, in pixels: a mark, the highest bar, and what is above it
SHOWN = 8  # so many runs are listed as text


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds the picture: see `StatusPage`."""

    title: str
    zone: tzinfo
    latest: int
    refresh: int | None
    host: str


@dataclass(frozen=True, slots=True)
class Clock:
    """Says times as people do, seen from now."""

    now: datetime
    zone: tzinfo

    @property
    def name(self) -> str:
        """The name of the zone."""
        return f"{self.now.astimezone(self.zone):%Z}"

    def at(self, moment: datetime, seconds: bool = False) -> str:
        """The time; with the weekday where it is another day, and with the date where that is farther away."""
        there, here = moment.astimezone(self.zone), self.now.astimezone(self.zone)
        days = abs((there.date() - here.date()).days)
        day = "" if days == 0 else f"{there:%a} " if days < 6 else f"{there.day} {there:%b} "
        return f"{day}{there:%H:%M:%S}" if seconds else f"{day}{there:%H:%M}"

    def ago(self, moment: datetime) -> Html:
        """How long ago it was; exactly, on hover."""
        return self._time(moment, ago(moment, self.now))

    def until(self, moment: datetime) -> Html:
        """How long it is until then; exactly, on hover."""
        left = (moment - self.now).total_seconds()
        return self._time(
            moment, "now" if abs(left) < 1 else f"in {span(left)}" if left > 0 else f"due for {span(-left)}"
        )

    def _time(self, moment: datetime, text: str) -> Html:
        exact = f"{moment.astimezone(self.zone):%Y-%m-%d %H:%M:%S %Z}"
        return tag("time", tight(text), datetime=moment.isoformat(), title=exact)


def render(picture: Picture, frame: Frame, address: str) -> str:
    """The whole page; `address` is that of the JSON."""
    clock = Clock(picture.now, frame.zone)
    sentence = "".join(map(str, picture.sentence))
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=frame.refresh) if frame.refresh else Html(),
        tag("title", f"{sentence} {frame.title}"),
        tag("link", rel="icon", href="data:image/svg+xml," + quote(_favicon(picture.level))),
        tag("style", Html(STYLE)),
    ]
    body = [
        _top(picture, frame, clock),
        tag("section", tag("h2", "Jobs"), *(_job(job, frame, clock) for job in picture.jobs)) if picture.jobs else "",
        _coming_day(picture, clock),
        _bottom(address),
    ]
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', tag('main', *body)), lang='en')}\n"


def _top(picture: Picture, frame: Frame, clock: Clock) -> Html:
    """What is wrong, in one sentence, and the facts in a second."""
    parts = [
        joined(tag("b", breakable(part.key)), " ", part.text)
        if isinstance(part, Phrase) and part.key is not None
        else str(part)
        for part in picture.sentence
    ]
    rows = [job.row for job in picture.jobs]
    states = {
        "running": sum(row.running > 0 for row in rows),
        "failing": sum(row.consecutive_failures > 0 for row in rows),
        "paused": sum(row.paused for row in rows),
    }
    facts = [counted(len(rows), "job"), *(f"{number} {state}" for state, number in states.items() if number)]
    due = min((row.next_run_time for row in rows if row.next_run_time), default=None)
    return tag(
        "header",
        tag("p", tag("span", frame.title), tag("span", f"{frame.host}, {clock.at(picture.now, True)} {clock.name}")),
        tag("h1", _icon(picture.level), tag("span", *parts), class_=picture.level.name.lower()),
        tag("p", ", ".join(facts), *([", the next run ", clock.until(due)] if due else []), ".", class_="facts"),
    )


# -- one job --------------------------------------------------------------------------------------------------------


def _job(job: Job, frame: Frame, clock: Clock) -> Html:
    row = job.row
    schedule = tag("code", row.cron) if row.cron else "a trigger of its own"
    return tag(
        "article",
        tag(
            "div",
            tag("h3", _icon(job.level), tag("span", breakable(row.key))),
            tag("p", schedule, f" {row.timezone}" if row.timezone else "", class_="quiet"),
            class_="name",
        ),
        tag("div", *_last(job, clock), class_="last"),
        _strip(job, frame, clock),
        tag("div", *_next(job, clock), class_="next"),
        class_=job.level.name.lower(),
    )


def _last(job: Job, clock: Clock) -> list[Html]:
    """How the latest run ended, when, and why; what else is wrong."""
    row, lines = job.row, []
    if row.last_outcome is None or row.last_finished_at is None:
        lines.append(tag("p", "No run has ended yet.", class_="quiet"))
    else:
        outcome = tag("strong", _words(row.last_outcome).capitalize(), class_=row.last_outcome)
        lines.append(tag("p", outcome, " ", clock.ago(row.last_finished_at)))
        if row.last_outcome == Outcome.FAILED and row.last_error:
            lines.append(tag("p", breakable(cut(row.last_error)), class_="error"))
    if job.problem:
        since = ["; last success ", clock.ago(row.last_succeeded_at)] if row.last_succeeded_at else []
        text = job.problem.text[:1].upper() + job.problem.text[1:]
        lines.append(tag("p", text, *(since if row.consecutive_failures else []), class_="notice"))
    return lines


def _next(job: Job, clock: Clock) -> list[Html]:
    """Whether it runs, and when it will."""
    row, lines = job.row, []
    if row.running:
        since = f" for {span((clock.now - row.last_started_at).total_seconds())}" if row.last_started_at else ""
        others = f" ({row.running} runs)" if row.running > 1 else ""
        lines.append(tag("p", tag("strong", "Running"), tight(since), others))
    if row.next_run_time is not None:
        soon = (row.next_run_time - clock.now).total_seconds() < 3600
        lines.append(tag("p", "Next ", clock.until(row.next_run_time)))
        lines.append(tag("p", tight(clock.at(row.next_run_time, soon)), class_="quiet"))
    else:
        lines.append(tag("p", "Paused" if row.paused else "Finished" if row.finished else "No next run"))
    return lines


def _strip(job: Job, frame: Frame, clock: Clock) -> Html:
    """The latest runs, one mark each: its shape and its colour say how it ended, its height how long it took.

    The same as text is folded below, for fingers and screen readers.
    """
    seconds = [run.seconds for run in job.runs if run.outcome in RAN]
    width, height, longest = frame.latest * STEP, HEAD + HIGH + 2, max(seconds, default=0)
    first = width - len(job.runs) * STEP
    marks = [
        tag("g", tag("title", _about(run, clock)), *_mark(run, first + STEP * index, longest), class_=run.outcome)
        for index, run in enumerate(job.runs)
    ]
    base = tag("path", d=f"M0 {height - 0.5}h{width}", class_="base")
    label = f"The latest runs of {job.row.key}"
    svg = tag("svg", base, *marks, viewBox=f"0 0 {width} {height}", width=width, role="img", aria_label=label)
    skipped = sum(run.times for run in job.runs if run.outcome not in RAN)
    facts = [f"median {took(median(seconds))}", f"longest {took(longest)}"] if seconds else []
    facts += [f"{skipped} not run"] if skipped else []
    if not facts:
        return tag("div", svg, tag("p", "No runs yet", class_="quiet"), class_="strip")
    latest = [tag("li", *_line(run, clock)) for run in reversed(job.runs[-SHOWN:])]
    summary = tag("summary", ", ".join(map(tight, facts)))
    return tag("div", svg, tag("details", summary, tag("ol", *latest)), class_="strip")


def _line(run: Run, clock: Clock) -> list[str]:
    """One run as a line of the list."""
    more = f" after {took(run.seconds)}" if run.outcome in RAN else f" {run.times} times" if run.times > 1 else ""
    reason = [": ", breakable(cut(run.reason))] if run.reason else []
    return [clock.at(run.at, True), " ", tag("strong", _words(run.outcome), class_=run.outcome), more, *reason]


def _mark(run: Run, x: float, longest: float) -> list[Html]:
    """A bar for a run, with a cross or a lid where it went wrong; a ring where nothing ran."""
    bottom, middle = HEAD + HIGH, x + STEP / 2
    parts = [tag("rect", x=x, y=0, width=STEP, height=bottom, class_="hover")]
    if run.outcome not in RAN:
        return [*parts, tag("circle", cx=middle, cy=bottom - 4, r=2.25)]
    high = max(4.0, HIGH * run.seconds / longest) if longest else 4.0
    top = round(bottom - high, 1)
    parts.append(tag("rect", x=x + 1.75, y=top + 0.75, width=4.5, height=round(high - 1.5, 1), rx=1, class_="bar"))
    if run.outcome == Outcome.FAILED:
        parts.append(tag("path", d=f"M{middle - 2.5} {top - 7.5}l5 5m0 -5l-5 5"))
    if run.outcome == Outcome.TIMED_OUT:
        parts.append(tag("path", d=f"M{middle - 3} {top - 3.5}h6"))
    return parts


def _about(run: Run, clock: Clock) -> str:
    """One run in words."""
    what = _words(run.outcome) + (f" after {took(run.seconds)}" if run.outcome in RAN else "")
    times = f" ({run.times} times)" if run.times > 1 else ""
    return f"{clock.at(run.at, True)} {what}{times}" + (f": {run.reason}" if run.reason else "")


def _words(outcome: str) -> str:
    return {"claimed": "claimed elsewhere"}.get(outcome, outcome.replace("_", " "))


# -- the coming day -------------------------------------------------------------------------------------------------


def _coming_day(picture: Picture, clock: Clock) -> Html:
    """A line a job, from now to the same time tomorrow; a mark for a run, a band where they are close together."""
    lines = [(moments, job.row.key) for job in picture.jobs if (moments := coming(job.row, picture.now))]
    if not lines:
        return Html()
    rows = [
        tag(
            "li",
            tag("span", breakable(key)),
            tag(
                "svg",
                *_hours(clock),
                *_marks(moments, clock),
                width="100%",
                height=28,
                role="img",
                aria_label=f"{key}: {counted(len(moments), 'run')}, the first at {clock.at(moments[0])}",
            ),
        )
        for moments, key in sorted(lines)
    ]
    axis = tag("svg", *_hours(clock, text=True), width="100%", height=28, aria_hidden="true")
    title = tag("h2", "The coming day ", tag("small", f"times in {clock.name}"))
    return tag("section", title, tag("ol", tag("li", tag("span"), axis), *rows), class_="day")


def _share(moment: datetime, now: datetime) -> str:
    return f"{max(0.0, (moment - now) / DAY) * 100:.2f}%"


def _marks(moments: Sequence[datetime], clock: Clock) -> list[Html]:
    found = []
    for begin, end in bands(moments):
        x = _share(begin, clock.now)
        if begin == end:
            mark = tag("rect", tag("title", clock.at(begin, True)), x=x, y=7, width=4, height=14, rx=2)
        else:
            title = tag("title", f"{clock.at(begin)} to {clock.at(end)}, at least every 15 minutes")
            mark = tag("rect", title, x=x, y=11, width=_share(clock.now + (end - begin), clock.now), height=6, rx=3)
        found.append(mark)
    return found


def _hours(clock: Clock, text: bool = False) -> list[Html]:
    """Every third hour on the clock, as lines or as texts; narrow screens show every sixth."""
    found = [tag("text", "now", x=0, y=18)] if text else []
    hour = clock.now.astimezone(clock.zone).replace(minute=0, second=0, microsecond=0)
    for _ in range(24):
        hour += timedelta(hours=1)
        left = (hour - clock.now) / DAY
        if hour.hour % 3 or (text and not 0.05 < left < 0.97):
            continue
        minor = "minor" if hour.hour % 6 or (text and not 0.15 < left < 0.93) else None
        x = _share(hour, clock.now)
        found.append(
            tag("text", f"{hour:%H:%M}", x=x, y=18, text_anchor="middle", class_=minor)
            if text
            else tag("line", x1=x, x2=x, y1=0, y2=28, class_=minor)
        )
    return found


# -- the rest -------------------------------------------------------------------------------------------------------


def _bottom(address: str) -> Html:
    """What the marks mean, and where the JSON is."""
    meant = {
        "succeeded": Outcome.SUCCEEDED,
        "failed": Outcome.FAILED,
        "timed out": Outcome.TIMED_OUT,
        "cancelled": Outcome.CANCELLED,
        "not run": Outcome.OVERLAPPED,
        "not run, as intended": Outcome.PAUSED,
    }
    legend = []
    for text, outcome in meant.items():
        mark = tag("g", *_mark(Run(datetime.now(UTC), 0.4, outcome), 0, 1), class_=outcome)
        legend.append(tag("li", tag("svg", mark, viewBox="0 0 8 42", width=8, height=42, aria_hidden="true"), text))
    more = "A bar is a run, and its height is its duration; hover over it for more. The same as JSON: "
    return tag("footer", tag("ul", *legend), tag("p", more, tag("a", "status.json", href=quote(address)), "."))


#: A sign for each level that differs in shape, not in colour alone: what it means, and its path.
SIGNS = {
    Level.WELL: ("well", "M5.8 10.3l2.8 2.8 5.6-5.9"),
    Level.RESTING: ("resting", "M8 7v6M12 7v6"),
    Level.ATTENTION: ("needs attention", "M10 5.8v5M10 14v.2"),
    Level.TROUBLE: ("in trouble", "M7 7l6 6M13 7l-6 6"),
}


def _icon(level: Level) -> Html:
    name, path = SIGNS[level]
    parts = tag("circle", cx=10, cy=10, r=9), tag("path", d=path)
    return tag("svg", *parts, viewBox="0 0 20 20", role="img", aria_label=name, class_=f"icon {level.name.lower()}")


def _favicon(level: Level) -> str:
    """A disc when all is well, else a square, for the tab of the browser."""
    colour = {Level.TROUBLE: "#c6303e", Level.ATTENTION: "#b26a00"}.get(level, "#0b7a6f")
    shape = "M4 4h24v24H4z" if level >= Level.ATTENTION else "M16 2a14 14 0 1 0 .01 0z"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path fill="{colour}" d="{shape}"/></svg>'
