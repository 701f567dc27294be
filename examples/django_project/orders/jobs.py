"""The jobs, and the scope of their runs."""

from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections, transaction
from django.utils import timezone

from bgjobs import BackgroundJobs, current_run

from .models import Order, Report


class ConnectionsPerRun:
    """The scope of a run: closes database connections as Django does around each request."""

    def __init__(self, job_type: type[Any]) -> None:
        self.job_type = job_type

    def __enter__(self) -> Any:
        close_old_connections()
        return self.job_type()

    def __exit__(self, *error: object) -> None:
        close_old_connections()

    async def __aenter__(self) -> Any:
        await sync_to_async(close_old_connections)()
        return self.job_type()

    async def __aexit__(self, *error: object) -> None:
        await sync_to_async(close_old_connections)()


jobs = BackgroundJobs(resolver=ConnectionsPerRun)


@jobs.background_job(cron="0 */5 * * * *", run_immediately=True)
class ExpireOrders:
    """Sync: expires what has been open for a day. A failure takes the whole transaction back."""

    def action_to_do(self, days: int = 1) -> None:
        with transaction.atomic():
            old = Order.objects.select_for_update().filter(
                state="open", placed_at__lt=timezone.now() - timedelta(days=days)
            )
            old.update(state="expired")


@jobs.background_job(cron="0 0 6 * * *", run_immediately=True)
class WriteReport:
    """Async: counts the open orders."""

    async def action_to_do(self) -> None:
        open_orders = await Order.objects.filter(state="open").acount()
        await Report.objects.acreate(run_id=current_run().run_id, open_orders=open_orders)
