"""The settings of the shop: variables with the prefix ``SHOP_``, also from the file ``.env``. bgjobs has its own."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ShopSettings(BaseSettings):
    """What differs between one deployment of the shop and the next.

    Attributes:
        database_url: SQLite or PostgreSQL, as SQLAlchemy writes it, with an async driver; it may hold a password.
        partner_url: The API of the partner that knows the customers and the weather.
        smtp_host: The mail server.
        smtp_port: Its port.
        sender: Who the mails come from.
        admin: Who gets the reports, and the alerts about jobs that fail.
        backups: The folder of the database backups.
        timezone: Where the shop is: "daily at 8:00" and "yesterday" are meant there.
    """

    model_config = SettingsConfigDict(env_prefix="SHOP_", env_file=".env", extra="ignore")

    database_url: str = Field(default="sqlite+aiosqlite:///shop.db", repr=False)
    partner_url: str = "http://127.0.0.1:8001"
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 1025
    sender: str = "shop@example.com"
    admin: str = "admin@example.com"
    backups: Path = Path("backups")
    timezone: ZoneInfo = ZoneInfo("UTC")
