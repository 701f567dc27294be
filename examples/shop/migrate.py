"""Creates what is missing in the database: the tables, and some products and articles to begin with.

Run it with ``python -m examples.shop.migrate`` before the other processes start. A shop that grows takes Alembic.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from .config import ShopSettings
from .models import Article, Base, Product


async def migrate(settings: ShopSettings) -> None:
    """Bring the database up to date. It may be called again, and by several processes at once on PostgreSQL."""
    engine = create_async_engine(settings.database_url)
    async with engine.begin() as connection, AsyncSession(connection) as session:
        if engine.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(20260101)"))  # one after the other
        await connection.run_sync(Base.metadata.create_all)
        if not await session.scalar(select(func.count()).select_from(Product)):
            session.add_all(
                [
                    Product(name="Lamp", price=4900, views=80),
                    Product(name="Chair", price=12900, views=200),
                    Product(name="Desk", price=39900, views=120),
                    Article(title="A chair for life", views=90),
                    Article(title="Light at the desk", views=140),
                ]
            )
            await session.flush()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(migrate(ShopSettings()))
