"""The web process: products and orders, and the job that keeps its cache warm.

Run it with ``uvicorn --factory examples.shop.web:create_app``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.routing import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bgjobs import BackgroundJobs, BackgroundJobsSettings, Health

from .cache import ProductCache
from .config import ShopSettings
from .jobs import CacheWarmUpJob
from .models import Order, OrderStatus, Product
from .resolver import resolver_of


@dataclass
class Shop:
    """What the requests of one process share."""

    sessions: async_sessionmaker[AsyncSession]
    cache: ProductCache
    jobs: BackgroundJobs


def create_app(settings: ShopSettings | None = None) -> FastAPI:
    """Make the application; without settings, as the environment configures it."""
    settings = settings or ShopSettings()
    engine = create_async_engine(settings.database_url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    cache = ProductCache()
    # The settings of bgjobs are the worker's. This process has one job, and no use for them.
    jobs = BackgroundJobs(
        settings=BackgroundJobsSettings.defaults(), resolver=resolver_of(settings, sessions, cache)
    ).add_background_job(CacheWarmUpJob, cron="0 */30 * * * *", run_immediately=True)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        try:
            async with jobs:
                yield
        finally:
            await engine.dispose()

    app = FastAPI(title="Shop", lifespan=lifespan)
    app.state.shop = Shop(sessions, cache, jobs)
    app.include_router(router)
    return app


def get_shop(request: Request) -> Shop:
    """What this request shares with the others."""
    shop: Shop = request.app.state.shop
    return shop


async def get_session(shop: Annotated[Shop, Depends(get_shop)]) -> AsyncGenerator[AsyncSession]:
    """A session for one request, which commits by itself."""
    async with shop.sessions() as session:
        yield session


TheShop = Annotated[Shop, Depends(get_shop)]
Session = Annotated[AsyncSession, Depends(get_session)]
Row = TypeVar("Row", Product, Order)
router = APIRouter()


class ProductView(BaseModel):
    """A product, as customers see it."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str
    price: int


class NewOrder(BaseModel):
    """An order, as customers place it."""

    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)
    product_id: int
    quantity: int = Field(default=1, ge=1, le=100)


class OrderView(BaseModel):
    """An order, as customers see it."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    total: int
    status: OrderStatus
    created_at: datetime


async def get(session: AsyncSession, table: type[Row], row_id: int, *, lock: bool = False) -> Row:
    """A row by its id; answers the request with 404 where there is none."""
    row = await session.get(table, row_id, with_for_update=lock)
    if row is None:
        raise HTTPException(404, f"there is no such {table.__name__.lower()}")
    return row


@router.get("/products/{product_id}")
async def show_product(product_id: int, shop: TheShop, session: Session) -> ProductView:
    """A product, from the cache where it is there."""
    product = shop.cache.get(product_id) or await get(session, Product, product_id)
    return ProductView.model_validate(product)


@router.post("/orders", status_code=201)
async def place_order(new: NewOrder, session: Session) -> OrderView:
    """Place an order. The worker confirms it by mail."""
    product = await get(session, Product, new.product_id)
    order = Order(**new.model_dump(), total=product.price * new.quantity)
    session.add(order)
    await session.commit()
    return OrderView.model_validate(order)


@router.get("/orders/{order_id}")
async def show_order(order_id: int, session: Session) -> OrderView:
    """What has become of an order."""
    return OrderView.model_validate(await get(session, Order, order_id))


@router.post("/orders/{order_id}/complete")
async def complete_order(order_id: int, session: Session) -> OrderView:
    """The goods are on their way."""
    order = await get(session, Order, order_id, lock=True)
    if order.status is OrderStatus.CANCELLED:
        raise HTTPException(409, f"the order is cancelled: {order.cancelled_reason}")
    order.status = OrderStatus.COMPLETED
    await session.commit()
    return OrderView.model_validate(order)


@router.get("/ready")
async def show_health(shop: TheShop, session: Session, response: Response) -> Health:
    """A readiness probe: an error while the database does not answer, 503 while the job does not do what it should."""
    await session.execute(select(1))
    health = shop.jobs.health()
    response.status_code = 200 if health else 503
    return health
