"""Jobs to look at: some that are well, and some that fail, overlap, time out or are paused."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from itertools import count

from bgjobs import BackgroundJobs, BackgroundJobsSettings, CancellationToken, CurrentRun

draw = random.Random(3).uniform
numbers = {name: count() for name in ("invoices", "feed")}
large = threading.Event()  #: set when there are many thumbnails to render


class ServiceError(Exception):
    """What a service on the network answers."""


async def refresh_exchange_rates() -> None:
    """Well, always."""
    await asyncio.sleep(draw(0.02, 0.06))


def export_invoices() -> None:
    """Fails from the 28th run on."""
    time.sleep(draw(0.03, 0.09))
    if next(numbers["invoices"]) >= 27:
        raise ServiceError("503 from https://accounting.example/api/v2/invoices: the service is being maintained")


async def import_price_feed() -> None:
    """Takes too long at times."""
    number = next(numbers["feed"])
    await asyncio.sleep(60 if number in (9, 23, 24) else draw(0.03, 0.12))


def render_thumbnails(cancellation_token: CancellationToken) -> None:
    """After some short runs, one that goes on and on."""
    if large.is_set():
        cancellation_token.wait()
    else:
        time.sleep(draw(0.01, 0.05))


class BackUpDatabase:
    """Well, and longer than the others."""

    def action_to_do(self) -> None:
        time.sleep(draw(0.05, 0.12))


def send_newsletter() -> None:
    """Paused."""
    time.sleep(draw(0.01, 0.03))


async def close_tickets() -> None:
    """Not on holidays."""


def is_business_day(_: CurrentRun) -> bool:
    """Never, in this demonstration."""
    return False


def demo_jobs() -> BackgroundJobs:
    """The jobs, cold."""
    jobs = BackgroundJobs(settings=BackgroundJobsSettings.defaults())
    jobs.add_background_job(refresh_exchange_rates, cron="*/10 * * * * *", key="exchange-rates", max_instances=2)
    jobs.add_background_job(BackUpDatabase, cron="0 30 2 * * *", timezone="Europe/Rome")
    jobs.add_background_job(export_invoices, cron="0 */30 * * * *", key="invoice-export")
    jobs.add_background_job(import_price_feed, cron="0 15 6-20/2 * * *", key="price-feed", timeout=0.4)
    jobs.add_background_job(render_thumbnails, cron="*/2 * * * * *", key="thumbnails")
    jobs.add_background_job(send_newsletter, cron="0 0 9 * * MON-FRI", key="newsletter")
    jobs.add_background_job(close_tickets, cron="*/5 * * * * *", key="close-tickets", only_if=is_business_day)
    return jobs


def make_runs(jobs: BackgroundJobs) -> None:
    """Have many runs made, one after the other, so that there is something to see; then the newsletter is paused."""
    often = {"exchange-rates": 46, "BackUpDatabase": 21, "invoice-export": 31, "price-feed": 38, "newsletter": 12}
    often["thumbnails"] = 25
    for number in range(max(often.values())):
        asked = [jobs.run_now(key) for key, times in often.items() if number < times]
        for run_id in asked:
            jobs.wait(run_id, timeout=60)
    jobs.pause("newsletter")
    large.set()
