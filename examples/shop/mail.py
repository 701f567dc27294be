"""Mail, over SMTP."""

from __future__ import annotations

import asyncio
import smtplib
from email.message import EmailMessage

from sqlalchemy.ext.asyncio import AsyncSession

from .config import ShopSettings
from .models import EmailLog


def deliver(settings: ShopSettings, recipient: str, subject: str, text: str) -> None:
    """Give a mail to the mail server. Blocks for ten seconds at most where that does not answer."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender, recipient, subject
    message.set_content(text)
    with smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=10) as server:
        server.send_message(message)


class Mailer:
    """Sends mails, and adds each to the e-mail log in the session of the run."""

    def __init__(self, session: AsyncSession, settings: ShopSettings) -> None:
        self.session = session
        self.settings = settings

    async def send(self, recipient: str, subject: str, text: str) -> None:
        """Send a mail; it is in the log once the session is committed."""
        await asyncio.to_thread(deliver, self.settings, recipient, subject, text)
        self.session.add(EmailLog(recipient=recipient, subject=subject))
