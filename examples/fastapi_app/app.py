"""A FastAPI application whose exchange rates are refreshed by a background job.

Run it with ``uvicorn examples.fastapi_app.app:app``.
"""

from __future__ import annotations

import random

from fastapi import FastAPI, Response

from bgjobs import BackgroundJobs, Health, JobStatus, current_run

rates: dict[str, float] = {}
last_run: dict[str, str] = {}

jobs = BackgroundJobs()


@jobs.background_job(cron="*/10 * * * * *", run_immediately=True)
async def refresh_rates() -> None:
    """Refresh the rates; in a real application, from somewhere."""
    rates["EUR/USD"] = round(random.uniform(1.0, 1.2), 4)
    last_run.update(key=current_run().key, run_id=current_run().run_id)


app = FastAPI(lifespan=jobs.lifespan)


@app.get("/rates")
async def show_rates() -> dict[str, float]:
    """The rates as they are now."""
    return rates


@app.get("/last-run")
async def show_last_run() -> dict[str, str]:
    """Which run refreshed them."""
    return last_run


@app.get("/jobs")
async def show_jobs() -> list[JobStatus]:
    """What has become of the runs of each job."""
    return jobs.status()


@app.get("/ready")
async def show_health(response: Response) -> Health:
    """A readiness probe: 503 while the jobs do not do what they should, with the reason."""
    health = jobs.health()
    response.status_code = 200 if health else 503
    return health
