"""The background jobs of the shop.

Each job is a dataclass: its fields are what a run needs, and the resolver of worker.py fills them by their types. Every
run has an instance and a session of its own. The session is committed when the run succeeds, and rolled back when it
does not. A failure needs no `on_exception` to be logged, with its traceback.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
from loguru import logger
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import CursorResult, Delete, Update, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from bgjobs import CancellationToken, current_run

from .backup import dump, suffix_of
from .cache import ProductCache
from .config import ShopSettings
from .mail import Mailer
from .models import Article, EmailLog, Order, OrderStatus, Product, User, WeatherData, now


class ExternalUser(BaseModel):
    """A customer in the partner's answer."""

    id: int
    email: str
    name: str


class ExternalWeather(BaseModel):
    """The weather in the partner's answer."""

    temperature: float
    humidity: int


async def execute(session: AsyncSession, statement: Update | Delete) -> int:
    """Change rows, and return how many they were."""
    return cast("CursorResult[Any]", await session.execute(statement)).rowcount


@dataclass
class EmailNotificationJob:
    """Confirms new orders by mail."""

    session: AsyncSession
    mailer: Mailer

    async def action_to_do(self, cancellation_token: CancellationToken) -> None:
        """Look for orders that nobody was told of: whatever a run leaves undone, the next one finds."""
        unconfirmed = select(Order).where(Order.confirmed_at.is_(None)).order_by(Order.id)
        for order in (await self.session.scalars(unconfirmed)).all():
            cancellation_token.raise_if_cancellation_requested()
            text = f"Thank you. Your order {order.id} comes to {order.total / 100:.2f} EUR."
            if await self.mailer.send(order.email, f"Your order {order.id}", text):
                order.confirmed_at = now()
                await self.session.commit()  # a mail cannot be rolled back: note each one at once
        self.mailer.raise_if_refused()


@dataclass
class DataSyncJob:
    """Copies the partner's customers: new ones are inserted, known ones updated."""

    session: AsyncSession
    partner: httpx.AsyncClient

    async def action_to_do(self, cancellation_token: CancellationToken) -> None:
        """All customers are copied, or none."""
        response = (await self.partner.get("/users")).raise_for_status()
        external_users = TypeAdapter(list[ExternalUser]).validate_json(response.content)
        known = {user.external_id: user for user in await self.session.scalars(select(User))}
        for external in external_users:
            cancellation_token.raise_if_cancellation_requested()
            user = known.get(external.id) or User(external_id=external.id)
            user.email, user.name, user.synced_at = external.email, external.name, now()
            self.session.add(user)
        logger.info("{} users synchronised", len(external_users))


@dataclass
class OrderStatusUpdateJob:
    """Cancels orders that nobody has touched for long."""

    session: AsyncSession

    async def action_to_do(self, patience: timedelta = timedelta(hours=24)) -> None:
        """One statement, however many orders there are."""
        stale = Order.status == OrderStatus.PROCESSING, Order.updated_at < now() - patience
        cancelled = {"status": OrderStatus.CANCELLED, "cancelled_reason": f"no update within {patience}"}
        count = await execute(self.session, update(Order).where(*stale).values(cancelled))
        logger.info("{} orders cancelled", count)


@dataclass
class DailyReportJob:
    """Mails the figures of yesterday to the administrator."""

    session: AsyncSession
    mailer: Mailer
    settings: ShopSettings

    async def action_to_do(self) -> None:
        """Yesterday is the day before the fire time, in the shop's zone, however late the run is."""
        zone = self.settings.timezone
        today = current_run().scheduled_at.astimezone(zone).date()
        yesterday = today - timedelta(days=1)
        begin, end = datetime.combine(yesterday, time(), zone), datetime.combine(today, time(), zone)
        query = select(Order).where(Order.created_at >= begin, Order.created_at < end)
        orders = (await self.session.scalars(query)).all()
        by_status = Counter(order.status for order in orders)
        lines = [
            f"Orders: {len(orders)}",
            f"Revenue: {sum(order.total for order in orders) / 100:.2f} EUR",
            *(f"{status.capitalize()}: {by_status[status]}" for status in OrderStatus),
        ]
        await self.mailer.send(self.settings.admin, f"Daily report {yesterday}", "\n".join(lines))
        self.mailer.raise_if_refused()


@dataclass
class CleanupOldLogsJob:
    """Deletes old rows of the e-mail log."""

    session: AsyncSession

    async def action_to_do(self, retention: timedelta = timedelta(days=90)) -> None:
        """How long rows are kept is up to the settings of the deployment."""
        count = await execute(self.session, delete(EmailLog).where(EmailLog.created_at < now() - retention))
        logger.info("{} rows of the e-mail log deleted", count)


@dataclass
class CacheWarmUpJob:
    """Keeps the most viewed products in memory. It runs in each web process, which has a cache of its own."""

    session: AsyncSession
    cache: ProductCache

    async def action_to_do(self, limit: int = 100) -> None:
        """Replace what the cache holds."""
        top = await self.session.scalars(select(Product).order_by(Product.views.desc()).limit(limit))
        self.cache.fill({product.id: product for product in top})


@dataclass
class WeatherDataPollingJob:
    """Stores the weather where the shop's customers are."""

    session: AsyncSession
    partner: httpx.AsyncClient

    async def action_to_do(self, cities: list[str], cancellation_token: CancellationToken) -> None:
        """Ask for one city after the other; if one fails, nothing of this run is stored."""
        for city in cities:
            cancellation_token.raise_if_cancellation_requested()
            response = (await self.partner.get("/weather", params={"city": city})).raise_for_status()
            weather = ExternalWeather.model_validate_json(response.content)
            self.session.add(WeatherData(city=city, temperature=weather.temperature, humidity=weather.humidity))
        logger.info("Weather stored for {} cities", len(cities))


@dataclass
class DatabaseBackupJob:
    """Backs the database up. Its action blocks, so it is not async, and runs in a thread."""

    settings: ShopSettings
    partial: Path | None = field(default=None, init=False)

    def action_to_do(self, keep: int = 14) -> None:
        """Write a new backup, and delete all but the latest `keep`."""
        folder, suffix = self.settings.backups, suffix_of(self.settings.database_url)
        folder.mkdir(parents=True, exist_ok=True)
        backup = folder / f"shop-{current_run().scheduled_at:%Y%m%d-%H%M%S}{suffix}"
        self.partial = backup.with_name(f"{backup.name}.partial")  # half a backup never looks like one
        dump(self.settings.database_url, self.partial)
        self.partial.rename(backup)
        for old in sorted(folder.glob(f"shop-*{suffix}"))[:-keep]:
            old.unlink()
        logger.info("Backup {} written, {} bytes", backup.name, backup.stat().st_size)

    def on_exception(self, exception: Exception) -> None:
        """Called on the instance that has failed: it knows what to clear away."""
        if self.partial is not None:
            self.partial.unlink(missing_ok=True)


@dataclass
class WeeklyDigestJob:
    """Mails the most read articles of the week to all subscribers."""

    session: AsyncSession
    mailer: Mailer

    async def action_to_do(self, cancellation_token: CancellationToken) -> None:
        """Whoever has this week's digest already, from a run that was cut short, does not get it twice."""
        end = current_run().scheduled_at
        recent = select(Article.title).where(Article.published_at >= end - timedelta(days=7))
        top = (await self.session.scalars(recent.order_by(Article.views.desc()).limit(10))).all()
        subject = f"Your week until {end:%d %B %Y}"
        served = select(EmailLog.recipient).where(EmailLog.subject == subject)
        subscribers = select(User).where(User.email_subscription, User.email.not_in(served)).order_by(User.id)
        for user in (await self.session.scalars(subscribers)).all():
            cancellation_token.raise_if_cancellation_requested()
            await self.mailer.send(user.email, subject, "\n".join([f"Dear {user.name},", "", *top]))
            await self.session.commit()
        self.mailer.raise_if_refused()
