"""The tables of the shop, for SQLite and PostgreSQL alike. Amounts are in cents; times are aware, and stored in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import DateTime, Dialect, Enum, ForeignKey, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """The current time (aware)."""
    return datetime.now(UTC)


class UTCDateTime(TypeDecorator[datetime]):
    """An aware time. SQLite forgets the zone, so every time is written in UTC and read as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn a time into UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read a time as UTC."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


class OrderStatus(StrEnum):
    """What has become of an order."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Base(DeclarativeBase):
    """The base of all tables."""

    type_annotation_map = {datetime: UTCDateTime, OrderStatus: Enum(OrderStatus, native_enum=False)}  # noqa: RUF012


class Product(Base):
    """Something to buy."""

    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int]
    views: Mapped[int] = mapped_column(default=0)


class Order(Base):
    """An order; the customer has been told of it once `confirmed_at` is set."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id))
    quantity: Mapped[int]
    total: Mapped[int]
    status: Mapped[OrderStatus] = mapped_column(default=OrderStatus.PROCESSING)
    cancelled_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    confirmed_at: Mapped[datetime | None]


class User(Base):
    """A customer, as the partner knows them."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    external_id: Mapped[int] = mapped_column(unique=True)
    email: Mapped[str]
    name: Mapped[str]
    email_subscription: Mapped[bool] = mapped_column(default=True)
    synced_at: Mapped[datetime] = mapped_column(default=now)


class Article(Base):
    """A post of the shop's blog."""

    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    views: Mapped[int] = mapped_column(default=0)
    published_at: Mapped[datetime] = mapped_column(default=now)


class WeatherData(Base):
    """The weather in a city at a time."""

    __tablename__ = "weather"
    id: Mapped[int] = mapped_column(primary_key=True)
    city: Mapped[str]
    temperature: Mapped[float]
    humidity: Mapped[int]
    timestamp: Mapped[datetime] = mapped_column(default=now)


class EmailLog(Base):
    """A mail that was sent."""

    __tablename__ = "email_logs"
    id: Mapped[int] = mapped_column(primary_key=True)
    recipient: Mapped[str]
    subject: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
