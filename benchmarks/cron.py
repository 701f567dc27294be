"""The cron trigger against APScheduler's own, croniter and cronsim: next fire times, and building from an expression.

Run it with ``python benchmarks/cron.py [rounds]``. Everything runs in one process, the contestants take turns, and the
ratio is taken pair by pair: a neighbour on the machine then slows both of a pair. CPU time is measured. In the first
table of a zone no fire time is asked for twice, so nothing is gained by remembering the last answer. A scheduler does
ask twice; the second table shows what that adds.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from itertools import cycle
from statistics import median
from time import process_time
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from croniter import croniter
from cronsim import CronSim

from bgjobs import CronExpression, cron_trigger_arguments

EXPRESSIONS = {
    "every second": "* * * * * *",
    "every 10 seconds": "*/10 * * * * *",
    "every 5 minutes": "0 */5 * * * *",
    "hourly": "0 0 * * * *",
    "daily": "0 30 2 * * *",
    "weekdays, office hours": "0 0 9-17 * * 1-5",
    "Sunday morning": "0 15 4 * * 0",
    "first of the month": "0 0 0 1 * *",
    "last day of the month": "0 0 0 L * *",
    "29 February": "0 0 12 29 2 *",
    "Friday the 13th": "0 0 12 13 * 5",
    "sparse lists": "0,30 3,17,42 1,8,15 * * *",
    "New Year's Eve": "59 59 23 31 12 *",
}
ORED = ("0 0 12 13 * 5",)  # for cronsim, where one matching day is enough
START = datetime(2026, 1, 1, 0, 0, 0, tzinfo=UTC)
ZONES = (UTC, ZoneInfo("Europe/Berlin"))
STEPS = 50

Run = Callable[[], object]


def chain(trigger: CronTrigger, start: datetime) -> Run:
    """Fifty fire times of a trigger, each asked for with the one before."""

    def run() -> None:
        moment = start
        for _ in range(STEPS):
            moment = trigger.get_next_fire_time(moment, moment)

    return run


def iterate(step: Run, begin: Run = lambda: None) -> Run:
    """Fifty times the same step, after what puts an iterator back to its beginning."""

    def run() -> None:
        begin()
        for _ in range(STEPS):
            step()

    return run


def asked_twice(trigger: CronTrigger, start: datetime) -> Run:
    """What a scheduler does: the question for the fire time after this one comes twice, with the same objects."""

    def run() -> None:
        moment = start
        for _ in range(STEPS):
            trigger.get_next_fire_time(moment, moment)
            moment = trigger.get_next_fire_time(moment, moment)

    return run


def next_fire_times(text: str, zone: tzinfo) -> list[Run]:
    """The four contestants for next fire times; croniter ORs the days, so Friday the 13th is not the same there."""
    start = START.astimezone(zone)
    plain = CronTrigger(**cron_trigger_arguments(text), timezone=zone)
    cron = croniter(text, start, second_at_beginning=True, day_or=False)
    return [
        chain(CronExpression(text).trigger(zone), start),
        chain(plain, start),
        iterate(lambda: cron.get_next(datetime), lambda: cron.set_current(start)),
        iterate(CronSim(text, start).__next__) if text not in ORED else lambda: None,
    ]


def pairs_asked_twice(text: str, zone: tzinfo) -> list[Run]:
    """Our trigger and APScheduler's, as a scheduler asks them."""
    start = START.astimezone(zone)
    plain = CronTrigger(**cron_trigger_arguments(text), timezone=zone)
    return [asked_twice(CronExpression(text).trigger(zone), start), asked_twice(plain, start)]


def builders(text: str, zone: tzinfo) -> list[Run]:
    """The four contestants for building from an expression; CronTrigger gets its arguments ready made."""
    arguments = cron_trigger_arguments(text)
    spellings = cycle(text + " " * blanks for blanks in range(300))  # more than bgjobs remembers
    return [
        iterate(lambda: CronExpression(next(spellings)).trigger(zone)),
        iterate(lambda: CronTrigger(**arguments, timezone=zone)),
        iterate(lambda: croniter(text, START, second_at_beginning=True)),
        iterate(lambda: CronSim(text, START)),
    ]


def builders_known(text: str, zone: tzinfo) -> list[Run]:
    """Building from an expression that was seen before, as for the second job of an hour or a row of a job store."""
    arguments = cron_trigger_arguments(text)
    return [
        iterate(lambda: CronExpression(text).trigger(zone)),
        iterate(lambda: CronTrigger(**arguments, timezone=zone)),
    ]


def measure(make: Callable[[str, tzinfo], list[Run]], zone: tzinfo, rounds: int) -> dict[str, list[list[float]]]:
    """Microseconds a step, by expression, round and contestant."""
    times: dict[str, list[list[float]]] = {text: [] for text in EXPRESSIONS.values()}
    runs = {text: make(text, zone) for text in times}
    for _ in range(rounds + 1):
        for text, contestants in runs.items():
            times[text].append([cpu(run) / STEPS * 1e6 for run in contestants])
    return {text: of_text[1:] for text, of_text in times.items()}  # the first round warms up


def cpu(run: Run) -> float:
    """Seconds of CPU time."""
    begin = process_time()
    run()
    return process_time() - begin


def report(title: str, times: dict[str, list[list[float]]]) -> None:
    """Print the medians of a table, with the ratio to CronTrigger pair by pair."""
    print(f"\n{title}: microseconds of CPU, median\n")
    names = ["bgjobs", "CronTrigger", "croniter", "cronsim"][: len(next(iter(times.values()))[0])]
    print(f"{'':26}" + "".join(f"{name:>12}" for name in [*names, "ratio"]))
    labels = {text: label for label, text in EXPRESSIONS.items()}
    for text, rounds in times.items():
        row = [median(column) for column in zip(*rounds, strict=True)]
        ratio = median(ours / plain for ours, plain, *_ in rounds)
        print(f"{labels[text]:26}" + "".join(f"{time:12.1f}" for time in row) + f"{ratio:12.2f}")
    totals = [[sum(column) for column in zip(*of_round, strict=True)] for of_round in zip(*times.values(), strict=True)]
    row = [median(column) for column in zip(*totals, strict=True)]
    ratio = median(ours / plain for ours, plain, *_ in totals)
    print(f"{'all':26}" + "".join(f"{time:12.1f}" for time in row) + f"{ratio:12.2f}")


def main() -> None:
    """Measure and print everything."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    gc.disable()
    for zone in ZONES:
        report(f"next fire time, {zone}", measure(next_fire_times, zone, rounds))
        report(f"next fire time asked for twice, {zone}", measure(pairs_asked_twice, zone, rounds))
    report("building from a new expression", measure(builders, UTC, rounds))
    report("building from a known expression", measure(builders_known, UTC, rounds))


if __name__ == "__main__":
    main()
