"""The world around examples/shop in its tests: a mail server, a partner, and an empty database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.pool import NullPool

from examples.shop.config import ShopSettings
from examples.shop.migrate import migrate
from servers import free_port
from stage import Waiter


class Mailbox(MessageHandler):
    """A mail server that keeps what it gets, but for recipients that it refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = Waiter()
        self.refused: set[str] = set()
        self.server = Controller(self, hostname="127.0.0.1", port=free_port())

    async def handle_RCPT(self, _: object, __: object, envelope: Any, address: str, ___: object) -> str:  # noqa: N802
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    def handle_message(self, message: Message) -> None:
        self.arrived(message)

    @property
    def mails(self) -> list[tuple[str, str]]:
        """Recipient and subject of each mail so far."""
        return [(message["To"], message["Subject"]) for message in self.arrived.seen]

    def text(self, subject: str) -> str:
        """The text of the one mail with that subject."""
        (found,) = [message for message in self.arrived.seen if message["Subject"] == subject]
        return str(found.get_payload()).strip()


class Partner:
    """The API of the partner: what a test puts into `users`, and the weather but for cities that are broken."""

    def __init__(self) -> None:
        self.users: list[dict[str, Any]] = []
        self.broken: set[str] = set()

    def answer(self, path: str) -> object:
        """What it answers; `None` for an error."""
        url = urlsplit(path)
        if url.path == "/users":
            return self.users
        (city,) = parse_qs(url.query)["city"]
        return None if city in self.broken else {"temperature": float(len(city)), "humidity": 60}

    @contextmanager
    def served(self) -> Generator[str]:
        """Its URL."""
        partner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = partner.answer(self.path)
                body = json.dumps(found).encode()
                self.send_response(503 if found is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep the output of the tests clean."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()


class World:
    """All of it, and the settings with which the shop finds it."""

    def __init__(self, mailbox: Mailbox, partner: Partner, settings: ShopSettings) -> None:
        self.mailbox = mailbox
        self.partner = partner
        self.settings = settings

    @property
    def engine(self) -> Engine:
        """The database, for a test to fill and to look at."""
        url = make_url(self.settings.database_url)
        return create_engine(url.set(drivername=url.drivername.removesuffix("+aiosqlite")), poolclass=NullPool)

    @property
    def environment(self) -> dict[str, str]:
        """The settings as variables, for processes."""
        names = "database_url", "partner_url", "smtp_port", "backups", "timezone"
        return {f"SHOP_{name.upper()}": str(getattr(self.settings, name)) for name in names}


@contextmanager
def world(database_url: str, folder: Path) -> Generator[World]:
    """A world on that database, in which the tables exist."""
    mailbox, partner = Mailbox(), Partner()
    with partner.served() as partner_url:
        settings = ShopSettings(
            _env_file=None,  # type: ignore[call-arg]  # pydantic-settings takes it
            database_url=database_url,
            partner_url=partner_url,
            smtp_port=mailbox.server.port,
            backups=folder / "backups",
            timezone=ZoneInfo("Europe/Rome"),
        )
        asyncio.run(migrate(settings))
        mailbox.server.start()
        try:
            yield World(mailbox, partner, settings)
        finally:
            mailbox.server.stop()
