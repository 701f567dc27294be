"""The jobs, and what closes the database connections of their runs."""

from datetime import timedelta
from typing import Self

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.utils import timezone

from bgjobs import BackgroundJobs, CurrentRun, current_run

from .models import Order, Report

jobs = BackgroundJobs()


class FreshConnections:
    """Closes old database connections before and after a run, as Django does for a request."""

    def __enter__(self) -> Self:
        close_old_connections()
        return self

    def __exit__(self, *error: object) -> None:
        close_old_connections()

    async def __aenter__(self) -> Self:
        await sync_to_async(close_old_connections)()
        return self

    async def __aexit__(self, *error: object) -> None:
        await sync_to_async(close_old_connections)()


@jobs.around_run
def fresh_connections(run: CurrentRun) -> FreshConnections:
    return FreshConnections()


@jobs.background_job(cron="0 */5 * * * *", run_immediately=True)
def expire_orders(days: int = 1) -> None:
    """Sync: expire what has been open for so many days."""
    Order.objects.filter(state="open", placed_at__lt=timezone.now() - timedelta(days=days)).update(state="expired")


@jobs.background_job(cron="0 0 6 * * *", run_immediately=True)
class WriteReport:
    """Async: write down how many orders are open."""

    async def action_to_do(self) -> None:
        open_orders = await Order.objects.filter(state="open").acount()
        await Report.objects.acreate(run_id=current_run().run_id, open_orders=open_orders)
